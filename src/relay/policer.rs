//! The judge of one direction: looks at each frame's header before the frame passes, and says whether it may.
//!
//! Its word is the same however the stream is split: a header that is not whole yet waits. A frame is charged as a frame and
//! as a message when its header is whole, and its payload as it passes, so that a length is worth nothing before its bytes
//! have come. Where what is too much is refused, a frame passes whose payload the bucket holds as a whole when its header is
//! there; where it waits, one that can begin, and then as much at a time as there is.

use std::sync::Arc;
use std::time::Duration;

use crate::limit::bucket::{Bucket, ByteMeter, Charge, Moment, SharedBucket};
use crate::limit::line::Line;
use crate::limit::shares::{Shares, charge_both};
use crate::wire::Step;
use crate::wire::ws::header::Sender;
use crate::wire::ws::header::{FrameFault, FrameHeader, FrameKind};
use crate::wire::ws::scanner::FrameScanner;
use crate::wire::ws::sequence::MessageSequence;

use super::conn_limits::{ConnLimits, DirectionLimits};
use super::counters::{LimitAction, MessageLimit, RelayCounters};
use super::heartbeat::HeartbeatDetector;
use super::ping::ExpectedPong;
use super::rules::OnExceed;

/// What a judge goes by: the same for both directions, and for the most part for many connections.
#[derive(Debug)]
pub(super) struct RelayEnv {
    pub(super) limits: Arc<ConnLimits>,
    pub(super) shares: Option<Arc<Shares>>,
    pub(super) counters: Arc<RelayCounters>,
}

/// The judge, and what it remembers of the connection. There is one for every idle connection too, so what only some need
/// is elsewhere.
#[derive(Debug)]
pub(super) struct FramePolicer {
    messages: Bucket,
    frames: Bucket,
    bytes: Bucket,
    sequence: MessageSequence,
    beats: Option<Box<HeartbeatDetector>>,
    pub(super) pong: Option<Box<ExpectedPong>>,
    /// How often a limit was hit, and the last one that was.
    pub(super) hits: u32,
    pub(super) last_hit: Option<MessageLimit>,
    sender: Sender,
    /// Counts a frame once that was put off, however often it is looked at again.
    is_deferred: bool,
    /// It is the first of those who wait for what they share.
    pub(super) has_turn: bool,
    /// What the last frame lacked is shared.
    pub(super) lacks_share: bool,
    /// Bytes that were there for the payload in hand when it last went on; when they have passed there has to be a portion
    /// again. So nothing goes on byte by byte, as they come back.
    allowed: u32,
}

/// What is to become of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// So many of them pass.
    pub(super) passes: usize,
    /// Data messages that begin in these.
    pub(super) messages: u32,
    /// Frames that were judged.
    pub(super) frames: u32,
    /// A frame with a header that can be has passed, or was for us.
    pub(super) has_frame: bool,
    /// Where what does not pass yet begins: behind those that pass and those that are swallowed.
    pub(super) rest: usize,
    /// What is the matter with the frame that the rest begins with.
    pub(super) remainder: Remainder,
}

/// Why bytes remain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remainder {
    /// None do.
    None,
    /// A header is not whole yet.
    Unfinished,
    /// Bytes before the rest were for us.
    Swallowed,
    /// It has judged [`MOST_FRAMES`], and others have their turn first.
    TurnOver,
    /// It has to wait for so long at least.
    Defer(Duration),
    /// It may not pass.
    Reject(Violation),
}

/// Why a frame may not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Violation {
    /// A rate is exceeded; after so long it would not be.
    Rate(MessageLimit, Duration),
    /// Its message is too large.
    Size,
    /// RFC 6455 forbids it.
    Fault(FrameFault),
}

impl FramePolicer {
    pub(super) fn new(sender: Sender) -> Self {
        Self {
            messages: Bucket::default(),
            frames: Bucket::default(),
            bytes: Bucket::default(),
            sequence: MessageSequence::default(),
            beats: None,
            pong: None,
            hits: 0,
            last_hit: None,
            sender,
            is_deferred: false,
            has_turn: false,
            lacks_share: false,
            allowed: 0,
        }
    }

    /// Whether a fresh one is as good, where no limit has it remember anything.
    pub(super) fn is_untouched(&self) -> bool {
        self.hits == 0 && self.pong.is_none()
    }

    /// Messages so far that looked like heartbeats.
    pub(super) fn heartbeats(&self) -> u32 {
        self.beats.as_ref().map_or(0, |beats| beats.suspected())
    }

    pub(super) fn is_of_client(&self) -> bool {
        self.sender == Sender::Client
    }

