//! The end of a connection: what follows when a side has ended it, and how it is ended from our side, for an order or for
//! what its client has done.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use crate::net::fault;
use crate::reason::close::CloseReason;

use super::clock::Clock;
use super::close_handshake::{CloseHandshake, CloseState};
use super::flow::Flow;
use super::handle::Command;
use super::legs::Legs;
use super::policer::Violation;
use super::relay::Relay;
use super::timeouts::Timeouts;

/// How a connection is coming to its end. Its times are by the clock that peers are judged by.
#[derive(Debug)]
pub(super) struct Closing {
    /// What is waited for since a side has ended.
    stage: Option<CloseStage>,
    /// When that is over whatever happens.
    stage_until: Option<Instant>,
    /// When the client's end is so long ago as `half_close`, once it has ended.
    half_close_until: Option<Instant>,
    /// When the goodbye is.
    until: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    /// How long until acknowledgements are looked at again; the kernel tells of them to nobody.
    retry_after: Duration,
    handshake: Option<CloseHandshake>,
    /// The goodbye is said, both ways.
    is_sent: bool,
}

/// What is waited for when a side has ended. A later one follows an earlier one, and never the other way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum CloseStage {
    /// The client has ended; the server may finish. That, and what follows, is over `half_close` after the client's end.
    Finish,
    /// The server has ended; what it sent is to be taken by the client, within `stalled`.
    Delivery,
    /// The client has taken all of it, and may answer.
    Answer,
    /// The client has died; what it sent is to be taken by the server, which must do so by now.
    Remains,
    /// The server's host has yet to acknowledge all of that, so that a reset does not overtake it.
    Acknowledgement,
}

impl Relay {
    /// What follows when a side has ended. Ready with why the connection is over: `over`, unless a time ran out that says more.
    pub(super) fn poll_ended(&mut self, legs: &Legs, cause: CloseReason, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let (client_died, server_died) = (self.client_died(), self.server_died());
        if client_died && server_died || !client_died && !server_died && self.inbound.is_done && self.outbound.is_done {
            return Poll::Ready(cause);
        }
        let Some(stage) = self.stage(legs) else {
            return self.closing.as_mut().map_or(Poll::Pending, |closing| {
                std::task::ready!(closing.poll_deadlines(false, &self.env.limits.clock, cx));
                Poll::Ready(cause)
            });
        };
        if stage == CloseStage::Answer && server_died {
            legs.client.reset_on_close();
            return Poll::Ready(cause);
        }
        if stage == CloseStage::Acknowledgement && legs.server.is_acknowledged() {
            self.reset_undelivered(legs);
            return Poll::Ready(cause);
        }
        // Nobody tells of acknowledgements.
        let polls_acks =
            stage == CloseStage::Acknowledgement || stage == CloseStage::Delivery && self.is_all_sent_to_client();
        let client_has_ended = self.inbound.ended().is_some();
        let closing = self.closing.get_or_insert_with(Closing::new);
        let clock = &self.env.limits.clock;
        closing.enter(stage, client_has_ended, self.env.limits.timeouts, clock);
        std::task::ready!(closing.poll_deadlines(polls_acks, clock, cx));
        let now = clock.now();
        let is_past = |until: Option<Instant>| until.is_some_and(|until| until <= now);
        let (is_late, is_half_closed) = (is_past(closing.stage_until), is_past(closing.half_close_until));
        self.reset_undelivered(legs);
        Poll::Ready(match stage {
            CloseStage::Delivery if is_late => {
                legs.client.reset_on_close();
                CloseReason::Stalled
            }
            CloseStage::Finish | CloseStage::Delivery if is_half_closed => CloseReason::HalfClose,
            _ => cause,
        })
    }

    /// Whoever is denied bytes must not take the end for an orderly one.
    fn reset_undelivered(&self, legs: &Legs) {
        let denies = |flow: &Flow, has_died: bool, has_heard_goodbye: bool| {
            has_died && !has_heard_goodbye || flow.has_buffered() || flow.is_delayed()
        };
        let has_heard = |farewell: fn(&CloseHandshake) -> CloseState| {
            self.handshake().is_some_and(|handshake| farewell(handshake).is_sent())
        };
        if denies(
            &self.inbound,
            self.client_died(),
            has_heard(|handshake| handshake.to_server),
        ) {
            legs.server.reset_on_close();
        }
        if denies(
            &self.outbound,
            self.server_died(),
            has_heard(|handshake| handshake.to_client),
        ) {
            legs.client.reset_on_close();
        }
    }

