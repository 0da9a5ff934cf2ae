//! The relay of one open connection: one future, both directions, no buffer while idle.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::net::fault;
use crate::net::stream::Stream;
use crate::wire::frame::Sender;

use super::flow::{End, Flow, Moved};
use super::goodbye::{Goodbye, To};
use super::mode::RelayMode;
use super::pace::Pace;
use super::pulse::{Order, Pulse};
use super::tally::Tally;

/// Both legs of a tunnel and everything that was read of them before it opened.
#[derive(Debug)]
pub struct Tunnel {
    /// The client's leg.
    pub client: Stream,
    /// The server's leg.
    pub server: Stream,
    /// What the client sent behind its request.
    pub from_client: Vec<u8>,
    /// The server's 101, and what it sent behind it.
    pub from_server: Vec<u8>,
    /// How much of `from_server` is the 101.
    pub reply_size: usize,
}

/// A running relay. It is over when both sides are, or when it is told to end; dropping it closes both legs.
#[derive(Debug)]
pub struct Relay {
    client: Stream,
    server: Stream,
    inbound: Flow,
    outbound: Flow,
    pace: Arc<Pace>,
    /// The server's leg has been made ready for staying.
    stays: bool,
    pulse: Arc<Pulse>,
    tally: Arc<Tally>,
    listens: bool,
    is_silent: bool,
    /// Who began to end it, as the log and the metric name it.
    began: Option<Over>,
    /// A side that has ended behind bytes nobody takes, so that reading does not come to its end.
    hidden_end: Option<Over>,
    /// Only while it is ending: an open connection holds no timer.
    ending: Option<Box<Ending>>,
}

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The client ended it.
    Client,
    /// The server ended it.
    Upstream,
    /// No byte moved for the idle timeout.
    Idle,
    /// Its lifetime was over.
    Lifetime,
    /// One side had ended, and the other did not within `half_close`.
    HalfClose,
    /// The client took nothing of what waited for it.
    Stalled,
    /// The process was about to end.
    Drain,
    /// A socket failed otherwise: its peer vanished, say.
    Io,
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
    /// Why it is over.
    pub over: Over,
}

#[derive(Debug)]
struct Ending {
    /// When it is over whatever happens.
    until: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    /// How long until acknowledgements are looked at again; the kernel tells of them to nobody.
    look_again: Duration,
    goodbye: Option<Goodbye>,
}

impl Relay {
    /// A relay over `tunnel`. To `half_close` and `keepalive` of its pace it sees itself, to the rest the sweep does.
    pub fn new(tunnel: Tunnel, mode: RelayMode, pace: Arc<Pace>, pulse: Arc<Pulse>, tally: Arc<Tally>) -> Self {
        let inbound = Flow::new(Sender::Client, tunnel.from_client, 0, mode);
        let outbound = Flow::new(Sender::Server, tunnel.from_server, tunnel.reply_size, mode);
        tally.opened.add(1);
        let mut relay = Self {
            client: tunnel.client,
            server: tunnel.server,
            pace,
            stays: false,
            listens: false,
            is_silent: true,
            began: None,
            hidden_end: None,
            ending: None,
            pulse,
            tally,
            inbound,
            outbound,
        };
        let first = |flow: &Flow| Moved {
            read: flow.bytes,
            messages: flow.messages,
            written: false,
        };
        let (inward, outward) = (first(&relay.inbound), first(&relay.outbound));
        relay.count(inward, outward);
        relay
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        let inward = self.inbound.pump(&self.client, &self.server, cx);
        // Whoever could not be written to was reset, and the error that said so is taken: reading shows a mere end.
        self.outbound.source_was_reset |= self.inbound.sink_end.is_some();
        let outward = self.outbound.pump(&self.server, &self.client, cx);
        self.count(inward, outward);
        self.pass_ends_on();
        if self.outbound.sink_end.is_some() && !self.inbound.source_was_reset {
            self.inbound.source_was_reset = true;
            let more = self.inbound.pump(&self.client, &self.server, cx);
            self.count(more, Moved::default());
            self.pass_ends_on();
        }
        self.note_beginning_of_end();
        let Some(began) = self.began else { return Poll::Pending };
        self.poll_ended(began, cx)
    }

    /// Passes an end on, unless both sides have ended: then the close that follows does it.
    fn pass_ends_on(&mut self) {
        let is_all = self.inbound.is_done && self.outbound.is_done;
        for (flow, sink) in [(&mut self.inbound, &self.server), (&mut self.outbound, &self.client)] {
            if std::mem::take(&mut flow.owes_end) && !is_all {
                sink.shutdown_write();
            }
        }
    }

