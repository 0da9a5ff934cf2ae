//! The frames of one direction: where the stream is, and whether the next bytes may pass.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::wire::ws::header::Sender;
use crate::wire::ws::scanner::FrameScanner;

use super::super::env::RelayEnv;
use super::super::police::policer::FramePolicer;
use super::super::police::verdict::{Verdict, Violation};
use super::buffer::BUFFER_SIZE;
use super::inspection::{Delay, Inspection};

/// Follows the frames of a stream, and polices them where they are limited.
#[derive(Debug)]
pub(in crate::relay) struct Gate {
    scanner: FrameScanner,
    /// Only where frames are policed before they pass.
    inspection: Option<Box<Inspection>>,
}

/// A verdict on bytes that were policed, and the delay of the first of them.
pub(super) struct Policed {
    pub(super) verdict: Verdict,
    delay: Option<Delay>,
}

impl Gate {
    /// One whose stream begins with `first`, which `policer`, if there is one, decides on.
    pub(super) fn new(scanner: FrameScanner, policer: Option<FramePolicer>, first: Vec<u8>) -> Self {
        let is_needed = scanner.is_strict() && !first.is_empty();
        let policer = policer.or_else(|| is_needed.then(|| FramePolicer::new(Sender::Client)));
        let inspection = policer.map(|policer| Box::new(Inspection::new(policer, first)));
        Self { scanner, inspection }
    }

    /// Whether the source has sent a close frame.
    pub(in crate::relay) fn saw_close(&self) -> bool {
        self.scanner.saw_close()
    }

    /// Whether the source has sent a part of a fragmented message.
    pub(in crate::relay) fn is_within_message(&self) -> bool {
        self.scanner.is_within_message()
    }

    /// The policer of its frames.
    pub(in crate::relay) fn policer(&self) -> Option<&FramePolicer> {
        Some(self.inspection.as_ref()?.policer())
    }

    /// As [`Gate::policer`].
    pub(in crate::relay) fn policer_mut(&mut self) -> Option<&mut FramePolicer> {
        Some(self.inspection.as_mut()?.policer_mut())
    }

    /// Whether a rate limit delays something.
    pub(in crate::relay) fn is_delayed(&self) -> bool {
        self.inspection
            .as_ref()
            .is_some_and(|inspection| inspection.is_delayed())
    }

    /// Whether a rate limit ever delayed anything.
    pub(in crate::relay) fn has_delayed(&self) -> bool {
        self.inspection
            .as_ref()
            .is_some_and(|inspection| inspection.has_delayed())
    }

    /// How much was lacking when the first delay began; returned once.
    pub(in crate::relay) fn take_first_delay(&mut self) -> Option<Duration> {
        self.inspection.as_mut()?.take_first_delay()
    }

    /// What the connection is to be closed for.
    pub(in crate::relay) fn violation(&self) -> Option<Violation> {
        self.inspection.as_ref()?.violation()
    }

    /// Gives up the place in the queue for a shared bucket: nothing can be passed on.
    pub(in crate::relay) fn leave_queue(&mut self) {
        if let Some(inspection) = &mut self.inspection {
            inspection.leave_queue();
        }
    }

    /// Follows the frames of what is deferred, which will not pass any more.
    pub(in crate::relay) fn scan_deferred(&mut self) {
        if let Some(inspection) = &self.inspection {
            self.scanner.scan(inspection.rest());
        }
    }

    pub(super) fn scanner(&self) -> &FrameScanner {
        &self.scanner
    }

    pub(super) fn scanner_mut(&mut self) -> &mut FrameScanner {
        &mut self.scanner
    }

    /// Whether frames are policed before they pass.
    pub(super) fn polices(&self) -> bool {
        self.inspection.is_some()
    }

    /// Whether bytes are deferred.
    pub(super) fn has_deferred(&self) -> bool {
        self.inspection
            .as_ref()
            .is_some_and(|inspection| inspection.has_deferred())
    }

    /// Whether nothing is read because of what is deferred.
    pub(super) fn is_paused(&self) -> bool {
        self.inspection
            .as_ref()
            .is_some_and(|inspection| inspection.is_paused())
    }

