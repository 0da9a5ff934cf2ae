//! The dials of one connection.

use std::sync::Arc;
use std::time::Instant;

use crate::config::policy::LogLevel;
use crate::live::process::ProcessState;
use crate::reason::reject::RejectReason;
use crate::telemetry::log::Line;
use crate::upstream::server::Server;

/// Reports each dial of a connection as it ends, and keeps the server that was dialled last.
#[derive(Debug)]
pub struct Dials<'a> {
    process: &'a ProcessState,
    server: &'a mut Option<Arc<Server>>,
}

impl<'a> Dials<'a> {
    pub(super) fn new(process: &'a ProcessState, server: &'a mut Option<Arc<Server>>) -> Self {
        Self { process, server }
    }

    /// A dial of `server` begins.
    pub fn begin(&mut self, server: &Arc<Server>) {
        *self.server = Some(Arc::clone(server));
    }

    /// The server took the connection.
    pub fn succeeded(&self) {
        if let Some(server) = &self.server {
            self.process.advice.dial_succeeded(server.label(), Instant::now());
        }
    }

    /// The server did not take it. Failures of one server are logged once a second.
    pub fn failed(&self, reason: RejectReason, error: String) {
        let Some(server) = &self.server else { return };
        let Some(count) = self.process.advice.dial_failed(server.label(), Instant::now()) else {
            return;
        };
        let line = Line {
            server: Some(Arc::clone(server.label())),
            reason: Some(reason.word()),
            count: Some(count.into()),
            message: Some(error),
            ..Line::default()
        };
        self.process.log.event(LogLevel::Warn, "dial_failed", line);
    }
}
