//! How far along its life the process is.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// A stage of the process's life; it never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It serves.
    Serving,
    /// It still serves, and tells load balancers that it soon won't.
    Leaving,
    /// It accepts nobody, and sees its connections off.
    Draining,
}

/// The phase that a process is in.
#[derive(Debug)]
pub struct Current(AtomicU8);

impl Current {
    /// Whether it is in this phase.
    pub fn is(&self, phase: Phase) -> bool {
        self.0.load(Relaxed) == phase as u8
    }

    /// Goes on to `phase`.
    pub fn enter(&self, phase: Phase) {
        self.0.fetch_max(phase as u8, Relaxed);
    }
}

impl Default for Current {
    fn default() -> Self {
        Self(AtomicU8::new(Phase::Serving as u8))
    }
}
