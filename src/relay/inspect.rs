//! A flow that is judged: what may not pass yet is kept, and nothing is read meanwhile; what may not pass at all ends the
//! connection.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use crate::limit::line::Place;
use crate::net::transport::Transport;
use crate::wire::ws::header::Sender;

use super::counters::MessageLimit;
use super::flow::{BUFFER_SIZE, Flow, Progress};
use super::policer::{FramePolicer, MOST_FRAMES, RelayEnv, Remainder, Verdict, Violation, in_hand};

/// A judge, and what it holds up.
#[derive(Debug)]
pub(super) struct Inspection {
    pub(super) policer: FramePolicer,
    /// Only while something is held up.
    deferred: Option<Box<Deferred>>,
    has_delayed: bool,
    /// So much is read at once: what can't be judged or passed on soon stays in the kernel.
    most: u32,
}

/// What was read and does not pass yet.
#[derive(Debug, Default)]
struct Deferred {
    /// From `from` on; begins where the scanner stands: at a frame boundary, or within a payload that waits.
    kept: Vec<u8>,
    from: usize,
    /// It can be judged without reading more.
    resumes: bool,
    delay: Option<Delay>,
    /// It is the first that is delayed: for so long.
    is_first_delay: Option<Duration>,
    violation: Option<Violation>,
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
    pub(super) fn new(policer: FramePolicer, first: Vec<u8>) -> Self {
        let deferred = (!first.is_empty()).then(|| {
            Box::new(Deferred {
                kept: first,
                resumes: true,
                ..Deferred::default()
            })
        });
        Self {
            policer,
            deferred,
            has_delayed: false,
            most: LARGEST_READ,
        }
    }

    /// Reads less at once where frames are so small, or so much has to wait, that it would take several turns; and step by
    /// step more again where all of it was dealt with.
    fn adapt(&mut self, verdict: &Verdict, len: usize) {
        let is_prepared = matches!(verdict.remainder, Remainder::TurnOver | Remainder::Defer(_));
        if is_prepared && len - verdict.rest > SMALLEST_READ as usize || verdict.frames >= MOST_FRAMES {
            self.most = SMALLEST_READ;
        } else if !is_prepared && len >= self.most as usize {
            self.most = (self.most * 2).min(LARGEST_READ);
        }
    }

    fn refuse(&mut self, violation: Violation, env: &RelayEnv) {
        self.policer.refuse(violation, env);
        self.deferred.get_or_insert_default().violation = Some(violation);
    }

    /// Holds what is kept for as long as the limit wants; a client's no longer than [`PATIENCE`] in one piece.
    fn delay(&mut self, lacks: Duration, env: &RelayEnv) {
        let clock = &env.limits.clock;
        let now = clock.now();
        let patience = self.policer.is_of_client().then_some(PATIENCE);
        let limit = self.policer.last_hit.unwrap_or(MessageLimit::Rate);
        let deferred = self.deferred.get_or_insert_default();
        let delay = deferred.delay.get_or_insert(Delay {
            since: now,
            timer: None,
            place: None,
            queues: false,
        });
        let end = patience.map(|patience| delay.since + patience);
        if end.is_some_and(|end| now >= end) {
            return self.refuse(Violation::Rate(limit, lacks), env);
        }
        if !self.policer.lacks_share {
            delay.place = None;
        } else if let (None, Some((line, price))) = (&delay.place, self.policer.line(env)) {
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
            deferred.is_first_delay = Some(lacks);
        }
    }
}

