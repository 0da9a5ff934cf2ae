//! The judge of one direction: looks at each frame's header before the frame passes, and says whether it may.
//!
//! Its word is the same however the stream is split: a header that is not whole yet waits, and a frame is charged as a
//! whole, by its declared length, when its header is.

use std::sync::Arc;
use std::time::Duration;

use crate::limit::bucket::{Bucket, Charge, Moment, SharedBucket};
use crate::limit::shares::{Shares, charge_both};
use crate::wire::Step;
use crate::wire::frame::{FrameScanner, Sender};
use crate::wire::header::{FrameFault, FrameHeader, FrameKind, MessageSequence};

use super::beats::Beats;
use super::ping::Expected;
use super::rules::OnExceed;
use super::tally::{Action, MessageLimit, Tally};
use super::terms::{Limits, Terms};

/// What a judge goes by: the same for both directions, and for the most part for many connections.
#[derive(Debug)]
pub(super) struct Law {
    pub(super) terms: Arc<Terms>,
    pub(super) shares: Option<Arc<Shares>>,
    pub(super) tally: Arc<Tally>,
}

/// The judge, and what it remembers of the connection. There is one for every idle connection too, so what only some need
/// is elsewhere.
#[derive(Debug)]
pub(super) struct Judge {
    messages: Bucket,
    frames: Bucket,
    bytes: Bucket,
    sequence: MessageSequence,
    beats: Option<Box<Beats>>,
    pub(super) pong: Option<Box<Expected>>,
    /// How often a limit was hit, and the last one that was.
    pub(super) hits: u32,
    pub(super) last_hit: Option<MessageLimit>,
    sender: Sender,
    /// Counts a frame once that was put off, however often it is looked at again.
    is_put_off: bool,
}

/// What is to become of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Judged {
    /// So many of them pass.
    pub(super) passes: usize,
    /// Data messages that begin in these.
    pub(super) messages: u32,
    /// Where what does not pass yet begins: behind those that pass and those that are swallowed.
    pub(super) rest: usize,
    /// What is the matter with the frame that the rest begins with.
    pub(super) matter: Matter,
}

/// Why bytes remain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Matter {
    /// None do.
    None,
    /// A header is not whole yet.
    Unfinished,
    /// Bytes before the rest were for us.
    Swallowed,
    /// It has to wait for so long at least.
    Wait(Duration),
    /// It may not pass.
    Forbidden(Offence),
}

/// Why a frame may not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offence {
    /// A rate is exceeded; after so long it would not be.
    Rate(MessageLimit, Duration),
    /// Its message is too large.
    Size,
    /// RFC 6455 forbids it.
    Fault(FrameFault),
}

