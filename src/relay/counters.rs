//! Running counts of what open connections move, one tally for each worker and zone; a scrape sums them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts that only ever grow, written by one thread and read by any.
#[derive(Debug, Default)]
#[repr(align(128))] // A line of its own: two workers' tallies never share one.
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
    /// Tunnels whose client has sent something, or that ended before it did: `opened` less this are silent.
    pub no_longer_silent: Counter,
    /// Messages from clients that looked like heartbeats: of one size, at a steady interval.
    pub heartbeats: Counter,
    hits: [[Counter; LimitAction::ALL.len()]; MessageLimit::ALL.len()],
}

/// What messages can exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Named after their keys in `[limits.messages]`, where they are explained.
pub enum MessageLimit {
    Rate,
    PerIpRate,
    BytesRate,
    /// Frames of every kind: ten times `rate`, or `per_ip_rate`.
    Frames,
    MaxSize,
    StrictFrames,
    OutRate,
    OutPerIpRate,
    OutBytesRate,
}

/// What was done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitAction {
    /// The connection was ended.
    Close,
    /// The message had to wait.
    Delay,
    /// Nothing but counting.
    Observe,
}

impl MessageLimit {
    /// Every one.
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

    /// The word.
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

    /// Whether hitting it can have this outcome.
    pub fn may_lead_to(self, action: LimitAction) -> bool {
        match self {
            Self::Rate | Self::PerIpRate | Self::BytesRate | Self::Frames => true,
            Self::MaxSize | Self::StrictFrames => action != LimitAction::Delay,
            Self::OutRate | Self::OutPerIpRate | Self::OutBytesRate => action != LimitAction::Close,
        }
    }
}

impl LimitAction {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Close, Self::Delay, Self::Observe];

    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Close => "close",
            Self::Delay => "delay",
            Self::Observe => "observe",
        }
    }
}

impl RelayCounters {
    /// How often this limit was hit, with this outcome.
    pub fn hits(&self, limit: MessageLimit, action: LimitAction) -> &Counter {
        &self.hits[limit as usize][action as usize]
    }
}

/// One number of a [`RelayCounters`].
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `more`. Only the tally's own worker calls this, so a plain load and store do.
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Relaxed) + more, Relaxed);
    }

    /// The number as it stands.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
