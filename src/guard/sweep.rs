//! A few times a second: which open connections have nothing to say any more, or have had their time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::net::fault;
use crate::relay::pace::Pace;
use crate::relay::pulse::{Order, Pulse};

/// An open connection as the sweep sees it.
#[derive(Debug)]
pub(super) struct Watched {
    pulse: Arc<Pulse>,
    pace: Arc<Pace>,
    ends_at: Option<Instant>,
    moved_at: Instant,
    client_took: u64,
    client_took_at: Instant,
    /// Looks until it counts as one that stays.
    new_for: u8,
}

impl Watched {
    /// A connection that opened `now`. `share` of 0.0 to 1.0 places the end of its lifetime between 0.9 and 1.0 times
    /// what is set, so that those that came together do not go together.
    pub(super) fn new(pulse: Arc<Pulse>, pace: Arc<Pace>, share: f64, now: Instant) -> Self {
        let ends_at = pace
            .lifetime
            .and_then(|lifetime| now.checked_add(lifetime.mul_f64(0.9 + share * 0.1)));
        Self {
            pulse,
            pace,
            ends_at,
            moved_at: now,
            client_took: 0,
            client_took_at: now,
            new_for: NEW_FOR,
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
        if !owes || took != self.client_took {
            (self.client_took, self.client_took_at) = (took, now);
        }
        let is_due = |limit: Option<Duration>, since: Instant| limit.is_some_and(|limit| now - since >= limit);
        if self.ends_at.is_some_and(|end| end <= now) {
            self.pulse.order(Order::Lifetime);
        } else if is_due(self.pace.stalled, self.client_took_at) {
            self.pulse.order(Order::Stalled);
        } else if is_due(self.pace.idle, self.moved_at) {
            self.pulse.order(Order::Idle);
        } else if self.pulse.bytes_wait()
            || is_due(self.pace.stalled.map(|stalled| stalled / LOOKS), self.client_took_at)
        {
            self.pulse.look();
        }
        true
    }
}

/// About a second: most of those that leave at once have left by then.
const NEW_FOR: u8 = 4;

/// How often within `stalled` a client that owes is looked at: it is ended by an eighth of that late at most, and one that
/// takes what it is given costs no more than that many system calls.
const LOOKS: u32 = 8;
