//! The relay of one open connection: both directions, no buffer while idle.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::limit::shares::Shares;
use crate::reason::close::CloseReason;
use crate::wire::ws::extensions::Extensions;
use crate::wire::ws::header::Sender;
use crate::wire::ws::scanner::FrameScanner;

use super::closing::Closing;
use super::conn_limits::ConnLimits;
use super::counters::{MessageLimit, RelayCounters};
use super::flow::{Flow, Progress, StreamEnd};
use super::handle::{Command, ConnHandle, PingDelivery, SILENCE};
use super::inject::InjectedFrames;
use super::legs::Legs;
use super::mode::RelayMode;
use super::policer::{FramePolicer, RelayEnv};

/// Everything that was read of both legs before the tunnel opened.
#[derive(Debug)]
pub struct EarlyBytes {
    /// What the client sent behind its request.
    pub from_client: Vec<u8>,
    /// The server's 101, and what it sent behind it.
    pub from_server: Vec<u8>,
    /// How much of `from_server` is the 101.
    pub reply_size: usize,
    /// Which extensions it agrees on.
    pub extensions: Extensions,
}

/// What a relay is held to, and who looks at it.
#[derive(Debug)]
pub struct RelayParams {
    /// The way bytes take.
    pub mode: RelayMode,
    /// What the connection is held to.
    pub limits: Arc<ConnLimits>,
    /// What all connections of its client share, where its terms have them share anything.
    pub shares: Option<Arc<Shares>>,
    /// What others see of it.
    pub handle: Arc<ConnHandle>,
    /// Where it counts.
    pub counters: Arc<RelayCounters>,
}

/// What a relay knows of its connection, but for the legs themselves. It is over when both sides are, or when it is told to
/// end; whoever drops it closes the legs first.
#[derive(Debug)]
pub struct Relay {
    pub(super) inbound: Flow,
    pub(super) outbound: Flow,
    pub(super) env: RelayEnv,
    /// Frames of ours that wait for their place between two of the server's.
    pub(super) injected: Option<Box<InjectedFrames>>,
    /// The server's leg has been made ready for staying.
    is_prepared: bool,
    pub(super) handle: Arc<ConnHandle>,
    is_waker_set: bool,
    is_silent: bool,
    /// Who began to end it, as the log and the metric name it.
    cause: Option<CloseReason>,
    /// Only while it is ending: an open connection holds no timer.
    pub(super) closing: Option<Box<Closing>>,
}

/// What a connection moved in all, and why it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// Messages from the client.
    pub messages_in: u64,
    /// Messages to the client.
    pub messages_out: u64,
    /// How often a limit on messages was hit, and the last one that was.
    pub limit_hits: u32,
    /// See `limit_hits`.
    pub last_limit: Option<MessageLimit>,
    /// Messages from the client that looked like heartbeats, where its messages are looked at.
    pub heartbeats: u32,
    /// Why it is over.
    pub reason: CloseReason,
    /// It was closed as a ghost because another connection of the same client needed its slot.
    pub was_replaced: bool,
}

impl Relay {
    /// One that begins with `early`. To `half_close` and `keepalive` of its pace it sees itself, to the rest the sweep does.
    pub fn new(early: EarlyBytes, params: RelayParams) -> Self {
        let RelayParams {
            mode,
            limits,
            shares,
            handle,
            counters,
        } = params;
        let client_policer = limits.polices_client().then(|| FramePolicer::new(Sender::Client));
        let server_policer = limits.polices_server().then(|| FramePolicer::new(Sender::Server));
        let has_frame = !early.from_client.is_empty();
        let from_client = if limits.is_strict() {
            FrameScanner::strict(Sender::Client, early.extensions)
        } else {
            FrameScanner::new(Sender::Client)
        };
        let inbound = Flow::new(from_client, early.from_client, 0, mode, client_policer);
        let outbound = Flow::new(
            FrameScanner::new(Sender::Server),
            early.from_server,
            early.reply_size,
            mode,
            server_policer,
        );
        counters.opened.add(1);
        let mut relay = Self {
            env: RelayEnv {
                limits,
                shares,
                counters,
            },
            injected: None,
            is_prepared: false,
            is_waker_set: false,
            is_silent: true,
            cause: None,
            closing: None,
            handle,
            inbound,
            outbound,
        };
        let first = |flow: &Flow, received| Progress {
            read: flow.bytes,
            messages: flow.messages,
            frames: 0,
            received,
            has_frame: false,
            written: false,
        };
        let (inward, outward) = (first(&relay.inbound, has_frame), first(&relay.outbound, false));
        relay.count(inward, outward);
        relay
    }

