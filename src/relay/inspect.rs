//! A flow that is judged: what may not pass yet is kept, and nothing is read meanwhile; what may not pass at all ends the
//! connection.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use crate::limit::line::Place;
use crate::net::stream::Stream;
use crate::wire::ws::header::Sender;

use super::flow::{BUFFER_SIZE, Flow, Moved};
use super::judge::{Judge, Judged, Law, MOST_FRAMES, Matter, Offence, in_hand};
use super::tally::MessageLimit;

/// A judge, and what it holds up.
#[derive(Debug)]
pub(super) struct Inspection {
    pub(super) judge: Judge,
    /// Only while something is held up.
    hold: Option<Box<Hold>>,
    has_delayed: bool,
    /// So much is read at once: what can't be judged or passed on soon stays in the kernel.
    most: u32,
}

/// What was read and does not pass yet.
#[derive(Debug, Default)]
struct Hold {
    /// From `from` on; begins where the scanner stands: at a frame boundary, or within a payload that waits.
    kept: Vec<u8>,
    from: usize,
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
    /// In the line of those who wait for what they share.
    place: Option<Place>,
    /// It is not the first there: the timer tells only when its patience is over.
    queues: bool,
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
            most: LARGEST_READ,
        }
    }

    /// Reads less at once where frames are so small, or so much has to wait, that it would take several turns; and step by
    /// step more again where all of it was dealt with.
    fn adapt(&mut self, judged: &Judged, len: usize) {
        let stays = matches!(judged.matter, Matter::Enough | Matter::Wait(_));
        if stays && len - judged.rest > SMALLEST_READ as usize || judged.frames >= MOST_FRAMES {
            self.most = SMALLEST_READ;
        } else if !stays && len >= self.most as usize {
            self.most = (self.most * 2).min(LARGEST_READ);
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
            place: None,
            queues: false,
        });
        let end = patience.map(|patience| delay.since + patience);
        if end.is_some_and(|end| now >= end) {
            return self.refuse(Offence::Rate(limit, lacks), law);
        }
        if !self.judge.lacks_share {
            delay.place = None;
        } else if let (None, Some((line, price))) = (&delay.place, self.judge.line(law)) {
            delay.place = Some(line.join(price));
        }
        // Only the first of a line waits for the token; the others wait until they are.
        delay.queues = delay.place.as_ref().is_some_and(|place| !place.is_first());
        let until = if delay.queues {
            end
        } else {
            Some(end.map_or(now + lacks, |end| end.min(now + lacks)))
        };
        delay.timer = until.map(|until| Box::pin(tokio::time::sleep_until(clock.monotonic(until).into())));
        if !std::mem::replace(&mut self.has_delayed, true) {
            hold.is_first_delay = Some(lacks);
        }
    }
}

impl Hold {
    /// Ready when nothing waits for its time any more.
    fn poll_delay(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(delay) = &mut self.delay else {
            return Poll::Ready(());
        };
        if delay.queues {
            if delay.place.as_ref().is_none_or(|place| place.poll_first(cx).is_ready()) {
                (delay.queues, delay.timer) = (false, None);
                return Poll::Ready(());
            }
            if delay.timer.is_none() {
                return Poll::Pending;
            }
        }
        if let Some(timer) = &mut delay.timer {
            std::task::ready!(timer.as_mut().poll(cx));
            delay.timer = None;
        }
        Poll::Ready(())
    }

    /// What is kept.
    fn rest(&self) -> &[u8] {
        &self.kept[self.from..]
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
        if hold.rest().is_empty() {
            inspection.hold = None;
            return Poll::Ready(false);
        }
        if !hold.resumes {
            return Poll::Ready(false);
        }
        let (kept, from) = (std::mem::take(&mut hold.kept), hold.from);
        if let Some((judged, before)) = self.judge_now(&kept[from..], sink, law, moved) {
            let from = from + judged.rest;
            self.keep(kept, from, &judged, before, law);
        }
        Poll::Ready(true)
    }

    /// Puts what is kept at the front of `buffer`, and says how much that is: what is read goes behind it.
    pub(super) fn recall(&self, buffer: &mut [u8]) -> usize {
        let Some(hold) = self.held_up() else { return 0 };
        let rest = hold.rest();
        buffer[..rest.len()].copy_from_slice(rest);
        rest.len()
    }

    /// How much is read at once, what is kept included.
    pub(super) fn most_to_judge(&self) -> usize {
        self.inspection
            .as_ref()
            .map_or(BUFFER_SIZE, |inspection| inspection.most as usize)
    }

