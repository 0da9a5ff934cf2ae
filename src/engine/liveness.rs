//! A few times a second: which open connections have nothing to say any more, or have had their time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::net::fault;
use crate::reason::close::CloseReason;
use crate::relay::conn_limits::{ConnLimits, Liveness};
use crate::relay::handle::{Command, ConnHandle, PingDelivery};
use crate::relay::rules::Pong;

use crate::engine::suspect::Suspect;

/// A client in a zone: a hash of both, the same for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ZoneClient(pub(super) u64);

/// An open connection as the sweep sees it.
#[derive(Debug)]
pub(crate) struct Watched {
    handle: Arc<ConnHandle>,
    client: ZoneClient,
    limits: Arc<ConnLimits>,
    ends_at: Option<Moment>,
    moved_at: Moment,
    client_took: u32,
    client_took_at: Moment,
    /// Looks until it counts as one that stays.
    new_for: u8,
    /// Something has moved since it was last told to rest, or had it get up.
    may_be_up: bool,
    /// What `ConnHandle::client_activity` was, and when it last changed.
    heard: u16,
    heard_at: Moment,
    question: Question,
}

/// Whether the client was asked if it is still there.
#[derive(Clone, Copy, Debug)]
enum Question {
    None,
    /// It may not be written yet, or not have arrived.
    Asked,
    /// Its host has it since then, or the client has taken something since then.
    Arrived(Moment),
}

/// Twentieths of a second since the worker began, modulo 2^32: a quarter of an `Instant`, of which every open connection
/// would need five. Of two that lie more than three years apart it can't be told which came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(u32);

impl Watched {
    /// A connection that opened `now`. `share` of 0.0 to 1.0 places the end of its lifetime between 0.9 and 1.0 times
    /// what is set, so that those that came together do not go together.
    pub(crate) fn new(
        handle: Arc<ConnHandle>,
        client: ZoneClient,
        limits: Arc<ConnLimits>,
        share: f64,
        now: Moment,
    ) -> Self {
        let ends_at = limits
            .timeouts
            .lifetime
            .and_then(|lifetime| now.after(lifetime.mul_f64(0.9 + share * 0.1)));
        Self {
            handle,
            client,
            limits,
            ends_at,
            moved_at: now,
            client_took: 0,
            client_took_at: now,
            new_for: NEW_FOR,
            may_be_up: true,
            heard: 0,
            heard_at: now,
            question: Question::None,
        }
    }

    /// Whether it is still open.
    pub(crate) fn is_open(&mut self) -> bool {
        !self.handle.is_closed()
    }

    /// For how long nothing has moved, to the sweep's tick, and how to reach it.
    pub(crate) fn silence(&self, now: Moment) -> (Duration, Arc<ConnHandle>) {
        (now.since(self.moved_at), Arc::clone(&self.handle))
    }

    /// Looks at the connection; false when it is over and need not be watched any more. `rests` goes down with each one that
    /// is told to rest, to 0.
    pub(crate) fn look(&mut self, now: Moment, rests: &mut u32) -> bool {
        fault::point("sweep");
        if self.handle.is_closed() {
            return false;
        }
        if self.handle.take_moved() {
            (self.moved_at, self.may_be_up) = (now, true);
        }
        // Nobody is idle whose bytes wait for us.
        if self.handle.is_client_unread() || self.handle.is_server_delayed() {
            self.moved_at = now;
        }
        if self.new_for > 0 {
            self.new_for -= 1;
            if self.new_for == 0 {
                self.handle.probe();
                self.may_be_up = true;
            }
        }
        let owes = self.handle.has_unacked();
        let took = self.handle.client_acked();
        if took != self.client_took
            && let Question::Arrived(since) = &mut self.question
        {
            *since = now;
        }
        if !owes || took != self.client_took {
            (self.client_took, self.client_took_at) = (took, now);
        }
        let liveness = self.look_for_life(now);
        let is_due = |limit: Option<Duration>, since: Moment| limit.is_some_and(|limit| now.since(since) >= limit);
        if let Some(order) = liveness {
            self.handle.send(order);
        } else if self.ends_at.is_some_and(|end| end.is_past(now)) {
            self.handle.send(Command::Close(CloseReason::Lifetime));
        } else if is_due(self.limits.timeouts.stalled, self.client_took_at) {
            self.handle.send(Command::Close(CloseReason::Stalled));
        } else if is_due(self.limits.timeouts.idle, self.moved_at) {
            self.handle.send(Command::Close(CloseReason::Idle));
        } else if self.handle.is_blocked()
            || is_due(
                self.limits.timeouts.stalled.map(|stalled| stalled / LOOKS),
                self.client_took_at,
            )
        {
            self.handle.probe();
        } else if self.may_be_up
            && now.since(self.moved_at) >= fault::rest_after(REST_AFTER)
            && let Some(left) = rests.checked_sub(1)
        {
            (*rests, self.may_be_up) = (left, false);
            self.handle.park();
        }
        true
    }