impl Deferred {
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
        self.deferred().is_some_and(|deferred| deferred.delay.is_some())
    }

    /// What the connection is to be ended for.
    pub(super) fn violation(&self) -> Option<Violation> {
        self.deferred()?.violation
    }

    /// For how long something is delayed, the first time that anything is.
    pub(super) fn take_first_delay(&mut self) -> Option<Duration> {
        self.inspection.as_mut()?.deferred.as_mut()?.is_first_delay.take()
    }

    /// Whether something is kept until it may pass.
    pub(super) fn has_deferred(&self) -> bool {
        self.deferred().is_some()
    }

    /// Whether what is kept has nothing be read.
    pub(super) fn is_paused(&self) -> bool {
        self.deferred()
            .is_some_and(|deferred| deferred.resumes || deferred.delay.is_some() || deferred.violation.is_some())
    }

    fn deferred(&self) -> Option<&Deferred> {
        self.inspection.as_ref()?.deferred.as_deref()
    }

    /// Whether anything was ever delayed.
    pub(super) fn has_delayed(&self) -> bool {
        self.inspection
            .as_ref()
            .is_some_and(|inspection| inspection.has_delayed)
    }

    /// Who judges it, to be told of a question.
    pub(super) fn policer_mut(&mut self) -> Option<&mut FramePolicer> {
        Some(&mut self.inspection.as_mut()?.policer)
    }

    /// Who judges it.
    pub(super) fn policer(&self) -> Option<&FramePolicer> {
        Some(&self.inspection.as_ref()?.policer)
    }

    /// Whether frames of ours may be put in: the last one of the source's was written to its end, and is not the last of all.
    pub(super) fn is_between_frames(&self) -> bool {
        self.scanner.at_boundary()
            && !self.scanner.saw_close()
            && !self.has_buffered()
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
    pub(super) fn poll_deferred(
        &mut self,
        sink: &Transport,
        env: &RelayEnv,
        progress: &mut Progress,
        cx: &mut Context<'_>,
    ) -> Poll<bool> {
        let Some(inspection) = &mut self.inspection else {
            return Poll::Ready(false);
        };
        let Some(deferred) = &mut inspection.deferred else {
            return Poll::Ready(false);
        };
        if deferred.violation.is_some() {
            return Poll::Pending;
        }
        std::task::ready!(deferred.poll_delay(cx));
        if deferred.rest().is_empty() {
            inspection.deferred = None;
            return Poll::Ready(false);
        }
        if !deferred.resumes {
            return Poll::Ready(false);
        }
        let (kept, from) = (std::mem::take(&mut deferred.kept), deferred.from);
        if let Some((verdict, before)) = self.police_now(&kept[from..], sink, env, progress) {
            let from = from + verdict.rest;
            self.defer_rest(kept, from, &verdict, before, env);
        }
        Poll::Ready(true)
    }

    /// Puts what is kept at the front of `buffer`, and says how much that is: what is read goes behind it.
    pub(super) fn copy_deferred(&self, buffer: &mut [u8]) -> usize {
        let Some(deferred) = self.deferred() else { return 0 };
        let rest = deferred.rest();
        buffer[..rest.len()].copy_from_slice(rest);
        rest.len()
    }

    /// How much is read at once, what is kept included.
    pub(super) fn max_read(&self) -> usize {
        self.inspection
            .as_ref()
            .map_or(BUFFER_SIZE, |inspection| inspection.most as usize)
    }

    /// Judges `bytes`, what was kept included, and passes on what may pass.
    pub(super) fn inspect(&mut self, bytes: &[u8], sink: &Transport, env: &RelayEnv, progress: &mut Progress) {
        if let Some((verdict, before)) = self.police_now(bytes, sink, env, progress) {
            self.defer_rest(bytes[verdict.rest..].to_vec(), 0, &verdict, before, env);
        }
    }

    /// Passes on what may pass of `bytes`; with the verdict comes what has held up the first of them.
    fn police_now(
        &mut self,
        bytes: &[u8],
        sink: &Transport,
        env: &RelayEnv,
        progress: &mut Progress,
    ) -> Option<(Verdict, Option<Delay>)> {
        let inspection = self.inspection.as_mut()?;
        let before = inspection.deferred.take().and_then(|deferred| deferred.delay);
        inspection.policer.has_turn = before
            .as_ref()
            .is_some_and(|delay| delay.place.is_some() && !delay.queues);
        let now = env.limits.moment(Instant::now());
        let verdict = inspection.policer.police(&mut self.scanner, bytes, env, now);
        inspection.adapt(&verdict, bytes.len());
        progress.frames += u64::from(verdict.frames);
        progress.has_frame |= verdict.has_frame;
        self.count(verdict.rest, verdict.messages.into(), progress);
        self.write_on(&bytes[..verdict.passes], sink, progress);
        Some((verdict, before))
    }

    /// Keeps what does not pass yet, which is `kept` from `from` on.
    fn defer_rest(&mut self, kept: Vec<u8>, from: usize, verdict: &Verdict, before: Option<Delay>, env: &RelayEnv) {
        let Some(inspection) = &mut self.inspection else {
            return;
        };
        // Whatever passed first, the next one to wait begins its own span, and goes to the end of the line.
        let waits = matches!(verdict.remainder, Remainder::Defer(_));
        let delay = before.filter(|_| waits && verdict.passes == 0);
        if from < kept.len() {
            inspection.deferred = Some(Box::new(Deferred {
                kept,
                from,
                resumes: matches!(
                    verdict.remainder,
                    Remainder::Swallowed | Remainder::TurnOver | Remainder::Defer(_)
                ),
                delay,
                ..Deferred::default()
            }));
        }
        match verdict.remainder {
            Remainder::None | Remainder::Unfinished | Remainder::Swallowed | Remainder::TurnOver => {}
            Remainder::Defer(lacks) => inspection.delay(lacks, env),
            Remainder::Reject(violation) => inspection.refuse(violation, env),
        }
        // Whose form alone is looked at needs no judge for it until something is to be kept again.
        let is_needed =
            inspection.deferred.is_some() || !inspection.policer.is_untouched() || env.limits.polices_client();
        if inspection.policer.is_of_client() && !is_needed {
            self.inspection = None;
        }
    }

    /// Gives up its place in the line of those who wait for what they share: it could not pass anything on.
    pub(super) fn leave_line(&mut self) {
        let deferred = self
            .inspection
            .as_mut()
            .and_then(|inspection| inspection.deferred.as_mut());
        if let Some(delay) = deferred.and_then(|deferred| deferred.delay.as_mut())
            && delay.place.take().is_some()
        {
            // What is kept is judged again when it can pass.
            (delay.queues, delay.timer) = (false, None);
        }
    }

    /// Passes on what breaks no rule of RFC 6455, where nothing else is looked at; a judge is given what does, or is not whole.
    pub(super) fn inspect_form(&mut self, bytes: &[u8], sink: &Transport, progress: &mut Progress) {
        let unscanned = self.unscanned(bytes);
        let (used, messages) = self.scanner.scan_strictly(unscanned);
        let passes = bytes.len() - unscanned.len() + used;
        if passes < bytes.len() {
            let policer = FramePolicer::new(Sender::Client);
            self.inspection = Some(Box::new(Inspection::new(policer, bytes[passes..].to_vec())));
        }
        self.note_frame_size(passes, messages);
        self.count_read(passes, messages, progress);
        self.write_on(&bytes[..passes], sink, progress);
    }

    /// How much of the payload in hand may be read now, where it is limited: `Pending` until some may.
    pub(super) fn poll_allowance(&mut self, env: &RelayEnv, cx: &mut Context<'_>) -> Poll<usize> {
        let left = in_hand(&self.scanner);
        let Some(inspection) = &mut self.inspection else {
            return Poll::Ready(usize::MAX);
        };
        if left == 0 || inspection.policer.paces(env).is_none() {
            return Poll::Ready(usize::MAX);
        }
        loop {
            if let Some(deferred) = &mut inspection.deferred {
                if deferred.violation.is_some() {
                    return Poll::Pending;
                }
                std::task::ready!(deferred.poll_delay(cx));
            }
            let now = env.limits.moment(Instant::now());
            match inspection.policer.allowance(left, env, now) {
                Ok(most) => {
                    inspection.deferred.take_if(|deferred| deferred.rest().is_empty());
                    return Poll::Ready(usize::try_from(most).unwrap_or(usize::MAX));
                }
                Err(lacks) => inspection.delay(lacks, env),
            }
        }
    }

    /// Counts payload that passed unseen.
    pub(super) fn spend(&mut self, bytes: u64, left: u64, env: &RelayEnv) {
        if let Some(inspection) = &mut self.inspection
            && inspection.policer.paces(env).is_some()
        {
            let now = env.limits.moment(Instant::now());
            inspection.policer.spend(bytes, left, env, now);
        }
    }

    /// What is kept of the payload in hand, as much as may pass, and no more than `most`.
    pub(super) fn take_deferred(&mut self, most: usize) -> Vec<u8> {
        let left = usize::try_from(self.scanner.payload_left()).unwrap_or(usize::MAX);
        let deferred = self
            .inspection
            .as_mut()
            .and_then(|inspection| inspection.deferred.as_mut());
        let Some(deferred) = deferred else { return Vec::new() };
        let here = deferred.rest();
        let bytes_accepted = here[..here.len().min(most).min(left)].to_vec();
        deferred.from += bytes_accepted.len();
        bytes_accepted
    }

    /// Follows the frames of what is kept, which passes no more.
    pub(super) fn scan_deferred(&mut self) {
        let deferred = self
            .inspection
            .as_ref()
            .and_then(|inspection| inspection.deferred.as_ref());
        if let Some(deferred) = deferred {
            self.scanner.scan(deferred.rest());
        }
    }

    /// Lets go of what is kept without a word on it, because its sender has ended: it is for the other side to judge. Says
    /// whether there was anything.
    pub(super) fn release(&mut self, sink: &Transport, progress: &mut Progress) -> bool {
        let deferred = self
            .inspection
            .as_mut()
            .and_then(|inspection| inspection.deferred.take());
        let Some(deferred) = deferred else { return false };
        self.count(deferred.rest().len(), 0, progress);
        self.write_on(deferred.rest(), sink, progress);
        true
    }
}

#[allow(clippy::cast_possible_truncation)]
const LARGEST_READ: u32 = BUFFER_SIZE as u32;
/// Two hundred small messages, and ten times what is kept of an unfinished header or pong.
const SMALLEST_READ: u32 = 4096;

/// How long a client's messages are held up in one piece before its connection is ended.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
