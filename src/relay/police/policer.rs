//! The policer of one direction: reads each frame's header before the frame passes, and decides whether it may.
//!
//! Its verdict does not depend on how the stream is split into reads: an incomplete header waits for the rest. If
//! frames above a rate are rejected, a frame passes if the bucket holds its whole payload once the header is complete.
//! If they wait, a frame passes once it can begin, and then as much at a time as the bucket holds.

use std::sync::Arc;
use std::time::Duration;

use crate::limit::bucket::{Charge, Moment};
use crate::limit::wait_queue::WaitQueue;
use crate::net::random::Random;
use crate::wire::Step;
use crate::wire::ws::header::{FrameFault, FrameHeader, FrameKind, Sender};
use crate::wire::ws::scanner::FrameScanner;
use crate::wire::ws::sequence::MessageSequence;

use super::super::counters::{LimitAction, MessageLimit};
use super::super::env::RelayEnv;
use super::buckets::RateBuckets;
use super::heartbeat::HeartbeatDetector;
use super::pong::ExpectedPong;
use super::verdict::{Remainder, Verdict, Violation};

/// The policer of one direction, with its memory of the connection. Idle connections have one too, so parts that only
/// some connections need are boxed.
#[derive(Debug)]
pub(in crate::relay) struct FramePolicer {
    buckets: RateBuckets,
    sequence: MessageSequence,
    heartbeats: Option<Box<HeartbeatDetector>>,
    pong: Option<Box<ExpectedPong>>,
    hits: u32,
    last_hit: Option<MessageLimit>,
    /// The next frame has been counted as deferred. It is not counted again, however often it is decided on.
    is_deferred: bool,
}

/// The verdict on the next bytes.
enum FrameVerdict {
    /// The bytes pass to the end of the frame, but at most `most` bytes.
    Pass {
        most: usize,
        /// The bytes begin a frame with a valid header.
        is_frame: bool,
    },
    /// A header, or a pong, is incomplete.
    Unfinished,
    /// This many of the next bytes are a pong that answers a ping of wsguard.
    Swallow(usize),
    /// The bytes may not pass, either for now or for ever.
    Reject(Violation),
}

impl FramePolicer {
    /// A policer for the frames that `sender` sends, with full buckets.
    pub(in crate::relay) fn new(sender: Sender) -> Self {
        Self {
            buckets: RateBuckets::new(sender),
            sequence: MessageSequence::default(),
            heartbeats: None,
            pong: None,
            hits: 0,
            last_hit: None,
            is_deferred: false,
        }
    }

    /// Whether a new policer could take its place, if no limit makes it remember anything.
    pub(in crate::relay) fn is_untouched(&self) -> bool {
        self.hits == 0 && self.pong.is_none()
    }

    /// The number of messages so far that looked like heartbeats.
    pub(in crate::relay) fn heartbeats(&self) -> u32 {
        self.heartbeats.as_ref().map_or(0, |heartbeats| heartbeats.suspected())
    }

    /// How often a limit was hit.
    pub(in crate::relay) fn hits(&self) -> u32 {
        self.hits
    }

    /// The last limit that was hit.
    pub(in crate::relay) fn last_hit(&self) -> Option<MessageLimit> {
        self.last_hit
    }

    /// Whether it polices what the client sends.
    pub(in crate::relay) fn is_of_client(&self) -> bool {
        self.buckets.sender() == Sender::Client
    }

    /// A ping frame for the client, whose pong will be swallowed. The first ping draws the payload that all pings of
    /// the connection have.
    pub(in crate::relay) fn ping(&mut self, random: &Random) -> Vec<u8> {
        self.pong
            .get_or_insert_with(|| Box::new(ExpectedPong::new(random)))
            .ping()
    }

