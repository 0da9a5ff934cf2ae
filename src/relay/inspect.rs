//! A flow that is judged: what may not pass yet is kept, and nothing is read meanwhile; what may not pass at all ends the
//! connection.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use crate::net::stream::Stream;
use crate::wire::frame::Sender;

use super::flow::{Flow, Moved};
use super::judge::{Judge, Law, Matter, Offence, in_hand};
use super::tally::MessageLimit;

/// A judge, and what it holds up.
#[derive(Debug)]
pub(super) struct Inspection {
    pub(super) judge: Judge,
    /// Only while something is held up.
    hold: Option<Box<Hold>>,
    has_delayed: bool,
}

/// What was read and does not pass yet.
#[derive(Debug, Default)]
struct Hold {
    /// Begins where the scanner stands: at a frame boundary, or within a payload that waits.
    kept: Vec<u8>,
    /// It can be judged without reading more.
    resumes: bool,
    delay: Option<Delay>,
    /// It is the first that is delayed: for so long.
    is_first_delay: Option<Duration>,
    offence: Option<Offence>,
}

#[derive(Debug)]
struct Delay {
    /// By the clock that peers are judged by.
    since: Instant,
    /// `None`: it has run out, and what is kept is judged again.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Inspection {
    /// Begins with `first`, which nobody has judged.
    pub(super) fn new(judge: Judge, first: Vec<u8>) -> Self {
        let hold = (!first.is_empty()).then(|| {
            Box::new(Hold {
                kept: first,
                resumes: true,
                ..Hold::default()
            })
        });
        Self {
            judge,
            hold,
            has_delayed: false,
        }
    }

    fn refuse(&mut self, offence: Offence, law: &Law) {
        self.judge.refuse(offence, law);
        self.hold.get_or_insert_default().offence = Some(offence);
    }

    /// Holds what is kept for as long as the limit wants; a client's no longer than [`PATIENCE`] in one piece.
    fn delay(&mut self, lacks: Duration, law: &Law) {
        let clock = &law.terms.clock;
        let now = clock.now();
        let patience = self.judge.is_of_client().then_some(PATIENCE);
        let limit = self.judge.last_hit.unwrap_or(MessageLimit::Rate);
        let hold = self.hold.get_or_insert_default();
        let delay = hold.delay.get_or_insert(Delay {
            since: now,
            timer: None,
        });
        let mut until = now + lacks;
        if let Some(patience) = patience {
            let end = delay.since + patience;
            if now >= end {
                return self.refuse(Offence::Rate(limit, lacks), law);
            }
            until = until.min(end);
        }
        delay.timer = Some(Box::pin(tokio::time::sleep_until(clock.monotonic(until).into())));
        if !std::mem::replace(&mut self.has_delayed, true) {
            hold.is_first_delay = Some(lacks);
        }
    }
}

impl Hold {
    /// Ready when nothing waits for its time any more.
    fn poll_delay(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(delay) = &mut self.delay
            && let Some(timer) = &mut delay.timer
        {
            std::task::ready!(timer.as_mut().poll(cx));
            delay.timer = None;
        }
        Poll::Ready(())
    }
}

impl Flow {
    /// Whether something waits for its time.
    pub(super) fn is_delayed(&self) -> bool {
        self.held_up().is_some_and(|hold| hold.delay.is_some())
    }

    /// What the connection is to be ended for.
    pub(super) fn offence(&self) -> Option<Offence> {
        self.held_up()?.offence
    }

    /// For how long something is delayed, the first time that anything is.
    pub(super) fn take_first_delay(&mut self) -> Option<Duration> {
        self.inspection.as_mut()?.hold.as_mut()?.is_first_delay.take()
    }

    /// Whether something is kept until it may pass.
    pub(super) fn holds_up(&self) -> bool {
        self.held_up().is_some()
    }

    /// Whether what is kept has nothing be read.
    pub(super) fn pauses(&self) -> bool {
        self.held_up()
            .is_some_and(|hold| hold.resumes || hold.delay.is_some() || hold.offence.is_some())
    }

    fn held_up(&self) -> Option<&Hold> {
        self.inspection.as_ref()?.hold.as_deref()
    }

    /// Whether anything was ever delayed.
    pub(super) fn has_delayed(&self) -> bool {
        self.inspection
            .as_ref()
            .is_some_and(|inspection| inspection.has_delayed)
    }

    /// Who judges it, to be told of a question.
    pub(super) fn judge(&mut self) -> Option<&mut Judge> {
        Some(&mut self.inspection.as_mut()?.judge)
    }

    /// Who judges it.
    pub(super) fn judged_by(&self) -> Option<&Judge> {
        Some(&self.inspection.as_ref()?.judge)
    }

    /// Whether frames of ours may be put in: the last one of the source's was written to its end, and is not the last of all.
    pub(super) fn is_between_frames(&self) -> bool {
        self.scanner.at_boundary()
            && !self.scanner.saw_close()
            && !self.holds()
            && !self.is_done
            && self.source_end.is_none()
            && self.sink_end.is_none()
    }

    /// Whether messages of ours may be put in.
    pub(super) fn is_between_messages(&self) -> bool {
        self.is_between_frames() && !self.scanner.is_within_message()
    }

