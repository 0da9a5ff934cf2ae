//! Applies a changed configuration file by itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use std::{io, thread};

use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind, RenameMode};
use notify::{Event, INotifyWatcher, RecursiveMode, Watcher};

use crate::config::file::{Pipes, ReadError, Reader};
use crate::config::policy::LogLevel;

use crate::control::file_view::{FileId, FileView};
use crate::control::guard::Guard;
use crate::telemetry::log::{Line, Log};
use crate::telemetry::survive::survive;

/// Watches a configuration file and applies its changes.
///
/// A file is applied after it was written and closed, after it was renamed into place, or after a link on the way to it
/// changed its target (Kubernetes swaps a `..data` link beside the file). Two reads, a moment apart, must be equal, and must
/// differ from the text that was last read for a reload. Nothing happens while a program is still writing.
///
/// The kernel reports events by name and by inode. A poll every two seconds finds the changes that the kernel does not
/// report: another folder or file at the same path, because a folder above was swapped or something was mounted there. If
/// the file can't be watched at all, or if other machines may write to it, the same poll compares the file's size and times.
#[derive(Debug)]
pub struct ConfigWatch {
    path: PathBuf,
    /// The kernel's watch. `None` if the kernel has no room for one; `unwatched` has the reason.
    watcher: Option<INotifyWatcher>,
    events: Receiver<notify::Result<Event>>,
    /// Keeps the channel open if there is no watcher.
    _sender: Sender<notify::Result<Event>>,
    /// What is watched: the folders of the file and of every link on the way to it, and the file itself. A folder reports a
    /// file that was renamed into it. The file reports writes under another name, if it is mounted from elsewhere.
    watched: BTreeMap<FileId, PathBuf>,
    /// Why the kernel can't watch some of these.
    unwatched: Option<String>,
    /// The view of the file when it was last read.
    current: FileView,
    /// A view that differs from `current`, and the number of further polls that found the same.
    unsettled: Option<(FileView, u32)>,
    /// Whether a program has made a new file at the path and not closed it yet.
    is_being_written: bool,
    /// How many polls in a row found no file.
    missing_polls: u32,
    /// The last status that was logged.
    logged: Status,
    /// The last error in reading the file. An error is logged only when it is new.
    read_error: Option<String>,
    /// Whether to read the file again without an event, after a temporary error. Owner and mode of a file are often set
    /// after it is in place, and descriptors become free again.
    retries: bool,
    reader: Arc<Reader>,
}

/// How well the file is watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Status {
    #[default]
    Watched,
    /// The file is only polled, for this reason.
    Polled(String),
    Gone,
    /// The file system does not answer.
    Hangs,
}

