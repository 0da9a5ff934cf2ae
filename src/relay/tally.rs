//! Running counts of what open connections move, one tally for each worker and zone; a scrape sums them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts that only ever grow, written by one thread and read by any.
#[derive(Debug, Default)]
#[repr(align(128))] // A line of its own: two workers' tallies never share one.
pub struct Tally {
    /// Bytes from clients.
    pub bytes_in: Count,
    /// Bytes to clients.
    pub bytes_out: Count,
    /// Messages from clients.
    pub messages_in: Count,
    /// Messages to clients.
    pub messages_out: Count,
    /// Tunnels that were opened.
    pub opened: Count,
    /// Tunnels whose client has sent something, or that ended before it did: `opened` less this are silent.
    pub no_longer_silent: Count,
}

/// One number of a [`Tally`].
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `more`. Only the tally's own worker calls this, so a plain load and store do.
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Relaxed) + more, Relaxed);
    }

    /// The number as it stands.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
