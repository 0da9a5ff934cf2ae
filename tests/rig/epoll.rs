//! What the guard's epoll instances watch, from the kernel. With this a test can wait until a connection is parked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::{Rig, until};

impl Rig {
    /// Waits until this many sockets are watched outside of the runtime: two for each parked open connection.
    pub fn rests(&self, sockets: usize) {
        let what = format!("{sockets} sockets rest");
        until(&what, || (self.watched_outside() == sockets).then_some(()));
    }

    /// An instance whose descriptor another instance watches is a worker's own set, and not a runtime's.
    fn watched_outside(&self) -> usize {
        let watched = self.watched();
        let by_others: BTreeSet<u32> = watched.values().flatten().copied().collect();
        let outside = watched.iter().filter(|(fd, _)| by_others.contains(fd));
        outside.map(|(_, watched)| watched.len()).sum()
    }

    /// What each epoll descriptor watches, from `proc_pid_fdinfo(5)`.
    fn watched(&self) -> BTreeMap<u32, Vec<u32>> {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{}/fdinfo", self.pid())) else {
            return BTreeMap::new();
        };
        let watched_by = |text: &str| -> Vec<u32> {
            text.lines()
                .filter_map(|line| line.strip_prefix("tfd:")?.split_whitespace().next()?.parse().ok())
                .collect()
        };
        descriptors
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let fd = entry.file_name().to_str()?.parse().ok()?;
                Some((fd, watched_by(&fs::read_to_string(entry.path()).ok()?)))
            })
            .filter(|(_, watched)| !watched.is_empty())
            .collect()
    }
}