    /// What is to be waited for; `None` while neither side has ended, whatever it has announced.
    fn stage(&self, legs: &Legs) -> Option<CloseStage> {
        let before = self.closing.as_ref().and_then(|closing| closing.stage);
        let now = if self.client_died() {
            Some(if self.is_all_sent_to_server() {
                CloseStage::Acknowledgement
            } else {
                CloseStage::Remains
            })
        } else if self.server_has_ended() {
            let is_delivered = || self.is_all_sent_to_client() && legs.client.is_acknowledged();
            Some(if before == Some(CloseStage::Answer) || is_delivered() {
                CloseStage::Answer
            } else {
                CloseStage::Delivery
            })
        } else {
            self.inbound.ended().map(|_| CloseStage::Finish)
        };
        now.max(before)
    }

    fn is_all_sent_to_client(&self) -> bool {
        self.outbound.is_done || self.handshake().is_some_and(|handshake| handshake.to_client.is_sent())
    }

    fn is_all_sent_to_server(&self) -> bool {
        self.inbound.is_done || self.handshake().is_some_and(|handshake| handshake.to_server.is_sent())
    }

    fn handshake(&self) -> Option<&CloseHandshake> {
        self.closing.as_ref()?.handshake.as_ref()
    }

    pub(super) fn poll_handshake(&mut self, legs: &Legs, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let Some(closing) = self.closing.as_mut() else {
            return Poll::Pending;
        };
        let Some(handshake) = &mut closing.handshake else {
            return Poll::Pending;
        };
        fault::point("goodbye");
        // Nothing of what they hold up passes any more.
        self.inbound.leave_line();
        self.outbound.leave_line();
        let cause = handshake.cause;
        let (to_client, to_server) = ((&legs.server, &legs.client), (&legs.client, &legs.server));
        let outward = handshake.to_client.poll(
            &mut self.outbound,
            to_client,
            &mut handshake.frames_to_client,
            &self.env,
            cx,
        );
        let inward = handshake.to_server.poll(
            &mut self.inbound,
            to_server,
            &mut handshake.frames_to_server,
            &self.env,
            cx,
        );
        if handshake.frames_to_client.take_end(self.inbound.has_answered()) {
            legs.client.shutdown_write();
        }
        let (is_sent, is_finished) = (handshake.is_sent(), handshake.is_finished());
        if is_sent && !std::mem::replace(&mut closing.is_sent, true) {
            let soon = self.env.limits.clock.now() + GOODBYE;
            closing.until = Some(closing.until.map_or(soon, |until| until.min(soon)));
        }
        self.count(inward, outward);
        if is_finished {
            return Poll::Ready(cause);
        }
        self.poll_ended(legs, cause, cx).map(|_why_we_began| cause)
    }

    /// Begins to end, or ends at once.
    pub(super) fn begin_close(&mut self, order: Command, legs: &Legs, cx: &mut Context<'_>) -> Option<CloseReason> {
        match order {
            Command::Close(reason) => match close_frames(reason) {
                // However long a frame takes: whoever drains knows when it is time to cut it.
                Some(handshake) if reason == CloseReason::Drain => self.start_handshake(handshake, None),
                Some(handshake) => self.start_handshake(handshake, Some(GOODBYE)),
                None => {
                    legs.client.reset_on_close();
                    return Some(reason);
                }
            },
            Command::Replace => {
                if let Some(handshake) = close_frames(CloseReason::Ghost) {
                    self.start_handshake(handshake, Some(GOODBYE));
                }
                let _all_that_can_be_said = self.poll_handshake(legs, cx);
                legs.server.shutdown_write();
                legs.client.reset_on_close();
                return Some(CloseReason::Ghost);
            }
            Command::Cut => {
                // Where no frame is unfinished there is still room for a word, should there have been no time for it before.
                if let Some(handshake) = close_frames(CloseReason::Drain) {
                    self.start_handshake(handshake, None);
                }
                let _all_that_can_be_said = self.poll_handshake(legs, cx);
                legs.client.shutdown_write();
                legs.server.shutdown_write();
                return Some(CloseReason::Drain);
            }
        }
        None
    }

