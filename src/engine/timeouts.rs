//! Decides when an open connection has timed out, and pings its client to learn whether it is still there: one state machine.
//!
//! A sweep steps it four times a second. It reads no clock, touches no socket and has no side effects: what it sees comes in
//! as an `Observation`, and what is to be done goes out as `Actions`.

use std::time::Duration;

use crate::reason::close::CloseReason;
use crate::relay::conn_limits::Liveness;
use crate::relay::handle::PingDelivery;
use crate::relay::rules::Pong;
use crate::relay::rules::Timeouts;

use crate::engine::tick::Tick;

/// The timers of one open connection.
#[derive(Debug)]
pub(crate) struct ConnTimers {
    /// When it opened.
    opened_at: Tick,
    /// When a byte last moved, either way.
    moved_at: Tick,
    /// [`Observation::acked`] at the last step.
    acked: u32,
    /// The last time at which the client took bytes, or at which none were waiting for it.
    acked_at: Tick,
    /// [`Observation::activity`] at the last step.
    activity: u16,
    /// When the client last sent something.
    active_at: Tick,
    ping: PingState,
    /// When the client's host acknowledged our ping, or when the client last took other bytes after that. This is a field
    /// of its own, because it would take more room inside the state of the ping.
    delivered_at: Tick,
    /// Where in the last tenth of `lifetime` the connection ends: 0 is at 0.9, `u16::MAX` at 1.0.
    lifetime_jitter: u16,
    /// Steps until the connection no longer counts as new.
    new_for: u8,
    /// Bytes have moved since the connection was last asked to park.
    may_park: bool,
}

/// What a sweep sees of a connection; see the methods of [`ConnHandle`](crate::relay::handle::ConnHandle) of like names.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools)] // Each is a fact of its own.
pub(crate) struct Observation {
    /// A byte has moved since the last step.
    pub(crate) has_moved: bool,
    /// The client is not read, so it can't show that it is alive.
    pub(crate) is_client_unread: bool,
    /// A limit delays bytes of the server.
    pub(crate) is_server_delayed: bool,
    /// A side is not read, so only a probe notices its end.
    pub(crate) is_blocked: bool,
    /// The client has not acknowledged all that was written to it.
    pub(crate) has_unacked: bool,
    /// Bytes the client has acknowledged, modulo 2^32.
    pub(crate) acked: u32,
    /// Changes whenever something comes from the client; 0 until then.
    pub(crate) activity: u16,
    /// What became of our last ping.
    pub(crate) delivery: PingDelivery,
}

/// What a sweep is to do with a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Actions {
    /// Send the client a ping.
    pub(crate) ping: bool,
    /// Ask the kernel what the client has acknowledged, and whether a side that is not read has ended.
    pub(crate) probe: bool,
    /// Park it, unless something is under way.
    pub(crate) park: bool,
    /// Close it, for this reason.
    pub(crate) close: Option<CloseReason>,
}

/// How many connections a sweep may still park, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parking {
    /// A connection without a byte for this long is parked.
    pub(crate) after: Duration,
    /// How many more may be parked in this sweep.
    pub(crate) left: u32,
}

/// Our ping to a client that has been silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PingState {
    /// No ping is unanswered.
    None,
    /// It may not have been written yet, or not acknowledged by the client's host.
    Sent,
    /// The client's host has acknowledged it.
    Delivered,
}

/// Whether a connection may be dead, when a new connection of the same client needs its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suspicion {
    /// It counts as alive, and will do so for at least this long.
    AliveFor(Duration),
    /// The client has been pinged, and has not answered so far.
    Pinged,
    /// The client is to be pinged now.
    ToPing,
}

impl ConnTimers {
    /// The timers of a connection that opens `now`. `lifetime_jitter` spreads the ends of connections that opened together.
    pub(crate) fn new(lifetime_jitter: u16, now: Tick) -> Self {
        Self {
            opened_at: now,
            moved_at: now,
            acked: 0,
            acked_at: now,
            activity: 0,
            active_at: now,
            ping: PingState::None,
            delivered_at: now,
            lifetime_jitter,
            new_for: NEW_FOR,
            may_park: true,
        }
    }

    /// When the connection opened.
    pub(crate) fn opened_at(&self) -> Tick {
        self.opened_at
    }

    /// For how long no byte has moved, as of the last step.
    pub(crate) fn silence(&self, now: Tick) -> Duration {
        now.since(self.moved_at)
    }

    /// Processes what is `seen` at `now`, and returns the actions that are due.
    pub(crate) fn step(
        &mut self,
        seen: &Observation,
        timeouts: &Timeouts,
        liveness: &Liveness,
        parking: &mut Parking,
        now: Tick,
    ) -> Actions {
        let mut actions = Actions::default();
        if seen.has_moved {
            (self.moved_at, self.may_park) = (now, true);
        }
        // A connection with bytes that wsguard has not read yet is not idle.
        if seen.is_client_unread || seen.is_server_delayed {
            self.moved_at = now;
        }
        if self.new_for > 0 {
            self.new_for -= 1;
            if self.new_for == 0 {
                (actions.probe, self.may_park) = (true, true);
            }
        }
        self.record_acked(seen, now);
        actions.close = self
            .check_liveness(seen, liveness, &mut actions, now)
            .or_else(|| self.check_timeouts(timeouts, now));
        if actions.close.is_some() {
            return actions;
        }
        let owes_for = now.since(self.acked_at);
        if seen.is_blocked || timeouts.stalled.is_some_and(|stalled| owes_for >= stalled / PROBES) {
            actions.probe = true;
        } else if self.may_park && now.since(self.moved_at) >= parking.after && parking.left > 0 {
            parking.left -= 1;
            (actions.park, self.may_park) = (true, false);
        }
        actions
    }