    /// One side has ended, or is about to: waits for the other, for acknowledgements, or for `half_close`.
    fn poll_ended(&mut self, began: Over, cx: &mut Context<'_>) -> Poll<Over> {
        let (client_died, server_died) = (self.client_died(), self.server_died());
        let mut looks_again = false;
        match (client_died, server_died) {
            (true, true) => return Poll::Ready(began),
            (true, false) if self.inbound.is_done => {
                if self.server.is_acknowledged() {
                    self.server.reset_on_close();
                    return Poll::Ready(began);
                }
                looks_again = true;
            }
            (false, true) if self.outbound.is_done => {
                if self.client.is_acknowledged() {
                    self.client.reset_on_close();
                    return Poll::Ready(began);
                }
                looks_again = true;
            }
            (false, false) if self.inbound.is_done && self.outbound.is_done => return Poll::Ready(began),
            _ => {}
        }
        if !self.has_ended() {
            return Poll::Pending;
        }
        let half_close = self.pace.half_close;
        let ending = self.ending.get_or_insert_with(|| Box::new(Ending::new(half_close)));
        if ending.poll_until(looks_again, cx).is_pending() {
            return Poll::Pending;
        }
        // Whoever is denied bytes must not take the end for an orderly one.
        if client_died || self.inbound.holds() {
            self.server.reset_on_close();
        }
        if server_died || self.outbound.holds() {
            self.client.reset_on_close();
        }
        Poll::Ready(Over::HalfClose)
    }

    /// Whether a side has really ended, and not only announced that it will.
    fn has_ended(&self) -> bool {
        let ended = |flow: &Flow| flow.source_end.is_some() || flow.sink_end.is_some();
        ended(&self.inbound) || ended(&self.outbound) || self.hidden_end.is_some()
    }

    /// Asked for by the sweep: what only system calls tell.
    fn look(&mut self) {
        let unacknowledged = u64::from(self.client.unacknowledged());
        let took = self.outbound.taken().saturating_sub(unacknowledged);
        self.pulse.settle(took, unacknowledged > 0 || self.outbound.holds());
        if !std::mem::replace(&mut self.stays, true) {
            self.server.prepare_to_stay(self.pace.keepalive);
        }
        self.inbound.look_at_pipe();
        self.outbound.look_at_pipe();
        if self.inbound.holds() && self.client.has_ended() {
            self.hidden_end = Some(Over::Client);
        } else if self.outbound.holds() && self.server.has_ended() {
            self.hidden_end = Some(Over::Upstream);
        }
    }

    /// The first to end names the reason; a close frame counts as the beginning of its sender's end.
    fn note_beginning_of_end(&mut self) {
        if self.began.is_some() {
            return;
        }
        let dead = |end: End| end == End::TimedOut || end == End::Failed;
        self.began = if let Some(end) = self.inbound.source_end.or(self.outbound.sink_end) {
            Some(if !dead(end) {
                Over::Client
            } else if end == End::TimedOut && !self.client.is_acknowledged() {
                Over::Stalled
            } else {
                Over::Io
            })
        } else if let Some(end) = self.outbound.source_end.or(self.inbound.sink_end) {
            Some(if dead(end) { Over::Io } else { Over::Upstream })
        } else if self.inbound.scanner.saw_close() {
            Some(Over::Client)
        } else if self.outbound.scanner.saw_close() {
            Some(Over::Upstream)
        } else {
            self.hidden_end
        };
    }

    fn client_died(&self) -> bool {
        self.outbound.sink_end.is_some() || self.inbound.source_end.is_some_and(|end| end != End::Fin)
    }

    fn server_died(&self) -> bool {
        self.inbound.sink_end.is_some() || self.outbound.source_end.is_some_and(|end| end != End::Fin)
    }

    fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        let Some(ending) = self.ending.as_mut() else {
            return Poll::Pending;
        };
        let Some(goodbye) = &mut ending.goodbye else {
            return Poll::Pending;
        };
        fault::point("goodbye");
        let (over, code) = (goodbye.over, goodbye.code);
        let outward = goodbye
            .to_client
            .poll(&mut self.outbound, (&self.server, &self.client, To::Client), code, cx);
        let inward = goodbye
            .to_server
            .poll(&mut self.inbound, (&self.client, &self.server, To::Server), code, cx);
        let (is_said, is_over) = (goodbye.is_said(), goodbye.is_over());
        if is_said {
            ending.until.get_or_insert_with(|| Instant::now() + GOODBYE);
        }
        let is_late = ending.poll_until(false, cx).is_ready();
        self.count(inward, outward);
        if is_over || is_late {
            Poll::Ready(over)
        } else {
            Poll::Pending
        }
    }

    /// Begins to end, or ends at once.
    fn obey(&mut self, order: Order, cx: &mut Context<'_>) -> Option<Over> {
        match order {
            Order::Idle => self.say_goodbye(Over::Idle, GOING_AWAY, Some(GOODBYE)),
            Order::Lifetime => self.say_goodbye(Over::Lifetime, GOING_AWAY, Some(GOODBYE)),
            // However long a frame takes: whoever drains knows when it is time to cut it.
            Order::Drain => self.say_goodbye(Over::Drain, SERVICE_RESTART, None),
            Order::Stalled => {
                self.client.reset_on_close();
                return Some(Over::Stalled);
            }
            Order::Cut => {
                // Where no frame is unfinished there is still room for a word, should there have been no time for it before.
                self.say_goodbye(Over::Drain, SERVICE_RESTART, None);
                let _all_that_can_be_said = self.poll_goodbye(cx);
                self.client.shutdown_write();
                self.server.shutdown_write();
                return Some(Over::Drain);
            }
        }
        None
    }

    /// Begins a goodbye, unless one is under way.
    fn say_goodbye(&mut self, over: Over, code: u16, lasts: Option<Duration>) {
        if !self.says_goodbye() {
            let mut ending = Ending::new(lasts);
            ending.goodbye = Some(Goodbye::new(over, code));
            self.ending = Some(Box::new(ending));
        }
    }

    fn says_goodbye(&self) -> bool {
        self.ending.as_ref().is_some_and(|ending| ending.goodbye.is_some())
    }

    fn count(&mut self, inward: Moved, outward: Moved) {
        if inward.read > 0 {
            self.tally.bytes_in.add(inward.read);
            self.tally.messages_in.add(inward.messages);
            self.break_silence();
        }
        if outward.read > 0 {
            self.tally.bytes_out.add(outward.read);
            self.tally.messages_out.add(outward.messages);
        }
        if inward.read > 0 || outward.read > 0 || inward.written || outward.written {
            self.pulse.mark_moved();
        }
        if outward.written {
            self.pulse.mark_client_owes();
        }
        self.pulse
            .mark_bytes_wait(self.outbound.holds() || self.inbound.holds());
    }

    fn break_silence(&mut self) {
        if std::mem::take(&mut self.is_silent) {
            self.tally.no_longer_silent.add(1);
        }
    }

    fn totals(&self, over: Over) -> Totals {
        Totals {
            bytes_in: self.inbound.bytes,
            bytes_out: self.outbound.bytes,
            messages_in: self.inbound.messages,
            messages_out: self.outbound.messages,
            over,
        }
    }
}

impl Future for Relay {
    type Output = Totals;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Totals> {
        let relay = &mut *self;
        if !std::mem::replace(&mut relay.listens, true) {
            relay.pulse.listen(cx.waker());
        }
        if let Some(order) = relay.pulse.ordered()
            && let Some(over) = relay.obey(order, cx)
        {
            return Poll::Ready(relay.totals(over));
        }
        if relay.pulse.take_look() {
            relay.look();
        }
        let over = if relay.says_goodbye() {
            relay.poll_goodbye(cx)
        } else {
            relay.poll_open(cx)
        };
        over.map(|over| relay.totals(over))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.break_silence();
        self.pulse.mark_over();
    }
}

impl Ending {
    fn new(lasts: Option<Duration>) -> Self {
        let now = Instant::now();
        let until = lasts.and_then(|lasts| now.checked_add(lasts));
        let timer = Box::pin(tokio::time::sleep_until(until.unwrap_or(now)));
        Self {
            until,
            timer,
            look_again: FIRST_LOOK,
            goodbye: None,
        }
    }

    /// Ready when the time is over. With `looks_again` the task is woken before that, ever more rarely.
    fn poll_until(&mut self, looks_again: bool, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = Instant::now();
            if self.until.is_some_and(|until| until <= now) {
                return Poll::Ready(());
            }
            let next = match (self.until, looks_again) {
                (None, false) => return Poll::Pending,
                (Some(until), false) => until,
                (until, true) => {
                    self.look_again = (self.look_again * 2).min(RAREST_LOOK);
                    until.unwrap_or(now + self.look_again).min(now + self.look_again)
                }
            };
            if self.timer.deadline() != next {
                self.timer.as_mut().reset(next);
            }
            std::task::ready!(self.timer.as_mut().poll(cx));
            if looks_again {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }
}

/// 1001: the endpoint is going away (RFC 6455 section 7.4.1).
const GOING_AWAY: u16 = 1001;
/// 1012: the service restarts, come back (the registry of close codes of RFC 6455 section 11.7).
const SERVICE_RESTART: u16 = 1012;
/// With the sweep's quarter of a second, a connection that we end is gone within a second of its time.
const GOODBYE: Duration = Duration::from_millis(500);
const FIRST_LOOK: Duration = Duration::from_micros(500);
const RAREST_LOOK: Duration = Duration::from_millis(100);