    /// Judges `bytes`, which begin where `scanner` stands; the scanner goes with those that pass.
    pub(super) fn police(&mut self, scanner: &mut FrameScanner, bytes: &[u8], env: &RelayEnv, now: Moment) -> Verdict {
        let mut verdict = Verdict {
            passes: 0,
            messages: 0,
            frames: 0,
            has_frame: false,
            rest: bytes.len(),
            remainder: Remainder::None,
        };
        while verdict.passes < bytes.len() {
            let next = &bytes[verdict.passes..];
            let word = if scanner.at_boundary() {
                if verdict.frames == MOST_FRAMES {
                    verdict.rest = verdict.passes;
                    verdict.remainder = Remainder::TurnOver;
                    break;
                }
                verdict.frames += 1;
                self.frame(scanner, next, env, now)
            } else {
                self.payload(scanner, next.len(), env, now)
            };
            let (skipped, remainder) = match word {
                FrameVerdict::Pass { most, is_frame } => {
                    verdict.has_frame |= is_frame;
                    let (used, messages) = scanner.scan_to_boundary(&next[..most]);
                    verdict.passes += used;
                    verdict.messages += messages;
                    continue;
                }
                FrameVerdict::Unfinished => (0, Remainder::Unfinished),
                FrameVerdict::Swallow(length) => {
                    verdict.has_frame = true;
                    (length, Remainder::Swallowed)
                }
                FrameVerdict::Reject(Violation::Rate(limit, lacks)) if self.defers(env) => {
                    self.defer(limit, env);
                    (0, Remainder::Defer(lacks))
                }
                FrameVerdict::Reject(violation) => (0, Remainder::Reject(violation)),
            };
            verdict.rest = verdict.passes + skipped;
            verdict.remainder = remainder;
            break;
        }
        verdict
    }

    /// How much of the payload in hand may pass now, of which so much is `left`.
    ///
    /// # Errors
    /// How long it has to wait until some may: then it counts as put off.
    pub(super) fn allowance(&mut self, left: u64, env: &RelayEnv, now: Moment) -> Result<u64, Duration> {
        // What is refused rather than put off was found to fit when its header came.
        if !self.defers(env) {
            return Ok(u64::MAX);
        }
        self.there(left, env, now).inspect_err(|_| {
            self.defer(self.names().2, env);
        })
    }

    /// Counts that so many bytes of the payload in hand have passed, of which so many were `left`.
    pub(super) fn spend(&mut self, bytes: u64, left: u64, env: &RelayEnv, now: Moment) {
        if let Some(meter) = self.paces(env) {
            self.bytes.charge(meter.bytes(bytes), now);
        }
        self.allowed = self.allowed.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.is_deferred &= bytes < left;
    }

    /// Whether payload is counted as it passes.
    pub(super) fn paces(&self, env: &RelayEnv) -> Option<ByteMeter> {
        self.limits(env).bytes.filter(|_| !env.limits.observe)
    }

    fn there(&mut self, left: u64, env: &RelayEnv, now: Moment) -> Result<u64, Duration> {
        let Some(meter) = self.paces(env) else {
            return Ok(u64::MAX);
        };
        if self.allowed == 0 {
            let portion = meter.portion().min(left);
            if let Some(lacks) = self.bytes.lacks(meter.bytes(portion), now) {
                return Err(lacks);
            }
            self.allowed = u32::try_from(self.bytes.holds(meter, now)).unwrap_or(u32::MAX);
        }
        Ok(self.allowed.into())
    }