    /// Asks a client that has been silent for long, and says what is to be done with one that does not answer.
    fn look_for_life(&mut self, now: Moment) -> Option<Command> {
        let Liveness {
            ping,
            pong_timeout,
            pong,
            first_message,
        } = self.limits.liveness();
        let heard = self.handle.client_activity();
        // Whoever is not read can't be heard.
        if heard != self.heard || self.handle.is_client_unread() {
            (self.heard, self.heard_at, self.question) = (heard, now, Question::None);
        }
        let silent_for = now.since(self.heard_at);
        let first_message = first_message.filter(|_| heard == 0);
        if first_message.is_some_and(|limit| silent_for >= limit) {
            return Some(Command::Close(CloseReason::FirstMessage));
        }
        match self.question {
            // A listener says nothing of its own: an answer is its first message, and it has half of the time for it.
            Question::None => {
                let is_due = |limit: Option<Duration>| limit.is_some_and(|limit| silent_for >= limit);
                if is_due(ping) || is_due(first_message.map(|limit| limit / 2)) {
                    self.ask();
                }
            }
            Question::Asked => match self.handle.ping_delivery() {
                PingDelivery::None => {}
                PingDelivery::InFlight => self.handle.probe(),
                PingDelivery::Acknowledged => self.question = Question::Arrived(now),
            },
            Question::Arrived(since) => match (ping, pong) {
                (Some(_), Pong::Required) if now.since(since) >= pong_timeout => {
                    return Some(Command::Close(CloseReason::Ghost));
                }
                // It was answer enough; who says no more than that is asked again.
                (Some(ping), Pong::Tcp) if now.since(since) >= ping => self.ask(),
                _ => {}
            },
        }
        None
    }

    /// Whether this connection should be asked on behalf of a newcomer of its client, and is now if it was not before.
    pub(crate) fn suspect(&mut self, client: ZoneClient, now: Moment) -> Option<Suspect> {
        let is_due = |ping| now.since(self.heard_at) >= ping;
        let is_meant = self.client == client
            && !self.handle.is_closed()
            && !self.handle.is_client_unread()
            && self.handle.client_activity() == self.heard
            && self.limits.liveness().ping.is_some_and(is_due);
        let was_answered = match self.question {
            Question::None => true,
            Question::Asked => false,
            Question::Arrived(_) => self.limits.liveness().pong == Pong::Tcp,
        };
        if is_meant && was_answered {
            self.ask();
        }
        match self.question {
            Question::Asked if is_meant => Some(Suspect::new(Arc::clone(&self.handle), self.heard)),
            _ => None,
        }
    }

    fn ask(&mut self) {
        self.handle.ping();
        self.question = Question::Asked;
    }
}

impl Moment {
    /// The one that `now` is in, for a worker that began when it `started`.
    pub(crate) fn at(now: Instant, started: Instant) -> Self {
        let twentieths = now.saturating_duration_since(started).as_millis() / MILLIS;
        Self(u32::try_from(twentieths & u128::from(u32::MAX)).unwrap_or_default())
    }

    /// The next one: where what began within this one is taken to have begun, nothing is over too early.
    pub(crate) fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// Zero where that is still to come.
    fn since(self, earlier: Self) -> Duration {
        let twentieths = if earlier.is_past(self) {
            self.0.wrapping_sub(earlier.0)
        } else {
            0
        };
        Duration::from_secs(1) * twentieths / 20
    }

    /// `None` for what is too far ahead to be told.
    fn after(self, span: Duration) -> Option<Self> {
        let twentieths = u32::try_from(span.as_millis().div_ceil(MILLIS)).ok()?;
        (twentieths <= HALF).then(|| Self(self.0.wrapping_add(twentieths)))
    }

    fn is_past(self, now: Self) -> bool {
        now.0.wrapping_sub(self.0) <= HALF
    }
}

/// In a moment. The sweep's ticks are a whole number of moments apart, so that from one to another nothing is rounded.
const MILLIS: u128 = 50;
const HALF: u32 = u32::MAX / 2;

/// About a second: most of those that leave at once have left by then.
const NEW_FOR: u8 = 4;

/// To rest and to be up again costs some ten system calls, and one that speaks more often than this does neither.
const REST_AFTER: Duration = Duration::from_secs(5);

/// How often within `stalled` a client that owes is looked at: it is ended by an eighth of that late at most, and one that
/// takes what it is given costs no more than that many system calls.
const LOOKS: u32 = 8;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_watched_is_small() {
        assert!(size_of::<Watched>() <= 64, "{}", size_of::<Watched>());
    }

    #[test]
    fn moments_are_told_apart_across_the_turn_of_their_count() {
        let started = Instant::now();
        let at = |span: Duration| Moment::at(started + span, started);
        let turn = Duration::from_millis(50 << 32);
        for begin in [Duration::ZERO, turn.saturating_sub(Duration::from_secs(1)), turn * 3] {
            let (before, after) = (at(begin), at(begin + Duration::from_secs(90)));
            assert_eq!(after.since(before), Duration::from_secs(90));
            assert_eq!(before.since(after), Duration::ZERO, "nothing is due before it began");
            assert_eq!(before.since(before.next()), Duration::ZERO);
            assert_eq!(before.after(Duration::from_secs(90)).unwrap(), after);
            assert!(before.is_past(after) && after.is_past(after) && !after.is_past(before));
        }
        let (year, now) = (Duration::from_secs(365 * 24 * 3600), at(Duration::ZERO));
        assert_eq!(now.after(year * 4), None, "as good as no end");
        assert_eq!(at(year * 3).since(now), year * 3);
    }
}