    /// Whether this connection may be dead. The question is asked when a new connection needs its slot. If the answer
    /// is to ping the client, the ping counts as sent from here on. `activity` and `is_unread` are as in
    /// [`Observation`].
    pub(crate) fn suspect(&mut self, activity: u16, is_unread: bool, liveness: &Liveness, now: Tick) -> Suspicion {
        let Some(ping) = liveness.ping else {
            return Suspicion::AliveFor(Duration::MAX);
        };
        // wsguard can't notice activity of a client that it does not read.
        if is_unread || activity != self.activity {
            return Suspicion::AliveFor(ping);
        }
        let silent_for = now.since(self.active_at);
        if silent_for < ping {
            return Suspicion::AliveFor(ping.saturating_sub(silent_for));
        }
        match self.ping {
            PingState::Sent => return Suspicion::Pinged,
            // Its host is reachable; the client still has time to answer.
            PingState::Delivered if liveness.pong == Pong::Required => return Suspicion::AliveFor(ping),
            PingState::None | PingState::Delivered => {}
        }
        self.ping = PingState::Sent;
        Suspicion::ToPing
    }

    fn record_acked(&mut self, seen: &Observation, now: Tick) {
        let has_taken = seen.acked != self.acked;
        if has_taken {
            self.delivered_at = now;
        }
        if has_taken || !seen.has_unacked {
            (self.acked, self.acked_at) = (seen.acked, now);
        }
    }

    /// Pings a client that has been silent for long, and closes one that does not answer.
    fn check_liveness(
        &mut self,
        seen: &Observation,
        liveness: &Liveness,
        actions: &mut Actions,
        now: Tick,
    ) -> Option<CloseReason> {
        // wsguard can't notice activity of a client that it does not read.
        if seen.activity != self.activity || seen.is_client_unread {
            (self.activity, self.active_at, self.ping) = (seen.activity, now, PingState::None);
        }
        let silent_for = now.since(self.active_at);
        let is_due = |limit: Option<Duration>| limit.is_some_and(|limit| silent_for >= limit);
        let first_message = liveness.first_message.filter(|_| seen.activity == 0);
        if is_due(first_message) {
            return Some(CloseReason::FirstMessage);
        }
        match (self.ping, liveness.ping) {
            // A client that only listens sends nothing of its own, so its first message is a pong. The ping goes out
            // after half of the time for the first message, and the client has the other half to answer.
            (PingState::None, ping) => {
                if is_due(ping) || is_due(first_message.map(|limit| limit / 2)) {
                    (self.ping, actions.ping) = (PingState::Sent, true);
                }
            }
            (PingState::Sent, _) => match seen.delivery {
                PingDelivery::None => {}
                PingDelivery::InFlight => actions.probe = true,
                PingDelivery::Acknowledged => (self.ping, self.delivered_at) = (PingState::Delivered, now),
            },
            (PingState::Delivered, Some(ping)) => match liveness.pong {
                Pong::Required if now.since(self.delivered_at) >= liveness.pong_timeout => {
                    return Some(CloseReason::Ghost);
                }
                // The acknowledgement counts as the answer; the next ping is due after another silence of the same
                // length.
                Pong::Tcp if now.since(self.delivered_at) >= ping => {
                    (self.ping, actions.ping) = (PingState::Sent, true);
                }
                Pong::Required | Pong::Tcp => {}
            },
            (PingState::Delivered, None) => {}
        }
        None
    }

    fn check_timeouts(&self, timeouts: &Timeouts, now: Tick) -> Option<CloseReason> {
        let is_due = |limit: Option<Duration>, since: Tick| limit.is_some_and(|limit| now.since(since) >= limit);
        if is_due(
            timeouts.lifetime.map(|lifetime| self.own_lifetime(lifetime)),
            self.opened_at,
        ) {
            Some(CloseReason::Lifetime)
        } else if is_due(timeouts.stalled, self.acked_at) {
            Some(CloseReason::Stalled)
        } else if is_due(timeouts.idle, self.moved_at) {
            Some(CloseReason::Idle)
        } else {
            None
        }
    }

    /// 0.9 to 1.0 times `lifetime`, so that connections that opened together do not end together.
    fn own_lifetime(&self, lifetime: Duration) -> Duration {
        lifetime.mul_f64(0.9 + f64::from(self.lifetime_jitter) / f64::from(u16::MAX) * 0.1)
    }
}

/// About a second: most connections that leave at once have left by then.
const NEW_FOR: u8 = 4;

/// How often within `stalled` a client that owes acknowledgements is probed. So it is closed at most an eighth of
/// `stalled` too late, and a client that reads costs at most this many system calls.
const PROBES: u32 = 8;

#[cfg(test)]
mod tests;
