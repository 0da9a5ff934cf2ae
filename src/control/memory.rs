//! How much memory the process may use: the memory of the machine, or less if a control group has a lower limit.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// The memory that the process may use, in bytes; `None` if it can't be found out.
pub fn limit() -> Option<u64> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let of_groups = of_groups(Path::new("/sys/fs/cgroup"), &read("/proc/self/cgroup"));
    of_groups.into_iter().chain(of_machine(&read("/proc/meminfo"))).min()
}

/// The smallest limit of the process's control groups and of all groups above them. `own` is the text of
/// `/proc/self/cgroup`. `root` is the folder where the groups are mounted.
fn of_groups(root: &Path, own: &str) -> Option<u64> {
    own.lines().flat_map(|line| limits_of(root, line)).min()
}

/// The limits of the group in one line, `ID:CONTROLLERS:PATH` (`cgroups(7)`), and of the groups above it. A line without
/// controllers is of version 2, any other line of version 1.
fn limits_of(root: &Path, line: &str) -> Vec<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
        return Vec::new();
    };
    let (mounts, file): (&[&str], _) = if controllers.is_empty() {
        // If version 1 is mounted too, version 2 has a folder of its own.
        (&["", "unified"], "memory.max")
    } else if controllers.split(',').any(|name| name == "memory") {
        (&["memory"], "memory.limit_in_bytes")
    } else {
        return Vec::new();
    };
    let folders = mounts.iter().flat_map(|mount| up_from(&root.join(mount), path));
    folders
        .filter_map(|folder| fs::read_to_string(folder.join(file)).ok())
        .filter_map(|text| number(&text))
        .collect()
}

/// The folders of a group and of all groups above it, up to the mount. In a container, the mount may be the group itself,
/// while `path` is still the path on the host. Then only the folder of the mount exists.
fn up_from(mount: &Path, path: &str) -> Vec<PathBuf> {
    let mut folder = mount.to_path_buf();
    let mut folders = vec![folder.clone()];
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => folder.push(name),
            Component::RootDir | Component::CurDir => continue,
            // This group is outside of the process's namespace.
            Component::ParentDir | Component::Prefix(_) => break,
        }
        folders.push(folder.clone());
    }
    folders
}

/// Reads a limit; `None` if there is no limit. "max" means no limit. In version 1, the largest number of pages means the
/// same.
fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|bytes| *bytes < 1 << 60)
}

/// The memory of the machine in bytes, from a line such as `MemTotal: 24683652 kB`.
fn of_machine(meminfo: &str) -> Option<u64> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn mounted(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_smallest_limit_of_a_group_and_the_groups_above_it_counts() {
        let (max, none) = ("memory.max", "max\n");
        for (files, own, expected) in [
            // Version 2.
            (
                &[(&*format!("a/b/{max}"), "300\n"), (&*format!("a/{max}"), none)][..],
                "0::/a/b\n",
                Some(300),
            ),
            (
                &[(&format!("a/b/{max}"), "300\n"), (&format!("a/{max}"), "200\n")],
                "0::/a/b\n",
                Some(200),
            ),
            (
                &[(&format!("a/b/{max}"), none), (&format!("a/{max}"), none)],
                "0::/a/b\n",
                None,
            ),
            // In a container: the group is the mount; the path is the one on the host; the group is outside of the
            // namespace.
            (&[(max, "100\n")], "0::/\n", Some(100)),
            (&[(max, "100\n")], "0::/system.slice/docker-1.scope\n", Some(100)),
            (&[(max, "100\n"), ("a/memory.max", "50\n")], "0::/../a\n", Some(100)),
            // Version 1, and both versions side by side.
            (
                &[
                    ("memory/a/memory.limit_in_bytes", "400\n"),
                    ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ],
                "5:cpu:/x\n4:memory:/a\n0::/\n",
                Some(400),
            ),
            (
                &[("memory/memory.limit_in_bytes", "9223372036854771712\n")],
                "4:cpu,memory:/\n",
                None,
            ),
            (
                &[
                    ("unified/a/memory.max", "70\n"),
                    ("memory/a/memory.limit_in_bytes", "80\n"),
                ],
                "4:memory:/a\n0::/a\n",
                Some(70),
            ),
            // No limit can be read.
            (&[("a/memory.max", "many\n")], "0::/a\n", None),
            (&[], "0::/a\n", None),
            (&[], "no group\n:\n", None),
            (&[], "", None),
        ] {
            let root = mounted(files);
            assert_eq!(of_groups(root.path(), own), expected, "{files:?} {own}");
        }
    }

    #[test]
    fn the_memory_of_a_machine_is_read() {
        assert_eq!(
            of_machine("MemTotal:         512 kB\nMemFree: 1 kB\n"),
            Some(512 * 1024)
        );
        assert_eq!(of_machine("MemFree: 1 kB\n"), None);
        assert_eq!(of_machine(""), None);
    }
}
