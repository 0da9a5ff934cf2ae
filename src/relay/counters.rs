//! Running counts of what open connections move. Each worker has a set for each zone, and a scrape sums them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use enum_map::{Enum, EnumMap};

/// Counts that only grow, written by one thread and read by any.
#[derive(Debug, Default)]
#[repr(align(128))] // Two workers never share a cache line.
pub struct RelayCounters {
    /// Bytes from clients.
    pub bytes_in: Counter,
    /// Bytes to clients.
    pub bytes_out: Counter,
    /// Messages from clients.
    pub messages_in: Counter,
    /// Messages to clients.
    pub messages_out: Counter,
    /// Tunnels that were opened.
    pub opened: Counter,
    /// Tunnels whose client has sent something, or that ended before it did. `opened` minus this is the number of open
    /// tunnels with a silent client.
    pub no_longer_silent: Counter,
    /// Messages from clients that looked like heartbeats: of equal size, at a steady interval.
    pub heartbeats: Counter,
    hits: EnumMap<MessageLimit, EnumMap<LimitAction, Counter>>,
}

/// A limit on messages or frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[allow(missing_docs)] // Named after their keys in `[limits.messages]`, where they are explained.
pub enum MessageLimit {
    Rate,
    PerIpRate,
    BytesRate,
    /// Frames of every kind, limited to ten times `rate`, or `per_ip_rate`.
    Frames,
    MaxSize,
    StrictFrames,
    OutRate,
    OutPerIpRate,
    OutBytesRate,
}

/// What was done when a limit was hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub enum LimitAction {
    /// The connection was closed.
    Close,
    /// The message was delayed.
    Delay,
    /// It was counted, and passed.
    Observe,
}

impl MessageLimit {
    /// All limits.
    pub const ALL: [Self; 9] = [
        Self::Rate,
        Self::PerIpRate,
        Self::BytesRate,
        Self::Frames,
        Self::MaxSize,
        Self::StrictFrames,
        Self::OutRate,
        Self::OutPerIpRate,
        Self::OutBytesRate,
    ];

    /// Its word in the log and in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::PerIpRate => "per_ip_rate",
            Self::BytesRate => "bytes_rate",
            Self::Frames => "frames",
            Self::MaxSize => "max_size",
            Self::StrictFrames => "strict_frames",
            Self::OutRate => "out_rate",
            Self::OutPerIpRate => "out_per_ip_rate",
            Self::OutBytesRate => "out_bytes_rate",
        }
    }

    /// Whether this action is possible when the limit is hit.
    pub fn may_lead_to(self, action: LimitAction) -> bool {
        match self {
            Self::Rate | Self::PerIpRate | Self::BytesRate | Self::Frames => true,
            Self::MaxSize | Self::StrictFrames => action != LimitAction::Delay,
            Self::OutRate | Self::OutPerIpRate | Self::OutBytesRate => action != LimitAction::Close,
        }
    }
}

impl LimitAction {
    /// All actions.
    pub const ALL: [Self; 3] = [Self::Close, Self::Delay, Self::Observe];

    /// Its word in the log and in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Close => "close",
            Self::Delay => "delay",
            Self::Observe => "observe",
        }
    }
}

impl RelayCounters {
    /// How often this limit was hit with this action.
    pub fn hits(&self, limit: MessageLimit, action: LimitAction) -> &Counter {
        &self.hits[limit][action]
    }
}

/// One of the [`RelayCounters`].
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `more`. Only the worker that owns the counters calls this, so a load and a store are enough.
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Relaxed) + more, Relaxed);
    }

    /// The count so far.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

const _: () = assert!(MessageLimit::ALL.len() == MessageLimit::LENGTH && LimitAction::ALL.len() == LimitAction::LENGTH);
