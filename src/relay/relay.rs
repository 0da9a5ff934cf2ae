//! The relay of one open connection: both directions, and how it ends.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::reason::close::CloseReason;

use super::close::closing::Closing;
use super::close::deadlines::{CloseStage, HANDSHAKE};
use super::close::handshake::CloseHandshake;
use super::env::RelayEnv;
use super::flow::progress::Progress;
use super::flows::Flows;
use super::handle::{Command, ConnHandle, PingDelivery, SILENCE};
use super::inject::InjectedFrames;
use super::legs::Legs;
use super::params::{EarlyBytes, RelayParams};
use super::police::verdict::Violation;
use super::totals::Totals;

/// The state of an open connection, apart from its legs. The connection is over when both sides have ended, or on
/// command. The owner drops the legs before the relay.
#[derive(Debug)]
pub struct Relay {
    flows: Flows,
    env: RelayEnv,
    handle: Arc<ConnHandle>,
    extras: Option<Box<Extras>>,
    /// The reason for which the connection will be closed. Set once a side has ended or announced its end.
    reason: Option<CloseReason>,
    /// The handle has the waker of the task.
    is_waker_set: bool,
    /// The client has sent nothing yet.
    is_silent: bool,
    /// The server's leg has the options that only long-lived connections need.
    is_prepared: bool,
}

/// What few connections have at a time.
#[derive(Debug, Default)]
struct Extras {
    /// Frames of ours that wait for their place between two of the server's frames.
    injected: InjectedFrames,
    /// `Some` only while the connection is ending.
    closing: Option<Box<Closing>>,
}

impl Relay {
    /// A relay that first delivers `early`. It enforces the timeouts `half_close` and `keepalive` itself; the worker's
    /// sweep enforces the others.
    pub fn new(early: EarlyBytes, params: RelayParams) -> Self {
        let RelayParams {
            mode,
            limits,
            shares,
            handle,
            counters,
        } = params;
        let has_sent = !early.from_client.is_empty();
        let (flows, mut inward, outward) = Flows::new(early, mode, &limits);
        inward.received = has_sent;
        counters.opened.add(1);
        let mut relay = Self {
            flows,
            env: RelayEnv {
                limits,
                shares,
                counters,
            },
            handle,
            extras: None,
            reason: None,
            is_waker_set: false,
            is_silent: true,
            is_prepared: false,
        };
        relay.record(inward, outward);
        relay
    }

    /// Continues as far as possible without waiting. Ready once the connection is over.
    pub fn poll(&mut self, legs: &Legs, cx: &mut Context<'_>) -> Poll<Totals> {
        if !std::mem::replace(&mut self.is_waker_set, true) {
            self.handle.set_waker(cx.waker());
        }
        if let Some(command) = self.handle.command()
            && let Some(reason) = self.execute(command, legs, cx)
        {
            return Poll::Ready(Totals {
                was_replaced: command == Command::Replace,
                ..self.flows.totals(&self.handle.traffic, reason)
            });
        }
        if self.handle.take_probe() {
            self.probe(legs);
        }
        let reason = if self.handshake().is_some() {
            self.poll_handshake(legs, cx)
        } else {
            self.poll_open(legs, cx)
        };
        reason.map(|reason| self.flows.totals(&self.handle.traffic, reason))
    }

    /// Whether the connection was asked to park and can be parked: nothing is under way. The request is taken only if
    /// so.
    pub(crate) fn take_park(&self) -> bool {
        self.handle.wants_park()
            && self.reason.is_none()
            && self.extras.is_none()
            && self.flows.are_idle()
            && !self.handle.has_unacked()
            && self.handle.ping_delivery() == PingDelivery::None
            && self.handle.take_park()
    }

    /// Makes requests wake `waker` from here on, until the relay is polled again. Returns false if a request came
    /// before that.
    pub(crate) fn set_parked_waker(&mut self, waker: &Waker) -> bool {
        self.is_waker_set = false;
        self.handle.set_waker(waker);
        !self.handle.has_request()
    }

    /// The totals of a connection whose socket is lost to an error of this machine.
    pub(crate) fn totals_on_io_error(&self) -> Totals {
        self.flows.totals(&self.handle.traffic, CloseReason::Io)
    }

    /// Whether the server has ended, even if the client has not taken everything from it. The server then no longer
    /// holds a connection.
    pub(crate) fn server_has_ended(&self) -> bool {
        self.flows.server_has_ended()
    }

    fn poll_open(&mut self, legs: &Legs, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let inward = self.flows.inbound.pump(&legs.client, &legs.server, &self.env, cx);
        // A failed write takes the socket's error, so reading would see an orderly end.
        if let Some(end) = self.flows.inbound.ends().sink() {
            self.flows.outbound.ends_mut().set_early(end);
        }
        let outward = self.flows.outbound.pump(&legs.server, &legs.client, &self.env, cx);
        self.record(inward, outward);
        self.flows.forward_ends(legs);
        if let Some(end) = self.flows.outbound.ends().sink()
            && !self.flows.inbound.ends().has_died()
        {
            self.flows.inbound.ends_mut().set_early(end);
            let inward = self.flows.inbound.pump(&legs.client, &legs.server, &self.env, cx);
            self.record(inward, Progress::default());
            self.flows.forward_ends(legs);
        }
        if let Some(violation) = self.flows.inbound.gate().violation() {
            self.close_for(violation);
            return self.poll_handshake(legs, cx);
        }
        self.inject(legs, cx);
        self.reason = self.reason.or_else(|| self.flows.close_reason(legs));
        match self.reason {
            Some(reason) => self.poll_ended(legs, reason, cx),
            None => Poll::Pending,
        }
    }

