//! A flow that is judged: what may not pass yet is kept, and nothing is read meanwhile; what may not pass at all ends the
//! connection.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::net::stream::Stream;

use super::flow::{Flow, Moved};
use super::judge::{Judge, Matter, Offence};
use super::tally::MessageLimit;

/// A judge, and what it holds up.
#[derive(Debug)]
pub(super) struct Inspection {
    pub(super) judge: Judge,
    /// What was read and does not pass yet: begins at a frame boundary.
    kept: Vec<u8>,
    /// What is kept can be judged without reading more.
    resumes: bool,
    delay: Option<Box<Delay>>,
    /// Since the last notice, something was held up for the first time: for so long.
    was_held_up: Option<Duration>,
    has_held_up: bool,
    offence: Option<Offence>,
}

#[derive(Debug)]
struct Delay {
    since: Instant,
    /// `None`: it has run out, and what is kept is judged again.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Inspection {
    /// Begins with `first`, which nobody has judged.
    pub(super) fn new(judge: Judge, first: Vec<u8>) -> Self {
        Self {
            judge,
            resumes: !first.is_empty(),
            kept: first,
            delay: None,
            was_held_up: None,
            has_held_up: false,
            offence: None,
        }
    }

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

    fn refuse(&mut self, offence: Offence) {
        self.judge.refuse(offence);
        self.offence = Some(offence);
    }

    fn wait(&mut self, lacks: Duration, patience: Option<Duration>) {
        let now = Instant::now();
        let delay = self.delay.get_or_insert_with(|| {
            Box::new(Delay {
                since: now,
                timer: None,
            })
        });
        let mut until = now + lacks;
        if let Some(patience) = patience {
            let end = delay.since + patience;
            if now >= end {
                let limit = self.judge.last_hit.unwrap_or(MessageLimit::Rate);
                self.refuse(Offence::Rate(limit, lacks));
                return;
            }
            until = until.min(end);
        }
        delay.timer = Some(Box::pin(tokio::time::sleep_until(until)));
        if !std::mem::replace(&mut self.has_held_up, true) {
            self.was_held_up = Some(lacks);
        }
    }
}

impl Flow {
    /// Whether something waits for its time.
    pub(super) fn is_delayed(&self) -> bool {
        self.inspection
            .as_ref()
            .is_some_and(|inspection| inspection.delay.is_some())
    }

    /// What the connection is to be ended for.
    pub(super) fn offence(&self) -> Option<Offence> {
        self.inspection.as_ref().and_then(|inspection| inspection.offence)
    }

    /// For how long something is held up, the first time that anything is.
    pub(super) fn take_first_hold_up(&mut self) -> Option<Duration> {
        self.inspection.as_mut()?.was_held_up.take()
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

    /// Judges what is kept as far as nothing has to be read for it. `Ready(true)`: it did, and there may be more to do;
    /// `Ready(false)`: reading may go on; `Pending`: it may not.
    pub(super) fn poll_kept(&mut self, sink: &Stream, moved: &mut Moved, cx: &mut Context<'_>) -> Poll<bool> {
        let Some(inspection) = &mut self.inspection else {
            return Poll::Ready(false);
        };
        if inspection.offence.is_some() {
            return Poll::Pending;
        }
        std::task::ready!(inspection.poll_delay(cx));
        if !inspection.resumes {
            return Poll::Ready(false);
        }
        let kept = std::mem::take(&mut inspection.kept);
        self.inspect(&kept, sink, moved);
        Poll::Ready(true)
    }

    /// Puts what is kept at the front of `buffer`, and says how much that is: what is read goes behind it.
    pub(super) fn recall(&self, buffer: &mut [u8]) -> usize {
        let Some(inspection) = &self.inspection else { return 0 };
        buffer[..inspection.kept.len()].copy_from_slice(&inspection.kept);
        inspection.kept.len()
    }

    /// Judges `bytes`, what was kept included, and passes on what may pass.
    pub(super) fn inspect(&mut self, bytes: &[u8], sink: &Stream, moved: &mut Moved) {
        let Some(inspection) = &mut self.inspection else {
            return;
        };
        let terms = inspection.judge.terms();
        let now = terms.moment(std::time::Instant::now());
        let judged = inspection.judge.judge(&mut self.scanner, bytes, now);
        inspection.kept.clear();
        inspection.kept.extend_from_slice(&bytes[judged.rest..]);
        if inspection.kept.is_empty() {
            inspection.kept = Vec::new();
        }
        inspection.resumes =
            matches!(judged.matter, Matter::Swallowed | Matter::Wait(_)) && !inspection.kept.is_empty();
        // Whatever passed first, the next one to wait begins its own span.
        if judged.passes > 0 || !matches!(judged.matter, Matter::Wait(_)) {
            inspection.delay = None;
        }
        match judged.matter {
            Matter::None | Matter::Unfinished | Matter::Swallowed => {}
            Matter::Wait(lacks) => {
                let patience = inspection.judge.is_of_client().then_some(PATIENCE);
                inspection.wait(lacks, patience);
            }
            Matter::Forbidden(offence) => inspection.refuse(offence),
        }
        let swallowed = judged.rest - judged.passes;
        self.count(judged.passes + swallowed, judged.messages.into(), moved);
        self.write_on(&bytes[..judged.passes], sink, moved);
    }

    /// Lets go of what is kept without a word on it, because its sender has ended: it is for the other side to judge.
    pub(super) fn release(&mut self, sink: &Stream, moved: &mut Moved) {
        if let Some(inspection) = &mut self.inspection {
            let kept = std::mem::take(&mut inspection.kept);
            self.count(kept.len(), 0, moved);
            self.write_on(&kept, sink, moved);
        }
    }
}

/// How long a client's messages are held up in one piece before its connection is ended.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
