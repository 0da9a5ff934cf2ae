//! A lease on one server.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::server::Server;

/// A connection on a server. It counts as open there until it is dropped; then the dial is counted if it failed.
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

    /// Reports that the dial failed. A lease that is dropped without this, because the client went away, for example,
    /// says nothing about the server.
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
