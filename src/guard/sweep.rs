//! A few times a second: which open connections have nothing to say any more, or have had their time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::net::fault;
use crate::relay::pulse::{Asked, Order, Pulse};
use crate::relay::terms::{Liveness, Terms};

use super::replace::{Suspect, Whose};

/// An open connection as the sweep sees it.
#[derive(Debug)]
pub(super) struct Watched {
    pulse: Arc<Pulse>,
    whose: Whose,
    terms: Arc<Terms>,
    ends_at: Option<Instant>,
    moved_at: Instant,
    client_took: u64,
    client_took_at: Instant,
    /// Looks until it counts as one that stays.
    new_for: u8,
    /// What `Pulse::heard` was, and when it last changed.
    heard: u32,
    heard_at: Instant,
    question: Question,
}

/// Whether the client was asked if it is still there.
#[derive(Clone, Copy, Debug)]
enum Question {
    None,
    /// Since then; it may not be written yet, or not have arrived.
    Asked(Instant),
    /// Its host has it since then, or the client has taken something since then.
    Arrived(Instant),
}

impl Watched {
    /// A connection that opened `now`. `share` of 0.0 to 1.0 places the end of its lifetime between 0.9 and 1.0 times
    /// what is set, so that those that came together do not go together.
    pub(super) fn new(pulse: Arc<Pulse>, whose: Whose, terms: Arc<Terms>, share: f64, now: Instant) -> Self {
        let ends_at = terms
            .pace
            .lifetime
            .and_then(|lifetime| now.checked_add(lifetime.mul_f64(0.9 + share * 0.1)));
        Self {
            pulse,
            whose,
            terms,
            ends_at,
            moved_at: now,
            client_took: 0,
            client_took_at: now,
            new_for: NEW_FOR,
            heard: 0,
            heard_at: now,
            question: Question::None,
        }
    }

    /// Whether it is still open.
    pub(super) fn is_open(&mut self) -> bool {
        !self.pulse.is_over()
    }

    /// When something last moved, to the sweep's tick, and how to reach it.
    pub(super) fn last_move(&self) -> (Instant, Arc<Pulse>) {
        (self.moved_at, Arc::clone(&self.pulse))
    }

    /// Looks at the connection; false when it is over and need not be watched any more.
    pub(super) fn look(&mut self, now: Instant) -> bool {
        fault::point("sweep");
        if self.pulse.is_over() {
            return false;
        }
        if self.pulse.take_moved() {
            self.moved_at = now;
        }
        if self.new_for > 0 {
            self.new_for -= 1;
            if self.new_for == 0 {
                self.pulse.look();
            }
        }
        let owes = self.pulse.client_owes();
        let took = self.pulse.client_took();
        if took != self.client_took
            && let Question::Arrived(since) = &mut self.question
        {
            *since = now;
        }
        if !owes || took != self.client_took {
            (self.client_took, self.client_took_at) = (took, now);
        }
        let liveness = self.look_for_life(now);
        let is_due = |limit: Option<Duration>, since: Instant| limit.is_some_and(|limit| now - since >= limit);
        if let Some(order) = liveness {
            self.pulse.order(order);
        } else if self.ends_at.is_some_and(|end| end <= now) {
            self.pulse.order(Order::Lifetime);
        } else if is_due(self.terms.pace.stalled, self.client_took_at) {
            self.pulse.order(Order::Stalled);
        } else if is_due(self.terms.pace.idle, self.moved_at) {
            self.pulse.order(Order::Idle);
        } else if self.pulse.bytes_wait()
            || is_due(
                self.terms.pace.stalled.map(|stalled| stalled / LOOKS),
                self.client_took_at,
            )
        {
            self.pulse.look();
        }
        true
    }

    /// Asks a client that has been silent for long, and says what is to be done with one that does not answer.
    fn look_for_life(&mut self, now: Instant) -> Option<Order> {
        let Liveness {
            ping,
            pong_timeout,
            first_message,
        } = self.terms.liveness();
        let heard = self.pulse.heard();
        // What is held up by us can't be held against it.
        if heard != self.heard || self.pulse.is_delayed() {
            (self.heard, self.heard_at, self.question) = (heard, now, Question::None);
        }
        let silent_for = now - self.heard_at;
        let first_message = first_message.filter(|_| heard == 0);
        if first_message.is_some_and(|limit| silent_for >= limit) {
            return Some(Order::FirstMessage);
        }
        match self.question {
            // A listener says nothing of its own: an answer is its first message, and it has half of the time for it.
            Question::None => {
                let is_due = |limit: Option<Duration>| limit.is_some_and(|limit| silent_for >= limit);
                if is_due(ping) || is_due(first_message.map(|limit| limit / 2)) {
                    self.ask(now);
                }
            }
            Question::Asked(_) => match self.pulse.asked() {
                Asked::Nothing => {}
                Asked::OnItsWay => self.pulse.look(),
                Asked::Arrived => self.question = Question::Arrived(now),
            },
            Question::Arrived(since) if ping.is_some() && now - since >= pong_timeout => return Some(Order::Ghost),
            Question::Arrived(_) => {}
        }
        None
    }

    /// Whether this connection should be asked on behalf of a newcomer of its client, and is now if it was not before.
    pub(super) fn suspect(&mut self, whose: Whose, now: Instant) -> Option<Suspect> {
        let is_due = |ping| now.saturating_duration_since(self.heard_at) >= ping;
        let is_meant = self.whose == whose
            && !self.pulse.is_over()
            && !self.pulse.is_delayed()
            && self.pulse.heard() == self.heard
            && self.terms.liveness().ping.is_some_and(is_due);
        if is_meant && matches!(self.question, Question::None) {
            self.ask(now);
        }
        match self.question {
            Question::Asked(asked_at) if is_meant => Some(Suspect {
                pulse: Arc::clone(&self.pulse),
                asked_at,
                heard: self.heard,
            }),
            _ => None,
        }
    }

    fn ask(&mut self, now: Instant) {
        self.pulse.ask();
        self.question = Question::Asked(now);
    }
}

/// About a second: most of those that leave at once have left by then.
const NEW_FOR: u8 = 4;

/// How often within `stalled` a client that owes is looked at: it is ended by an eighth of that late at most, and one that
/// takes what it is given costs no more than that many system calls.
const LOOKS: u32 = 8;
