//! How long a connection that ends may take for it. Pure: the time is an argument.

use std::time::{Duration, Instant};

use crate::reason::close::CloseReason;

use super::super::rules::Timeouts;
use super::sides::Sides;

/// What a connection waits for once a side has ended. Stages only go forward, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::relay) enum CloseStage {
    /// The client has ended, and the server may finish. This and the next stage are over `half_close` after the
    /// client's end.
    Finish,
    /// The server has ended, and the client has the time of the key `stalled` to take what the server sent.
    Delivery,
    /// The client has taken everything from the server, and has [`ANSWER`] to reply.
    Answer,
    /// The client has died, and the server has [`REMAINS`] to take what the client sent.
    Remains,
    /// The client has died, and the server's socket has everything that it sent. The server's host has [`ANSWER`] to
    /// acknowledge it, so that a reset does not overtake it.
    Acknowledgement,
}

/// The times at which a connection that ends is closed, whatever happens.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Deadlines {
    stage: Option<CloseStage>,
    /// The end of the current stage, if that has a time of its own.
    stage_until: Option<Instant>,
    /// The time at which `half_close` has passed since the client's end.
    half_close_until: Option<Instant>,
    /// The time by which the close handshake has to be over.
    handshake_until: Option<Instant>,
}

/// How a connection is closed when a deadline passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::relay) struct Expired {
    pub(in crate::relay) reason: CloseReason,
    /// The client is reset, because it has not taken everything.
    pub(in crate::relay) resets_client: bool,
}

impl CloseStage {
    /// The stage that follows from `sides` and the stage `before`; `None` while neither side has ended. `is_acked`
    /// returns whether the client's host has acknowledged everything that was written. It is called only if that
    /// matters.
    fn of(sides: Sides, before: Option<Self>, is_acked: impl FnOnce() -> bool) -> Option<Self> {
        let now = if sides.client_died {
            Some(if sides.is_all_sent_to_server {
                Self::Acknowledgement
            } else {
                Self::Remains
            })
        } else if sides.server_ended {
            let is_delivered = before == Some(Self::Answer) || sides.is_all_sent_to_client && is_acked();
            Some(if is_delivered { Self::Answer } else { Self::Delivery })
        } else {
            sides.client_ended.then_some(Self::Finish)
        };
        now.max(before)
    }
}

impl Deadlines {
    /// The stage that follows from `sides` now, see [`CloseStage::of`].
    pub(super) fn stage(&self, sides: Sides, is_acked: impl FnOnce() -> bool) -> Option<CloseStage> {
        CloseStage::of(sides, self.stage, is_acked)
    }

    /// Sets the deadlines that begin with this stage, and those that begin with the client's end.
    pub(super) fn enter(&mut self, stage: CloseStage, client_ended: bool, timeouts: Timeouts, now: Instant) {
        let after = |timeout: Option<Duration>| timeout.and_then(|timeout| now.checked_add(timeout));
        if self.stage < Some(stage) {
            self.stage = Some(stage);
            self.stage_until = after(match stage {
                CloseStage::Finish => None,
                CloseStage::Delivery => timeouts.stalled,
                CloseStage::Answer | CloseStage::Acknowledgement => Some(ANSWER),
                CloseStage::Remains => Some(REMAINS),
            });
        }
        if client_ended && self.half_close_until.is_none() {
            self.half_close_until = after(timeouts.half_close);
        }
    }

    /// Limits the close handshake to this time. `None` sets no limit.
    pub(super) fn begin_handshake(&mut self, timeout: Option<Duration>, now: Instant) {
        self.handshake_until = timeout.and_then(|timeout| now.checked_add(timeout));
    }

    /// Notes that both close frames have been written. The peers have [`HANDSHAKE`] at most to answer them.
    pub(super) fn frames_sent(&mut self, now: Instant) {
        let soon = now + HANDSHAKE;
        self.handshake_until = Some(self.handshake_until.map_or(soon, |until| until.min(soon)));
    }

    /// The earliest deadline.
    pub(super) fn earliest(&self) -> Option<Instant> {
        [self.handshake_until, self.stage_until, self.half_close_until]
            .into_iter()
            .flatten()
            .min()
    }

    /// How the connection is closed once a deadline has passed: for `reason`, unless the deadline that passed has a
    /// reason of its own.
    pub(super) fn expired(&self, reason: CloseReason, now: Instant) -> Expired {
        let is_past = |until: Option<Instant>| until.is_some_and(|until| until <= now);
        match self.stage {
            Some(CloseStage::Delivery) if is_past(self.stage_until) => Expired {
                reason: CloseReason::Stalled,
                resets_client: true,
            },
            Some(CloseStage::Finish | CloseStage::Delivery) if is_past(self.half_close_until) => Expired {
                reason: CloseReason::HalfClose,
                resets_client: false,
            },
            _ => Expired {
                reason,
                resets_client: false,
            },
        }
    }
}

/// The time for the peers to answer our close frames. With the sweep's quarter of a second, a connection that we close
/// is gone within a second.
pub(in crate::relay) const HANDSHAKE: Duration = Duration::from_millis(500);
/// The time for a client to end once it has everything from its server. Also the time for a server's host to
/// acknowledge the last bytes of a client that died.
const ANSWER: Duration = Duration::from_secs(2);
/// The time for a server to take the last bytes of a client that died. With the sweep's quarter of a second, the
/// client's slot is free within half a second.
const REMAINS: Duration = Duration::from_millis(150);

#[cfg(test)]
mod tests;
