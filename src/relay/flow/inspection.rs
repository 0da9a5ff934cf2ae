//! Frames that are policed before they pass. If a frame may not pass yet, it is deferred, and nothing more is read
//! until it may. If a frame may never pass, the connection is closed.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use crate::limit::wait_queue::Place;
use crate::wire::ws::scanner::FrameScanner;

use super::super::counters::MessageLimit;
use super::super::env::RelayEnv;
use super::super::police::policer::{FramePolicer, MAX_FRAMES, in_progress};
use super::super::police::verdict::{Remainder, Verdict, Violation};
use super::buffer::BUFFER_SIZE;
use crate::net::clock::Clock;

/// A policer, and the bytes that it defers.
#[derive(Debug)]
pub(super) struct Inspection {
    policer: FramePolicer,
    /// `Some` only while something is deferred.
    deferred: Option<Box<Deferred>>,
    has_delayed: bool,
    /// How many bytes are read at once. It is small while bytes can't be decided on or passed on soon: they had better
    /// stay in the kernel.
    max_read: u32,
}

/// Bytes that were read and do not pass yet.
#[derive(Debug, Default)]
struct Deferred {
    /// The deferred bytes are those from `from` on. They begin where the scanner is: at a frame boundary, or within a
    /// payload that waits.
    bytes: Vec<u8>,
    from: usize,
    /// The bytes can be policed now, without reading more.
    resumes: bool,
    delay: Option<Delay>,
    /// `Some` if this is the first delay of the connection and it has not been reported yet: how long the limit was
    /// short.
    first_delay: Option<Duration>,
    violation: Option<Violation>,
}

/// A wait for a rate limit. Its instants are times of the [`Clock`], which pauses with the process.
#[derive(Debug)]
pub(super) struct Delay {
    since: Instant,
    until: Option<Instant>,
    /// Wakes the task at `until`. `None` means that the delay is over, and the bytes are policed again.
    timer: Option<Pin<Box<Sleep>>>,
    /// The place in the queue for a shared bucket.
    place: Option<Place>,
    /// Other connections are before this one in the queue. The timer then only ends the client's patience.
    queues: bool,
}

impl Inspection {
    /// An inspection that begins with `first`, bytes that have not been policed.
    pub(super) fn new(policer: FramePolicer, first: Vec<u8>) -> Self {
        let deferred = (!first.is_empty()).then(|| {
            Box::new(Deferred {
                bytes: first,
                resumes: true,
                ..Deferred::default()
            })
        });
        Self {
            policer,
            deferred,
            has_delayed: false,
            max_read: LARGEST_READ,
        }
    }

    pub(super) fn policer(&self) -> &FramePolicer {
        &self.policer
    }

    pub(super) fn policer_mut(&mut self) -> &mut FramePolicer {
        &mut self.policer
    }

    /// Whether there is nothing to remember, so that a new inspection can take over with the next bytes.
    pub(super) fn is_disposable(&self, env: &RelayEnv) -> bool {
        let is_needed = self.deferred.is_some() || !self.policer.is_untouched() || env.limits.polices_client();
        self.policer.is_of_client() && !is_needed
    }

    /// Whether bytes wait for a rate limit.
    pub(super) fn is_delayed(&self) -> bool {
        self.deferred.as_ref().is_some_and(|deferred| deferred.delay.is_some())
    }

    /// Whether bytes were ever delayed.
    pub(super) fn has_delayed(&self) -> bool {
        self.has_delayed
    }

    /// The wait for the limit when the first delay began. Returned only once.
    pub(super) fn take_first_delay(&mut self) -> Option<Duration> {
        self.deferred.as_mut()?.first_delay.take()
    }

    /// The violation for which the connection is to be closed.
    pub(super) fn violation(&self) -> Option<Violation> {
        self.deferred.as_ref()?.violation
    }

    /// Whether bytes are deferred.
    pub(super) fn has_deferred(&self) -> bool {
        self.deferred.is_some()
    }

    /// Whether reading is paused because of the deferred bytes.
    pub(super) fn is_paused(&self) -> bool {
        self.deferred
            .as_ref()
            .is_some_and(|deferred| deferred.resumes || deferred.delay.is_some() || deferred.violation.is_some())
    }

