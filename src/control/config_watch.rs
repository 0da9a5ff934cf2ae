//! Applies a changed configuration file by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, UNIX_EPOCH};
use std::{fs, io, thread};

use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind, RenameMode};
use notify::{Event, INotifyWatcher, RecursiveMode, Watcher};
use rustix::fs::statfs;

use crate::config::file::{Pipes, Reader, Unread};
use crate::config::policy::LogLevel;

use crate::control::Guard;
use crate::engine::panics::survive;
use crate::telemetry::log::{Line, Log};

/// What happens to a configuration file, and what is done about it.
///
/// It acts when the file was written and closed, renamed into place, or when a link on the way to it changed its target
/// (Kubernetes swaps a `..data` link beside it), and then only if two reads a moment apart are equal and differ from what
/// is in force. While a writer is at it, nothing happens.
///
/// The kernel tells of that by name and by inode. What it does not tell of is found by a look every two seconds: that
/// another folder or file now stands at the path, because a folder above was swapped or something was mounted there. A
/// file that can't be watched at all, or is changed on another machine, is compared by size and times in the same look.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    /// `None` where the kernel has no room for one; `unwatched` says so.
    watcher: Option<INotifyWatcher>,
    events: Receiver<notify::Result<Event>>,
    /// Without a watcher nobody else holds the other end.
    _sender: Sender<notify::Result<Event>>,
    /// The folders of the file and of every link on the way to it, and the file itself: a folder tells who was renamed into
    /// it, the file who wrote it under another name (it is mounted from elsewhere).
    watched: BTreeMap<Id, PathBuf>,
    /// Why the kernel can't tell of what happens to some of them.
    unwatched: Option<String>,
    /// What stood at the path when it was last read.
    seen: View,
    /// What stood there at the last look, where that was news, and at how many looks before it.
    unsettled: Option<(View, u32)>,
    /// Somebody has begun to write a new file there: it is whole when he closes it.
    is_begun: bool,
    /// Looks in a row that found no file.
    missing: u32,
    /// The last state that the log was told of.
    told: Sight,
    /// Why the file could not be read, once that was told.
    unread: Option<String>,
    /// Whether that may pass without a word from the kernel: whose the file is and who may read it are often put right when it
    /// is there already, and descriptors come back.
    tries_again: bool,
    reader: Arc<Reader>,
}

/// Who a file or folder is, whatever its name. The number of one that is gone may be used again at once; when it was made
/// tells them apart, where the file system keeps that.
type Id = (u64, u64, Option<Duration>);

/// A file, and the content that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    id: Id,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What a path leads to, and by which way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct View {
    /// The names that matter in the folders on the way; whatever else happens there is nobody's sign that our file is whole.
    names: BTreeSet<PathBuf>,
    /// Those folders, and the file.
    way: BTreeMap<Id, PathBuf>,
    file: Option<Stamp>,
    /// The kind of file system, where others than this machine may write.
    remote: Option<&'static str>,
}

/// How much is seen of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Sight {
    #[default]
    Watched,
    /// It is only looked at now and then, for this reason.
    Polled(String),
    Gone,
    /// Its file system does not answer.
    Hangs,
}