    /// Begins a goodbye, unless one is under way.
    pub(super) fn start_handshake(&mut self, handshake: CloseHandshake, lasts: Option<Duration>) {
        if !self.is_closing() {
            let closing = self.closing.get_or_insert_with(Closing::new);
            closing.handshake = Some(handshake);
            closing.until = lasts.and_then(|lasts| self.env.limits.clock.now().checked_add(lasts));
        }
    }

    /// Ends the connection for what its client has done. What waits for either side is delivered first, if it takes it.
    pub(super) fn close_for(&mut self, violation: Violation) {
        let (reason, fault) = match violation {
            Violation::Rate(..) => (CloseReason::MessageRate, None),
            Violation::Size => (CloseReason::MessageSize, None),
            Violation::Fault(fault) => (CloseReason::Protocol, Some(fault.to_string())),
        };
        let notice = match violation {
            // Who was delayed before has heard it.
            Violation::Rate(_, lacks) if !self.inbound.has_delayed() => self.notice(lacks),
            Violation::Rate(..) | Violation::Size | Violation::Fault(_) => None,
        };
        // Each of the three has a close frame: a test of theirs says so.
        if let Some(frame) = reason.frame() {
            let text = fault.as_deref().unwrap_or(frame.text);
            let handshake = CloseHandshake::new(reason, frame.code, text, notice.unwrap_or_default());
            self.start_handshake(handshake, Some(FAREWELL));
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.as_ref().is_some_and(|closing| closing.handshake.is_some())
    }
}

impl Closing {
    fn new() -> Box<Self> {
        Box::new(Self {
            stage: None,
            stage_until: None,
            half_close_until: None,
            until: None,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            retry_after: FIRST_LOOK,
            handshake: None,
            is_sent: false,
        })
    }

    /// Has the times begin that begin with this stage, and with the client's end.
    fn enter(&mut self, stage: CloseStage, client_has_ended: bool, timeouts: Timeouts, clock: &Clock) {
        let after = |lasts: Option<Duration>| lasts.and_then(|lasts| clock.now().checked_add(lasts));
        if self.stage < Some(stage) {
            self.stage = Some(stage);
            self.stage_until = after(match stage {
                CloseStage::Finish => None,
                CloseStage::Delivery => timeouts.stalled,
                CloseStage::Answer | CloseStage::Acknowledgement => Some(ANSWER),
                CloseStage::Remains => Some(REMAINS),
            });
        }
        if client_has_ended && self.half_close_until.is_none() {
            self.half_close_until = after(timeouts.half_close);
        }
    }

    /// Ready when any of its times is over. With `looks_again` the task is woken before that, ever more rarely.
    fn poll_deadlines(&mut self, polls_acks: bool, clock: &Clock, cx: &mut Context<'_>) -> Poll<()> {
        let times = [self.until, self.stage_until, self.half_close_until];
        let until = times.into_iter().flatten().min();
        loop {
            let now = clock.now();
            if until.is_some_and(|until| until <= now) {
                return Poll::Ready(());
            }
            let next = match (until, polls_acks) {
                (None, false) => return Poll::Pending,
                (Some(until), false) => until,
                (until, true) => {
                    self.retry_after = (self.retry_after * 2).min(RAREST_LOOK);
                    until.unwrap_or(now + self.retry_after).min(now + self.retry_after)
                }
            };
            let next = clock.monotonic(next).into();
            if self.timer.deadline() != next {
                self.timer.as_mut().reset(next);
            }
            std::task::ready!(self.timer.as_mut().poll(cx));
            if polls_acks {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }
}

/// The close frames that end a connection for `reason`; `None` where a reset does.
fn close_frames(reason: CloseReason) -> Option<CloseHandshake> {
    let frame = reason.frame()?;
    Some(CloseHandshake::new(reason, frame.code, frame.text, Vec::new()))
}

/// With the sweep's quarter of a second, a connection that we end is gone within a second of its time.
const GOODBYE: Duration = Duration::from_millis(500);
/// What was there before an offence has so long to be delivered.
const FAREWELL: Duration = Duration::from_secs(5);
/// A client that has heard its server's end has so long for its own; and a server's host, to acknowledge the last of a client
/// that has died.
const ANSWER: Duration = Duration::from_secs(2);
/// With the sweep's quarter of a second, the slot of a client that has died is free within half a second.
const REMAINS: Duration = Duration::from_millis(150);
const FIRST_LOOK: Duration = Duration::from_micros(500);
const RAREST_LOOK: Duration = Duration::from_millis(100);
