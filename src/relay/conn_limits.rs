//! The limits of an open connection: its timeouts, and its [`MessageRules`] with rates as charges. They are compiled
//! once for all connections of a zone.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::limit::bucket::{ByteMeter, Charge, Meter, Moment};
use crate::limit::rules::Rate;
use crate::net::random::Random;
use crate::wire::ws::frame::server_frame;
use crate::wire::ws::header::FrameKind;

use super::rules::{MessageRules, OnExceed, Pong, Timeouts};
use crate::net::clock::Clock;

/// The limits of an open connection, in both directions.
#[derive(Debug)]
pub struct ConnLimits {
    /// Its timeouts.
    pub timeouts: Timeouts,
    /// The clock of its timeouts.
    pub clock: Arc<Clock>,
    /// The source of the random payload of its pings.
    pub(super) random: Arc<Random>,
    pub(super) inbound: DirectionLimits,
    pub(super) outbound: DirectionLimits,
    pub(super) on_exceed: OnExceed,
    pub(super) notice: Option<Arc<str>>,
    /// Only observe: what exceeds a limit is counted, and passes.
    pub(super) observe: bool,
    epoch: Instant,
    liveness: Liveness,
}

/// The limits of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DirectionLimits {
    pub(super) messages: Option<Charge>,
    /// Limits frames of every kind, so that pings and empty fragments do not get around the other limits.
    pub(super) frames: Option<Charge>,
    /// The limits of `messages` and `frames` for all connections of the client key together.
    pub(super) shared: Option<Charge>,
    pub(super) shared_frames: Option<Charge>,
    pub(super) bytes: Option<ByteMeter>,
    pub(super) max_size: Option<u64>,
    pub(super) strict: bool,
}

/// How a client shows that it is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Liveness {
    /// A client that was silent for this long gets a ping.
    pub ping: Option<Duration>,
    /// How long the client may take to answer.
    pub pong_timeout: Duration,
    /// What counts as the answer.
    pub pong: Pong,
    /// How long the client may take to send its first frame.
    pub first_message: Option<Duration>,
}

impl ConnLimits {
    /// The limits of a zone with these rules. `epoch` is the instant that the buckets count their time from.
    pub fn new(
        timeouts: Timeouts,
        rules: &MessageRules,
        observe: bool,
        epoch: Instant,
        clock: Arc<Clock>,
        random: Arc<Random>,
    ) -> Self {
        let charge = |rate: Option<Rate>| rate.map(|rate| Meter::from(rate).one());
        let frames = |rate: Option<Rate>| charge(rate.map(ten_times));
        // If no rate of messages bounds the frames, the rate of bytes bounds them. Without that rate too, the bound is
        // a number that no honest client needs.
        let own_frames = |rate: Option<Rate>, shared: Option<Rate>, bytes: Option<Rate>, otherwise| match (rate, shared)
        {
            (Some(_), _) => frames(rate),
            (None, Some(_)) => None,
            (None, None) => charge(bytes.map(frames_of_bytes).or(otherwise)),
        };
        let of_sizes = rules.max_size.map(|_| MOST_FRAMES);
        Self {
            timeouts,
            clock,
            random,
            inbound: DirectionLimits {
                messages: charge(rules.rate),
                frames: own_frames(rules.rate, rules.per_ip_rate, rules.bytes_rate, of_sizes),
                shared: charge(rules.per_ip_rate),
                shared_frames: frames(rules.per_ip_rate),
                bytes: rules.bytes_rate.map(ByteMeter::from),
                max_size: rules.max_size,
                strict: rules.strict_frames,
            },
            outbound: DirectionLimits {
                messages: charge(rules.out_rate),
                frames: own_frames(rules.out_rate, rules.out_per_ip_rate, rules.out_bytes_rate, None),
                shared: charge(rules.out_per_ip_rate),
                shared_frames: frames(rules.out_per_ip_rate),
                bytes: rules.out_bytes_rate.map(ByteMeter::from),
                max_size: None,
                strict: false,
            },
            on_exceed: rules.on_exceed,
            notice: rules.notice.clone(),
            observe,
            epoch,
            liveness: Liveness {
                ping: rules.ping,
                pong_timeout: rules.pong_timeout,
                pong: rules.pong,
                first_message: rules.first_message,
            },
        }
    }

    /// How a client shows that it is alive.
    pub(crate) fn liveness(&self) -> &Liveness {
        &self.liveness
    }

    /// Whether any limit counts all connections of a client key together.
    pub(crate) fn shares(&self) -> bool {
        self.inbound.shared.is_some() || self.outbound.shared.is_some()
    }

    /// Whether frames from the client are policed for more than their validity.
    pub(super) fn polices_client(&self) -> bool {
        self.inbound.limits_anything() || self.pings()
    }

    /// Whether frames from the client must keep to RFC 6455.
    pub(super) fn is_strict(&self) -> bool {
        self.inbound.strict
    }

    /// Whether frames from the server are policed.
    pub(super) fn polices_server(&self) -> bool {
        self.outbound.limits_anything()
    }

    /// Whether a silent client is ever pinged, so that its activity matters.
    pub(super) fn pings(&self) -> bool {
        self.liveness.ping.is_some() || self.liveness.first_message.is_some()
    }

    /// The frame of the configured notice, for a client that may go on after `wait`. `None` if no notice is configured.
    pub(super) fn notice_frame(&self, wait: Duration) -> Option<Vec<u8>> {
        let text = self.notice.as_ref()?;
        // The time is rounded up, so that a client that waits exactly that long is not a fraction too early.
        let retry_ms = wait.as_nanos().div_ceil(1_000_000).to_string();
        let text = text.replace("{retry_ms}", &retry_ms);
        Some(server_frame(FrameKind::Text, text.as_bytes()))
    }

    pub(super) fn moment(&self, now: Instant) -> Moment {
        Moment::since(self.epoch, now)
    }
}

impl DirectionLimits {
    fn limits_anything(&self) -> bool {
        self.messages.is_some() || self.shared.is_some() || self.bytes.is_some() || self.max_size.is_some()
    }
}

fn ten_times(rate: Rate) -> Rate {
    Rate {
        tokens: rate.tokens.saturating_mul(TEN),
        burst: rate.burst.saturating_mul(TEN),
        ..rate
    }
}

/// A rate of one frame for every eight bytes, with a burst of at least a hundred.
fn frames_of_bytes(rate: Rate) -> Rate {
    let eighth = |bytes: NonZeroU32| NonZeroU32::new(bytes.get() / 8).unwrap_or(NonZeroU32::MIN);
    Rate {
        tokens: eighth(rate.tokens),
        burst: eighth(rate.burst).max(HUNDRED),
        ..rate
    }
}

const TEN: NonZeroU32 = NonZeroU32::new(10).expect("10 is not 0");
const HUNDRED: NonZeroU32 = NonZeroU32::new(100).expect("100 is not 0");
/// The rate of frames for a connection whose messages are limited in size only.
const MOST_FRAMES: Rate = Rate {
    tokens: NonZeroU32::new(10_000).expect("it is not 0"),
    per: Duration::from_secs(1),
    burst: NonZeroU32::new(10_000).expect("it is not 0"),
};