impl Watch {
    /// Takes note of what happens to `path` from here on. To be called before the file is read, so that no change falls
    /// between the two.
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
            seen: View::default(),
            unsettled: None,
            is_begun: false,
            missing: 0,
            told: Sight::default(),
            unread: None,
            tries_again: false,
            reader: Arc::default(),
        };
        if let Some(view) = watch.view() {
            watch.follow(&view);
            watch.seen = view;
        }
        watch
    }

    /// Acts on it, on a thread of its own, for as long as the guard lives.
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
            let acts = match event {
                Ok(event) => self.hears(event),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => false,
            };
            if acts {
                survive(|| self.act(&guard));
            }
            if Instant::now() >= next {
                next = Instant::now() + EVERY;
                survive(|| self.look(&guard));
            }
        }
    }

    /// Applies the file if it has changed; something has just been put in place on the way to it.
    fn act(&mut self, guard: &Guard) {
        if let Some(view) = self.view() {
            // The file's own watch may have gone with the one that was there before, whatever its number.
            self.forget(|path, watch| path == watch.path);
            self.follow(&view);
            self.seen = view;
        }
        self.unsettled = None;
        self.is_begun = false;
        self.apply(guard);
    }

    /// Applies the file if something else stands at its path since it was last read, and holds still.
    fn look(&mut self, guard: &Guard) {
        if !guard.running().policy.server.watch_config {
            return;
        }
        let Some(view) = self.view() else {
            return self.tell(Sight::Hangs, &guard.log());
        };
        self.missing = if view.file.is_none() { self.missing + 1 } else { 0 };
        self.follow(&view);
        self.tell(self.sight(&view), &guard.log());
        let is_polled = self.unwatched.is_some() || view.remote.is_some();
        let is_news = view.leads_elsewhere(&self.seen) || is_polled && view.file != self.seen.file;
        if !is_news && !self.tries_again {
            self.unsettled = None;
            return;
        }
        let looks = match self.unsettled.take() {
            Some((before, looks)) if before == view => looks + 1,
            _ => 0,
        };
        if looks < if self.is_begun { STILL_WRITTEN } else { STILL } {
            self.unsettled = Some((view, looks));
        } else {
            self.seen = view;
            self.is_begun = false;
            self.apply(guard);
        }
    }

    fn apply(&mut self, guard: &Guard) {
        if !guard.running().policy.server.watch_config {
            return;
        }
        let settled = self.settled();
        if self.is_begun {
            // The next one is on its way, and tells when it is whole.
            return;
        }
        self.tries_again = matches!(&settled, Err(unread) if unread.may_pass());
        let changed = match settled {
            Ok(text) => {
                self.unread = None;
                text.is_some_and(|text| !guard.has_read(&text))
            }
            // Of one that is gone the next look tells.
            Err(unread) if unread.is_missing() => false,
            // Told once, by the reload that can't read it either.
            Err(unread) => {
                let unread = Some(unread.to_string());
                let is_news = self.unread != unread;
                self.unread = unread;
                is_news
            }
        };
        if changed {
            // It has told the log why it refused, if it did; the same text would be refused again.
            let _told = guard.reload_file(&self.path);
        }
    }

    /// Whether an event may have put another file, or another content, where we look.
    fn hears(&mut self, event: notify::Result<Event>) -> bool {
        // An error may stand for events that were lost.
        let Ok(event) = event else { return true };
        let mut ours = event.paths.iter().filter(|path| self.seen.names.contains(*path));
        if event.need_rescan() || ours.clone().any(|path| puts_in_place(event.kind, path)) {
            self.is_begun = false;
            return true;
        }
        self.is_begun |= matches!(event.kind, EventKind::Create(CreateKind::File)) && ours.next().is_some();
        false
    }

    /// The file, once it holds still.
    fn settled(&mut self) -> Result<Option<Vec<u8>>, Unread> {
        let mut before = self.reader.read(&self.path, Pipes::Refused)?;
        for _ in 0..PATIENCE {
            thread::sleep(APART);
            // What was told until now is in what is read from now on. One writing is told twice, of the folder and of the
            // file, and the second time must not be taken for that of the next writer.
            while let Ok(event) = self.events.try_recv() {
                self.hears(event);
            }
            let now = self.reader.read(&self.path, Pipes::Refused)?;
            if now == before {
                return Ok(Some(now));
            }
            before = now;
        }
        Ok(None)
    }

    /// What the path leads to now; `None` where its file system does not answer.
    fn view(&self) -> Option<View> {
        let path = self.path.clone();
        self.reader.ask(ANSWERS, move || View::of(&path))
    }

    /// Watches what the path now leads through, and nothing else.
    fn follow(&mut self, view: &View) {
        self.forget(|path, watch| {
            !view
                .way
                .iter()
                .any(|(id, now)| now == path && watch.watched.get(id) == Some(now))
        });
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        self.unwatched = None;
        for (id, path) in &view.way {
            if self.watched.contains_key(id) {
                continue;
            }
            match watcher.watch(path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(*id, path.clone());
                }
                // It is tried again at the next look.
                Err(error) => self.unwatched = Some(error.to_string()),
            }
        }
    }

    /// Takes these watches back.
    fn forget(&mut self, is_meant: impl Fn(&Path, &Self) -> bool) {
        let meant: Vec<(Id, PathBuf)> = self
            .watched
            .iter()
            .filter(|(_, path)| is_meant(path, self))
            .map(|(id, path)| (*id, path.clone()))
            .collect();
        for (id, path) in meant {
            self.watched.remove(&id);
            if let Some(watcher) = &mut self.watcher {
                // What was removed has taken its watch along.
                let _gone = watcher.unwatch(&path);
            }
        }
    }

    fn sight(&self, view: &View) -> Sight {
        match (&self.unwatched, view.remote) {
            // An editor may just be putting the next one there.
            _ if self.missing > 1 => Sight::Gone,
            _ if self.missing > 0 => self.told.clone(),
            (Some(why), _) => Sight::Polled(why.clone()),
            (None, Some(kind)) => Sight::Polled(format!("it lies on {kind}, where others may write it unseen")),
            (None, None) => Sight::Watched,
        }
    }

    /// Tells the log of a state, once.
    fn tell(&mut self, sight: Sight, log: &Log) {
        if self.told == sight {
            return;
        }
        let every = EVERY.as_secs();
        let (level, what) = match &sight {
            Sight::Watched => (LogLevel::Info, "is watched again".to_owned()),
            Sight::Polled(why) => (LogLevel::Warn, format!("is looked at every {every} s: {why}")),
            Sight::Gone => (
                LogLevel::Warn,
                format!("is gone: what is in force stays, and it is looked for every {every} s"),
            ),
            Sight::Hangs => (
                LogLevel::Warn,
                "is not watched: its file system does not answer".to_owned(),
            ),
        };
        let line = Line {
            message: Some(format!("{} {what}", self.path.display())),
            ..Line::default()
        };
        log.event(level, "watch", line);
        self.told = sight;
    }
}