    /// How many bytes may be read at once, the deferred bytes included.
    pub(super) fn max_read(&self) -> usize {
        self.max_read as usize
    }

    /// Copies the deferred bytes to the front of `buffer`, and returns their number. Newly read bytes go behind them.
    pub(super) fn copy_deferred(&self, buffer: &mut [u8]) -> usize {
        let rest = self.rest();
        buffer[..rest.len()].copy_from_slice(rest);
        rest.len()
    }

    /// The deferred bytes that can be policed now without reading more, and the position where they begin. `None` means
    /// that reading may go on, `Pending` that it may not.
    pub(super) fn poll_resume(&mut self, clock: &Clock, cx: &mut Context<'_>) -> Poll<Option<(Vec<u8>, usize)>> {
        let Some(deferred) = &mut self.deferred else {
            return Poll::Ready(None);
        };
        if deferred.violation.is_some() {
            return Poll::Pending;
        }
        ready!(deferred.poll_delay(clock, cx));
        if deferred.rest().is_empty() {
            self.deferred = None;
            return Poll::Ready(None);
        }
        if !deferred.resumes {
            return Poll::Ready(None);
        }
        Poll::Ready(Some((std::mem::take(&mut deferred.bytes), deferred.from)))
    }

    /// Decides on `bytes`, which include the deferred ones. Also returns the delay that the first of them has had.
    pub(super) fn police(
        &mut self,
        scanner: &mut FrameScanner,
        bytes: &[u8],
        env: &RelayEnv,
    ) -> (Verdict, Option<Delay>) {
        let delay = self.deferred.take().and_then(|deferred| deferred.delay);
        self.policer.set_turn(
            delay
                .as_ref()
                .is_some_and(|delay| delay.place.is_some() && !delay.queues),
        );
        let verdict = self.policer.police(scanner, bytes, env, env.moment());
        self.adapt_read(&verdict, bytes.len());
        (verdict, delay)
    }

