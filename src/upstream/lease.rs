//! The right to use one server.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::server::Server;

/// Whoever holds it counts as open on its server. Dropping it gives that back and reports how the dial went.
#[derive(Debug)]
pub struct Lease {
    server: Arc<Server>,
    outcome: Outcome,
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Unknown,
    Dialled,
    Failed,
}

impl Lease {
    pub(super) fn new(server: &Arc<Server>) -> Self {
        server.open.fetch_add(1, Relaxed);
        Self {
            server: Arc::clone(server),
            outcome: Outcome::Unknown,
        }
    }

    /// The server to dial.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// The dial succeeded.
    pub fn dialled(&mut self) {
        self.outcome = Outcome::Dialled;
    }

    /// The dial failed. A lease dropped without a word (the client went away) says nothing about its server.
    pub fn failed(&mut self) {
        self.outcome = Outcome::Failed;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.server.open.fetch_sub(1, Relaxed);
        if self.outcome == Outcome::Failed {
            self.server.dial_failures.fetch_add(1, Relaxed);
        }
    }
}