impl ConfigWatch {
    /// Begins to record what happens to `path`. Call this before the file is first read, so that no change is missed between
    /// the two.
    pub fn begin(path: &Path) -> Self {
        let (sender, events) = channel();
        let made = INotifyWatcher::new(sender.clone(), notify::Config::default());
        let mut watch = Self {
            path: std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()),
            unwatched: made.as_ref().err().map(ToString::to_string),
            watcher: made.ok(),
            events,
            _sender: sender,
            watched: BTreeMap::new(),
            current: FileView::default(),
            unsettled: None,
            is_being_written: false,
            missing_polls: 0,
            logged: Status::default(),
            read_error: None,
            retries: false,
            reader: Arc::default(),
        };
        if let Some(view) = watch.view() {
            watch.watch(&view);
            watch.current = view;
        }
        watch
    }

    /// Applies changes from now on, on a thread of its own, for as long as the guard lives.
    ///
    /// # Errors
    /// The thread could not be made.
    pub fn start(self, guard: Weak<Guard>) -> io::Result<()> {
        let watcher = thread::Builder::new().name("watcher".into());
        watcher.spawn(move || self.run(&guard))?;
        Ok(())
    }

    fn run(mut self, guard: &Weak<Guard>) {
        let mut next = Instant::now();
        loop {
            let event = self.events.recv_timeout(next.saturating_duration_since(Instant::now()));
            let Some(guard) = guard.upgrade() else { return };
            let is_in_place = match event {
                Ok(event) => self.record(event),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => false,
            };
            if is_in_place {
                survive(|| self.on_change(&guard));
            }
            if Instant::now() >= next {
                next = Instant::now() + EVERY;
                survive(|| self.poll(&guard));
            }
        }
    }

    /// Applies the file if it has changed. Called after an event that put a file or a link in place.
    fn on_change(&mut self, guard: &Guard) {
        if let Some(view) = self.view() {
            // The watch on the previous file may be gone together with that file, even if the new file has the same inode
            // number.
            self.unwatch(|path, watch| path == watch.path);
            self.watch(&view);
            self.current = view;
        }
        self.unsettled = None;
        self.is_being_written = false;
        self.apply(guard);
    }

    /// Applies the file if the path leads to another file than at the last read, and the file has stayed the same since the
    /// last poll.
    fn poll(&mut self, guard: &Guard) {
        if !guard.in_force().policy.server.watch_config {
            return;
        }
        let Some(view) = self.view() else {
            return self.log_status(Status::Hangs, &guard.log());
        };
        self.missing_polls = if view.file.is_none() { self.missing_polls + 1 } else { 0 };
        self.watch(&view);
        self.log_status(self.status(&view), &guard.log());
        let is_polled = self.unwatched.is_some() || view.remote.is_some();
        let is_new = view.leads_elsewhere(&self.current) || is_polled && view.file != self.current.file;
        if !is_new && !self.retries {
            self.unsettled = None;
            return;
        }
        let polls = match self.unsettled.take() {
            Some((before, polls)) if before == view => polls + 1,
            _ => 0,
        };
        if polls < if self.is_being_written { STILL_WRITTEN } else { STILL } {
            self.unsettled = Some((view, polls));
        } else {
            self.current = view;
            self.is_being_written = false;
            self.apply(guard);
        }
    }

    fn apply(&mut self, guard: &Guard) {
        if !guard.in_force().policy.server.watch_config {
            return;
        }
        let settled = self.read_settled();
        if self.is_being_written {
            // A program is writing the next file; an event will report its close.
            return;
        }
        self.retries = matches!(&settled, Err(error) if error.is_temporary());
        let is_changed = match settled {
            Ok(text) => {
                self.read_error = None;
                text.is_some_and(|text| !guard.has_read(&text))
            }
            // The next poll logs that the file is gone.
            Err(error) if error.is_missing() => false,
            // The reload can't read the file either, and logs the error. It is called once for each new error.
            Err(unread) => {
                let error = Some(unread.to_string());
                let is_new = self.read_error != error;
                self.read_error = error;
                is_new
            }
        };
        if is_changed {
            // The reload has logged a refusal. There is no second attempt: the same text would be refused again.
            let _logged = guard.reload_file(&self.path);
        }
    }

    /// Records an event. Returns whether the event may have put another file, or other content, at the path.
    fn record(&mut self, event: notify::Result<Event>) -> bool {
        // An error may mean that events were lost.
        let Ok(event) = event else { return true };
        let mut ours = event.paths.iter().filter(|path| self.current.names.contains(*path));
        if event.need_rescan() || ours.clone().any(|path| puts_in_place(event.kind, path)) {
            self.is_being_written = false;
            return true;
        }
        self.is_being_written |= matches!(event.kind, EventKind::Create(CreateKind::File)) && ours.next().is_some();
        false
    }

    /// Reads the file until two reads in a row are equal; `None` if it keeps changing.
    fn read_settled(&mut self) -> Result<Option<Vec<u8>>, ReadError> {
        let mut before = self.reader.read(&self.path, Pipes::Refused)?;
        for _ in 0..READS {
            thread::sleep(APART);
            // The next read includes every change that was reported until now, so these reports are used up here. One write
            // is reported twice, by the folder and by the file; the second report must not be taken for another write.
            while let Ok(event) = self.events.try_recv() {
                self.record(event);
            }
            let now = self.reader.read(&self.path, Pipes::Refused)?;
            if now == before {
                return Ok(Some(now));
            }
            before = now;
        }
        Ok(None)
    }

    /// What the path leads to now; `None` if the file system does not answer.
    fn view(&self) -> Option<FileView> {
        let path = self.path.clone();
        self.reader.run(ANSWERS, move || FileView::of(&path))
    }

    /// Watches everything that `view` says has to be watched, and nothing else.
    fn watch(&mut self, view: &FileView) {
        self.unwatch(|path, watch| {
            !view
                .watched
                .iter()
                .any(|(id, now)| now == path && watch.watched.get(id) == Some(now))
        });
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        self.unwatched = None;
        for (id, path) in &view.watched {
            if self.watched.contains_key(id) {
                continue;
            }
            match watcher.watch(path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(*id, path.clone());
                }
                // The next poll tries again.
                Err(error) => self.unwatched = Some(error.to_string()),
            }
        }
    }

    /// Removes the watches on the paths for which `is_meant` returns true.
    fn unwatch(&mut self, is_meant: impl Fn(&Path, &Self) -> bool) {
        let meant: Vec<(FileId, PathBuf)> = self
            .watched
            .iter()
            .filter(|(_, path)| is_meant(path, self))
            .map(|(id, path)| (*id, path.clone()))
            .collect();
        for (id, path) in meant {
            self.watched.remove(&id);
            if let Some(watcher) = &mut self.watcher {
                // This fails if the file was removed: its watch is gone then.
                let _gone = watcher.unwatch(&path);
            }
        }
    }

    fn status(&self, view: &FileView) -> Status {
        match (&self.unwatched, view.remote) {
            // One poll without a file is not enough: an editor may be about to put the next file there.
            _ if self.missing_polls > 1 => Status::Gone,
            _ if self.missing_polls > 0 => self.logged.clone(),
            (Some(why), _) => Status::Polled(why.clone()),
            (None, Some(kind)) => Status::Polled(format!("it lies on {kind}, where others may write it unseen")),
            (None, None) => Status::Watched,
        }
    }

    /// Logs a status, unless it is the one that was logged last.
    fn log_status(&mut self, status: Status, log: &Log) {
        if self.logged == status {
            return;
        }
        let every = EVERY.as_secs();
        let (level, what) = match &status {
            Status::Watched => (LogLevel::Info, "is watched again".to_owned()),
            Status::Polled(why) => (LogLevel::Warn, format!("is looked at every {every} s: {why}")),
            Status::Gone => (
                LogLevel::Warn,
                format!("is gone: what is in force stays, and it is looked for every {every} s"),
            ),
            Status::Hangs => (
                LogLevel::Warn,
                "is not watched: its file system does not answer".to_owned(),
            ),
        };
        let line = Line {
            message: Some(format!("{} {what}", self.path.display())),
            ..Line::default()
        };
        log.event(level, "watch", line);
        self.logged = status;
    }
}