    /// Goes on for as far as it can.
    pub fn poll(&mut self, legs: &Legs, cx: &mut Context<'_>) -> Poll<Totals> {
        if !std::mem::replace(&mut self.is_waker_set, true) {
            self.handle.set_waker(cx.waker());
        }
        if let Some(order) = self.handle.command()
            && let Some(cause) = self.begin_close(order, legs, cx)
        {
            return Poll::Ready(Totals {
                was_replaced: order == Command::Replace,
                ..self.totals(cause)
            });
        }
        if self.handle.take_probe() {
            self.look(legs);
        }
        let cause = if self.is_closing() {
            self.poll_handshake(legs, cx)
        } else {
            self.poll_open(legs, cx)
        };
        cause.map(|cause| self.totals(cause))
    }

    /// Whether it was told to rest, and can: nothing is under way but the next word of either side.
    pub fn take_park(&self) -> bool {
        self.handle.wants_park()
            && self.cause.is_none()
            && self.closing.is_none()
            && self.injected.is_none()
            && self.inbound.is_idle()
            && self.outbound.is_idle()
            && !self.handle.has_unacked()
            && self.handle.ping_delivery() == PingDelivery::None
            // Last: who can't yet has not forgotten it when it can.
            && self.handle.take_park()
    }

    /// Has `waker` woken for what it is told from here on, until it is polled again. False where it was told something
    /// before that.
    pub fn set_parked_waker(&mut self, waker: &Waker) -> bool {
        self.is_waker_set = false;
        self.handle.set_waker(waker);
        !self.handle.has_request()
    }

    /// What it moved in all, where a socket of it is lost to an error of our own machine.
    pub fn totals_on_io_error(&self) -> Totals {
        self.totals(CloseReason::Io)
    }

    fn poll_open(&mut self, legs: &Legs, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let inward = self.inbound.pump(&legs.client, &legs.server, &self.env, cx);
        // Whoever could not be written to was reset, and the error that said so is taken: reading shows a mere end.
        self.outbound.early_end = self.inbound.sink_end.or(self.outbound.early_end);
        let outward = self.outbound.pump(&legs.server, &legs.client, &self.env, cx);
        self.count(inward, outward);
        self.forward_ends(legs);
        if self.outbound.sink_end.is_some() && !self.inbound.has_died() {
            self.inbound.early_end = self.outbound.sink_end;
            let more = self.inbound.pump(&legs.client, &legs.server, &self.env, cx);
            self.count(more, Progress::default());
            self.forward_ends(legs);
        }
        if let Some(violation) = self.inbound.violation() {
            self.close_for(violation);
            return self.poll_handshake(legs, cx);
        }
        self.inject(legs, cx);
        self.note_close_cause(legs);
        let Some(cause) = self.cause else { return Poll::Pending };
        self.poll_ended(legs, cause, cx)
    }

    /// Passes an end on, unless both sides have ended: then the close that follows does it.
    fn forward_ends(&mut self, legs: &Legs) {
        let is_all = self.inbound.is_done && self.outbound.is_done;
        for (flow, sink) in [(&mut self.inbound, &legs.server), (&mut self.outbound, &legs.client)] {
            if std::mem::take(&mut flow.owes_fin) && !is_all {
                sink.shutdown_write();
            }
        }
    }

