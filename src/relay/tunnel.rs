//! The relay of one open connection: both directions, no buffer while idle.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::limit::shares::Shares;
use crate::reason::close::CloseReason;
use crate::wire::ws::extensions::Extensions;
use crate::wire::ws::header::Sender;
use crate::wire::ws::scanner::FrameScanner;

use super::aside::Aside;
use super::ending::Ending;
use super::flow::{End, Flow, Moved};
use super::judge::{Judge, Law};
use super::legs::Legs;
use super::mode::RelayMode;
use super::pulse::{Asked, Order, Pulse, SILENCE};
use super::tally::{MessageLimit, Tally};
use super::terms::Terms;

/// Everything that was read of both legs before the tunnel opened.
#[derive(Debug)]
pub struct Opening {
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
pub struct Conditions {
    /// The way bytes take.
    pub mode: RelayMode,
    /// What the connection is held to.
    pub terms: Arc<Terms>,
    /// What all connections of its client share, where its terms have them share anything.
    pub shares: Option<Arc<Shares>>,
    /// What others see of it.
    pub pulse: Arc<Pulse>,
    /// Where it counts.
    pub tally: Arc<Tally>,
}

/// What a relay knows of its connection, but for the legs themselves. It is over when both sides are, or when it is told to
/// end; whoever drops it closes the legs first.
#[derive(Debug)]
pub struct Relay {
    pub(super) inbound: Flow,
    pub(super) outbound: Flow,
    pub(super) law: Law,
    /// Frames of ours that wait for their place between two of the server's.
    pub(super) aside: Option<Box<Aside>>,
    /// The server's leg has been made ready for staying.
    stays: bool,
    pub(super) pulse: Arc<Pulse>,
    listens: bool,
    is_silent: bool,
    /// Who began to end it, as the log and the metric name it.
    began: Option<CloseReason>,
    /// Only while it is ending: an open connection holds no timer.
    pub(super) ending: Option<Box<Ending>>,
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
    pub over: CloseReason,
    /// It was closed as a ghost because another connection of the same client needed its slot.
    pub was_replaced: bool,
}

impl Relay {
    /// One that begins with `opening`. To `half_close` and `keepalive` of its pace it sees itself, to the rest the sweep does.
    pub fn new(opening: Opening, conditions: Conditions) -> Self {
        let Conditions {
            mode,
            terms,
            shares,
            pulse,
            tally,
        } = conditions;
        let judges_client = terms.limits_client().then(|| Judge::new(Sender::Client));
        let judges_server = terms.judges_outbound().then(|| Judge::new(Sender::Server));
        let has_spoken = !opening.from_client.is_empty();
        let from_client = if terms.is_strict() {
            FrameScanner::strict(Sender::Client, opening.extensions)
        } else {
            FrameScanner::new(Sender::Client)
        };
        let inbound = Flow::new(from_client, opening.from_client, 0, mode, judges_client);
        let outbound = Flow::new(
            FrameScanner::new(Sender::Server),
            opening.from_server,
            opening.reply_size,
            mode,
            judges_server,
        );
        tally.opened.add(1);
        let mut relay = Self {
            law: Law { terms, shares, tally },
            aside: None,
            stays: false,
            listens: false,
            is_silent: true,
            began: None,
            ending: None,
            pulse,
            inbound,
            outbound,
        };
        let first = |flow: &Flow, heard| Moved {
            read: flow.bytes,
            messages: flow.messages,
            frames: 0,
            heard,
            spoken: false,
            written: false,
        };
        let (inward, outward) = (first(&relay.inbound, has_spoken), first(&relay.outbound, false));
        relay.count(inward, outward);
        relay
    }

    /// Goes on for as far as it can.
    pub fn poll(&mut self, legs: &Legs, cx: &mut Context<'_>) -> Poll<Totals> {
        if !std::mem::replace(&mut self.listens, true) {
            self.pulse.listen(cx.waker());
        }
        if let Some(order) = self.pulse.ordered()
            && let Some(over) = self.obey(order, legs, cx)
        {
            return Poll::Ready(Totals {
                was_replaced: order == Order::Replace,
                ..self.totals(over)
            });
        }
        if self.pulse.take_look() {
            self.look(legs);
        }
        let over = if self.says_goodbye() {
            self.poll_goodbye(legs, cx)
        } else {
            self.poll_open(legs, cx)
        };
        over.map(|over| self.totals(over))
    }

    /// Whether it was told to rest, and can: nothing is under way but the next word of either side.
    pub fn takes_rest(&self) -> bool {
        self.pulse.is_told_to_rest()
            && self.began.is_none()
            && self.ending.is_none()
            && self.aside.is_none()
            && self.inbound.is_at_rest()
            && self.outbound.is_at_rest()
            && !self.pulse.client_owes()
            && self.pulse.asked() == Asked::Nothing
            // Last: who can't yet has not forgotten it when it can.
            && self.pulse.take_rest()
    }

    /// Has `waker` woken for what it is told from here on, until it is polled again. False where it was told something
    /// before that.
    pub fn be_called_by(&mut self, waker: &Waker) -> bool {
        self.listens = false;
        self.pulse.listen(waker);
        !self.pulse.is_told()
    }

