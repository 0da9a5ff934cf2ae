//! What a path leads to: the file, and every folder and link on the way to it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::statfs;

/// The identity of a file or folder, independent of its name: device, inode number, and time of creation. The kernel may
/// reuse an inode number at once. Then the time of creation tells the two files apart, on file systems that store it.
pub(crate) type FileId = (u64, u64, Option<Duration>);

/// What a path leads to, and the links and folders on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileView {
    /// The path, and the path of every link on the way and of its target. Events on other names in the same folders do not
    /// matter.
    pub(crate) names: BTreeSet<PathBuf>,
    /// The folders of these names, and the file itself: everything that the kernel has to watch.
    pub(crate) watched: BTreeMap<FileId, PathBuf>,
    /// The file; `None` if the path leads to no file.
    pub(crate) file: Option<FileStamp>,
    /// The kind of file system, if other machines may write to it.
    pub(crate) remote: Option<&'static str>,
}

/// A file and the state of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileStamp {
    id: FileId,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileView {
    /// Looks at `path`. This blocks for as long as the file system takes to answer.
    pub(crate) fn of(path: &Path) -> Self {
        let names = names_on_the_way(path);
        let file = fs::metadata(path).ok().map(|found| FileStamp::of(&found));
        let mut watched = BTreeMap::new();
        for folder in folders_of(&names) {
            if let Ok(found) = fs::metadata(&folder) {
                // One path of a folder is enough to watch it: `names` has every name that matters.
                watched.entry(id(&found)).or_insert(folder);
            }
        }
        watched.extend(file.map(|stamp| (stamp.id, path.to_path_buf())));
        Self {
            names,
            watched,
            file,
            remote: remote(path),
        }
    }

    /// Whether the path leads to another file than in `before`, or to the same file on another way. The content is not
    /// compared.
    pub(crate) fn leads_elsewhere(&self, before: &Self) -> bool {
        let id = |view: &Self| view.file.map(|file| file.id);
        id(self) != id(before) || self.watched != before.watched || self.names != before.names
    }
}

impl FileStamp {
    fn of(found: &fs::Metadata) -> Self {
        Self {
            id: id(found),
            size: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

fn id(found: &fs::Metadata) -> FileId {
    let made = found
        .created()
        .ok()
        .and_then(|made| made.duration_since(UNIX_EPOCH).ok());
    (found.dev(), found.ino(), made)
}

/// The kind of file system, if other machines may write to it.
fn remote(path: &Path) -> Option<&'static str> {
    let kind = u64::try_from(statfs(path).ok()?.f_type).ok()?;
    REMOTE.iter().find(|(magic, _)| *magic == kind).map(|(_, name)| *name)
}

/// `path`, the path of every link on the way, and the path after each link is replaced by its target. The file itself may be
/// a link, and so may any folder above it.
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

/// The first component of `path` that is a link, and `path` with that component replaced by its target.
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

/// File systems on which the kernel reports only the writes of this machine (`statfs(2)`).
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
/// The most links that are followed: as many as the kernel follows (`path_resolution(7)`).
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
        let expected = ["wsguard.toml", "..data", "..data/wsguard.toml", "..2026/wsguard.toml"];
        assert_eq!(names, expected.map(|name| mounted.join(name)).into());
        let folders = folders_of(&names);
        assert!(folders.contains(&mounted) && folders.contains(&mounted.join("..data")) && folders.contains(&first));
    }

    #[test]
    fn a_file_is_known_by_its_identity_and_not_by_its_name() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let (folder, file) = (root.join("a/b"), root.join("a/b/wsguard.toml"));
        let make = |root: &Path, text: &str| {
            fs::create_dir_all(root.join("b")).unwrap();
            fs::write(root.join("b/wsguard.toml"), text).unwrap();
        };
        make(&root.join("a"), "1");
        let first = FileView::of(&file);
        let watches = |path: &Path| first.watched.values().any(|watched| watched == path);
        assert!(watches(&folder) && watches(&file));
        assert!(!FileView::of(&file).leads_elsewhere(&first));
        // A file that is written in place stays the same file, with other content.
        fs::write(&file, "22").unwrap();
        let written = FileView::of(&file);
        assert!(!written.leads_elsewhere(&first) && written.file != first.file);
        // A folder above the file is swapped for one that looks alike.
        make(&root.join("new"), "22");
        fs::rename(root.join("a"), root.join("old")).unwrap();
        fs::rename(root.join("new"), root.join("a")).unwrap();
        assert!(FileView::of(&file).leads_elsewhere(&written));
        // The folder is removed, and put back.
        fs::rename(root.join("a"), root.join("new")).unwrap();
        let gone = FileView::of(&file);
        assert!(gone.leads_elsewhere(&written) && gone.file.is_none());
        fs::rename(root.join("old"), root.join("a")).unwrap();
        assert!(!FileView::of(&file).leads_elsewhere(&written));
    }
}
