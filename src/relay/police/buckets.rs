//! The rates that one direction is held to, and what its frames cost.

use std::sync::Arc;
use std::time::Duration;

use crate::limit::bucket::{Bucket, ByteMeter, Charge, Moment, SharedBucket};
use crate::limit::shares::charge_both;
use crate::limit::wait_queue::WaitQueue;
use crate::wire::ws::header::{FrameHeader, FrameKind, Sender};

use super::super::conn_limits::DirectionLimits;
use super::super::counters::MessageLimit;
use super::super::env::RelayEnv;
use super::super::rules::OnExceed;

/// The buckets of one direction of a connection. A frame is charged as a frame and as a message once its header is complete,
/// and its payload as it passes, so that a declared length takes nothing before its bytes have come.
#[derive(Debug)]
pub(super) struct RateBuckets {
    messages: Bucket,
    frames: Bucket,
    bytes: Bucket,
    /// Bytes that the bucket had for the payload in progress when that last went on. When they have passed, a whole portion
    /// must be there again: so nothing goes on byte by byte, as tokens come back. What a payload leaves of them does not
    /// carry over to the next.
    allowed: u32,
    sender: Sender,
    has_turn: bool,
    lacks_shared: bool,
}

impl RateBuckets {
    /// Full buckets for what `sender` sends.
    pub(super) fn new(sender: Sender) -> Self {
        Self {
            messages: Bucket::default(),
            frames: Bucket::default(),
            bytes: Bucket::default(),
            allowed: 0,
            sender,
            has_turn: false,
            lacks_shared: false,
        }
    }

    pub(super) fn sender(&self) -> Sender {
        self.sender
    }

