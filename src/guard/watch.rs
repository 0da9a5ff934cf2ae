//! Applies a changed configuration file by itself.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use std::{fs, thread};

use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind, RenameMode};
use notify::{Event, INotifyWatcher, RecursiveMode, Watcher};

use super::Guard;
use super::panics::survive;

/// Watches `path` on a thread of its own, for as long as the guard lives.
///
/// It acts when the file was written and closed, renamed into place, or when a link on the way to it changed its target
/// (Kubernetes swaps a `..data` link beside it), and then only if two reads a moment apart are equal and differ from what
/// is in force. While a writer is at it, nothing happens.
pub fn start(guard: Weak<Guard>, path: PathBuf) -> notify::Result<()> {
    let (events, received) = channel();
    let watcher = INotifyWatcher::new(events, notify::Config::default())?;
    let mut watch = Watch {
        seen: fs::read(&path).unwrap_or_default(),
        folders: BTreeSet::new(),
        watcher,
        guard,
        path,
    };
    watch.follow_links()?;
    thread::Builder::new()
        .name("watcher".into())
        .spawn(move || watch.run(&received))
        .map_err(notify::Error::io)?;
    Ok(())
}

struct Watch {
    guard: Weak<Guard>,
    path: PathBuf,
    watcher: INotifyWatcher,
    /// The folders of the file and of every link on the way to it. Folders and not files: an editor that renames a new file
    /// into place leaves a watch on the old one behind.
    folders: BTreeSet<PathBuf>,
    /// What the file said when it was last looked at.
    seen: Vec<u8>,
}

impl Watch {
    fn run(mut self, events: &Receiver<notify::Result<Event>>) {
        while let Ok(event) = events.recv() {
            // An error may stand for events that were lost.
            if event.is_ok_and(|event| !puts_in_place(event.kind)) {
                continue;
            }
            let Some(guard) = self.guard.upgrade() else { return };
            survive(|| self.look(&guard));
        }
    }

    /// Applies the file if it has changed.
    fn look(&mut self, guard: &Guard) {
        // A folder that can't be watched now is tried again after the next event; the file itself is read anyway.
        let _until_then = self.follow_links();
        if guard.running().policy.server.watch_config
            && let Some(text) = self.settled()
            && text != self.seen
        {
            self.seen = text;
            // It has told the log why it refused, if it did; the same text would be refused again.
            let _told = guard.reload_file(&self.path);
        }
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
        let folders = folders_on_the_way(&self.path);
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

/// Whether an event may have put another file, or another content, where we look; a mere modification is not yet one.
fn puts_in_place(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Modify(ModifyKind::Name(how)) => how != RenameMode::From,
        // A link that was made anew; of a file's creation its close is the end.
        EventKind::Create(kind) => kind != CreateKind::Folder,
        _ => false,
    }
}

/// The folder of `path`, and those of every link that it leads through: the file itself may be one, and so may any folder
/// above it.
fn folders_on_the_way(path: &Path) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::new();
    let mut at = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    for _ in 0..MOST_LINKS {
        let Some(folder) = at.parent() else { break };
        folders.insert(folder.to_path_buf());
        match next_link(&at) {
            Some((link, target)) => {
                if let Some(folder) = link.parent() {
                    folders.insert(folder.to_path_buf());
                }
                at = target;
            }
            None => break,
        }
    }
    folders.retain(|folder| folder.is_dir());
    folders
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
        let folders = folders_on_the_way(&mounted.join("wsguard.toml"));
        assert!(folders.contains(&mounted) && folders.contains(&mounted.join("..data")) && folders.contains(&first));
    }

    #[test]
    fn only_what_puts_a_whole_file_in_place_counts() {
        use notify::event::DataChange;
        let told = puts_in_place;
        assert!(told(EventKind::Access(AccessKind::Close(AccessMode::Write))));
        assert!(told(EventKind::Modify(ModifyKind::Name(RenameMode::To))));
        assert!(told(EventKind::Create(CreateKind::Other)));
        assert!(!told(EventKind::Modify(ModifyKind::Data(DataChange::Any))));
        assert!(!told(EventKind::Access(AccessKind::Close(AccessMode::Read))));
        assert!(!told(EventKind::Modify(ModifyKind::Name(RenameMode::From))));
    }
}
