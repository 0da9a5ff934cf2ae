//! The file as it lies on a disk, read in a way that neither hangs nor fills the memory, whatever has been put at its path.

use std::fmt;
use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

/// Looks at files on a thread of its own. On a network file system that has lost its server a look has no end: it is this
/// thread that waits for it then, and whoever asked goes on.
#[derive(Debug, Default)]
pub struct Reader {
    tasks: Mutex<Option<SyncSender<Task>>>,
}

/// What is to be done on the thread.
struct Task(Box<dyn FnOnce() + Send>);

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Task")
    }
}

impl Reader {
    /// What is found, or `None` where that takes longer than `patience`. While an earlier look still hangs there is no wait.
    pub fn ask<T: Send + 'static>(&self, patience: Duration, look: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (answer, answers) = sync_channel(1);
        let task = Task(Box::new(move || {
            let _nobody_waits = answer.try_send(look());
        }));
        self.give(task)?;
        answers.recv_timeout(patience).ok()
    }

    /// What a file says.
    ///
    /// # Errors
    /// It is none that a configuration may be, it can't be read, or not in time.
    pub fn read(&self, path: &Path, pipes: Pipes) -> Result<Vec<u8>, Unread> {
        let patience = match pipes {
            Pipes::Refused => PATIENCE,
            Pipes::Taken => PATIENCE_WITH_PIPES,
        };
        let path = path.to_path_buf();
        self.ask(patience, move || read(&path, pipes))
            .unwrap_or(Err(Unread::Late(patience)))
    }

    /// Starts the thread where it is not there yet.
    fn give(&self, task: Task) -> Option<()> {
        let mut tasks = self.tasks.lock();
        let task = match tasks.as_ref() {
            None => task,
            Some(queue) => match queue.try_send(task) {
                Ok(()) => return Some(()),
                Err(TrySendError::Full(_)) => return None,
                // It has ended by a panic of a look.
                Err(TrySendError::Disconnected(task)) => task,
            },
        };
        let (queue, asked) = sync_channel::<Task>(1);
        let run = move || asked.into_iter().for_each(|Task(look)| look());
        thread::Builder::new().name("files".into()).spawn(run).ok()?;
        queue.try_send(task).ok()?;
        *tasks = Some(queue);
        Some(())
    }
}

/// Whether a pipe will do. It can be read once: by `check`, and not by a guard that reloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pipes {
    /// Regular files alone.
    Refused,
    /// Pipes too, and "-" is standard input.
    Taken,
}

/// Why a file was not read.
#[derive(Debug)]
pub enum Unread {
    /// It can't be opened or read.
    Io(io::Error),
    /// It is something else than a regular file.
    Kind(&'static str),
    /// It is larger than any configuration.
    TooLarge,
    /// It was not read to its end in time.
    Late(Duration),
}

impl Unread {
    /// Whether nothing is there.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }

    /// Whether it may be read later although nothing is written: what is there now is not at fault.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Io(_) | Self::Late(_) => !self.is_missing(),
            Self::Kind(_) | Self::TooLarge => false,
        }
    }
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Kind(kind) => write!(f, "it is {kind}, and a configuration is {RULE}"),
            Self::TooLarge => write!(f, "it is larger than 1 MiB, and a configuration is {RULE}"),
            Self::Late(patience) => write!(f, "reading it took more than {} s", patience.as_secs()),
        }
    }
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn read(path: &Path, pipes: Pipes) -> Result<Vec<u8>, Unread> {
    if pipes == Pipes::Taken && path == Path::new("-") {
        return to_its_end(io::stdin());
    }
    // Asked before it is opened: to open a device may do something, and a FIFO waits for who writes it.
    let kind = fs::metadata(path)?.file_type();
    if pipes == Pipes::Taken && kind.is_fifo() {
        return to_its_end(File::open(path)?);
    }
    refuse_kind(kind)?;
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    // And again: something else may be there by now.
    let opened = file.metadata()?;
    refuse_kind(opened.file_type())?;
    if opened.len() > MOST {
        return Err(Unread::TooLarge);
    }
    to_its_end(file)
}

/// It may be larger than it says, or grow.
fn to_its_end(file: impl Read) -> Result<Vec<u8>, Unread> {
    let mut bytes = Vec::new();
    file.take(MOST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST {
        return Err(Unread::TooLarge);
    }
    Ok(bytes)
}

fn refuse_kind(kind: FileType) -> Result<(), Unread> {
    let kinds = [
        (kind.is_dir(), "a directory"),
        (kind.is_fifo(), "a FIFO or pipe"),
        (kind.is_socket(), "a socket"),
        (kind.is_char_device(), "a device"),
        (kind.is_block_device(), "a device"),
        (!kind.is_file(), "no file"),
    ];
    match kinds.iter().find(|(is_it, _)| *is_it) {
        Some((_, name)) => Err(Unread::Kind(name)),
        None => Ok(()),
    }
}

const MOST: u64 = 1 << 20;
const RULE: &str = "a regular file of at most 1 MiB";
const PATIENCE: Duration = Duration::from_secs(5);
/// What writes a pipe may have to fetch it first.
const PATIENCE_WITH_PIPES: Duration = Duration::from_secs(30);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_look_that_hangs_holds_nobody_up_for_longer_than_his_patience() {
        let reader = Reader::default();
        assert_eq!(reader.ask(Duration::from_secs(10), || 1), Some(1));
        let (release, hung) = channel::<()>();
        let (begins, begun) = channel();
        let hangs = move || begins.send(()).is_ok() && hung.recv().is_ok();
        assert_eq!(reader.ask(Duration::from_millis(1), hangs), None);
        begun.recv().unwrap();
        // It still hangs. One more waits behind it, and no further thread is made for the others.
        assert_eq!(reader.ask(Duration::from_millis(1), || true), None);
        assert_eq!(reader.ask(Duration::from_secs(1000), || true), None);
        release.send(()).unwrap();
        let answers = std::iter::repeat_with(|| reader.ask(Duration::from_secs(10), || 2));
        assert_eq!(
            answers.flatten().next(),
            Some(2),
            "it goes on when the look comes to its end"
        );
    }

    #[test]
    fn only_a_regular_file_of_a_mebibyte_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let reader = Reader::default();
        let told = |path: &Path| reader.read(path, Pipes::Refused).unwrap_err().to_string();
        fs::write(at("largest"), vec![b'#'; 1 << 20]).unwrap();
        assert_eq!(reader.read(&at("largest"), Pipes::Refused).unwrap().len(), 1 << 20);
        fs::write(at("larger"), vec![b'#'; (1 << 20) + 1]).unwrap();
        fs::create_dir(at("folder")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        for (path, what) in [
            (at("larger"), "larger than 1 MiB"),
            (at("folder"), "a directory"),
            (at("socket"), "a socket"),
            (at("fifo"), "a FIFO or pipe"),
            ("/dev/zero".into(), "a device"),
            ("/dev/tty".into(), "a device"),
        ] {
            assert_eq!(
                told(&path),
                format!("it is {what}, and a configuration is a regular file of at most 1 MiB")
            );
        }
        assert!(reader.read(&at("none"), Pipes::Refused).unwrap_err().is_missing());
    }

    #[test]
    fn what_has_no_size_is_read_no_further_than_that() {
        assert!(matches!(to_its_end(io::repeat(b'#')), Err(Unread::TooLarge)));
        assert_eq!(to_its_end(&b"a"[..]).unwrap(), b"a");
    }
}
