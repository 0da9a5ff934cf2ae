//! Both directions of a connection, and what they show together about its end.

use crate::reason::close::CloseReason;
use crate::wire::ws::header::Sender;
use crate::wire::ws::scanner::FrameScanner;

use super::close::handshake::CloseHandshake;
use super::close::sides::Sides;
use super::conn_limits::ConnLimits;
use super::flow::ends::StreamEnd;
use super::flow::flow::Flow;
use super::flow::progress::Progress;
use super::legs::Legs;
use super::params::EarlyBytes;
use super::police::policer::FramePolicer;
use super::rules::RelayMode;
use super::totals::Totals;
use super::traffic::Traffic;

/// Both directions of a connection.
#[derive(Debug)]
pub(super) struct Flows {
    /// From the client to the server.
    pub(super) inbound: Flow,
    /// From the server to the client.
    pub(super) outbound: Flow,
}

impl Flows {
    /// Flows that first deliver `early`. Also returns how much of `early` counts as passed already, to the server and
    /// to the client.
    pub(super) fn new(early: EarlyBytes, mode: RelayMode, limits: &ConnLimits) -> (Self, Progress, Progress) {
        let client_policer = limits.polices_client().then(|| FramePolicer::new(Sender::Client));
        let server_policer = limits.polices_server().then(|| FramePolicer::new(Sender::Server));
        let client_scanner = if limits.is_strict() {
            FrameScanner::strict(Sender::Client, early.extensions)
        } else {
            FrameScanner::new(Sender::Client)
        };
        let server_scanner = FrameScanner::new(Sender::Server);
        let (from_server, reply_size) = (early.from_server, early.reply_size);
        let (inbound, inward) = Flow::new(client_scanner, early.from_client, 0, mode, client_policer);
        let (outbound, outward) = Flow::new(server_scanner, from_server, reply_size, mode, server_policer);
        (Self { inbound, outbound }, inward, outward)
    }

    /// Whether there is nothing to do until a side sends more.
    pub(super) fn are_idle(&self) -> bool {
        self.inbound.is_idle() && self.outbound.is_idle()
    }

    /// Whether the server has ended, even if the client has not taken everything from it.
    pub(super) fn server_has_ended(&self) -> bool {
        self.outbound.ends().source().is_some() || self.inbound.ends().sink().is_some()
    }

    /// Passes on a FIN that one side has sent. If both sides have ended it passes none, because the sockets are closed
    /// at once.
    pub(super) fn forward_ends(&mut self, legs: &Legs) {
        let is_all = self.inbound.ends().is_done() && self.outbound.ends().is_done();
        for (flow, sink) in [(&mut self.inbound, &legs.server), (&mut self.outbound, &legs.client)] {
            if flow.ends_mut().take_owed_fin() && !is_all {
                sink.shutdown_write();
            }
        }
    }

    /// The reason for which the connection will be closed. The first side to end, or to send a close frame, decides it.
    pub(super) fn close_reason(&self, legs: &Legs) -> Option<CloseReason> {
        let (inbound, outbound) = (self.inbound.ends(), self.outbound.ends());
        if let Some(end) = inbound.source().or(outbound.sink()) {
            Some(if !end.is_failure() {
                CloseReason::Client
            } else if end == StreamEnd::TimedOut && !legs.client.is_acknowledged() {
                CloseReason::Stalled
            } else {
                CloseReason::Io
            })
        } else if let Some(end) = outbound.source().or(inbound.sink()) {
            Some(if end.is_failure() {
                CloseReason::Io
            } else {
                CloseReason::Upstream
            })
        } else if self.inbound.gate().saw_close() {
            Some(CloseReason::Client)
        } else if self.outbound.gate().saw_close() {
            Some(CloseReason::Upstream)
        } else {
            None
        }
    }

    /// The facts about the ends of both sides. `handshake` is the close handshake under way, if there is one.
    pub(super) fn sides(&self, handshake: Option<&CloseHandshake>) -> Sides {
        let (inbound, outbound) = (self.inbound.ends(), self.outbound.ends());
        Sides {
            client_ended: inbound.source().is_some(),
            client_died: outbound.sink().is_some() || inbound.has_died(),
            server_ended: self.server_has_ended(),
            server_died: inbound.sink().is_some() || outbound.has_died(),
            is_all_sent_to_client: outbound.is_done() || handshake.is_some_and(CloseHandshake::is_sent_to_client),
            is_all_sent_to_server: inbound.is_done() || handshake.is_some_and(CloseHandshake::is_sent_to_server),
            is_done: inbound.is_done() && outbound.is_done(),
        }
    }

    /// Makes the close a reset for a side that does not get everything, so that this side can't take the end for an
    /// orderly one.
    pub(super) fn reset_undelivered(&self, legs: &Legs, handshake: Option<&CloseHandshake>) {
        let sides = self.sides(handshake);
        let is_cut_short = |flow: &Flow, source_died: bool, has_close_frame: bool| {
            source_died && !has_close_frame || flow.has_buffered() || flow.gate().is_delayed()
        };
        let has_close_frame = handshake.is_some_and(CloseHandshake::is_sent_to_server);
        if is_cut_short(&self.inbound, sides.client_died, has_close_frame) {
            legs.server.reset_on_close();
        }
        let has_close_frame = handshake.is_some_and(CloseHandshake::is_sent_to_client);
        if is_cut_short(&self.outbound, sides.server_died, has_close_frame) {
            legs.client.reset_on_close();
        }
    }

    /// What both flows moved in all, and why the connection was closed.
    pub(super) fn totals(&self, traffic: &Traffic, reason: CloseReason) -> Totals {
        let policers = || {
            [&self.inbound, &self.outbound]
                .into_iter()
                .filter_map(|flow| flow.gate().policer())
        };
        Totals {
            bytes_in: traffic.bytes_in(),
            bytes_out: traffic.bytes_out(),
            messages_in: traffic.messages_in(),
            messages_out: traffic.messages_out(),
            limit_hits: policers().fold(0, |hits, policer| policer.hits().saturating_add(hits)),
            last_limit: policers().find_map(FramePolicer::last_hit),
            heartbeats: self.inbound.gate().policer().map_or(0, FramePolicer::heartbeats),
            reason,
            was_replaced: false,
        }
    }
}