impl View {
    fn of(path: &Path) -> Self {
        let names = names_on_the_way(path);
        let stamp = fs::metadata(path).ok().map(|found| Stamp::of(&found));
        let mut way = BTreeMap::new();
        for folder in folders_of(&names) {
            if let Ok(found) = fs::metadata(&folder) {
                // By which of its names does not matter: all of them stand in `names`.
                way.entry(id(&found)).or_insert(folder);
            }
        }
        let file = stamp.map(|stamp| (stamp.id, path.to_path_buf()));
        way.extend(file);
        Self {
            names,
            way,
            file: stamp,
            remote: remote(path),
        }
    }

    /// Whether the path leads to another file than it did, or by another way.
    fn leads_elsewhere(&self, before: &Self) -> bool {
        let who = |view: &Self| view.file.map(|file| file.id);
        who(self) != who(before) || self.way != before.way || self.names != before.names
    }
}

impl Stamp {
    fn of(found: &fs::Metadata) -> Self {
        Self {
            id: id(found),
            size: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

fn id(found: &fs::Metadata) -> Id {
    let made = found
        .created()
        .ok()
        .and_then(|made| made.duration_since(UNIX_EPOCH).ok());
    (found.dev(), found.ino(), made)
}

/// The kind of a file system on which others than this machine may write.
fn remote(path: &Path) -> Option<&'static str> {
    let kind = u64::try_from(statfs(path).ok()?.f_type).ok()?;
    REMOTE.iter().find(|(magic, _)| *magic == kind).map(|(_, name)| *name)
}

/// Whether this has put a whole file, or a link, at `path`; a mere modification is not yet one.
fn puts_in_place(kind: EventKind, path: &Path) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Modify(ModifyKind::Name(how)) => how != RenameMode::From,
        // A link is whole when it is made; of a file its writer has yet to write all, and to close it.
        EventKind::Create(_) => path.is_symlink(),
        _ => false,
    }
}

/// `path`, and whatever every link that it leads through makes of it, and those links: the file itself may be one, and so
/// may any folder above it.
fn names_on_the_way(path: &Path) -> BTreeSet<PathBuf> {
    let mut at = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut names = BTreeSet::from([at.clone()]);
    for _ in 0..MOST_LINKS {
        let Some((link, target)) = next_link(&at) else { break };
        names.extend([link, target.clone()]);
        at = target;
    }
    names
}

fn folders_of(names: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    let folders = names.iter().filter_map(|name| name.parent());
    folders
        .filter(|folder| folder.is_dir())
        .map(Path::to_path_buf)
        .collect()
}

/// The first part of `path` that is a link, and `path` with that part replaced by what it points to.
fn next_link(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let parts: Vec<&OsStr> = path.iter().collect();
    let mut at = PathBuf::new();
    for (index, part) in parts.iter().enumerate() {
        at.push(part);
        if let Ok(target) = fs::read_link(&at) {
            let mut resolved = at.parent().map(Path::to_path_buf).unwrap_or_default();
            resolved.push(target);
            resolved.extend(&parts[index + 1..]);
            return Some((at, resolved));
        }
    }
    None
}

