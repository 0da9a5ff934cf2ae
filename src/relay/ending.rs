//! Ending a connection from our side: for an order, or for what its client has done.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::net::fault;

use super::goodbye::Goodbye;
use super::judge::Offence;
use super::legs::Legs;
use super::pulse::Order;
use super::tunnel::{Over, Relay};

/// How a connection is coming to its end.
#[derive(Debug)]
pub(super) struct Ending {
    /// When it is over whatever happens.
    until: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    /// How long until acknowledgements are looked at again; the kernel tells of them to nobody.
    look_again: Duration,
    goodbye: Option<Goodbye>,
    /// The goodbye is said, both ways.
    is_said: bool,
}

impl Relay {
    pub(super) fn poll_goodbye(&mut self, legs: &Legs, cx: &mut Context<'_>) -> Poll<Over> {
        let Some(ending) = self.ending.as_mut() else {
            return Poll::Pending;
        };
        let Some(goodbye) = &mut ending.goodbye else {
            return Poll::Pending;
        };
        fault::point("goodbye");
        let over = goodbye.over;
        let (to_client, to_server) = ((&legs.server, &legs.client), (&legs.client, &legs.server));
        let outward = goodbye
            .to_client
            .poll(&mut self.outbound, to_client, &goodbye.words_to_client, cx);
        let inward = goodbye
            .to_server
            .poll(&mut self.inbound, to_server, &goodbye.words_to_server, cx);
        let (is_said, is_over) = (goodbye.is_said(), goodbye.is_over());
        if is_said && !std::mem::replace(&mut ending.is_said, true) {
            let soon = Instant::now() + GOODBYE;
            ending.until = Some(ending.until.map_or(soon, |until| until.min(soon)));
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
    pub(super) fn obey(&mut self, order: Order, legs: &Legs, cx: &mut Context<'_>) -> Option<Over> {
        match order {
            Order::Idle => self.say_goodbye(close(Over::Idle, GOING_AWAY, ""), Some(GOODBYE)),
            Order::Lifetime => self.say_goodbye(close(Over::Lifetime, GOING_AWAY, ""), Some(GOODBYE)),
            Order::Ghost => self.say_goodbye(close(Over::Ghost, GOING_AWAY, "no pong"), Some(GOODBYE)),
            Order::FirstMessage => {
                let goodbye = close(Over::FirstMessage, POLICY_VIOLATION, "no message in time");
                self.say_goodbye(goodbye, Some(GOODBYE));
            }
            // However long a frame takes: whoever drains knows when it is time to cut it.
            Order::Drain => self.say_goodbye(close(Over::Drain, SERVICE_RESTART, ""), None),
            Order::Replaced => {
                self.say_goodbye(close(Over::Replaced, GOING_AWAY, "no pong"), Some(GOODBYE));
                let _all_that_can_be_said = self.poll_goodbye(legs, cx);
                legs.server.shutdown_write();
                legs.client.reset_on_close();
                return Some(Over::Replaced);
            }
            Order::Stalled => {
                legs.client.reset_on_close();
                return Some(Over::Stalled);
            }
            Order::Cut => {
                // Where no frame is unfinished there is still room for a word, should there have been no time for it before.
                self.say_goodbye(close(Over::Drain, SERVICE_RESTART, ""), None);
                let _all_that_can_be_said = self.poll_goodbye(legs, cx);
                legs.client.shutdown_write();
                legs.server.shutdown_write();
                return Some(Over::Drain);
            }
        }
        None
    }

    /// Begins a goodbye, unless one is under way.
    pub(super) fn say_goodbye(&mut self, goodbye: Goodbye, lasts: Option<Duration>) {
        if !self.says_goodbye() {
            let mut ending = Ending::new(lasts);
            ending.goodbye = Some(goodbye);
            self.ending = Some(Box::new(ending));
        }
    }

    /// Ends the connection for what its client has done. What waits for either side is delivered first, if it takes it.
    pub(super) fn end_for(&mut self, offence: Offence) {
        let (over, code, reason) = match offence {
            Offence::Rate(..) => (
                Over::MessageRate,
                POLICY_VIOLATION,
                String::from("message rate exceeded"),
            ),
            Offence::Size => (Over::MessageSize, TOO_BIG, String::from("message too big")),
            Offence::Fault(fault) => (Over::Protocol, PROTOCOL_ERROR, fault.to_string()),
        };
        let notice = match offence {
            // Who was delayed before has heard it.
            Offence::Rate(_, lacks) if !self.inbound.has_delayed() => self.notice(lacks),
            Offence::Rate(..) | Offence::Size | Offence::Fault(_) => None,
        };
        let goodbye = Goodbye::new(over, code, &reason, notice.unwrap_or_default());
        self.say_goodbye(goodbye, Some(FAREWELL));
    }

    pub(super) fn says_goodbye(&self) -> bool {
        self.ending.as_ref().is_some_and(|ending| ending.goodbye.is_some())
    }
}

impl Ending {
    pub(super) fn new(lasts: Option<Duration>) -> Self {
        let now = Instant::now();
        let until = lasts.and_then(|lasts| now.checked_add(lasts));
        let timer = Box::pin(tokio::time::sleep_until(until.unwrap_or(now)));
        Self {
            until,
            timer,
            look_again: FIRST_LOOK,
            goodbye: None,
            is_said: false,
        }
    }

    /// Ready when the time is over. With `looks_again` the task is woken before that, ever more rarely.
    pub(super) fn poll_until(&mut self, looks_again: bool, cx: &mut Context<'_>) -> Poll<()> {
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

fn close(over: Over, code: u16, reason: &str) -> Goodbye {
    Goodbye::new(over, code, reason, Vec::new())
}

/// 1001: the endpoint is going away (RFC 6455 section 7.4.1).
const GOING_AWAY: u16 = 1001;
/// 1002: a frame that the protocol forbids (RFC 6455 section 7.4.1, as the next two).
const PROTOCOL_ERROR: u16 = 1002;
/// 1008: what the endpoint does not allow.
const POLICY_VIOLATION: u16 = 1008;
/// 1009: a message that is too large.
const TOO_BIG: u16 = 1009;
/// 1012: the service restarts, come back (the registry of close codes of RFC 6455 section 11.7).
const SERVICE_RESTART: u16 = 1012;
/// With the sweep's quarter of a second, a connection that we end is gone within a second of its time.
const GOODBYE: Duration = Duration::from_millis(500);
/// What was there before an offence has so long to be delivered.
const FAREWELL: Duration = Duration::from_secs(5);
const FIRST_LOOK: Duration = Duration::from_micros(500);
const RAREST_LOOK: Duration = Duration::from_millis(100);
