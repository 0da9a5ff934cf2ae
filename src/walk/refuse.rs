//! The answer to a client that gets no tunnel.

use std::time::Duration;

use crate::config::policy::RejectWith;
use crate::net::random::Random;
use crate::reason::reject::RejectReason;
use crate::wire::http::answer::{Answer, accepted};
use crate::wire::ws::engine_io;
use crate::wire::ws::frame::close_frame;

use crate::walk::stop::{Cause, Stop};

/// The answer to a client in place of a tunnel.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// An answer, then the end.
    Answer {
        /// Its status, for the log.
        status: u16,
        /// All bytes of the answer.
        bytes: Vec<u8>,
    },
    /// A WebSocket that is opened and closed again. It is `held` for a while in between: many clients reconnect at once
    /// after an opened WebSocket is closed, and would hammer if it were closed immediately.
    CloseFrame {
        /// The 101, and other bytes before the close frame.
        opening: Vec<u8>,
        /// The close frame.
        close: Vec<u8>,
        /// The time between the two.
        held: Duration,
    },
    /// The end, without a byte.
    Close,
    /// A reset, without a byte.
    Reset,
}

impl Refusal {
    /// The answer to a stop. No other place decides what a refused client gets. Its times are drawn from `random`, so
    /// that clients that were refused together do not return together.
    pub fn of(stop: &Stop, random: &Random) -> Self {
        let reason = match &stop.cause {
            Cause::Health { is_serving } => return Self::health(stop, *is_serving),
            Cause::Server { status, answer } => {
                return Self::Answer {
                    status: *status,
                    bytes: answer.clone(),
                };
            }
            Cause::Wordless(_) | Cause::Silent(_) => return Self::Close,
            Cause::Refused(reason) => *reason,
        };
        let Some(status) = reason.status() else {
            return Self::Close;
        };
        let zone = stop
            .details()
            .destination
            .as_ref()
            .map(|destination| &destination.zone.policy);
        match zone.map(|zone| zone.reject_with) {
            Some(RejectWith::Drop) if reason.may_be_restyled() => Self::Reset,
            Some(RejectWith::Close) if reason.may_be_restyled() => Self::close_frame(stop, reason, random),
            _ => Self::error(stop, reason, status, zone.map(|zone| zone.retry_after), random),
        }
    }

    fn health(stop: &Stop, is_serving: bool) -> Self {
        let (status, text) = if is_serving {
            (200, "OK")
        } else {
            (503, RejectReason::Draining.text())
        };
        Self::answer(
            stop,
            Answer {
                status,
                headers: &[],
                text,
            },
        )
    }

    fn close_frame(stop: &Stop, reason: RejectReason, random: &Random) -> Self {
        let Some(offer) = &stop.details().offer else {
            return Self::Close;
        };
        let mut opening = accepted(&offer.key, offer.protocol.as_deref());
        if offer.is_engine_io {
            opening.extend(engine_io::error_frame(reason.text()));
        }
        Self::CloseFrame {
            opening,
            close: close_frame(TRY_AGAIN_LATER, reason.text(), None),
            // A process that is about to exit holds no client.
            held: if reason == RejectReason::Draining {
                Duration::ZERO
            } else {
                HOLD + random.duration_up_to(HOLD)
            },
        }
    }

    fn answer(stop: &Stop, answer: Answer<'_>) -> Self {
        Self::Answer {
            status: answer.status,
            bytes: if stop.details().by_head {
                answer.render_head()
            } else {
                answer.render()
            },
        }
    }

    /// The status that the client gets, if any.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Answer { status, .. } => Some(*status),
            Self::CloseFrame { .. } => Some(101),
            Self::Close | Self::Reset => None,
        }
    }

    /// Whether the client is held for a while before it is closed.
    pub fn is_held(&self) -> bool {
        matches!(self, Self::CloseFrame { held, .. } if !held.is_zero())
    }

    /// The same answer without the hold.
    #[must_use]
    pub fn at_once(self) -> Self {
        match self {
            Self::CloseFrame { opening, close, .. } => Self::CloseFrame {
                opening,
                close,
                held: Duration::ZERO,
            },
            other => other,
        }
    }

    fn error(stop: &Stop, reason: RejectReason, status: u16, retry_after: Option<Duration>, random: &Random) -> Self {
        let retry_after = jittered(retry_after.unwrap_or_default(), random).to_string();
        let mut headers: Vec<(&str, &str)> = Vec::with_capacity(2);
        match reason {
            RejectReason::NotUpgrade => headers.push(("Upgrade", "websocket")),
            RejectReason::BadVersion => headers.push(("Sec-WebSocket-Version", "13")),
            _ if status == 429 || status == 503 => headers.push(("Retry-After", &retry_after)),
            _ => {}
        }
        headers.push(("X-Wsguard-Reason", reason.word()));
        let text = stop.details().rule.as_deref().unwrap_or(reason.text());
        Self::answer(
            stop,
            Answer {
                status,
                headers: &headers,
                text,
            },
        )
    }
}

/// The seconds of Retry-After: `retry_after`, plus up to as much again at random.
fn jittered(retry_after: Duration, random: &Random) -> u64 {
    let base = retry_after.as_secs().max(1);
    base + random.up_to(base)
}

/// 1013, "try again later" (the registry of close codes of RFC 6455 section 11.7).
const TRY_AGAIN_LATER: u16 = 1013;
/// The shortest time that a client which is refused by close frame is held; the longest is twice that.
const HOLD: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
