//! What happened, and what should not have.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Everything that the run counts; written by all of its tasks.
#[derive(Debug, Default)]
pub struct Book(Mutex<Pages>);

#[derive(Debug, Default)]
struct Pages {
    counts: BTreeMap<String, u64>,
    faults: BTreeMap<Fault, u64>,
    /// When the server that is restarted was killed.
    kills: Vec<Instant>,
}

/// What must not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// `wsguard_counter_drift` was not 0.
    Drift,
    /// A byte came back other than it was sent.
    Bytes,
    /// A connection ended, and nothing that we did explains it.
    Lost,
    /// Nothing came where something had to.
    Late,
    /// An answer that nothing we did explains.
    Answer,
    /// A file was not taken, or was taken and should not have been.
    Reload,
    /// The guard does not run, or tells nothing any more.
    Guard,
}

impl Book {
    /// One more of `what`.
    pub fn count(&self, what: impl Into<String>) {
        *self.pages().counts.entry(what.into()).or_default() += 1;
    }

    /// So many counted.
    pub fn counted(&self, what: &str) -> u64 {
        self.pages().counts.get(what).copied().unwrap_or_default()
    }

    /// All counts whose name begins so.
    pub fn counted_all(&self, prefix: &str) -> u64 {
        self.counts()
            .iter()
            .filter(|(what, _)| what.starts_with(prefix))
            .map(|(_, n)| n)
            .sum()
    }

    /// Every count.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.pages().counts.clone()
    }

    /// Something that must not happen did; the first few of each kind are told at once.
    pub fn fault(&self, fault: Fault, story: impl fmt::Display) {
        let mut pages = self.pages();
        let told = pages.faults.entry(fault).or_default();
        *told += 1;
        if *told <= TOLD {
            println!("  FAULT {fault:?}: {story}");
        }
    }

    /// How often it did.
    pub fn faults(&self, fault: Fault) -> u64 {
        self.pages().faults.get(&fault).copied().unwrap_or_default()
    }

    /// The server that is restarted is killed now.
    pub fn killed(&self) {
        self.pages().kills.push(Instant::now());
    }

    /// Whether it was killed since.
    pub fn was_killed_since(&self, since: Instant) -> bool {
        self.pages().kills.iter().any(|at| *at >= since)
    }

    /// Whoever panicked with the book in hand has left it whole.
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const TOLD: u64 = 20;