    /// Finds the acknowledgements and ends that only system calls show.
    fn probe(&mut self, legs: &Legs) {
        let unacked = legs.client.unacknowledged();
        let acked = self
            .flows
            .outbound
            .written_of(self.handle.traffic.bytes_out())
            .saturating_sub(unacked.into());
        self.handle
            .record_acked(acked, unacked > 0 || self.flows.outbound.has_buffered());
        let is_pinged = self.handle.ping_delivery() == PingDelivery::InFlight;
        self.handle
            .set_host_silent(is_pinged && legs.client.is_unanswered_for(SILENCE));
        if !std::mem::replace(&mut self.is_prepared, true) {
            legs.server.set_lasting_options(self.env.limits.timeouts.keepalive);
        }
        self.flows.inbound.probe(&legs.client);
        self.flows.outbound.probe(&legs.server);
    }

    /// Writes pings and the notice to the client if there is room between two of the server's frames.
    fn inject(&mut self, legs: &Legs, cx: &mut Context<'_>) {
        if let Some(wait) = self.flows.inbound.gate_mut().take_first_delay()
            && let Some(notice) = self.env.limits.notice_frame(wait)
        {
            self.extras.get_or_insert_default().injected.set_notice(notice);
        }
        if self.handle.take_ping()
            && let Some(policer) = self.flows.inbound.gate_mut().policer_mut()
        {
            self.extras
                .get_or_insert_default()
                .injected
                .add_ping(&policer.ping(&self.env.limits.random));
        }
        let Some(extras) = &mut self.extras else { return };
        let between_frames = self.flows.outbound.is_between_frames();
        let between_messages = between_frames && !self.flows.outbound.gate().is_within_message();
        let ready = extras.injected.take_ready(between_frames, between_messages);
        if extras.injected.is_empty() && extras.closing.is_none() {
            self.extras = None;
        }
        if ready.bytes.is_empty() {
            return;
        }
        let mut outward = Progress::default();
        self.flows.outbound.append(&ready.bytes);
        let _as_far_as_possible = self.flows.outbound.poll_flush(&legs.client, &mut outward, cx);
        self.record(Progress::default(), outward);
        if ready.has_ping {
            self.handle.mark_unacked();
            self.handle.mark_pinged();
        }
    }

    /// Executes a command. Either begins to close the connection, or returns a reason: then the connection is closed at
    /// once.
    fn execute(&mut self, command: Command, legs: &Legs, cx: &mut Context<'_>) -> Option<CloseReason> {
        match command {
            Command::Close(reason) => match CloseHandshake::of(reason) {
                // The close handshake has no timeout, however long a frame takes: the drain decides when to cut the
                // connection.
                Some(handshake) if reason == CloseReason::Drain => self.begin_handshake(handshake, None),
                Some(handshake) => self.begin_handshake(handshake, Some(HANDSHAKE)),
                None => {
                    legs.client.reset_on_close();
                    return Some(reason);
                }
            },
            Command::Replace => {
                if let Some(handshake) = CloseHandshake::of(CloseReason::Ghost) {
                    self.begin_handshake(handshake, Some(HANDSHAKE));
                }
                let _as_far_as_possible = self.poll_handshake(legs, cx);
                legs.server.shutdown_write();
                legs.client.reset_on_close();
                return Some(CloseReason::Ghost);
            }
            Command::Cut => {
                // If no frame is incomplete, a close frame can still be sent. There may have been no time for it
                // before.
                if let Some(handshake) = CloseHandshake::of(CloseReason::Drain) {
                    self.begin_handshake(handshake, None);
                }
                let _as_far_as_possible = self.poll_handshake(legs, cx);
                legs.client.shutdown_write();
                legs.server.shutdown_write();
                return Some(CloseReason::Drain);
            }
        }
        None
    }

    /// Closes the connection for its client's violation. Bytes that are buffered for either side are delivered first.
    fn close_for(&mut self, violation: Violation) {
        let (reason, fault) = match violation {
            Violation::Rate(..) => (CloseReason::MessageRate, None),
            Violation::Size => (CloseReason::MessageSize, None),
            Violation::Fault(fault) => (CloseReason::Protocol, Some(fault.to_string())),
        };
        let notice = match violation {
            // A client that was delayed has already got its notice.
            Violation::Rate(_, wait) if !self.flows.inbound.gate().has_delayed() => self.env.limits.notice_frame(wait),
            Violation::Rate(..) | Violation::Size | Violation::Fault(_) => None,
        };
        // Each of the three reasons has a close frame: a test of the reasons makes sure of that.
        if let Some(frame) = reason.frame() {
            let text = fault.as_deref().unwrap_or(frame.text);
            let handshake = CloseHandshake::new(reason, frame.code, text, notice.unwrap_or_default());
            self.begin_handshake(handshake, Some(DELIVERY));
        }
    }