impl Judge {
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
            is_put_off: false,
        }
    }

    /// Messages so far that looked like heartbeats.
    pub(super) fn heartbeats(&self) -> u32 {
        self.beats.as_ref().map_or(0, |beats| beats.suspected())
    }

    pub(super) fn is_of_client(&self) -> bool {
        self.sender == Sender::Client
    }

    /// Judges `bytes`, which begin where `scanner` stands; the scanner goes with those that pass.
    pub(super) fn judge(&mut self, scanner: &mut FrameScanner, bytes: &[u8], law: &Law, now: Moment) -> Judged {
        let mut judged = Judged {
            passes: 0,
            messages: 0,
            rest: bytes.len(),
            matter: Matter::None,
        };
        while judged.passes < bytes.len() {
            let next = &bytes[judged.passes..];
            if scanner.at_boundary() {
                let (skipped, matter) = match self.frame(next, law, now) {
                    Word::Passes => (None, Matter::None),
                    Word::Unfinished => (Some(0), Matter::Unfinished),
                    Word::Ours(length) => (Some(length), Matter::Swallowed),
                    Word::Forbidden(Offence::Rate(limit, lacks)) if self.puts_off(law) => {
                        self.put_off(limit, law);
                        (Some(0), Matter::Wait(lacks))
                    }
                    Word::Forbidden(offence) => (Some(0), Matter::Forbidden(offence)),
                };
                if let Some(skipped) = skipped {
                    judged.rest = judged.passes + skipped;
                    judged.matter = matter;
                    break;
                }
            }
            let (used, messages) = scanner.scan_to_boundary(next);
            judged.passes += used;
            judged.messages += messages;
        }
        judged
    }

    /// Counts that a frame was refused for good.
    pub(super) fn refuse(&mut self, offence: Offence, law: &Law) {
        let limit = match offence {
            Offence::Rate(limit, _) => limit,
            Offence::Size => MessageLimit::MaxSize,
            Offence::Fault(_) => MessageLimit::StrictFrames,
        };
        self.hit(limit, Action::Close, law);
    }

    /// The frame that `bytes` begin with.
    fn frame(&mut self, bytes: &[u8], law: &Law, now: Moment) -> Word {
        let limits = self.limits(law);
        let (header, used) = match FrameHeader::parse(bytes, self.sender) {
            Ok(Step::Done { value, used }) => (value, used),
            Ok(Step::More) => return Word::Unfinished,
            Err(fault) => return self.faulty(fault, law).unwrap_or(Word::Passes),
        };
        if !header.is_minimal
            && let Some(word) = self.faulty(FrameFault::LengthNotMinimal, law)
        {
            return word;
        }
        let size = match self.sequence.size_with(header) {
            Ok(size) => size,
            Err(fault) => match self.faulty(fault, law) {
                Some(word) => return word,
                None => header.payload,
            },
        };
        if header.kind == FrameKind::Pong
            && let Some(word) = self.pong(header, bytes, used)
        {
            return word;
        }
        // Whoever says farewell is going anyway.
        if header.kind != FrameKind::Close {
            if limits.max_size.is_some_and(|max| size > max) && !self.observes(MessageLimit::MaxSize, law) {
                return Word::Forbidden(Offence::Size);
            }
            if let Err((limit, lacks)) = self.take(header, law, now)
                && !self.observes(limit, law)
            {
                return Word::Forbidden(Offence::Rate(limit, lacks));
            }
            if begins_message(header) && self.sender == Sender::Client {
                let beats = self.beats.get_or_insert_default();
                law.tally.heartbeats.add(beats.message(header.payload, now).into());
            }
        }
        self.is_put_off = false;
        self.sequence.pass(header);
        Word::Passes
    }

    /// Takes what the frame costs of every bucket, or of none.
    fn take(&mut self, header: FrameHeader, law: &Law, now: Moment) -> Result<(), (MessageLimit, Duration)> {
        let limits = self.limits(law);
        let for_message = |charge: Option<Charge>| charge.filter(|_| begins_message(header));
        let bytes = limits
            .bytes
            .filter(|_| !header.kind.is_control())
            .map(|meter| meter.bytes(header.payload));
        let (rate, shared_rate, bytes_rate) = match self.sender {
            Sender::Client => (MessageLimit::Rate, MessageLimit::PerIpRate, MessageLimit::BytesRate),
            Sender::Server => (
                MessageLimit::OutRate,
                MessageLimit::OutPerIpRate,
                MessageLimit::OutBytesRate,
            ),
        };
        // Where nothing is refused for good, what is larger than the bucket has to come through some time.
        let waits = self.puts_off(law);
        let own = [
            (for_message(limits.messages), &mut self.messages, rate),
            (limits.frames, &mut self.frames, MessageLimit::Frames),
        ];
        for (charge, bucket, limit) in &own {
            if let Some(lacks) = charge.and_then(|charge| bucket.lacks(charge, now)) {
                return Err((*limit, lacks));
            }
        }
        let lacks_bytes = |charge| {
            if waits {
                self.bytes.lacks_or_full(charge, now)
            } else {
                self.bytes.lacks(charge, now)
            }
        };
        if let Some(lacks) = bytes.and_then(lacks_bytes) {
            return Err((bytes_rate, lacks));
        }
        if let Some(shares) = &law.shares {
            let (messages, frames) = match self.sender {
                Sender::Client => (&shares.inbound, &shares.inbound_frames),
                Sender::Server => (&shares.outbound, &shares.outbound),
            };
            take_shared(
                for_message(limits.shared).map(|charge| (messages, charge)),
                limits.shared_frames.map(|charge| (frames, charge)),
                now,
            )
            .map_err(|lacks| (shared_rate, lacks))?;
        }
        for (charge, bucket, _) in own {
            if let Some(charge) = charge {
                bucket.charge(charge, now);
            }
        }
        if let Some(charge) = bytes {
            self.bytes.charge(charge, now);
        }
        Ok(())
    }

    /// A pong, if it answers a question of ours.
    fn pong(&mut self, header: FrameHeader, bytes: &[u8], used: usize) -> Option<Word> {
        let expected = self.pong.as_mut()?;
        if !expected.could_be(header.payload) {
            return None;
        }
        let Some(payload) = usize::try_from(header.payload)
            .ok()
            .and_then(|payload| bytes.get(used..used + payload))
        else {
            return Some(Word::Unfinished);
        };
        let mask = bytes[used - 4..used].try_into().ok()?;
        expected
            .is_answered_by(payload, mask)
            .then_some(Word::Ours(used + payload.len()))
    }

    /// What becomes of a frame with this fault; `None`: it is taken as it comes.
    fn faulty(&mut self, fault: FrameFault, law: &Law) -> Option<Word> {
        let is_held_to_it = self.limits(law).strict && !self.observes(MessageLimit::StrictFrames, law);
        is_held_to_it.then_some(Word::Forbidden(Offence::Fault(fault)))
    }

    /// Counts the hit where everything passes all the same.
    fn observes(&mut self, limit: MessageLimit, law: &Law) -> bool {
        let observes = law.terms.observe;
        if observes {
            self.hit(limit, Action::Observe, law);
        }
        observes
    }

    /// Whether what exceeds a rate waits: nothing of a server's is ever refused.
    fn puts_off(&self, law: &Law) -> bool {
        self.sender == Sender::Server || law.terms.on_exceed == OnExceed::Delay
    }

    fn put_off(&mut self, limit: MessageLimit, law: &Law) {
        if !std::mem::replace(&mut self.is_put_off, true) {
            self.hit(limit, Action::Delay, law);
        }
    }

    fn hit(&mut self, limit: MessageLimit, action: Action, law: &Law) {
        law.tally.hits(limit, action).add(1);
        self.hits = self.hits.saturating_add(1);
        self.last_hit = Some(limit);
    }

    fn limits<'law>(&self, law: &'law Law) -> &'law Limits {
        match self.sender {
            Sender::Client => &law.terms.inbound,
            Sender::Server => &law.terms.outbound,
        }
    }
}

/// What the judge says of one frame.
enum Word {
    Passes,
    Unfinished,
    /// It is for us, and so long.
    Ours(usize),
    Forbidden(Offence),
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