    /// The line of those who wait for what they share, and what a message costs there.
    pub(super) fn line<'env>(&self, env: &'env RelayEnv) -> Option<(&'env Arc<Line>, Charge)> {
        let shares = env.shares.as_ref()?;
        let line = match self.sender {
            Sender::Client => &shares.inbound_line,
            Sender::Server => &shares.outbound_line,
        };
        Some((line, self.limits(env).shared?))
    }

    /// Counts that a frame was refused for good.
    pub(super) fn refuse(&mut self, violation: Violation, env: &RelayEnv) {
        let limit = match violation {
            Violation::Rate(limit, _) => limit,
            Violation::Size => MessageLimit::MaxSize,
            Violation::Fault(_) => MessageLimit::StrictFrames,
        };
        self.hit(limit, LimitAction::Close, env);
    }

    /// Payload, or bytes of which nobody knows what they are: so many of them are here.
    fn payload(&mut self, scanner: &FrameScanner, here: usize, env: &RelayEnv, now: Moment) -> FrameVerdict {
        let left = in_hand(scanner);
        match self.there(left, env, now) {
            Ok(there) => {
                let most = usize::try_from(there.min(left)).map_or(here, |most| most.min(here));
                self.spend(most as u64, left, env, now);
                FrameVerdict::Pass { most, is_frame: false }
            }
            Err(lacks) => FrameVerdict::Reject(Violation::Rate(self.names().2, lacks)),
        }
    }

    /// The frame that `bytes` begin with.
    fn frame(&mut self, scanner: &FrameScanner, bytes: &[u8], env: &RelayEnv, now: Moment) -> FrameVerdict {
        let limits = self.limits(env);
        let (header, used) = match FrameHeader::parse(bytes, self.sender) {
            Ok(Step::Done { value, used }) => (value, used),
            Ok(Step::More) => return FrameVerdict::Unfinished,
            Err(fault) => {
                return self.faulty(fault, env).unwrap_or(FrameVerdict::Pass {
                    most: blinding(scanner, bytes),
                    is_frame: false,
                });
            }
        };
        if let Some(fault) = scanner.fault_of(header)
            && let Some(word) = self.faulty(fault, env)
        {
            return word;
        }
        let size = self.sequence.size_with(header).unwrap_or(header.payload);
        if header.kind == FrameKind::Pong
            && let Some(word) = self.pong(header, bytes, used)
        {
            return word;
        }
        if limits.max_size.is_some_and(|max| size > max) && !self.observes(MessageLimit::MaxSize, env) {
            return FrameVerdict::Reject(Violation::Size);
        }
        let here = bytes.len() - used;
        let is_paid = match self.take(header, here, env, now) {
            Ok(is_paid) => is_paid,
            Err((limit, _)) if self.observes(limit, env) => true,
            Err((limit, lacks)) => return FrameVerdict::Reject(Violation::Rate(limit, lacks)),
        };
        if begins_message(header) && self.sender == Sender::Client && env.limits.polices_client() {
            let beats = self.beats.get_or_insert_default();
            env.counters.heartbeats.add(beats.message(header.payload, now).into());
        }
        self.is_deferred &= !is_paid;
        self.sequence.pass(header);
        FrameVerdict::Pass {
            most: if is_paid { bytes.len() } else { used },
            is_frame: true,
        }
    }

    /// Takes what the frame costs of every bucket, or of none. Says whether its payload is paid for, of which so much is
    /// here: otherwise it is as it passes.
    fn take(
        &mut self,
        header: FrameHeader,
        here: usize,
        env: &RelayEnv,
        now: Moment,
    ) -> Result<bool, (MessageLimit, Duration)> {
        let limits = self.limits(env);
        let for_message = |charge: Option<Charge>| charge.filter(|_| begins_message(header));
        let (rate, shared_rate, bytes_rate) = self.names();
        let waits = self.defers(env);
        self.lacks_share = false;
        let own = [
            (for_message(limits.messages), &mut self.messages, rate),
            (limits.frames, &mut self.frames, MessageLimit::Frames),
        ];
        for (charge, bucket, limit) in &own {
            if let Some(lacks) = charge.and_then(|charge| bucket.lacks(charge, now)) {
                return Err((*limit, lacks));
            }
        }
        let payload = limits.bytes.map(|meter| meter.bytes(header.payload));
        let mut lacks = payload.and_then(|charge| self.bytes.lacks(charge, now));
        let is_there = lacks.is_none();
        if let Some(meter) = limits.bytes
            && !is_there
            && waits
        {
            // Nothing is refused for good, so what is larger than the bucket has to come through some time.
            let first = header.payload.min(meter.portion());
            lacks = self.bytes.lacks(meter.bytes(first), now);
        }
        if let Some(lacks) = lacks {
            return Err((bytes_rate, lacks));
        }
        if let Some(shares) = &env.shares {
            let (messages, frames, line) = match self.sender {
                Sender::Client => (&shares.inbound, &shares.inbound_frames, &shares.inbound_line),
                Sender::Server => (&shares.outbound, &shares.outbound_frames, &shares.outbound_line),
            };
            let messages = for_message(limits.shared).map(|charge| (messages, charge));
            let frames = limits.shared_frames.map(|charge| (frames, charge));
            // Nobody gets ahead of those who wait.
            let is_barred = waits && !self.has_turn && limits.shared.is_some_and(|price| !line.is_empty(price));
            if let Some((bucket, charge)) = messages.or(frames).filter(|_| is_barred) {
                self.lacks_share = true;
                return Err((shared_rate, bucket.bucket().lacks(charge, now).unwrap_or(SOON)));
            }
            take_shared(messages, frames, now).map_err(|lacks| {
                self.lacks_share = true;
                (shared_rate, lacks)
            })?;
        }
        for (charge, bucket, _) in own {
            if let Some(charge) = charge {
                bucket.charge(charge, now);
            }
        }
        let Some(charge) = payload else { return Ok(true) };
        let is_paid = is_there && header.payload <= here as u64 || env.limits.observe;
        if is_paid {
            self.bytes.charge(charge, now);
        }
        self.allowed = 0;
        Ok(is_paid)
    }

    /// What its rates are called: of messages, of those of the client's all together, and of bytes.
    fn names(&self) -> (MessageLimit, MessageLimit, MessageLimit) {
        match self.sender {
            Sender::Client => (MessageLimit::Rate, MessageLimit::PerIpRate, MessageLimit::BytesRate),
            Sender::Server => (
                MessageLimit::OutRate,
                MessageLimit::OutPerIpRate,
                MessageLimit::OutBytesRate,
            ),
        }
    }

    /// A pong, if it answers a question of ours.
    fn pong(&mut self, header: FrameHeader, bytes: &[u8], used: usize) -> Option<FrameVerdict> {
        let expected = self.pong.as_mut()?;
        if !expected.may_match(header.payload) {
            return None;
        }
        let Some(payload) = usize::try_from(header.payload)
            .ok()
            .and_then(|payload| bytes.get(used..used + payload))
        else {
            return Some(FrameVerdict::Unfinished);
        };
        let mask = bytes[used - 4..used].try_into().ok()?;
        expected
            .matches(payload, mask)
            .then_some(FrameVerdict::Swallow(used + payload.len()))
    }

    /// What becomes of a frame with this fault; `None`: it is taken as it comes.
    fn faulty(&mut self, fault: FrameFault, env: &RelayEnv) -> Option<FrameVerdict> {
        let is_held_to_it = self.limits(env).strict && !self.observes(MessageLimit::StrictFrames, env);
        is_held_to_it.then_some(FrameVerdict::Reject(Violation::Fault(fault)))
    }

    /// Counts the hit where everything passes all the same.
    fn observes(&mut self, limit: MessageLimit, env: &RelayEnv) -> bool {
        let observes = env.limits.observe;
        if observes {
            self.hit(limit, LimitAction::Observe, env);
        }
        observes
    }

    /// Whether what exceeds a rate waits: nothing of a server's is ever refused.
    fn defers(&self, env: &RelayEnv) -> bool {
        self.sender == Sender::Server || env.limits.on_exceed == OnExceed::Delay
    }

    fn defer(&mut self, limit: MessageLimit, env: &RelayEnv) {
        if !std::mem::replace(&mut self.is_deferred, true) {
            self.hit(limit, LimitAction::Delay, env);
        }
    }

    fn hit(&mut self, limit: MessageLimit, action: LimitAction, env: &RelayEnv) {
        env.counters.hits(limit, action).add(1);
        self.hits = self.hits.saturating_add(1);
        self.last_hit = Some(limit);
    }

    fn limits<'env>(&self, env: &'env RelayEnv) -> &'env DirectionLimits {
        match self.sender {
            Sender::Client => &env.limits.inbound,
            Sender::Server => &env.limits.outbound,
        }
    }
}

