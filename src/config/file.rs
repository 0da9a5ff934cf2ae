//! Reads a file without hanging and without filling the memory, whatever is at its path.

use std::fmt;
use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

/// Reads files on a thread of its own. A network file system that has lost its server blocks for ever: then only this
/// thread is blocked.
#[derive(Debug, Default)]
pub struct Reader {
    tasks: Mutex<Option<SyncSender<Task>>>,
}

/// A piece of work for the thread.
struct Task(Box<dyn FnOnce() + Send>);

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Task")
    }
}

impl Reader {
    /// Runs `task` on the thread. Gives `None` if the task takes longer than `timeout`. If two earlier tasks still block,
    /// gives `None` without waiting.
    pub fn run<T: Send + 'static>(&self, timeout: Duration, task: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (answer, answers) = sync_channel(1);
        let task = Task(Box::new(move || {
            // After the timeout the receiver is gone.
            let _ = answer.try_send(task());
        }));
        self.queue(task)?;
        answers.recv_timeout(timeout).ok()
    }

    /// Reads a file.
    ///
    /// # Errors
    /// The file can't be read, or not in time; it is larger than 1 MiB; or it is neither a regular file nor an allowed pipe.
    pub fn read(&self, path: &Path, pipes: Pipes) -> Result<Vec<u8>, ReadError> {
        let timeout = match pipes {
            Pipes::Refused => TIMEOUT,
            Pipes::Allowed => TIMEOUT_WITH_PIPES,
        };
        let path = path.to_path_buf();
        self.run(timeout, move || read(&path, pipes))
            .unwrap_or(Err(ReadError::Timeout(timeout)))
    }

    /// Starts the thread if it is not running.
    fn queue(&self, task: Task) -> Option<()> {
        let mut tasks = self.tasks.lock();
        let task = match tasks.as_ref() {
            None => task,
            Some(queue) => match queue.try_send(task) {
                Ok(()) => return Some(()),
                Err(TrySendError::Full(_)) => return None,
                // The thread is gone: an earlier task panicked.
                Err(TrySendError::Disconnected(task)) => task,
            },
        };
        let (queue, queued) = sync_channel::<Task>(1);
        let run = move || queued.into_iter().for_each(|Task(task)| task());
        thread::Builder::new().name("files".into()).spawn(run).ok()?;
        queue.try_send(task).ok()?;
        *tasks = Some(queue);
        Some(())
    }
}

/// Whether the file may be a pipe. A pipe can be read once: by `check`, not by a guard that reloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pipes {
    /// Only regular files are read.
    Refused,
    /// Pipes are read too, and "-" is standard input.
    Allowed,
}

/// Why a file was not read.
#[derive(Debug)]
pub enum ReadError {
    /// The file can't be opened or read.
    Io(io::Error),
    /// The file is not a regular file, but of this kind.
    NotRegular(&'static str),
    /// The file is larger than 1 MiB.
    TooLarge,
    /// Reading took longer than this.
    Timeout(Duration),
}

impl ReadError {
    /// Whether there is no file.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the same file may be readable later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Io(_) | Self::Timeout(_) => !self.is_missing(),
            Self::NotRegular(_) | Self::TooLarge => false,
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::NotRegular(kind) => write!(f, "it is {kind}, and a configuration is {RULE}"),
            Self::TooLarge => write!(f, "it is larger than 1 MiB, and a configuration is {RULE}"),
            Self::Timeout(timeout) => write!(f, "reading it took more than {} s", timeout.as_secs()),
        }
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn read(path: &Path, pipes: Pipes) -> Result<Vec<u8>, ReadError> {
    if pipes == Pipes::Allowed && path == Path::new("-") {
        return read_to_end(io::stdin());
    }
    // The kind is checked before the file is opened: opening a device can have effects, and opening a FIFO blocks until it
    // has a writer.
    let kind = fs::metadata(path)?.file_type();
    if pipes == Pipes::Allowed && kind.is_fifo() {
        return read_to_end(File::open(path)?);
    }
    check_kind(kind)?;
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    // The kind is checked again: by now the path may lead to another file.
    let opened = file.metadata()?;
    check_kind(opened.file_type())?;
    if opened.len() > MAX_SIZE {
        return Err(ReadError::TooLarge);
    }
    read_to_end(file)
}

/// Reads at most [`MAX_SIZE`] bytes. The size is checked here as well, because a file can be larger than its metadata says,
/// or grow.
fn read_to_end(file: impl Read) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(ReadError::TooLarge);
    }
    Ok(bytes)
}

fn check_kind(kind: FileType) -> Result<(), ReadError> {
    let kinds = [
        (kind.is_dir(), "a directory"),
        (kind.is_fifo(), "a FIFO or pipe"),
        (kind.is_socket(), "a socket"),
        (kind.is_char_device(), "a device"),
        (kind.is_block_device(), "a device"),
        (!kind.is_file(), "not a file"),
    ];
    match kinds.iter().find(|(is_it, _)| *is_it) {
        Some((_, name)) => Err(ReadError::NotRegular(name)),
        None => Ok(()),
    }
}

const MAX_SIZE: u64 = 1 << 20;
const RULE: &str = "a regular file of at most 1 MiB";
const TIMEOUT: Duration = Duration::from_secs(5);
/// Pipes get more time, because the writer of a pipe may have to fetch the configuration first.
const TIMEOUT_WITH_PIPES: Duration = Duration::from_secs(30);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_blocked_task_delays_callers_no_longer_than_the_timeout() {
        let reader = Reader::default();
        assert_eq!(reader.run(Duration::from_secs(10), || 1), Some(1));
        let (release, blocked) = channel::<()>();
        let (begins, begun) = channel();
        let blocks = move || begins.send(()).is_ok() && blocked.recv().is_ok();
        assert_eq!(reader.run(Duration::from_millis(1), blocks), None);
        begun.recv().unwrap();
        // The first task still blocks. The queue holds one more task. Later tasks fail at once: no further thread is started
        // for them.
        assert_eq!(reader.run(Duration::from_millis(1), || true), None);
        assert_eq!(reader.run(Duration::from_secs(1000), || true), None);
        release.send(()).unwrap();
        let answers = std::iter::repeat_with(|| reader.run(Duration::from_secs(10), || 2));
        assert_eq!(
            answers.flatten().next(),
            Some(2),
            "the thread goes on once the task ends"
        );
    }

    #[test]
    fn only_a_regular_file_of_at_most_a_mebibyte_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let reader = Reader::default();
        let error = |path: &Path| reader.read(path, Pipes::Refused).unwrap_err().to_string();
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
                error(&path),
                format!("it is {what}, and a configuration is a regular file of at most 1 MiB")
            );
        }
        assert!(reader.read(&at("none"), Pipes::Refused).unwrap_err().is_missing());
    }

    #[test]
    fn reading_stops_at_a_mebibyte_even_without_a_file_size() {
        assert!(matches!(read_to_end(io::repeat(b'#')), Err(ReadError::TooLarge)));
        assert_eq!(read_to_end(&b"a"[..]).unwrap(), b"a");
    }
}
