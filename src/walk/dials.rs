//! The dials of one connection.

use std::sync::Arc;
use std::time::Instant;

use crate::config::policy::LogLevel;
use crate::live::process::ProcessState;
use crate::reason::reject::RejectReason;
use crate::telemetry::log::Line;
use crate::upstream::connect::DialEvent;
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

    /// Records what happened to a dial of `server`. Failures of one server are logged once a second.
    pub fn record(&mut self, server: &Arc<Server>, event: DialEvent<'_>) {
        match event {
            DialEvent::Began => *self.server = Some(Arc::clone(server)),
            DialEvent::Succeeded => self.process.advice.dial_succeeded(server.label(), Instant::now()),
            DialEvent::Failed(error) => self.failed(server, RejectReason::UpstreamRefused, error.to_string()),
            DialEvent::TimedOut => {
                self.failed(
                    server,
                    RejectReason::UpstreamTimeout,
                    "no answer within `dial`".to_owned(),
                );
            }
        }
    }

    fn failed(&self, server: &Server, reason: RejectReason, error: String) {
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
