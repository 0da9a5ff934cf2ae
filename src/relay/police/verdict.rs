//! What becomes of bytes that were policed.

use std::time::Duration;

use crate::wire::ws::header::FrameFault;

use super::super::counters::MessageLimit;

/// What is to become of some bytes: the first pass, then come some that are swallowed, and what remains does not pass yet.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::relay) struct Verdict {
    /// How many bytes pass.
    pub(in crate::relay) passes: usize,
    /// Data messages that begin in those that pass.
    pub(in crate::relay) messages: u32,
    /// Frames that were decided on.
    pub(in crate::relay) frames: u32,
    /// A frame with a valid header passed or was swallowed.
    pub(in crate::relay) has_frame: bool,
    /// Where the remainder begins.
    pub(in crate::relay) rest: usize,
    /// Why there is a remainder.
    pub(in crate::relay) remainder: Remainder,
}

/// Why bytes do not pass yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::relay) enum Remainder {
    /// All of them were dealt with.
    None,
    /// A header, or a pong, is incomplete.
    Unfinished,
    /// Those before the remainder were an answer to a ping of ours; the rest was not looked at.
    Swallowed,
    /// The turn is over ([`MAX_FRAMES`](super::policer::MAX_FRAMES)): other connections go first.
    TurnOver,
    /// They wait for a rate limit, for at least this long.
    Defer(Duration),
    /// They may never pass.
    Reject(Violation),
}

/// Why a frame may not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::relay) enum Violation {
    /// A rate is exceeded; after this time it would not be.
    Rate(MessageLimit, Duration),
    /// Its message is too large.
    Size,
    /// RFC 6455 forbids it.
    Fault(FrameFault),
}