    /// What it moved in all, where a socket of it is lost to an error of our own machine.
    pub fn lost(&self) -> Totals {
        self.totals(CloseReason::Io)
    }

    fn poll_open(&mut self, legs: &Legs, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let inward = self.inbound.pump(&legs.client, &legs.server, &self.law, cx);
        // Whoever could not be written to was reset, and the error that said so is taken: reading shows a mere end.
        self.outbound.end_ahead = self.inbound.sink_end.or(self.outbound.end_ahead);
        let outward = self.outbound.pump(&legs.server, &legs.client, &self.law, cx);
        self.count(inward, outward);
        self.pass_ends_on(legs);
        if self.outbound.sink_end.is_some() && !self.inbound.has_died() {
            self.inbound.end_ahead = self.outbound.sink_end;
            let more = self.inbound.pump(&legs.client, &legs.server, &self.law, cx);
            self.count(more, Moved::default());
            self.pass_ends_on(legs);
        }
        if let Some(offence) = self.inbound.offence() {
            self.end_for(offence);
            return self.poll_goodbye(legs, cx);
        }
        self.speak_aside(legs, cx);
        self.note_beginning_of_end(legs);
        let Some(began) = self.began else { return Poll::Pending };
        self.poll_ends(legs, began, cx)
    }

    /// Passes an end on, unless both sides have ended: then the close that follows does it.
    fn pass_ends_on(&mut self, legs: &Legs) {
        let is_all = self.inbound.is_done && self.outbound.is_done;
        for (flow, sink) in [(&mut self.inbound, &legs.server), (&mut self.outbound, &legs.client)] {
            if std::mem::take(&mut flow.owes_end) && !is_all {
                sink.shutdown_write();
            }
        }
    }

    /// Asked for by the sweep: what only system calls tell.
    fn look(&mut self, legs: &Legs) {
        let unacknowledged = u64::from(legs.client.unacknowledged());
        let took = self.outbound.taken().saturating_sub(unacknowledged);
        self.pulse.settle(took, unacknowledged > 0 || self.outbound.holds());
        let is_asked = self.pulse.asked() == Asked::OnItsWay;
        self.pulse
            .mark_host_silent(is_asked && legs.client.is_unanswered_for(SILENCE));
        if !std::mem::replace(&mut self.stays, true) {
            legs.server.prepare_to_stay(self.law.terms.pace.keepalive);
        }
        self.inbound.look_at_pipe();
        self.outbound.look_at_pipe();
        self.inbound.look_ahead_for_end(&legs.client);
        self.outbound.look_ahead_for_end(&legs.server);
    }

    /// The first to end names the reason; a close frame counts as the beginning of its sender's end.
    fn note_beginning_of_end(&mut self, legs: &Legs) {
        if self.began.is_some() {
            return;
        }
        let dead = |end: End| end == End::TimedOut || end == End::Failed;
        self.began = if let Some(end) = self.inbound.ended().or(self.outbound.sink_end) {
            Some(if !dead(end) {
                CloseReason::Client
            } else if end == End::TimedOut && !legs.client.is_acknowledged() {
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

    pub(super) fn count(&mut self, inward: Moved, outward: Moved) {
        if inward.read > 0 {
            self.law.tally.bytes_in.add(inward.read);
            self.law.tally.messages_in.add(inward.messages);
        }
        if inward.heard {
            self.break_silence();
        }
        if (inward.heard || inward.spoken) && self.law.terms.asks() && self.is_word(inward) {
            self.pulse.mark_heard();
        }
        if outward.read > 0 {
            self.law.tally.bytes_out.add(outward.read);
            self.law.tally.messages_out.add(outward.messages);
        }
        if inward.heard || outward.read > 0 || inward.written || outward.written {
            self.pulse.mark_moved();
        }
        if outward.written {
            self.pulse.mark_client_owes();
        }
        self.pulse
            .mark_unread(self.inbound.is_delayed() || self.inbound.holds());
        self.pulse.mark_delayed(self.outbound.is_delayed());
        self.pulse
            .mark_blocked(!self.outbound.is_read() || !self.inbound.is_read());
    }

    /// Whether what came tells that the client is there: where a first message is awaited of it, no byte does before a frame.
    fn is_word(&self, inward: Moved) -> bool {
        inward.spoken || self.pulse.heard() != 0 || self.law.terms.liveness().first_message.is_none()
    }

    fn break_silence(&mut self) {
        if std::mem::take(&mut self.is_silent) {
            self.law.tally.no_longer_silent.add(1);
        }
    }

    fn totals(&self, over: CloseReason) -> Totals {
        let judges = || {
            [&self.inbound, &self.outbound]
                .into_iter()
                .filter_map(|flow| flow.judged_by())
        };
        Totals {
            bytes_in: self.inbound.bytes,
            bytes_out: self.outbound.bytes,
            messages_in: self.inbound.messages,
            messages_out: self.outbound.messages,
            limit_hits: judges().fold(0, |hits, judge| judge.hits.saturating_add(hits)),
            last_limit: judges().find_map(|judge| judge.last_hit),
            heartbeats: self.inbound.judged_by().map_or(0, Judge::heartbeats),
            over,
            was_replaced: false,
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.break_silence();
        self.pulse.mark_over();
    }
}
