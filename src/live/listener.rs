//! A listener in force.

use std::sync::Arc;

use prometheus::IntCounter;

use crate::config::policy::ListenerPolicy;
use crate::limit::pending::{PendingRoom, PendingRules};

use super::process::ProcessState;

/// A listener in force.
#[derive(Debug)]
pub struct Listener {
    /// The listener's policy.
    pub policy: Arc<ListenerPolicy>,
    /// The listener's pending sockets, which outlive the policy.
    pub room: Arc<PendingRoom>,
    /// The number of sockets that were accepted.
    pub accepted: IntCounter,
    /// The number of connections that ended without a byte, or after a PROXY header that names no client.
    pub silent_closes: IntCounter,
    /// The number of requests with forwarding headers from a hop that is not trusted.
    pub untrusted_forwarded: IntCounter,
    /// The process that it belongs to.
    pub process: Arc<ProcessState>,
}

impl Listener {
    /// Makes a listener under `policy`. `before` is the listener with the same name that was in force until now, if there
    /// was one.
    pub(super) fn build(
        policy: &Arc<ListenerPolicy>,
        max_pending: u32,
        process: &Arc<ProcessState>,
        before: Option<&Self>,
    ) -> Self {
        let metrics = &process.metrics;
        let rules = PendingRules {
            max: max_pending,
            max_per_ip: policy.max_pending_per_ip,
            timeout: policy.handshake_timeout,
        };
        let room = before.map_or_else(|| PendingRoom::new(rules), |before| Arc::clone(&before.room));
        room.set_rules(rules);
        Self {
            policy: Arc::clone(policy),
            process: Arc::clone(process),
            room,
            accepted: metrics.accepted.with_label_values(&[&*policy.name]),
            silent_closes: metrics.silent_closes.with_label_values(&[&*policy.name]),
            untrusted_forwarded: metrics.untrusted_forwarded.with_label_values(&[&*policy.name]),
        }
    }

    /// Whether two listeners are the same one, even under different policies.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.room, &other.room)
    }

    /// Whether the listener has no pending sockets.
    pub fn is_empty(&self) -> bool {
        self.room.taken() == 0
    }
}