    /// Begins a close handshake, which may take this long, unless one has already begun.
    fn begin_handshake(&mut self, handshake: CloseHandshake, timeout: Option<Duration>) {
        if self.handshake().is_none() {
            let closing = &mut self.extras.get_or_insert_default().closing;
            let closing = closing.get_or_insert_with(Closing::new);
            closing.begin_handshake(handshake, timeout, &self.env.limits.clock);
        }
    }

    fn handshake(&self) -> Option<&CloseHandshake> {
        self.closing()?.handshake()
    }

    fn closing(&self) -> Option<&Closing> {
        self.extras.as_ref()?.closing.as_deref()
    }

    fn poll_handshake(&mut self, legs: &Legs, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let Some(closing) = self.extras.as_mut().and_then(|extras| extras.closing.as_mut()) else {
            return Poll::Pending;
        };
        let flows = (&mut self.flows.inbound, &mut self.flows.outbound);
        let Some(turn) = closing.poll_handshake(flows, legs, &self.env, cx) else {
            return Poll::Pending;
        };
        self.record(turn.inward, turn.outward);
        if turn.is_over {
            return Poll::Ready(turn.reason);
        }
        self.poll_ended(legs, turn.reason, cx).map(|_deadline| turn.reason)
    }

    /// Waits for the rest of the close once a side has ended. Then returns why the connection was closed: `reason`,
    /// unless the deadline that passed has a reason of its own.
    fn poll_ended(&mut self, legs: &Legs, reason: CloseReason, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let sides = self.flows.sides(self.handshake());
        if sides.are_over() {
            return Poll::Ready(reason);
        }
        let Some(stage) = Closing::stage(self.closing(), sides, legs) else {
            return match self.extras.as_mut().and_then(|extras| extras.closing.as_mut()) {
                Some(closing) => closing
                    .poll_deadlines(false, &self.env.limits.clock, cx)
                    .map(|()| reason),
                None => Poll::Pending,
            };
        };
        if stage == CloseStage::Answer && sides.server_died {
            legs.client.reset_on_close();
            return Poll::Ready(reason);
        }
        if stage == CloseStage::Acknowledgement && legs.server.is_acknowledged() {
            self.flows.reset_undelivered(legs, self.handshake());
            return Poll::Ready(reason);
        }
        let checks_acks =
            stage == CloseStage::Acknowledgement || stage == CloseStage::Delivery && sides.is_all_sent_to_client;
        let closing = &mut self.extras.get_or_insert_default().closing;
        let closing = closing.get_or_insert_with(Closing::new);
        let expired = std::task::ready!(closing.poll_stage(stage, sides, checks_acks, reason, &self.env, cx));
        self.flows.reset_undelivered(legs, self.handshake());
        if expired.resets_client {
            legs.client.reset_on_close();
        }
        Poll::Ready(expired.reason)
    }

    /// Counts the bytes and messages that moved, in the counters and in the handle.
    fn record(&mut self, inward: Progress, outward: Progress) {
        let (counters, handle) = (&self.env.counters, &self.handle);
        if inward.read > 0 {
            counters.bytes_in.add(inward.read);
            counters.messages_in.add(inward.messages);
            handle.traffic.add_in(inward.read, inward.messages);
        }
        if inward.received && std::mem::take(&mut self.is_silent) {
            counters.no_longer_silent.add(1);
        }
        if (inward.received || inward.has_frame) && self.env.limits.pings() && self.is_activity(inward) {
            handle.mark_client_activity();
        }
        if outward.read > 0 {
            counters.bytes_out.add(outward.read);
            counters.messages_out.add(outward.messages);
            handle.traffic.add_out(outward.read, outward.messages);
        }
        if inward.received || outward.read > 0 || inward.written || outward.written {
            handle.mark_moved();
        }
        if outward.written {
            handle.mark_unacked();
        }
        handle.set_client_unread(self.flows.inbound.gate().is_delayed() || self.flows.inbound.has_buffered());
        handle.set_server_delayed(self.flows.outbound.gate().is_delayed());
        handle.set_blocked(!self.flows.outbound.is_read() || !self.flows.inbound.is_read());
    }

    /// Whether the bytes that came show that the client is there. While its first message is awaited, only a frame
    /// does.
    fn is_activity(&self, inward: Progress) -> bool {
        inward.has_frame || self.handle.client_activity() != 0 || self.env.limits.liveness().first_message.is_none()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if self.is_silent {
            self.env.counters.no_longer_silent.add(1);
        }
        self.handle.mark_closed();
    }
}

/// The time to deliver the bytes that were buffered before a violation.
const DELIVERY: Duration = Duration::from_secs(5);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
