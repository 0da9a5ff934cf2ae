//! The end of a connection: what follows when a side has ended it, and how it is ended from our side, for an order or for
//! what its client has done.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use crate::net::fault;
use crate::reason::close::CloseReason;

use super::clock::Clock;
use super::flow::Flow;
use super::goodbye::{Farewell, Goodbye};
use super::judge::Offence;
use super::legs::Legs;
use super::pace::Pace;
use super::pulse::Order;
use super::tunnel::Relay;

/// How a connection is coming to its end. Its times are by the clock that peers are judged by.
#[derive(Debug)]
pub(super) struct Ending {
    /// What is waited for since a side has ended.
    stage: Option<Stage>,
    /// When that is over whatever happens.
    stage_until: Option<Instant>,
    /// When the client's end is so long ago as `half_close`, once it has ended.
    half_close_until: Option<Instant>,
    /// When the goodbye is.
    until: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    /// How long until acknowledgements are looked at again; the kernel tells of them to nobody.
    look_again: Duration,
    goodbye: Option<Goodbye>,
    /// The goodbye is said, both ways.
    is_said: bool,
}

/// What is waited for when a side has ended. A later one follows an earlier one, and never the other way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
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
    pub(super) fn poll_ends(&mut self, legs: &Legs, over: CloseReason, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let (client_died, server_died) = (self.client_died(), self.server_died());
        if client_died && server_died || !client_died && !server_died && self.inbound.is_done && self.outbound.is_done {
            return Poll::Ready(over);
        }
        let Some(stage) = self.stage(legs) else {
            return self.ending.as_mut().map_or(Poll::Pending, |ending| {
                std::task::ready!(ending.poll_until(false, &self.law.terms.clock, cx));
                Poll::Ready(over)
            });
        };
        if stage == Stage::Answer && server_died {
            legs.client.reset_on_close();
            return Poll::Ready(over);
        }
        if stage == Stage::Acknowledgement && legs.server.is_acknowledged() {
            self.deny_what_is_left(legs);
            return Poll::Ready(over);
        }
        // Nobody tells of acknowledgements.
        let looks_again = stage == Stage::Acknowledgement || stage == Stage::Delivery && self.is_all_said_to_client();
        let client_has_ended = self.inbound.ended().is_some();
        let ending = self.ending.get_or_insert_with(Ending::new);
        let clock = &self.law.terms.clock;
        ending.enter(stage, client_has_ended, self.law.terms.pace, clock);
        std::task::ready!(ending.poll_until(looks_again, clock, cx));
        let now = clock.now();
        let is_past = |until: Option<Instant>| until.is_some_and(|until| until <= now);
        let (is_late, is_half_closed) = (is_past(ending.stage_until), is_past(ending.half_close_until));
        self.deny_what_is_left(legs);
        Poll::Ready(match stage {
            Stage::Delivery if is_late => {
                legs.client.reset_on_close();
                CloseReason::Stalled
            }
            Stage::Finish | Stage::Delivery if is_half_closed => CloseReason::HalfClose,
            _ => over,
        })
    }

    /// Whoever is denied bytes must not take the end for an orderly one.
    fn deny_what_is_left(&self, legs: &Legs) {
        let denies = |flow: &Flow, has_died: bool, has_heard_goodbye: bool| {
            has_died && !has_heard_goodbye || flow.holds() || flow.is_delayed()
        };
        let has_heard =
            |farewell: fn(&Goodbye) -> Farewell| self.goodbye().is_some_and(|goodbye| farewell(goodbye).is_said());
        if denies(
            &self.inbound,
            self.client_died(),
            has_heard(|goodbye| goodbye.to_server),
        ) {
            legs.server.reset_on_close();
        }
        if denies(
            &self.outbound,
            self.server_died(),
            has_heard(|goodbye| goodbye.to_client),
        ) {
            legs.client.reset_on_close();
        }
    }

    /// What is to be waited for; `None` while neither side has ended, whatever it has announced.
    fn stage(&self, legs: &Legs) -> Option<Stage> {
        let before = self.ending.as_ref().and_then(|ending| ending.stage);
        let now = if self.client_died() {
            Some(if self.is_all_said_to_server() {
                Stage::Acknowledgement
            } else {
                Stage::Remains
            })
        } else if self.server_has_ended() {
            let is_delivered = || self.is_all_said_to_client() && legs.client.is_acknowledged();
            Some(if before == Some(Stage::Answer) || is_delivered() {
                Stage::Answer
            } else {
                Stage::Delivery
            })
        } else {
            self.inbound.ended().map(|_| Stage::Finish)
        };
        now.max(before)
    }

    fn is_all_said_to_client(&self) -> bool {
        self.outbound.is_done || self.goodbye().is_some_and(|goodbye| goodbye.to_client.is_said())
    }

    fn is_all_said_to_server(&self) -> bool {
        self.inbound.is_done || self.goodbye().is_some_and(|goodbye| goodbye.to_server.is_said())
    }

    fn goodbye(&self) -> Option<&Goodbye> {
        self.ending.as_ref()?.goodbye.as_ref()
    }

    pub(super) fn poll_goodbye(&mut self, legs: &Legs, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let Some(ending) = self.ending.as_mut() else {
            return Poll::Pending;
        };
        let Some(goodbye) = &mut ending.goodbye else {
            return Poll::Pending;
        };
        fault::point("goodbye");
        // Nothing of what they hold up passes any more.
        self.inbound.leave_line();
        self.outbound.leave_line();
        let over = goodbye.over;
        let (to_client, to_server) = ((&legs.server, &legs.client), (&legs.client, &legs.server));
        let outward = goodbye.to_client.poll(
            &mut self.outbound,
            to_client,
            &mut goodbye.words_to_client,
            &self.law,
            cx,
        );
        let inward = goodbye.to_server.poll(
            &mut self.inbound,
            to_server,
            &mut goodbye.words_to_server,
            &self.law,
            cx,
        );
        if goodbye.words_to_client.take_end(self.inbound.has_answered()) {
            legs.client.shutdown_write();
        }
        let (is_said, is_over) = (goodbye.is_said(), goodbye.is_over());
        if is_said && !std::mem::replace(&mut ending.is_said, true) {
            let soon = self.law.terms.clock.now() + GOODBYE;
            ending.until = Some(ending.until.map_or(soon, |until| until.min(soon)));
        }
        self.count(inward, outward);
        if is_over {
            return Poll::Ready(over);
        }
        self.poll_ends(legs, over, cx).map(|_why_we_began| over)
    }

    /// Begins to end, or ends at once.
    pub(super) fn obey(&mut self, order: Order, legs: &Legs, cx: &mut Context<'_>) -> Option<CloseReason> {
        match order {
            Order::Close(reason) => match close_frames(reason) {
                // However long a frame takes: whoever drains knows when it is time to cut it.
                Some(goodbye) if reason == CloseReason::Drain => self.say_goodbye(goodbye, None),
                Some(goodbye) => self.say_goodbye(goodbye, Some(GOODBYE)),
                None => {
                    legs.client.reset_on_close();
                    return Some(reason);
                }
            },
            Order::Replace => {
                if let Some(goodbye) = close_frames(CloseReason::Ghost) {
                    self.say_goodbye(goodbye, Some(GOODBYE));
                }
                let _all_that_can_be_said = self.poll_goodbye(legs, cx);
                legs.server.shutdown_write();
                legs.client.reset_on_close();
                return Some(CloseReason::Ghost);
            }
            Order::Cut => {
                // Where no frame is unfinished there is still room for a word, should there have been no time for it before.
                if let Some(goodbye) = close_frames(CloseReason::Drain) {
                    self.say_goodbye(goodbye, None);
                }
                let _all_that_can_be_said = self.poll_goodbye(legs, cx);
                legs.client.shutdown_write();
                legs.server.shutdown_write();
                return Some(CloseReason::Drain);
            }
        }
        None
    }

    /// Begins a goodbye, unless one is under way.
    pub(super) fn say_goodbye(&mut self, goodbye: Goodbye, lasts: Option<Duration>) {
        if !self.says_goodbye() {
            let ending = self.ending.get_or_insert_with(Ending::new);
            ending.goodbye = Some(goodbye);
            ending.until = lasts.and_then(|lasts| self.law.terms.clock.now().checked_add(lasts));
        }
    }

    /// Ends the connection for what its client has done. What waits for either side is delivered first, if it takes it.
    pub(super) fn end_for(&mut self, offence: Offence) {
        let (reason, fault) = match offence {
            Offence::Rate(..) => (CloseReason::MessageRate, None),
            Offence::Size => (CloseReason::MessageSize, None),
            Offence::Fault(fault) => (CloseReason::Protocol, Some(fault.to_string())),
        };
        let notice = match offence {
            // Who was delayed before has heard it.
            Offence::Rate(_, lacks) if !self.inbound.has_delayed() => self.notice(lacks),
            Offence::Rate(..) | Offence::Size | Offence::Fault(_) => None,
        };
        // Each of the three has a close frame: a test of theirs says so.
        if let Some(frame) = reason.frame() {
            let text = fault.as_deref().unwrap_or(frame.text);
            let goodbye = Goodbye::new(reason, frame.code, text, notice.unwrap_or_default());
            self.say_goodbye(goodbye, Some(FAREWELL));
        }
    }

    pub(super) fn says_goodbye(&self) -> bool {
        self.ending.as_ref().is_some_and(|ending| ending.goodbye.is_some())
    }
}

