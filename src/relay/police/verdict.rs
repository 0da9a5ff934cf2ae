//! The verdict on bytes that were policed.

use std::time::Duration;

use crate::wire::ws::header::FrameFault;

use super::super::counters::MessageLimit;

/// The verdict on some bytes. The first of them pass, the next ones may be swallowed, and the remainder does not pass
/// yet.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::relay) struct Verdict {
    /// How many bytes pass.
    pub(in crate::relay) passes: usize,
    /// Data messages that begin in the bytes that pass.
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
    /// There is no remainder.
    None,
    /// A header, or a pong, is incomplete.
    Unfinished,
    /// The bytes before the remainder were the answer to a ping of ours. The remainder has not been looked at.
    Swallowed,
    /// The turn is over ([`MAX_FRAMES`](super::policer::MAX_FRAMES)): other connections go first.
    TurnOver,
    /// The bytes wait for a rate limit, for at least this long.
    Defer(Duration),
    /// The bytes may never pass.
    Reject(Violation),
}

/// Why a frame may not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::relay) enum Violation {
    /// A rate is exceeded. After this time it would not be exceeded.
    Rate(MessageLimit, Duration),
    /// The frame's message is too large.
    Size,
    /// RFC 6455 forbids the frame.
    Fault(FrameFault),
}
