//! A lease on one server.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::outcome::Outcome;
use super::server::Server;

/// A connection on a server. It counts as open there until it is dropped.
#[derive(Debug)]
pub struct Lease(Arc<Server>);

impl Lease {
    pub(super) fn new(server: &Arc<Server>) -> Self {
        server.open.fetch_add(1, Relaxed);
        Self(Arc::clone(server))
    }

    /// The server that it is on.
    pub fn server(&self) -> &Arc<Server> {
        &self.0
    }

    /// Reports what came of the attempt: at most once.
    pub fn report(&self, outcome: Outcome) {
        self.0.record(outcome);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}
