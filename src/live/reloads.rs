//! The outcome of reloads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use parking_lot::Mutex;

/// The outcome of all reloads so far.
#[derive(Debug)]
pub struct Reloads {
    generation: AtomicU64,
    failures: AtomicU64,
    last: Mutex<LastReload>,
}

/// The last attempt to put a policy in force.
#[derive(Clone, Debug)]
pub struct LastReload {
    /// The time of the attempt.
    pub at: SystemTime,
    /// The time of the last attempt that succeeded.
    pub succeeded_at: SystemTime,
    /// Why the attempt was refused; `None` if it succeeded.
    pub error: Option<String>,
}

impl Reloads {
    /// The state before any reload: the first policy is in force since `now`.
    pub fn begin(now: SystemTime) -> Self {
        Self {
            generation: AtomicU64::new(1),
            failures: AtomicU64::new(0),
            last: Mutex::new(LastReload {
                at: now,
                succeeded_at: now,
                error: None,
            }),
        }
    }

    /// How many policies have been in force, the first included.
    pub fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    /// How many reloads were refused.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// The last attempt.
    pub fn last(&self) -> LastReload {
        self.last.lock().clone()
    }

    /// Records an attempt.
    pub fn record(&self, outcome: Result<(), String>, now: SystemTime) {
        let mut last = self.last.lock();
        last.at = now;
        last.error = outcome.err();
        if last.error.is_none() {
            last.succeeded_at = now;
            self.generation.fetch_add(1, Relaxed);
        } else {
            self.failures.fetch_add(1, Relaxed);
        }
    }
}
