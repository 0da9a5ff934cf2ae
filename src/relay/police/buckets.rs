//! The buckets of one direction, and the cost of its frames.

use std::sync::Arc;
use std::time::Duration;

use crate::limit::bucket::{Bucket, ByteMeter, Charge, Moment, SharedBucket};
use crate::limit::shares::charge_both;
use crate::limit::wait_queue::WaitQueue;
use crate::wire::ws::header::{FrameHeader, Sender};

use super::super::conn_limits::DirectionLimits;
use super::super::counters::MessageLimit;
use super::super::env::RelayEnv;
use super::super::rules::OnExceed;

/// The buckets of one direction of a connection. A frame is charged as a frame and as a message once its header is
/// complete. Its payload is charged as it passes, so that a declared length takes nothing before its bytes have come.
#[derive(Debug)]
pub(super) struct RateBuckets {
    messages: Bucket,
    frames: Bucket,
    bytes: Bucket,
    /// The bytes of the payload in progress that may still pass before the bucket is asked again: the bucket's content
    /// when it was last asked. After that the bucket must hold a whole portion again, so that the payload does not go
    /// on byte by byte as tokens come back. Bytes that a payload leaves unused do not carry over to the next payload.
    allowed: u32,
    sender: Sender,
    has_turn: bool,
    lacks_shared: bool,
}

impl RateBuckets {
    /// Full buckets for the frames that `sender` sends.
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

    /// The limits of this direction.
    pub(super) fn limits<'env>(&self, env: &'env RelayEnv) -> &'env DirectionLimits {
        match self.sender {
            Sender::Client => &env.limits.inbound,
            Sender::Server => &env.limits.outbound,
        }
    }

    /// Whether frames above a rate wait. Otherwise they are rejected. Frames of a server are never rejected for a rate.
    pub(super) fn defers(&self, env: &RelayEnv) -> bool {
        self.sender == Sender::Server || env.limits.on_exceed == OnExceed::Delay
    }

    /// Whether the last frame that could not pass lacked a token of a shared bucket.
    pub(super) fn lacks_shared(&self) -> bool {
        self.lacks_shared
    }

    /// Notes whether this connection is first in the queue for a shared bucket.
    pub(super) fn set_turn(&mut self, has_turn: bool) {
        self.has_turn = has_turn;
    }

    /// The queue for the shared bucket of messages, and the price of a message there.
    pub(super) fn wait_queue<'env>(&self, env: &'env RelayEnv) -> Option<(&'env Arc<WaitQueue>, Charge)> {
        let shares = env.shares.as_ref()?;
        let queue = match self.sender {
            Sender::Client => &shares.inbound_queue,
            Sender::Server => &shares.outbound_queue,
        };
        Some((queue, self.limits(env).shared?))
    }

    /// The meter that counts payload as it passes; `None` if payload is not counted.
    pub(super) fn byte_meter(&self, env: &RelayEnv) -> Option<ByteMeter> {
        self.limits(env).bytes.filter(|_| !env.limits.observe)
    }

    /// The limit that the rate of payload bytes counts as.
    pub(super) fn bytes_limit(&self) -> MessageLimit {
        self.limit_names().2
    }

    /// How many bytes of the payload in progress may pass now, if `left` bytes of it are still to come.
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

    /// Notes that a new payload begins. It needs an allowance of its own.
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

    /// Takes the price of a frame from all buckets, or from none. `here` bytes of its payload have come. Returns
    /// whether the payload is paid for; otherwise it is paid for as it passes.
    ///
    /// If frames are rejected, the bucket must hold the whole payload. If they wait, it must hold a first portion.
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
        let for_message = |charge: Option<Charge>| charge.filter(|_| header.kind.begins_message());
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
            // Nothing is rejected in this mode, so a payload larger than the bucket must get through eventually.
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
            // No message overtakes the connections that wait in the queue.
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

    /// The names of its limits in this order: the rate of messages, the rate of messages for the client key, and the
    /// rate of payload bytes.
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

/// The wait if the bucket has a token, but connections are waiting in the queue before this one.
const SOON: Duration = Duration::from_millis(1);
