//! Totals that are counted elsewhere. The registry keeps them longer than their source exists.

use prometheus::{IntCounterVec, Registry};

use super::register::counters;

/// The counters of traffic and of dials. The totals are counted elsewhere, and each scrape updates these counters. The
/// series of a removed zone or server stay until they have been shown once more.
#[derive(Debug)]
pub(crate) struct Totals {
    pub(crate) bytes: IntCounterVec,
    pub(crate) messages: IntCounterVec,
    pub(crate) limit_hits: IntCounterVec,
    pub(crate) heartbeats: IntCounterVec,
    pub(crate) upstream_dial_failures: IntCounterVec,
}

impl Totals {
    pub(super) fn new(r: &Registry) -> Self {
        let zone: &[&str] = &["zone"];
        let both: &[&str] = &["zone", "direction"];
        Self {
            bytes: counters(
                r,
                "wsguard_bytes_total",
                "Bytes moved through tunnels, from (in) and to (out) clients",
                both,
            ),
            messages: counters(
                r,
                "wsguard_messages_total",
                "WebSocket messages, counted at their first frame",
                both,
            ),
            limit_hits: counters(
                r,
                "wsguard_message_limit_hits_total",
                "Messages and frames beyond a limit, by what was done about it",
                &["zone", "limit", "action"],
            ),
            heartbeats: counters(
                r,
                "wsguard_suspected_heartbeats_total",
                "Messages of one size at a steady interval, from clients whose messages are looked at",
                zone,
            ),
            upstream_dial_failures: counters(
                r,
                "wsguard_upstream_dial_failures_total",
                "Dials that failed",
                &["upstream", "server"],
            ),
        }
    }
}

impl Totals {
    /// All counters that have labels.
    pub(super) fn all(&self) -> [&IntCounterVec; 5] {
        [
            &self.bytes,
            &self.messages,
            &self.limit_hits,
            &self.heartbeats,
            &self.upstream_dial_failures,
        ]
    }
}