    /// Asked for by the sweep: what only system calls tell.
    fn look(&mut self, legs: &Legs) {
        let unacknowledged = u64::from(legs.client.unacknowledged());
        let took = self.outbound.bytes_accepted().saturating_sub(unacknowledged);
        self.handle
            .record_acked(took, unacknowledged > 0 || self.outbound.has_buffered());
        let is_asked = self.handle.ping_delivery() == PingDelivery::InFlight;
        self.handle
            .set_host_silent(is_asked && legs.client.is_unanswered_for(SILENCE));
        if !std::mem::replace(&mut self.is_prepared, true) {
            legs.server.set_lasting_options(self.env.limits.timeouts.keepalive);
        }
        self.inbound.check_pipe();
        self.outbound.check_pipe();
        self.inbound.probe_for_end(&legs.client);
        self.outbound.probe_for_end(&legs.server);
    }

    /// The first to end names the reason; a close frame counts as the beginning of its sender's end.
    fn note_close_cause(&mut self, legs: &Legs) {
        if self.cause.is_some() {
            return;
        }
        let dead = |end: StreamEnd| end == StreamEnd::TimedOut || end == StreamEnd::Failed;
        self.cause = if let Some(end) = self.inbound.ended().or(self.outbound.sink_end) {
            Some(if !dead(end) {
                CloseReason::Client
            } else if end == StreamEnd::TimedOut && !legs.client.is_acknowledged() {
                CloseReason::Stalled
            } else {
                CloseReason::Io
            })
        } else if let Some(end) = self.outbound.ended().or(self.inbound.sink_end) {
            Some(if dead(end) {
                CloseReason::Io
            } else {
                CloseReason::Upstream
            })
        } else if self.inbound.scanner.saw_close() {
            Some(CloseReason::Client)
        } else if self.outbound.scanner.saw_close() {
            Some(CloseReason::Upstream)
        } else {
            None
        };
    }

    /// Whether the server has ended, be it behind bytes that the client has yet to take: it has this connection no more.
    pub fn server_has_ended(&self) -> bool {
        self.outbound.ended().is_some() || self.inbound.sink_end.is_some()
    }

    pub(super) fn client_died(&self) -> bool {
        self.outbound.sink_end.is_some() || self.inbound.has_died()
    }

    pub(super) fn server_died(&self) -> bool {
        self.inbound.sink_end.is_some() || self.outbound.has_died()
    }

    pub(super) fn count(&mut self, inward: Progress, outward: Progress) {
        if inward.read > 0 {
            self.env.counters.bytes_in.add(inward.read);
            self.env.counters.messages_in.add(inward.messages);
        }
        if inward.received {
            self.end_silence();
        }
        if (inward.received || inward.has_frame) && self.env.limits.pings() && self.is_activity(inward) {
            self.handle.mark_client_activity();
        }
        if outward.read > 0 {
            self.env.counters.bytes_out.add(outward.read);
            self.env.counters.messages_out.add(outward.messages);
        }
        if inward.received || outward.read > 0 || inward.written || outward.written {
            self.handle.mark_moved();
        }
        if outward.written {
            self.handle.mark_unacked();
        }
        self.handle
            .set_client_unread(self.inbound.is_delayed() || self.inbound.has_buffered());
        self.handle.set_server_delayed(self.outbound.is_delayed());
        self.handle
            .set_blocked(!self.outbound.is_read() || !self.inbound.is_read());
    }

    /// Whether what came tells that the client is there: where a first message is awaited of it, no byte does before a frame.
    fn is_activity(&self, inward: Progress) -> bool {
        inward.has_frame || self.handle.client_activity() != 0 || self.env.limits.liveness().first_message.is_none()
    }

    fn end_silence(&mut self) {
        if std::mem::take(&mut self.is_silent) {
            self.env.counters.no_longer_silent.add(1);
        }
    }

    fn totals(&self, cause: CloseReason) -> Totals {
        let policers = || {
            [&self.inbound, &self.outbound]
                .into_iter()
                .filter_map(|flow| flow.policer())
        };
        Totals {
            bytes_in: self.inbound.bytes,
            bytes_out: self.outbound.bytes,
            messages_in: self.inbound.messages,
            messages_out: self.outbound.messages,
            limit_hits: policers().fold(0, |hits, policer| policer.hits.saturating_add(hits)),
            last_limit: policers().find_map(|policer| policer.last_hit),
            heartbeats: self.inbound.policer().map_or(0, FramePolicer::heartbeats),
            reason: cause,
            was_replaced: false,
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.end_silence();
        self.handle.mark_closed();
    }
}
