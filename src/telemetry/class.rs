//! The outcome of a connection, as in its log line and its counter.

use enum_map::Enum;

use crate::config::policy::LogLevel;
use crate::limit::admission::Limit;
use crate::reason::close::CloseReason;
use crate::reason::reject::RejectReason;

/// The outcome of a connection. Under a flood, lines of one class are summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Enum)]
pub enum Class {
    /// The connection got no permit.
    Rejected(RejectReason),
    /// The connection got a permit, but no tunnel.
    Failed(RejectReason),
    /// The connection exceeded this limit, but got a tunnel, because limits are only observed.
    Observed(RejectReason),
    /// The connection's tunnel ended.
    Closed(CloseReason),
}

impl Class {
    /// The line's `event`.
    pub fn event(self) -> &'static str {
        match self {
            Self::Rejected(_) => "rejected",
            Self::Failed(_) => "failed",
            Self::Observed(_) => "observed",
            Self::Closed(_) => "closed",
        }
    }

    /// The line's `reason`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Rejected(reason) | Self::Failed(reason) | Self::Observed(reason) => reason.word(),
            Self::Closed(reason) => reason.word(),
        }
    }

    /// The line's level: a panic is an error, a failing server a warning, and a refusal is routine.
    pub fn level(self) -> LogLevel {
        match self {
            Self::Rejected(RejectReason::Panic)
            | Self::Failed(RejectReason::Panic)
            | Self::Closed(CloseReason::Panic) => LogLevel::Error,
            Self::Failed(reason) if reason != RejectReason::ClientGone => LogLevel::Warn,
            _ => LogLevel::Info,
        }
    }

    /// Whether lines of this class are written under `access = "rejected"`.
    pub fn is_refusal(self) -> bool {
        !matches!(self, Self::Closed(_))
    }

    /// The word for several lines of this class: `refusals` in `12 refusals`.
    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Rejected(_) => "refusals",
            Self::Failed(_) => "failed handshakes",
            Self::Observed(_) => "admissions over a limit",
            Self::Closed(_) => "closes",
        }
    }
}

impl From<Limit> for RejectReason {
    fn from(limit: Limit) -> Self {
        match limit {
            Limit::PerIp => Self::PerIp,
            Limit::PerIpRate => Self::PerIpRate,
            Limit::ZoneFull => Self::ZoneFull,
            Limit::ZoneRate => Self::ZoneRate,
            Limit::ProcessFull => Self::ProcessFull,
        }
    }
}
