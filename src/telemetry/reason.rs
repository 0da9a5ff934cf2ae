//! Why a client was not admitted, or why its connection is over: one word each, the same in the answer, the log, the
//! metric and the advice.

use crate::limit::admission::Limit;
use crate::relay::tunnel::Over;

/// Why a client got no tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // The words are explained where users read them: in the README and in conf/wsguard.toml.
pub enum Reason {
    PerIp,
    PerIpRate,
    ZoneFull,
    ZoneRate,
    ProcessFull,
    Draining,
    UpstreamDown,
    UpstreamRefused,
    UpstreamBadReply,
    UpstreamTimeout,
    UpstreamStatus,
    Network,
    Origin,
    BadRequest,
    HeadTooLarge,
    HeadTimeout,
    BadVersion,
    NotUpgrade,
    NoRoute,
    PendingFull,
    PendingPerIp,
    ProxyHeader,
    ClientGone,
    Panic,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 24] = [
        Self::PerIp,
        Self::PerIpRate,
        Self::ZoneFull,
        Self::ZoneRate,
        Self::ProcessFull,
        Self::Draining,
        Self::UpstreamDown,
        Self::UpstreamRefused,
        Self::UpstreamBadReply,
        Self::UpstreamTimeout,
        Self::UpstreamStatus,
        Self::Network,
        Self::Origin,
        Self::BadRequest,
        Self::HeadTooLarge,
        Self::HeadTimeout,
        Self::BadVersion,
        Self::NotUpgrade,
        Self::NoRoute,
        Self::PendingFull,
        Self::PendingPerIp,
        Self::ProxyHeader,
        Self::ClientGone,
        Self::Panic,
    ];

    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Self::PerIp => "per_ip",
            Self::PerIpRate => "per_ip_rate",
            Self::ZoneFull => "zone_full",
            Self::ZoneRate => "zone_rate",
            Self::ProcessFull => "process_full",
            Self::Draining => "draining",
            Self::UpstreamDown => "upstream_down",
            Self::UpstreamRefused => "upstream_refused",
            Self::UpstreamBadReply => "upstream_bad_reply",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamStatus => "upstream_status",
            Self::Network => "network",
            Self::Origin => "origin",
            Self::BadRequest => "bad_request",
            Self::HeadTooLarge => "head_too_large",
            Self::HeadTimeout => "head_timeout",
            Self::BadVersion => "bad_version",
            Self::NotUpgrade => "not_upgrade",
            Self::NoRoute => "no_route",
            Self::PendingFull => "pending_full",
            Self::PendingPerIp => "pending_per_ip",
            Self::ProxyHeader => "proxy_header",
            Self::ClientGone => "client_gone",
            Self::Panic => "panic",
        }
    }

    /// The status a client hears; `None` where it hears no bytes, or those of the server.
    pub fn status(self) -> Option<u16> {
        Some(match self {
            Self::PerIp | Self::PerIpRate => 429,
            Self::ZoneFull | Self::ZoneRate | Self::ProcessFull | Self::Draining | Self::UpstreamDown => 503,
            Self::UpstreamRefused | Self::UpstreamBadReply => 502,
            Self::UpstreamTimeout => 504,
            Self::Network | Self::Origin => 403,
            Self::BadRequest => 400,
            Self::HeadTooLarge => 431,
            Self::HeadTimeout => 408,
            Self::BadVersion | Self::NotUpgrade => 426,
            Self::NoRoute => 404,
            Self::UpstreamStatus
            | Self::PendingFull
            | Self::PendingPerIp
            | Self::ProxyHeader
            | Self::ClientGone
            | Self::Panic => return None,
        })
    }

    /// The text a client hears, unless the rule that was broken says it better.
    pub fn text(self) -> &'static str {
        match self {
            Self::PerIp => "Too many connections from this IP",
            Self::PerIpRate => "Too many connection attempts from this IP",
            Self::ZoneFull | Self::ZoneRate | Self::ProcessFull => "Server at capacity",
            Self::Draining | Self::UpstreamDown => "Service unavailable",
            Self::UpstreamRefused | Self::UpstreamBadReply => "Bad gateway",
            Self::UpstreamTimeout => "Gateway timeout",
            Self::Network | Self::Origin => "Forbidden",
            Self::BadRequest => "Bad request",
            Self::HeadTooLarge => "Request head too large",
            Self::HeadTimeout => "Request head not received in time",
            Self::BadVersion => "WebSocket version 13 required",
            Self::NotUpgrade => "WebSocket upgrade required",
            Self::NoRoute => "Not found",
            Self::UpstreamStatus
            | Self::PendingFull
            | Self::PendingPerIp
            | Self::ProxyHeader
            | Self::ClientGone
            | Self::Panic => "",
        }
    }

    /// Whether `reject_with` may put it as a close frame or a reset; everything else always speaks HTTP.
    pub fn may_be_restyled(self) -> bool {
        matches!(
            self,
            Self::PerIp
                | Self::PerIpRate
                | Self::ZoneFull
                | Self::ZoneRate
                | Self::ProcessFull
                | Self::Draining
                | Self::UpstreamDown
        )
    }

    /// Whether it counts against a client key, so that a wrong client address would explain it.
    pub fn is_by_client(self) -> bool {
        matches!(self, Self::PerIp | Self::PerIpRate)
    }
}

impl From<Limit> for Reason {
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

/// Why an open connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // As above.
pub enum CloseReason {
    Client,
    Upstream,
    Idle,
    Lifetime,
    HalfClose,
    Stalled,
    Drain,
    Ghost,
    FirstMessage,
    MessageRate,
    MessageSize,
    Protocol,
    Io,
    Panic,
}

impl CloseReason {
    /// Every reason.
    pub const ALL: [Self; 14] = [
        Self::Client,
        Self::Upstream,
        Self::Idle,
        Self::Lifetime,
        Self::HalfClose,
        Self::Stalled,
        Self::Drain,
        Self::Ghost,
        Self::FirstMessage,
        Self::MessageRate,
        Self::MessageSize,
        Self::Protocol,
        Self::Io,
        Self::Panic,
    ];

    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Idle => "idle",
            Self::Lifetime => "lifetime",
            Self::HalfClose => "half_close",
            Self::Stalled => "stalled",
            Self::Drain => "drain",
            Self::Ghost => "ghost",
            Self::FirstMessage => "first_message",
            Self::MessageRate => "message_rate",
            Self::MessageSize => "message_size",
            Self::Protocol => "protocol",
            Self::Io => "io",
            Self::Panic => "panic",
        }
    }
}

impl From<Over> for CloseReason {
    fn from(over: Over) -> Self {
        match over {
            Over::Client => Self::Client,
            Over::Upstream => Self::Upstream,
            Over::Idle => Self::Idle,
            Over::Lifetime => Self::Lifetime,
            Over::HalfClose => Self::HalfClose,
            Over::Stalled => Self::Stalled,
            Over::Drain => Self::Drain,
            Over::Ghost | Over::Replaced => Self::Ghost,
            Over::FirstMessage => Self::FirstMessage,
            Over::MessageRate => Self::MessageRate,
            Over::MessageSize => Self::MessageSize,
            Over::Protocol => Self::Protocol,
            Over::Io => Self::Io,
        }
    }
}