/// What the judge says of what comes next.
enum FrameVerdict {
    /// As far as the frame goes, and no more than so many bytes.
    Pass {
        most: usize,
        /// They begin a frame whose header can be.
        is_frame: bool,
    },
    Unfinished,
    /// It is for us, and so long.
    Swallow(usize),
    Reject(Violation),
}

/// How much of the payload in hand is still to come; what has no end where the scanner is blind.
pub(super) fn in_hand(scanner: &FrameScanner) -> u64 {
    if scanner.is_blind() {
        u64::MAX
    } else {
        scanner.payload_left()
    }
}

/// How many of `bytes`, in whose beginning there is a fault, blind the scanner.
fn blinding(scanner: &FrameScanner, bytes: &[u8]) -> usize {
    let mut scanner = scanner.clone();
    let sees = |byte: &&u8| {
        scanner.scan(std::slice::from_ref(*byte));
        !scanner.is_blind()
    };
    (bytes.iter().take_while(sees).count() + 1).min(bytes.len())
}

fn begins_message(header: FrameHeader) -> bool {
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

/// Frames of one direction that are judged before others have their turn: some 50 us.
pub(super) const MOST_FRAMES: u32 = 1024;

/// A token is there, and those who came first take it.
const SOON: Duration = Duration::from_millis(1);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