impl Ending {
    fn new() -> Box<Self> {
        Box::new(Self {
            stage: None,
            stage_until: None,
            half_close_until: None,
            until: None,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            look_again: FIRST_LOOK,
            goodbye: None,
            is_said: false,
        })
    }

    /// Has the times begin that begin with this stage, and with the client's end.
    fn enter(&mut self, stage: Stage, client_has_ended: bool, pace: Pace, clock: &Clock) {
        let after = |lasts: Option<Duration>| lasts.and_then(|lasts| clock.now().checked_add(lasts));
        if self.stage < Some(stage) {
            self.stage = Some(stage);
            self.stage_until = after(match stage {
                Stage::Finish => None,
                Stage::Delivery => pace.stalled,
                Stage::Answer | Stage::Acknowledgement => Some(ANSWER),
                Stage::Remains => Some(REMAINS),
            });
        }
        if client_has_ended && self.half_close_until.is_none() {
            self.half_close_until = after(pace.half_close);
        }
    }

    /// Ready when any of its times is over. With `looks_again` the task is woken before that, ever more rarely.
    fn poll_until(&mut self, looks_again: bool, clock: &Clock, cx: &mut Context<'_>) -> Poll<()> {
        let times = [self.until, self.stage_until, self.half_close_until];
        let until = times.into_iter().flatten().min();
        loop {
            let now = clock.now();
            if until.is_some_and(|until| until <= now) {
                return Poll::Ready(());
            }
            let next = match (until, looks_again) {
                (None, false) => return Poll::Pending,
                (Some(until), false) => until,
                (until, true) => {
                    self.look_again = (self.look_again * 2).min(RAREST_LOOK);
                    until.unwrap_or(now + self.look_again).min(now + self.look_again)
                }
            };
            let next = clock.monotonic(next).into();
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

/// The close frames that end a connection for `reason`; `None` where a reset does.
fn close_frames(reason: CloseReason) -> Option<Goodbye> {
    let frame = reason.frame()?;
    Some(Goodbye::new(reason, frame.code, frame.text, Vec::new()))
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