/// Whether an event has put a whole file, or a link, at `path`. A write alone does not count: the writer may not be done.
fn puts_in_place(kind: EventKind, path: &Path) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Modify(ModifyKind::Name(how)) => how != RenameMode::From,
        // A link is complete when it is made. A file is complete only when its writer closes it.
        EventKind::Create(_) => path.is_symlink(),
        _ => false,
    }
}

/// The time between two polls.
const EVERY: Duration = Duration::from_secs(2);
/// How many further polls must find the same new view before the file is read. Then no program is writing to it.
const STILL: u32 = 1;
/// [`STILL`] for a file that was reported as created, and not yet as closed by its writer. The wait has to end at some
/// time, because a file that was hard-linked to the path is never closed.
const STILL_WRITTEN: u32 = 15;
/// How long a file system may take to answer.
const ANSWERS: Duration = Duration::from_secs(5);
/// The time between two reads, which must be equal.
const APART: Duration = Duration::from_millis(250);
/// The most reads of a file that keeps changing. After them, the file has to wait for the next event.
const READS: usize = 40;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use notify::event::DataChange;

    use super::*;

    #[test]
    fn only_events_that_put_a_whole_file_in_place_count() {
        let root = tempfile::tempdir().unwrap();
        let (file, link) = (root.path().join("file"), root.path().join("link"));
        fs::write(&file, "").unwrap();
        symlink("file", &link).unwrap();
        let counts = |kind| puts_in_place(kind, &file);
        assert!(counts(EventKind::Access(AccessKind::Close(AccessMode::Write))));
        assert!(counts(EventKind::Modify(ModifyKind::Name(RenameMode::To))));
        assert!(puts_in_place(EventKind::Create(CreateKind::File), &link));
        assert!(!counts(EventKind::Create(CreateKind::File)));
        assert!(!counts(EventKind::Modify(ModifyKind::Data(DataChange::Any))));
        assert!(!counts(EventKind::Access(AccessKind::Close(AccessMode::Read))));
        assert!(!counts(EventKind::Modify(ModifyKind::Name(RenameMode::From))));
    }
}