    /// Defers the bytes that do not pass yet: those of `bytes` from `from` on. `delay` is the delay that the policed
    /// bytes have had.
    pub(super) fn defer(
        &mut self,
        bytes: Vec<u8>,
        from: usize,
        verdict: &Verdict,
        delay: Option<Delay>,
        env: &RelayEnv,
    ) {
        // If some bytes have passed, the next delay has a new time and a new place in the queue.
        let waits = matches!(verdict.remainder, Remainder::Defer(_));
        let delay = delay.filter(|_| waits && verdict.passes == 0);
        if from < bytes.len() {
            self.deferred = Some(Box::new(Deferred {
                bytes,
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
            Remainder::Defer(wait) => self.delay(wait, env),
            Remainder::Reject(violation) => self.reject(violation, env),
        }
    }

    /// How many bytes of the payload in progress may be read now, if they are limited. `Pending` while none may.
    pub(super) fn poll_allowance(
        &mut self,
        scanner: &FrameScanner,
        env: &RelayEnv,
        cx: &mut Context<'_>,
    ) -> Poll<usize> {
        let left = in_progress(scanner);
        if left == 0 || !self.policer.meters_payload(env) {
            return Poll::Ready(usize::MAX);
        }
        loop {
            if let Some(deferred) = &mut self.deferred {
                if deferred.violation.is_some() {
                    return Poll::Pending;
                }
                ready!(deferred.poll_delay(&env.limits.clock, cx));
            }
            match self.policer.allowance(left, env, env.moment()) {
                Ok(max) => {
                    self.deferred.take_if(|deferred| deferred.rest().is_empty());
                    return Poll::Ready(usize::try_from(max).unwrap_or(usize::MAX));
                }
                Err(wait) => self.delay(wait, env),
            }
        }
    }

    /// Counts that so many `bytes` of the payload in progress passed without being policed. Before that, `left` bytes
    /// of it were to come.
    pub(super) fn spend(&mut self, bytes: u64, left: u64, env: &RelayEnv) {
        if self.policer.meters_payload(env) {
            self.policer.spend(bytes, left, env, env.moment());
        }
    }

    /// Takes at most `max` deferred bytes of the payload in progress.
    pub(super) fn take_deferred(&mut self, scanner: &FrameScanner, max: usize) -> Vec<u8> {
        let left = usize::try_from(scanner.payload_left()).unwrap_or(usize::MAX);
        let Some(deferred) = &mut self.deferred else {
            return Vec::new();
        };
        let rest = deferred.rest();
        let taken = rest[..rest.len().min(max).min(left)].to_vec();
        deferred.from += taken.len();
        taken
    }

    /// The deferred bytes.
    pub(super) fn rest(&self) -> &[u8] {
        self.deferred.as_ref().map_or(&[], |deferred| deferred.rest())
    }

    /// Returns the deferred bytes without policing them.
    pub(super) fn release(&mut self) -> Option<Vec<u8>> {
        let mut deferred = self.deferred.take()?;
        Some(deferred.bytes.split_off(deferred.from))
    }

    /// Gives up the place in the queue for a shared bucket: the sink is full, so that nothing can be passed on.
    pub(super) fn leave_queue(&mut self) {
        let delay = self.deferred.as_mut().and_then(|deferred| deferred.delay.as_mut());
        if let Some(delay) = delay
            && delay.place.take().is_some()
        {
            // The bytes are policed again once they can pass.
            (delay.queues, delay.timer) = (false, None);
        }
    }

    /// Reads less at once if one read would take several turns to handle, because its frames are small or many bytes
    /// have to wait. Reads more again, step by step, once everything that was read has been handled.
    fn adapt_read(&mut self, verdict: &Verdict, len: usize) {
        let stays = matches!(verdict.remainder, Remainder::TurnOver | Remainder::Defer(_));
        if stays && len - verdict.rest > SMALLEST_READ as usize || verdict.frames >= MAX_FRAMES {
            self.max_read = SMALLEST_READ;
        } else if !stays && len >= self.max_read as usize {
            self.max_read = (self.max_read * 2).min(LARGEST_READ);
        }
    }

    fn reject(&mut self, violation: Violation, env: &RelayEnv) {
        self.policer.reject(violation, env);
        self.deferred.get_or_insert_default().violation = Some(violation);
    }

    /// Delays the deferred bytes for as long as the limit requires. Bytes of a client are delayed for [`PATIENCE`] at
    /// most; after that they are rejected.
    fn delay(&mut self, wait: Duration, env: &RelayEnv) {
        let clock = &env.limits.clock;
        let now = clock.now();
        let patience = self.policer.is_of_client().then_some(PATIENCE);
        let limit = self.policer.last_hit().unwrap_or(MessageLimit::Rate);
        let deferred = self.deferred.get_or_insert_default();
        let delay = deferred.delay.get_or_insert(Delay {
            since: now,
            until: None,
            timer: None,
            place: None,
            queues: false,
        });
        let end = patience.map(|patience| delay.since + patience);
        if end.is_some_and(|end| now >= end) {
            return self.reject(Violation::Rate(limit, wait), env);
        }
        if !self.policer.lacks_shared() {
            delay.place = None;
        } else if let (None, Some((queue, price))) = (&delay.place, self.policer.wait_queue(env)) {
            delay.place = Some(queue.join(price));
        }
        // Only the first in the queue waits for the token. The others wait until they are first.
        delay.queues = delay.place.as_ref().is_some_and(|place| !place.is_first());
        delay.until = if delay.queues {
            end
        } else {
            Some(end.map_or(now + wait, |end| end.min(now + wait)))
        };
        delay.timer = delay
            .until
            .map(|until| Box::pin(tokio::time::sleep_until(clock.monotonic(until).into())));
        if !std::mem::replace(&mut self.has_delayed, true) {
            deferred.first_delay = Some(wait);
        }
    }
}

impl Deferred {
    /// Ready when nothing is delayed any more.
    fn poll_delay(&mut self, clock: &Clock, cx: &mut Context<'_>) -> Poll<()> {
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
            if timer.as_mut().poll(cx).is_pending() && delay.until.is_some_and(|until| clock.now() < until) {
                return Poll::Pending;
            }
            delay.timer = None;
        }
        Poll::Ready(())
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.from..]
    }
}

#[allow(clippy::cast_possible_truncation)]
const LARGEST_READ: u32 = BUFFER_SIZE as u32;
/// Room for two hundred small messages, and for ten times the largest unfinished header or pong that is deferred.
const SMALLEST_READ: u32 = 4096;

/// How long a client's messages may be delayed without interruption before the connection is closed.
const PATIENCE: Duration = Duration::from_secs(5);
