//! Counts of what happened, and of the faults.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Everything that the run counts. All tasks of the run write to it.
#[derive(Debug, Default)]
pub struct Book(Mutex<Pages>);

#[derive(Debug, Default)]
struct Pages {
    counts: BTreeMap<String, u64>,
    faults: BTreeMap<Fault, u64>,
    /// The times at which the server that is restarted was killed.
    kills: Vec<Instant>,
}

/// An event that must not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// `wsguard_counter_drift` was not 0.
    Drift,
    /// A byte came back different from the one that was sent.
    Bytes,
    /// A connection ended, and nothing that the bench did explains it.
    Lost,
    /// No bytes came although some had to come.
    Late,
    /// An answer came that nothing that the bench did explains.
    Answer,
    /// A good file was refused, or a broken one was accepted.
    Reload,
    /// The guard does not run, or does not answer.
    Guard,
}

impl Book {
    /// Counts one more of `what`.
    pub fn count(&self, what: impl Into<String>) {
        *self.pages().counts.entry(what.into()).or_default() += 1;
    }

    /// The count of `what`.
    pub fn counted(&self, what: &str) -> u64 {
        self.pages().counts.get(what).copied().unwrap_or_default()
    }

    /// The sum of all counts whose names begin with `prefix`.
    pub fn counted_all(&self, prefix: &str) -> u64 {
        self.counts()
            .iter()
            .filter(|(what, _)| what.starts_with(prefix))
            .map(|(_, n)| n)
            .sum()
    }

    /// All counts.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.pages().counts.clone()
    }

    /// Counts a fault. The first few of each kind are also printed.
    pub fn fault(&self, fault: Fault, story: impl fmt::Display) {
        let mut pages = self.pages();
        let count = pages.faults.entry(fault).or_default();
        *count += 1;
        if *count <= PRINTED {
            println!("  FAULT {fault:?}: {story}");
        }
    }

    /// The number of faults of this kind.
    pub fn faults(&self, fault: Fault) -> u64 {
        self.pages().faults.get(&fault).copied().unwrap_or_default()
    }

    /// Notes that the server that is restarted is killed now.
    pub fn killed(&self) {
        self.pages().kills.push(Instant::now());
    }

    /// Whether that server was killed since then.
    pub fn was_killed_since(&self, since: Instant) -> bool {
        self.pages().kills.iter().any(|at| *at >= since)
    }

    /// A task that panicked while it held the lock has left the data complete.
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const PRINTED: u64 = 20;