    /// Judges what is kept as far as nothing has to be read for it. `Ready(true)`: it did, and there may be more to do;
    /// `Ready(false)`: reading may go on; `Pending`: it may not.
    pub(super) fn poll_kept(
        &mut self,
        sink: &Stream,
        law: &Law,
        moved: &mut Moved,
        cx: &mut Context<'_>,
    ) -> Poll<bool> {
        let Some(inspection) = &mut self.inspection else {
            return Poll::Ready(false);
        };
        let Some(hold) = &mut inspection.hold else {
            return Poll::Ready(false);
        };
        if hold.offence.is_some() {
            return Poll::Pending;
        }
        std::task::ready!(hold.poll_delay(cx));
        if hold.kept.is_empty() {
            inspection.hold = None;
            return Poll::Ready(false);
        }
        if !hold.resumes {
            return Poll::Ready(false);
        }
        let kept = std::mem::take(&mut hold.kept);
        self.inspect(&kept, sink, law, moved);
        Poll::Ready(true)
    }

    /// Puts what is kept at the front of `buffer`, and says how much that is: what is read goes behind it.
    pub(super) fn recall(&self, buffer: &mut [u8]) -> usize {
        let Some(hold) = self.held_up() else { return 0 };
        buffer[..hold.kept.len()].copy_from_slice(&hold.kept);
        hold.kept.len()
    }

    /// Judges `bytes`, what was kept included, and passes on what may pass.
    pub(super) fn inspect(&mut self, bytes: &[u8], sink: &Stream, law: &Law, moved: &mut Moved) {
        let Some(inspection) = &mut self.inspection else {
            return;
        };
        let now = law.terms.moment(Instant::now());
        let judged = inspection.judge.judge(&mut self.scanner, bytes, law, now);
        // Whatever passed first, the next one to wait begins its own span.
        let before = inspection.hold.take().and_then(|hold| hold.delay);
        let waits = matches!(judged.matter, Matter::Wait(_));
        let kept = &bytes[judged.rest..];
        if !kept.is_empty() {
            inspection.hold = Some(Box::new(Hold {
                kept: kept.to_vec(),
                resumes: matches!(judged.matter, Matter::Swallowed | Matter::Wait(_)),
                delay: before.filter(|_| waits && judged.passes == 0),
                ..Hold::default()
            }));
        }
        match judged.matter {
            Matter::None | Matter::Unfinished | Matter::Swallowed => {}
            Matter::Wait(lacks) => inspection.delay(lacks, law),
            Matter::Forbidden(offence) => inspection.refuse(offence, law),
        }
        // Whose form alone is looked at needs no judge for it until something is to be kept again.
        let is_needed = inspection.hold.is_some() || !inspection.judge.is_untouched() || law.terms.limits_client();
        if inspection.judge.is_of_client() && !is_needed {
            self.inspection = None;
        }
        moved.spoken |= judged.has_spoken;
        self.count(judged.rest, judged.messages.into(), moved);
        self.write_on(&bytes[..judged.passes], sink, moved);
    }

    /// Passes on what breaks no rule of RFC 6455, where nothing else is looked at; a judge is given what does, or is not whole.
    pub(super) fn inspect_form(&mut self, bytes: &[u8], sink: &Stream, moved: &mut Moved) {
        let unseen = self.unseen(bytes);
        let (used, messages) = self.scanner.scan_strictly(unseen);
        let passes = bytes.len() - unseen.len() + used;
        if passes < bytes.len() {
            let judge = Judge::new(Sender::Client);
            self.inspection = Some(Box::new(Inspection::new(judge, bytes[passes..].to_vec())));
        }
        self.expect_as(passes, messages);
        self.count_read(passes, messages, moved);
        self.write_on(&bytes[..passes], sink, moved);
    }

    /// How much of the payload in hand may be read now, where it is limited: `Pending` until some may.
    pub(super) fn poll_allowance(&mut self, law: &Law, cx: &mut Context<'_>) -> Poll<usize> {
        let left = in_hand(&self.scanner);
        let Some(inspection) = &mut self.inspection else {
            return Poll::Ready(usize::MAX);
        };
        if left == 0 || inspection.judge.paces(law).is_none() {
            return Poll::Ready(usize::MAX);
        }
        loop {
            if let Some(hold) = &mut inspection.hold {
                if hold.offence.is_some() {
                    return Poll::Pending;
                }
                std::task::ready!(hold.poll_delay(cx));
            }
            let now = law.terms.moment(Instant::now());
            match inspection.judge.allowance(left, law, now) {
                Ok(most) => {
                    inspection.hold.take_if(|hold| hold.kept.is_empty());
                    return Poll::Ready(usize::try_from(most).unwrap_or(usize::MAX));
                }
                Err(lacks) => inspection.delay(lacks, law),
            }
        }
    }

    /// Counts payload that passed unseen.
    pub(super) fn spend(&mut self, bytes: u64, left: u64, law: &Law) {
        if let Some(inspection) = &mut self.inspection
            && inspection.judge.paces(law).is_some()
        {
            let now = law.terms.moment(Instant::now());
            inspection.judge.spend(bytes, left, law, now);
        }
    }

    /// What is kept of the payload in hand, as much as may pass, and no more than `most`.
    pub(super) fn take_kept(&mut self, most: usize) -> Vec<u8> {
        let left = usize::try_from(self.scanner.payload_left()).unwrap_or(usize::MAX);
        let hold = self.inspection.as_mut().and_then(|inspection| inspection.hold.as_mut());
        let Some(hold) = hold else { return Vec::new() };
        hold.kept.drain(..hold.kept.len().min(most).min(left)).collect()
    }

    /// Lets go of what is kept without a word on it, because its sender has ended: it is for the other side to judge. Says
    /// whether there was anything.
    pub(super) fn release(&mut self, sink: &Stream, moved: &mut Moved) -> bool {
        let hold = self.inspection.as_mut().and_then(|inspection| inspection.hold.take());
        let Some(hold) = hold else { return false };
        self.count(hold.kept.len(), 0, moved);
        self.write_on(&hold.kept, sink, moved);
        true
    }
}

/// How long a client's messages are held up in one piece before its connection is ended.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
