//! The phases in the life of the process.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// A stage of the process's life. It only moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The process serves.
    Serving,
    /// The process still serves, but health checks already answer 503.
    Leaving,
    /// The process accepts no connections and closes the open ones.
    Draining,
}

/// The phase that the process is in.
#[derive(Debug)]
pub struct CurrentPhase(AtomicU8);

impl CurrentPhase {
    /// Whether the process is in this phase.
    pub fn is(&self, phase: Phase) -> bool {
        self.0.load(Relaxed) == phase as u8
    }

    /// Moves on to `phase`. If the process is already in a later phase, nothing changes.
    pub fn enter(&self, phase: Phase) {
        self.0.fetch_max(phase as u8, Relaxed);
    }
}

impl Default for CurrentPhase {
    fn default() -> Self {
        Self(AtomicU8::new(Phase::Serving as u8))
    }
}