    /// Decides on `bytes`, which begin where `scanner` is. The scanner follows the bytes that pass.
    pub(in crate::relay) fn police(
        &mut self,
        scanner: &mut FrameScanner,
        bytes: &[u8],
        env: &RelayEnv,
        now: Moment,
    ) -> Verdict {
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
            let frame_verdict = if scanner.at_boundary() {
                if verdict.frames == MAX_FRAMES {
                    verdict.rest = verdict.passes;
                    verdict.remainder = Remainder::TurnOver;
                    break;
                }
                verdict.frames += 1;
                self.frame(scanner, next, env, now)
            } else {
                self.payload(scanner, next.len(), env, now)
            };
            let (skipped, remainder) = match frame_verdict {
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
                FrameVerdict::Reject(Violation::Rate(limit, wait)) if self.buckets.defers(env) => {
                    self.defer(limit, env);
                    (0, Remainder::Defer(wait))
                }
                FrameVerdict::Reject(violation) => (0, Remainder::Reject(violation)),
            };
            verdict.rest = verdict.passes + skipped;
            verdict.remainder = remainder;
            break;
        }
        verdict
    }

    /// How many bytes of the payload in progress may pass now, if `left` bytes of it are still to come.
    ///
    /// # Errors
    /// How long it takes until some may. It counts as deferred then.
    pub(in crate::relay) fn allowance(&mut self, left: u64, env: &RelayEnv, now: Moment) -> Result<u64, Duration> {
        // If frames are rejected and not deferred, the whole frame was found to fit when its header came.
        if !self.buckets.defers(env) {
            return Ok(u64::MAX);
        }
        self.buckets.allowance(left, env, now).inspect_err(|_| {
            self.defer(self.buckets.bytes_limit(), env);
        })
    }

    /// Counts that this many bytes of the payload in progress passed. Before that, `left` bytes of it were to come.
    pub(in crate::relay) fn spend(&mut self, bytes: u64, left: u64, env: &RelayEnv, now: Moment) {
        self.buckets.spend(bytes, env, now);
        self.is_deferred &= bytes < left;
    }

    /// Whether payload is counted as it passes.
    pub(in crate::relay) fn meters_payload(&self, env: &RelayEnv) -> bool {
        self.buckets.byte_meter(env).is_some()
    }

    /// The queue for the shared bucket, and the price of a message there.
    pub(in crate::relay) fn wait_queue<'env>(&self, env: &'env RelayEnv) -> Option<(&'env Arc<WaitQueue>, Charge)> {
        self.buckets.wait_queue(env)
    }

    /// Whether the last frame that could not pass lacked a token of a shared bucket.
    pub(in crate::relay) fn lacks_shared(&self) -> bool {
        self.buckets.lacks_shared()
    }

    /// Notes whether this connection is first in the queue for a shared bucket.
    pub(in crate::relay) fn set_turn(&mut self, has_turn: bool) {
        self.buckets.set_turn(has_turn);
    }

    /// Counts that a frame was rejected for good.
    pub(in crate::relay) fn reject(&mut self, violation: Violation, env: &RelayEnv) {
        let limit = match violation {
            Violation::Rate(limit, _) => limit,
            Violation::Size => MessageLimit::MaxSize,
            Violation::Fault(_) => MessageLimit::StrictFrames,
        };
        self.hit(limit, LimitAction::Close, env);
    }

    /// The verdict on the payload in progress, or on bytes in which frames can't be found. `here` of these bytes have
    /// come.
    fn payload(&mut self, scanner: &FrameScanner, here: usize, env: &RelayEnv, now: Moment) -> FrameVerdict {
        let left = in_progress(scanner);
        match self.buckets.allowance(left, env, now) {
            Ok(allowed) => {
                let most = usize::try_from(allowed.min(left)).map_or(here, |most| most.min(here));
                self.spend(most as u64, left, env, now);
                FrameVerdict::Pass { most, is_frame: false }
            }
            Err(wait) => FrameVerdict::Reject(Violation::Rate(self.buckets.bytes_limit(), wait)),
        }
    }

    /// The verdict on the frame that begins `bytes`.
    fn frame(&mut self, scanner: &FrameScanner, bytes: &[u8], env: &RelayEnv, now: Moment) -> FrameVerdict {
        let limits = self.buckets.limits(env);
        let (header, used) = match FrameHeader::parse(bytes, self.buckets.sender()) {
            Ok(Step::Done { value, used }) => (value, used),
            Ok(Step::More) => return FrameVerdict::Unfinished,
            Err(fault) => {
                return self.reject_fault(fault, env).unwrap_or_else(|| {
                    self.buckets.begin_payload();
                    FrameVerdict::Pass {
                        most: blinding(scanner, bytes),
                        is_frame: false,
                    }
                });
            }
        };
        if let Some(fault) = scanner.fault_of(header)
            && let Some(verdict) = self.reject_fault(fault, env)
        {
            return verdict;
        }
        let size = self.sequence.size_with(header).unwrap_or(header.payload);
        if header.kind == FrameKind::Pong
            && let Some(verdict) = self.pong(header, bytes, used)
        {
            return verdict;
        }
        if limits.max_size.is_some_and(|max| size > max) && !self.observes(MessageLimit::MaxSize, env) {
            return FrameVerdict::Reject(Violation::Size);
        }
        let here = bytes.len() - used;
        let is_paid = match self.buckets.take(header, here, env, now) {
            Ok(is_paid) => is_paid,
            Err((limit, _)) if self.observes(limit, env) => true,
            Err((limit, wait)) => return FrameVerdict::Reject(Violation::Rate(limit, wait)),
        };
        if header.kind.begins_message() && self.is_of_client() && env.limits.polices_client() {
            let heartbeats = self.heartbeats.get_or_insert_default();
            let suspected = heartbeats.message(header.payload, now);
            env.counters.heartbeats.add(suspected.into());
        }
        self.is_deferred &= !is_paid;
        self.sequence.pass(header);
        FrameVerdict::Pass {
            most: if is_paid { bytes.len() } else { used },
            is_frame: true,
        }
    }

    /// The verdict on a pong that answers a ping of ours, or may turn out to. `None` for any other pong.
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

    /// The verdict on a frame with this fault. `None` if it passes like any other frame.
    fn reject_fault(&mut self, fault: FrameFault, env: &RelayEnv) -> Option<FrameVerdict> {
        let is_strict = self.buckets.limits(env).strict && !self.observes(MessageLimit::StrictFrames, env);
        is_strict.then_some(FrameVerdict::Reject(Violation::Fault(fault)))
    }

    /// If limits are only observed, counts the hit and returns true.
    fn observes(&mut self, limit: MessageLimit, env: &RelayEnv) -> bool {
        let observes = env.limits.observe;
        if observes {
            self.hit(limit, LimitAction::Observe, env);
        }
        observes
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
}

/// How much of the payload in progress is still to come. If the scanner has lost the frames, that is without end.
pub(in crate::relay) fn in_progress(scanner: &FrameScanner) -> u64 {
    if scanner.is_blind() {
        u64::MAX
    } else {
        scanner.payload_left()
    }
}

/// How many of `bytes`, which begin with a fault, it takes until the scanner is blind.
fn blinding(scanner: &FrameScanner, bytes: &[u8]) -> usize {
    let mut scanner = scanner.clone();
    let sees = |byte: &&u8| {
        scanner.scan(std::slice::from_ref(*byte));
        !scanner.is_blind()
    };
    (bytes.iter().take_while(sees).count() + 1).min(bytes.len())
}

/// The most frames of one direction that are decided on in one turn: some 50 us.
pub(in crate::relay) const MAX_FRAMES: u32 = 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