    /// Judges `bytes`, what was kept included, and passes on what may pass.
    pub(super) fn inspect(&mut self, bytes: &[u8], sink: &Stream, law: &Law, moved: &mut Moved) {
        if let Some((judged, before)) = self.judge_now(bytes, sink, law, moved) {
            self.keep(bytes[judged.rest..].to_vec(), 0, &judged, before, law);
        }
    }

    /// Passes on what may pass of `bytes`; with the verdict comes what has held up the first of them.
    fn judge_now(
        &mut self,
        bytes: &[u8],
        sink: &Stream,
        law: &Law,
        moved: &mut Moved,
    ) -> Option<(Judged, Option<Delay>)> {
        let inspection = self.inspection.as_mut()?;
        let before = inspection.hold.take().and_then(|hold| hold.delay);
        inspection.judge.has_turn = before
            .as_ref()
            .is_some_and(|delay| delay.place.is_some() && !delay.queues);
        let now = law.terms.moment(Instant::now());
        let judged = inspection.judge.judge(&mut self.scanner, bytes, law, now);
        inspection.adapt(&judged, bytes.len());
        moved.frames += u64::from(judged.frames);
        moved.spoken |= judged.has_spoken;
        self.count(judged.rest, judged.messages.into(), moved);
        self.write_on(&bytes[..judged.passes], sink, moved);
        Some((judged, before))
    }

    /// Keeps what does not pass yet, which is `kept` from `from` on.
    fn keep(&mut self, kept: Vec<u8>, from: usize, judged: &Judged, before: Option<Delay>, law: &Law) {
        let Some(inspection) = &mut self.inspection else {
            return;
        };
        // Whatever passed first, the next one to wait begins its own span, and goes to the end of the line.
        let waits = matches!(judged.matter, Matter::Wait(_));
        let delay = before.filter(|_| waits && judged.passes == 0);
        if from < kept.len() {
            inspection.hold = Some(Box::new(Hold {
                kept,
                from,
                resumes: matches!(judged.matter, Matter::Swallowed | Matter::Enough | Matter::Wait(_)),
                delay,
                ..Hold::default()
            }));
        }
        match judged.matter {
            Matter::None | Matter::Unfinished | Matter::Swallowed | Matter::Enough => {}
            Matter::Wait(lacks) => inspection.delay(lacks, law),
            Matter::Forbidden(offence) => inspection.refuse(offence, law),
        }
        // Whose form alone is looked at needs no judge for it until something is to be kept again.
        let is_needed = inspection.hold.is_some() || !inspection.judge.is_untouched() || law.terms.limits_client();
        if inspection.judge.is_of_client() && !is_needed {
            self.inspection = None;
        }
    }

    /// Gives up its place in the line of those who wait for what they share: it could not pass anything on.
    pub(super) fn leave_line(&mut self) {
        let hold = self.inspection.as_mut().and_then(|inspection| inspection.hold.as_mut());
        if let Some(delay) = hold.and_then(|hold| hold.delay.as_mut())
            && delay.place.take().is_some()
        {
            // What is kept is judged again when it can pass.
            (delay.queues, delay.timer) = (false, None);
        }
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
                    inspection.hold.take_if(|hold| hold.rest().is_empty());
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
        let here = hold.rest();
        let taken = here[..here.len().min(most).min(left)].to_vec();
        hold.from += taken.len();
        taken
    }

    /// Follows the frames of what is kept, which passes no more.
    pub(super) fn follow_kept(&mut self) {
        let hold = self.inspection.as_ref().and_then(|inspection| inspection.hold.as_ref());
        if let Some(hold) = hold {
            self.scanner.scan(hold.rest());
        }
    }

    /// Lets go of what is kept without a word on it, because its sender has ended: it is for the other side to judge. Says
    /// whether there was anything.
    pub(super) fn release(&mut self, sink: &Stream, moved: &mut Moved) -> bool {
        let hold = self.inspection.as_mut().and_then(|inspection| inspection.hold.take());
        let Some(hold) = hold else { return false };
        self.count(hold.rest().len(), 0, moved);
        self.write_on(hold.rest(), sink, moved);
        true
    }
}

#[allow(clippy::cast_possible_truncation)]
const LARGEST_READ: u32 = BUFFER_SIZE as u32;
/// Two hundred small messages, and ten times what is kept of an unfinished header or pong.
const SMALLEST_READ: u32 = 4096;

/// How long a client's messages are held up in one piece before its connection is ended.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
