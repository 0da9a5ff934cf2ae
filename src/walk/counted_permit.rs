//! A permit that is counted a second time: the drift metric compares the two counts.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::limit::admission::Permit;
use crate::live::listener::Listener;
use crate::live::process::ProcessState;

/// The permit of a connection, once it has one. Dropping this gives it back.
#[derive(Debug)]
pub(super) struct CountedPermit {
    /// Of the process that counts it. Every open connection has this, so the record has no other pointer to either.
    listener: Arc<Listener>,
    permit: Option<Permit>,
}

impl CountedPermit {
    /// No permit yet.
    pub(super) fn none(listener: &Arc<Listener>) -> Self {
        Self {
            listener: Arc::clone(listener),
            permit: None,
        }
    }

    /// The listener that accepted the connection.
    pub(super) fn listener(&self) -> &Arc<Listener> {
        &self.listener
    }

    /// The state of the process that counts it.
    pub(super) fn process(&self) -> &ProcessState {
        &self.listener.process
    }

    /// Whether there is a permit.
    pub(super) fn is_held(&self) -> bool {
        self.permit.is_some()
    }

    /// Takes over a permit.
    pub(super) fn take(&mut self, permit: Permit) {
        self.give_back();
        self.process().alive.fetch_add(1, Relaxed);
        self.permit = Some(permit);
    }

    /// Gives the permit back, if there is one.
    pub(super) fn give_back(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.process().alive.fetch_sub(1, Relaxed);
            drop(permit);
        }
    }
}

impl Drop for CountedPermit {
    fn drop(&mut self) {
        self.give_back();
    }
}