    /// What this direction is held to.
    pub(super) fn limits<'env>(&self, env: &'env RelayEnv) -> &'env DirectionLimits {
        match self.sender {
            Sender::Client => &env.limits.inbound,
            Sender::Server => &env.limits.outbound,
        }
    }

    /// Whether what exceeds a rate waits, rather than being rejected: nothing of a server's is ever rejected.
    pub(super) fn defers(&self, env: &RelayEnv) -> bool {
        self.sender == Sender::Server || env.limits.on_exceed == OnExceed::Delay
    }

    /// Whether what was last lacking is a token of a shared bucket.
    pub(super) fn lacks_shared(&self) -> bool {
        self.lacks_shared
    }

    /// Notes whether it is first in the queue for a shared bucket.
    pub(super) fn set_turn(&mut self, has_turn: bool) {
        self.has_turn = has_turn;
    }

    /// The queue for the shared bucket of messages, and what a message costs there.
    pub(super) fn wait_queue<'env>(&self, env: &'env RelayEnv) -> Option<(&'env Arc<WaitQueue>, Charge)> {
        let shares = env.shares.as_ref()?;
        let queue = match self.sender {
            Sender::Client => &shares.inbound_queue,
            Sender::Server => &shares.outbound_queue,
        };
        Some((queue, self.limits(env).shared?))
    }

    /// What counts payload as it passes; `None` where nothing does.
    pub(super) fn byte_meter(&self, env: &RelayEnv) -> Option<ByteMeter> {
        self.limits(env).bytes.filter(|_| !env.limits.observe)
    }

    /// Which limit the rate of payload bytes is.
    pub(super) fn bytes_limit(&self) -> MessageLimit {
        self.limit_names().2
    }

    /// How many bytes of the payload in progress may pass now; `left` is what is left of it.
    ///
    /// # Errors
    /// How long it takes until some may.
    pub(super) fn allowance(&mut self, left: u64, env: &RelayEnv, now: Moment) -> Result<u64, Duration> {
        let Some(meter) = self.byte_meter(env) else {
            return Ok(u64::MAX);
        };
        if self.allowed == 0 {
            let portion = meter.portion().min(left);
            if let Some(wait) = self.bytes.lacks(meter.bytes(portion), now) {
                return Err(wait);
            }
            self.allowed = u32::try_from(self.bytes.holds(meter, now)).unwrap_or(u32::MAX);
        }
        Ok(self.allowed.into())
    }

    /// Notes that a new payload begins: it needs an allowance of its own.
    pub(super) fn begin_payload(&mut self) {
        self.allowed = 0;
    }

    /// Charges for payload that passes.
    pub(super) fn spend(&mut self, bytes: u64, env: &RelayEnv, now: Moment) {
        if let Some(meter) = self.byte_meter(env) {
            self.bytes.charge(meter.bytes(bytes), now);
        }
        self.allowed = self.allowed.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// Takes what a frame costs from all buckets, or from none. Returns whether its payload, of which so much is `here`, is
    /// paid for; otherwise that is paid for as it passes.
    ///
    /// If frames are rejected, the bucket must hold the whole payload; if they wait, a first portion.
    ///
    /// # Errors
    /// The limit that is exceeded, and how long it takes until it would not be.
    pub(super) fn take(
        &mut self,
        header: FrameHeader,
        here: usize,
        env: &RelayEnv,
        now: Moment,
    ) -> Result<bool, (MessageLimit, Duration)> {
        let limits = self.limits(env);
        let for_message = |charge: Option<Charge>| charge.filter(|_| begins_message(header));
        let (rate, shared_rate, bytes_rate) = self.limit_names();
        let defers = self.defers(env);
        self.lacks_shared = false;
        let own = [
            (for_message(limits.messages), &mut self.messages, rate),
            (limits.frames, &mut self.frames, MessageLimit::Frames),
        ];
        for (charge, bucket, limit) in &own {
            if let Some(wait) = charge.and_then(|charge| bucket.lacks(charge, now)) {
                return Err((*limit, wait));
            }
        }
        let payload = limits.bytes.map(|meter| meter.bytes(header.payload));
        let mut wait = payload.and_then(|charge| self.bytes.lacks(charge, now));
        let has_all = wait.is_none();
        if let Some(meter) = limits.bytes
            && !has_all
            && defers
        {
            // Nothing is rejected, so a payload larger than the bucket must get through eventually.
            let first = header.payload.min(meter.portion());
            wait = self.bytes.lacks(meter.bytes(first), now);
        }
        if let Some(wait) = wait {
            return Err((bytes_rate, wait));
        }
        if let Some(shares) = &env.shares {
            let (messages, frames, queue) = match self.sender {
                Sender::Client => (&shares.inbound, &shares.inbound_frames, &shares.inbound_queue),
                Sender::Server => (&shares.outbound, &shares.outbound_frames, &shares.outbound_queue),
            };
            let messages = for_message(limits.shared).map(|charge| (messages, charge));
            let frames = limits.shared_frames.map(|charge| (frames, charge));
            // Nobody overtakes those that wait in the queue.
            let must_queue = defers && !self.has_turn && limits.shared.is_some_and(|price| !queue.is_empty(price));
            if let Some((bucket, charge)) = messages.or(frames).filter(|_| must_queue) {
                self.lacks_shared = true;
                return Err((shared_rate, bucket.bucket().lacks(charge, now).unwrap_or(SOON)));
            }
            take_shared(messages, frames, now).map_err(|wait| {
                self.lacks_shared = true;
                (shared_rate, wait)
            })?;
        }
        for (charge, bucket, _) in own {
            if let Some(charge) = charge {
                bucket.charge(charge, now);
            }
        }
        let Some(charge) = payload else { return Ok(true) };
        let is_paid = has_all && header.payload <= here as u64 || env.limits.observe;
        if is_paid {
            self.bytes.charge(charge, now);
        }
        self.begin_payload();
        Ok(is_paid)
    }

    /// The limits of its rates: of messages, of those of all connections of the client key, and of payload bytes.
    fn limit_names(&self) -> (MessageLimit, MessageLimit, MessageLimit) {
        match self.sender {
            Sender::Client => (MessageLimit::Rate, MessageLimit::PerIpRate, MessageLimit::BytesRate),
            Sender::Server => (
                MessageLimit::OutRate,
                MessageLimit::OutPerIpRate,
                MessageLimit::OutBytesRate,
            ),
        }
    }
}

/// Whether a data message begins with this frame.
pub(super) fn begins_message(header: FrameHeader) -> bool {
    matches!(header.kind, FrameKind::Text | FrameKind::Binary)
}

fn take_shared(
    messages: Option<(&SharedBucket, Charge)>,
    frames: Option<(&SharedBucket, Charge)>,
    now: Moment,
) -> Result<(), Duration> {
    match (messages, frames) {
        (Some(messages), Some(frames)) => charge_both(messages, frames, now),
        (Some((bucket, charge)), None) | (None, Some((bucket, charge))) => bucket.charge(charge, now),
        (None, None) => Ok(()),
    }
}

/// The wait where a token is there, and goes to those that came first.
const SOON: Duration = Duration::from_millis(1);
