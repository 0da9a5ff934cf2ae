//! Applies a changed configuration file by itself.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use std::{fs, io, thread};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use notify::{Event, INotifyWatcher, RecursiveMode, Watcher};

use super::Guard;
use super::panics::survive;

/// What happens to a configuration file, and what is done about it.
///
/// It acts when the file was written and closed, renamed into place, or when a link on the way to it changed its target
/// (Kubernetes swaps a `..data` link beside it), and then only if two reads a moment apart are equal and differ from what
/// is in force. While a writer is at it, nothing happens.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    watcher: INotifyWatcher,
    events: Receiver<notify::Result<Event>>,
    /// The folders of the file and of every link on the way to it. Folders and not files: an editor that renames a new file
    /// into place leaves a watch on the old one behind.
    folders: BTreeSet<PathBuf>,
    /// The names in those folders that matter; whatever else happens there is nobody's sign that our file is whole.
    names: BTreeSet<PathBuf>,
}

impl Watch {
    /// Takes note of what happens to `path` from here on. To be called before the file is read, so that no change falls
    /// between the two.
    pub fn begin(path: &Path) -> notify::Result<Self> {
        let (sender, events) = channel();
        let mut watch = Self {
            path: path.to_path_buf(),
            watcher: INotifyWatcher::new(sender, notify::Config::default())?,
            events,
            folders: BTreeSet::new(),
            names: BTreeSet::new(),
        };
        watch.follow_links()?;
        Ok(watch)
    }

    /// Acts on it, on a thread of its own, for as long as the guard lives.
    pub fn start(self, guard: Weak<Guard>) -> io::Result<()> {
        let watcher = thread::Builder::new().name("watcher".into());
        watcher.spawn(move || self.run(&guard))?;
        Ok(())
    }

    fn run(mut self, guard: &Weak<Guard>) {
        while let Ok(event) = self.events.recv() {
            // An error may stand for events that were lost.
            if event.is_ok_and(|event| !self.matters(&event)) {
                continue;
            }
            let Some(guard) = guard.upgrade() else { return };
            survive(|| self.look(&guard));
        }
    }

    /// Applies the file if it has changed.
    fn look(&mut self, guard: &Guard) {
        // A folder that can't be watched now is tried again after the next event; the file itself is read anyway.
        let _until_then = self.follow_links();
        if guard.running().policy.server.watch_config
            && let Some(text) = self.settled()
            && !guard.has_read(&text)
        {
            // It has told the log why it refused, if it did; the same text would be refused again.
            let _told = guard.reload_file(&self.path);
        }
    }

    /// Whether an event may have put another file, or another content, where we look.
    fn matters(&self, event: &Event) -> bool {
        event.need_rescan()
            || event
                .paths
                .iter()
                .any(|path| self.names.contains(path) && puts_in_place(event.kind, path))
    }

    /// The file, once it holds still.
    fn settled(&self) -> Option<Vec<u8>> {
        let mut before = fs::read(&self.path).ok()?;
        for _ in 0..PATIENCE {
            thread::sleep(APART);
            let now = fs::read(&self.path).ok()?;
            if now == before {
                return Some(now);
            }
            before = now;
        }
        None
    }

    /// Watches the folders that the file's path now leads through, and no others.
    fn follow_links(&mut self) -> notify::Result<()> {
        self.names = names_on_the_way(&self.path);
        let folders = folders_of(&self.names);
        for gone in self.folders.difference(&folders) {
            // A folder that was removed has taken its watch along.
            let _gone = self.watcher.unwatch(gone);
        }
        self.folders.retain(|folder| folders.contains(folder));
        for folder in folders {
            if !self.folders.contains(&folder) {
                self.watcher.watch(&folder, RecursiveMode::NonRecursive)?;
                self.folders.insert(folder);
            }
        }
        Ok(())
    }
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
    fn only_what_puts_a_whole_file_in_place_counts() {
        use notify::event::{CreateKind, DataChange};
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
