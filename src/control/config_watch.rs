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

/// Watches a configuration file and applies what is written to it.
///
/// A file is applied after it was written and closed, after it was renamed into place, or after a link on the way to it
/// changed its target (Kubernetes swaps a `..data` link beside it); and then only if two reads a moment apart are equal and
/// differ from the text in force. Nothing happens while a program is still writing.
///
/// The kernel reports events by name and by inode. A poll every two seconds finds the changes that it does not report:
/// another folder or file at the same path, because a folder above was swapped or something was mounted there. The same
/// poll compares size and times if the file can't be watched at all, or if other machines may write to it.
#[derive(Debug)]
pub struct ConfigWatch {
    path: PathBuf,
    /// `None` if the kernel has no room for one; `unwatched` has the reason.
    watcher: Option<INotifyWatcher>,
    events: Receiver<notify::Result<Event>>,
    /// Keeps the channel open if there is no watcher.
    _sender: Sender<notify::Result<Event>>,
    /// The folders of the file and of every link on the way to it, and the file itself. A folder reports what was renamed
    /// into it; the file reports writes under another name, if it is mounted from elsewhere.
    watched: BTreeMap<FileId, PathBuf>,
    /// Why the kernel can't watch some of them.
    unwatched: Option<String>,
    /// The file as it was last read.
    current: FileView,
    /// A view that differs from `current`, and the number of further polls that found the same.
    unsettled: Option<(FileView, u32)>,
    /// A program has made a new file there and not closed it yet.
    is_being_written: bool,
    /// Polls in a row that found no file.
    missing_polls: u32,
    /// The last status that was logged.
    logged: Status,
    /// Why the file could not be read, once that was logged.
    read_error: Option<String>,
    /// Whether to read it again without an event: ownership and mode are often put right after the file is in place, and
    /// descriptors come back.
    retries: bool,
    reader: Arc<Reader>,
}

/// How well the file is watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Status {
    #[default]
    Watched,
    /// It is only polled, for this reason.
    Polled(String),
    Gone,
    /// Its file system does not answer.
    Hangs,
}

impl ConfigWatch {
    /// Begins to record what happens to `path`. Call it before the file is read, so that no change is missed between the
    /// two.
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

    /// Applies changes from here on, on a thread of its own, for as long as the guard lives.
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

    /// An event has put something in place on the way to the file: applies the file if it has changed.
    fn on_change(&mut self, guard: &Guard) {
        if let Some(view) = self.view() {
            // The watch on the file may have gone with the previous file, even if the new one has the same inode
            // number.
            self.unwatch(|path, watch| path == watch.path);
            self.watch(&view);
            self.current = view;
        }
        self.unsettled = None;
        self.is_being_written = false;
        self.apply(guard);
    }

    /// Applies the file if the path leads to another file than at the last read, and has not changed since the last
    /// poll.
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
            // The next file is on its way, and its closing will be reported.
            return;
        }
        self.retries = matches!(&settled, Err(error) if error.is_temporary());
        let is_changed = match settled {
            Ok(text) => {
                self.read_error = None;
                text.is_some_and(|text| !guard.has_read(&text))
            }
            // The next poll logs that it is gone.
            Err(error) if error.is_missing() => false,
            // The reload, which can't read it either, logs this once.
            Err(unread) => {
                let error = Some(unread.to_string());
                let is_new = self.read_error != error;
                self.read_error = error;
                is_new
            }
        };
        if is_changed {
            // A refusal is in the log by now, and the same text would be refused again.
            let _logged = guard.reload_file(&self.path);
        }
    }

    /// Takes note of an event. Returns whether it may have put another file, or another content, at the path.
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
            // What was reported until now is part of what is read from now on. One write is reported twice, by the folder
            // and by the file, and the second report must not be taken for that of another write.
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

    /// What the path leads to now; `None` if its file system does not answer.
    fn view(&self) -> Option<FileView> {
        let path = self.path.clone();
        self.reader.run(ANSWERS, move || FileView::of(&path))
    }

    /// Watches everything on the way of `view`, and nothing else.
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
                // The next poll tries it again.
                Err(error) => self.unwatched = Some(error.to_string()),
            }
        }
    }

    /// Removes the watches on some paths.
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
                // The watch on a file is gone once the file is removed.
                let _gone = watcher.unwatch(&path);
            }
        }
    }

    fn status(&self, view: &FileView) -> Status {
        match (&self.unwatched, view.remote) {
            // At the first poll an editor may be about to put the next file there.
            _ if self.missing_polls > 1 => Status::Gone,
            _ if self.missing_polls > 0 => self.logged.clone(),
            (Some(why), _) => Status::Polled(why.clone()),
            (None, Some(kind)) => Status::Polled(format!("it lies on {kind}, where others may write it unseen")),
            (None, None) => Status::Watched,
        }
    }

    /// Logs a status once.
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

/// Whether an event has put a whole file, or a link, at `path`. A mere modification does not: its writer may not be done.
fn puts_in_place(kind: EventKind, path: &Path) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Modify(ModifyKind::Name(how)) => how != RenameMode::From,
        // A link is whole when it is made; a file is not before its writer closes it.
        EventKind::Create(_) => path.is_symlink(),
        _ => false,
    }
}

/// The time between two polls.
const EVERY: Duration = Duration::from_secs(2);
/// A new view must be the same at this many further polls before it is read, so that nothing is writing to it.
const STILL: u32 = 1;
/// The same for a file whose creation was reported, but not its closing. A file that was hard-linked there is never
/// closed.
const STILL_WRITTEN: u32 = 15;
/// How long a file system may take to answer.
const ANSWERS: Duration = Duration::from_secs(5);
/// Two reads that are this far apart must be equal.
const APART: Duration = Duration::from_millis(250);
/// Reads of a file that keeps changing; after them it has to wait for the next event.
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