    /// How much is read at once, the deferred bytes included.
    pub(super) fn max_read(&self) -> usize {
        self.inspection
            .as_ref()
            .map_or(BUFFER_SIZE, |inspection| inspection.max_read())
    }

    /// Copies the deferred bytes to the front of `buffer`, and returns how many these are: what is read goes behind them.
    pub(super) fn copy_deferred(&self, buffer: &mut [u8]) -> usize {
        self.inspection
            .as_ref()
            .map_or(0, |inspection| inspection.copy_deferred(buffer))
    }

    /// The deferred bytes that can be policed now without reading more, with the position where they begin; `None` if reading
    /// may go on, `Pending` if it may not.
    pub(super) fn poll_resume(&mut self, env: &RelayEnv, cx: &mut Context<'_>) -> Poll<Option<(Vec<u8>, usize)>> {
        match &mut self.inspection {
            Some(inspection) => inspection.poll_resume(&env.limits.clock, cx),
            None => Poll::Ready(None),
        }
    }

    /// Decides on `bytes`, the deferred ones included. [`Gate::defer`] has to follow once what passes is written.
    pub(super) fn police(&mut self, bytes: &[u8], env: &RelayEnv) -> Option<Policed> {
        let (verdict, delay) = self.inspection.as_mut()?.police(&mut self.scanner, bytes, env);
        Some(Policed { verdict, delay })
    }

    /// Defers what does not pass yet, `bytes` from `from` on.
    pub(super) fn defer(&mut self, bytes: Vec<u8>, from: usize, policed: Policed, env: &RelayEnv) {
        if let Some(inspection) = &mut self.inspection {
            inspection.defer(bytes, from, &policed.verdict, policed.delay, env);
            if inspection.is_disposable(env) {
                self.inspection = None;
            }
        }
    }

    /// Scans the part of `bytes` behind the first `scanned` for what breaks a rule of RFC 6455; such a frame, or an incomplete
    /// one, and what follows are deferred for a policer. Returns how many bytes pass, and how many messages begin in them.
    pub(super) fn scan_strictly(&mut self, bytes: &[u8], scanned: usize) -> (usize, u32) {
        let (used, messages) = self.scanner.scan_strictly(&bytes[scanned..]);
        let passes = scanned + used;
        if passes < bytes.len() {
            let policer = FramePolicer::new(Sender::Client);
            self.inspection = Some(Box::new(Inspection::new(policer, bytes[passes..].to_vec())));
        }
        (passes, messages)
    }

    /// How much of the payload in progress may be read now, where it is limited; `Pending` until some may.
    pub(super) fn poll_allowance(&mut self, env: &RelayEnv, cx: &mut Context<'_>) -> Poll<usize> {
        match &mut self.inspection {
            Some(inspection) => inspection.poll_allowance(&self.scanner, env, cx),
            None => Poll::Ready(usize::MAX),
        }
    }

    /// Counts that so much payload passed without being policed, with so much `left` of its frame before.
    pub(super) fn spend(&mut self, bytes: usize, left: u64, env: &RelayEnv) {
        if let Some(inspection) = &mut self.inspection {
            inspection.spend(bytes as u64, left, env);
        }
    }

    /// Passes payload of the frame in progress unseen.
    pub(super) fn skip(&mut self, bytes: usize, left: u64, env: &RelayEnv) {
        self.spend(bytes, left, env);
        self.scanner.skip(bytes as u64);
    }

    /// Takes what may pass of the deferred payload in progress; `Pending` while nothing of it may.
    pub(super) fn poll_deferred_payload(&mut self, env: &RelayEnv, cx: &mut Context<'_>) -> Poll<(Vec<u8>, usize)> {
        let allowed = ready!(self.poll_allowance(env, cx));
        let Some(inspection) = &mut self.inspection else {
            return Poll::Ready((Vec::new(), allowed));
        };
        let bytes = inspection.take_deferred(&self.scanner, allowed);
        if !bytes.is_empty() {
            let left = self.scanner.payload_left();
            self.skip(bytes.len(), left, env);
        }
        Poll::Ready((bytes, allowed))
    }

    /// Gives up the deferred bytes without policing them.
    pub(super) fn release(&mut self) -> Option<Vec<u8>> {
        self.inspection.as_mut()?.release()
    }
}
