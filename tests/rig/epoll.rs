//! What the guard's epoll instances watch, as the kernel tells it: so that a test can wait until a connection rests instead
//! of hoping that it does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::{Rig, until};

impl Rig {
    /// Waits until so many sockets are watched outside the runtime: two for each open connection that rests.
    pub fn rests(&self, sockets: usize) {
        let what = format!("{sockets} sockets rest");
        until(&what, || (self.watched_outside() == sockets).then_some(()));
    }

    /// An instance of which another one watches the descriptor is a worker's own, and no runtime's.
    fn watched_outside(&self) -> usize {
        let watched = self.watched();
        let by_others: BTreeSet<u32> = watched.values().flatten().copied().collect();
        let outside = watched.iter().filter(|(fd, _)| by_others.contains(fd));
        outside.map(|(_, watched)| watched.len()).sum()
    }

    /// What each epoll descriptor watches, by `proc_pid_fdinfo(5)`.
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
