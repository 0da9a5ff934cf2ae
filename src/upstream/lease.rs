//! The right to use one server.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::server::Server;

/// Whoever holds it counts as open on its server. Dropping it gives that back, and reports the dial if it failed.
#[derive(Debug)]
pub struct Lease {
    server: Arc<Server>,
    has_failed: bool,
}

impl Lease {
    pub(super) fn new(server: &Arc<Server>) -> Self {
        server.open.fetch_add(1, Relaxed);
        Self {
            server: Arc::clone(server),
            has_failed: false,
        }
    }

    /// The server to dial.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// The dial failed. A lease dropped without a word (the client went away, say) tells nothing about its server.
    pub fn failed(&mut self) {
        self.has_failed = true;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.server.open.fetch_sub(1, Relaxed);
        if self.has_failed {
            self.server.dial_failures.fetch_add(1, Relaxed);
        }
    }
}