/// How often it is looked whether something else stands at the path.
const EVERY: Duration = Duration::from_secs(2);
/// At so many further looks what is new must be the same: a moment without a writer.
const STILL: u32 = 1;
/// The same of a file whose making was seen and whose closing was not. One that was linked there is never closed.
const STILL_WRITTEN: u32 = 15;
/// As long as a file system may take to say what is there.
const ANSWERS: Duration = Duration::from_secs(5);
/// File systems on which the kernel hears of its own writers only (`statfs(2)`).
const REMOTE: [(u64, &str); 10] = [
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB"),
    (0x6573_5546, "FUSE"),
    (0x0102_1997, "9P"),
    (0x00C3_6400, "Ceph"),
    (0x5346_414F, "AFS"),
    (0x0116_1970, "GFS2"),
    (0x7461_636F, "OCFS2"),
];
/// Two reads so far apart must be equal.
const APART: Duration = Duration::from_millis(250);
/// A file that keeps changing for longer is given up until its next event.
const PATIENCE: usize = 40;
/// As many links as the kernel follows (`path_resolution(7)`).
const MOST_LINKS: usize = 40;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_folder_that_a_link_leads_through_is_watched() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let (mounted, first) = (root.join("etc"), root.join("etc/..2026"));
        fs::create_dir_all(&first).unwrap();
        fs::write(first.join("wsguard.toml"), "").unwrap();
        symlink("..2026", mounted.join("..data")).unwrap();
        symlink("..data/wsguard.toml", mounted.join("wsguard.toml")).unwrap();
        let names = names_on_the_way(&mounted.join("wsguard.toml"));
        let told = ["wsguard.toml", "..data", "..data/wsguard.toml", "..2026/wsguard.toml"];
        assert_eq!(names, told.map(|name| mounted.join(name)).into());
        let folders = folders_of(&names);
        assert!(folders.contains(&mounted) && folders.contains(&mounted.join("..data")) && folders.contains(&first));
    }

    #[test]
    fn whoever_stands_at_the_path_is_known_by_who_it_is_and_not_by_its_name() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let (folder, file) = (root.join("a/b"), root.join("a/b/wsguard.toml"));
        let make = |root: &Path, text: &str| {
            fs::create_dir_all(root.join("b")).unwrap();
            fs::write(root.join("b/wsguard.toml"), text).unwrap();
        };
        make(&root.join("a"), "1");
        let first = View::of(&file);
        assert!(first.way.values().any(|path| *path == folder) && first.way.values().any(|path| *path == file));
        assert!(!View::of(&file).leads_elsewhere(&first));
        // Written in place it is the same one, with another content.
        fs::write(&file, "22").unwrap();
        let written = View::of(&file);
        assert!(!written.leads_elsewhere(&first) && written.file != first.file);
        // A folder above it is swapped for one that looks alike.
        make(&root.join("new"), "22");
        fs::rename(root.join("a"), root.join("old")).unwrap();
        fs::rename(root.join("new"), root.join("a")).unwrap();
        assert!(View::of(&file).leads_elsewhere(&written));
        // It is away, and back.
        fs::rename(root.join("a"), root.join("new")).unwrap();
        let gone = View::of(&file);
        assert!(gone.leads_elsewhere(&written) && gone.file.is_none());
        fs::rename(root.join("old"), root.join("a")).unwrap();
        assert!(!View::of(&file).leads_elsewhere(&written));
    }

    #[test]
    fn only_what_puts_a_whole_file_in_place_counts() {
        use notify::event::DataChange;
        let root = tempfile::tempdir().unwrap();
        let (file, link) = (root.path().join("file"), root.path().join("link"));
        fs::write(&file, "").unwrap();
        symlink("file", &link).unwrap();
        let told = |kind| puts_in_place(kind, &file);
        assert!(told(EventKind::Access(AccessKind::Close(AccessMode::Write))));
        assert!(told(EventKind::Modify(ModifyKind::Name(RenameMode::To))));
        assert!(puts_in_place(EventKind::Create(CreateKind::File), &link));
        assert!(!told(EventKind::Create(CreateKind::File)));
        assert!(!told(EventKind::Modify(ModifyKind::Data(DataChange::Any))));
        assert!(!told(EventKind::Access(AccessKind::Close(AccessMode::Read))));
        assert!(!told(EventKind::Modify(ModifyKind::Name(RenameMode::From))));
    }
}
