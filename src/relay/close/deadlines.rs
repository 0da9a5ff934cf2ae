//! How long a connection that ends may take over it. Pure: the time is an argument.

use std::time::{Duration, Instant};

use crate::reason::close::CloseReason;

use super::super::rules::Timeouts;
use super::sides::Sides;

/// What is waited for once a side has ended. A later stage follows an earlier one, never the other way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::relay) enum CloseStage {
    /// The client has ended, and the server may finish. This and the next stage are over `half_close` after the client's end.
    Finish,
    /// The server has ended, and the client is to take what it sent, within `stalled`.
    Delivery,
    /// The client has taken all of it, and may answer, within [`ANSWER`].
    Answer,
    /// The client has died, and the server is to take what it sent, within [`REMAINS`].
    Remains,
    /// The server's host is to acknowledge that, within [`ANSWER`], so that a reset does not overtake it.
    Acknowledgement,
}

/// The times by which a connection that ends is closed whatever happens.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Deadlines {
    stage: Option<CloseStage>,
    /// The end of the stage, if it has one of its own.
    stage_until: Option<Instant>,
    /// `half_close` after the client's end.
    half_close_until: Option<Instant>,
    /// The end of the close handshake.
    handshake_until: Option<Instant>,
}

/// What a connection is closed for when a deadline passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::relay) struct Expired {
    pub(in crate::relay) reason: CloseReason,
    /// The client is reset, as it has not taken everything.
    pub(in crate::relay) resets_client: bool,
}

impl CloseStage {
    /// The stage that `sides` are in; `None` while neither has ended. `is_acked` returns whether the client's host has
    /// acknowledged everything that was written; it is called only if that matters.
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
    /// The stage that `sides` are in now, see [`CloseStage::of`].
    pub(super) fn stage(&self, sides: Sides, is_acked: impl FnOnce() -> bool) -> Option<CloseStage> {
        CloseStage::of(sides, self.stage, is_acked)
    }

    /// Sets the deadlines that begin with this stage, and with the client's end.
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

    /// Limits the close handshake to this time; `None`: it may take for ever.
    pub(super) fn begin_handshake(&mut self, timeout: Option<Duration>, now: Instant) {
        self.handshake_until = timeout.and_then(|timeout| now.checked_add(timeout));
    }

    /// Both close frames are written: their answers are waited for no longer than [`HANDSHAKE`].
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

    /// What the connection is closed for once a deadline has passed; `reason`, unless the deadline says more.
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

/// The time for a close handshake. With the sweep's quarter of a second, a connection that we close is gone within a second.
pub(in crate::relay) const HANDSHAKE: Duration = Duration::from_millis(500);
/// The time for a client to end once it has everything from its server; and for a server's host to acknowledge the last bytes
/// of a client that died.
const ANSWER: Duration = Duration::from_secs(2);
/// With the sweep's quarter of a second, the slot of a client that died is free within half a second.
const REMAINS: Duration = Duration::from_millis(150);

#[cfg(test)]
mod tests;
