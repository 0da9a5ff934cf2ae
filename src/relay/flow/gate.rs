//! The frames of one direction: how far the stream has come, and whether the next bytes may pass.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::wire::ws::header::Sender;
use crate::wire::ws::scanner::FrameScanner;

use super::super::env::RelayEnv;
use super::super::police::policer::FramePolicer;
use super::super::police::verdict::{Verdict, Violation};
use super::buffer::BUFFER_SIZE;
use super::inspection::{Delay, Inspection};

/// Follows the frames of a stream, and polices them if they are limited.
#[derive(Debug)]
pub(in crate::relay) struct Gate {
    scanner: FrameScanner,
    /// `Some` only if frames are policed before they pass.
    inspection: Option<Box<Inspection>>,
}

/// The verdict on bytes that were policed, and the delay that the first of them has had.
pub(super) struct Policed {
    pub(super) verdict: Verdict,
    delay: Option<Delay>,
}

impl Gate {
    /// A gate whose stream begins with `first`. If there is a `policer`, it decides on `first`.
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

    /// Whether the source is in the middle of a fragmented message.
    pub(in crate::relay) fn is_within_message(&self) -> bool {
        self.scanner.is_within_message()
    }

    /// The policer, if frames are policed.
    pub(in crate::relay) fn policer(&self) -> Option<&FramePolicer> {
        Some(self.inspection.as_ref()?.policer())
    }

    /// As [`Gate::policer`].
    pub(in crate::relay) fn policer_mut(&mut self) -> Option<&mut FramePolicer> {
        Some(self.inspection.as_mut()?.policer_mut())
    }

    /// Whether a rate limit delays bytes now.
    pub(in crate::relay) fn is_delayed(&self) -> bool {
        self.inspection
            .as_ref()
            .is_some_and(|inspection| inspection.is_delayed())
    }

    /// Whether a rate limit has ever delayed bytes.
    pub(in crate::relay) fn has_delayed(&self) -> bool {
        self.inspection
            .as_ref()
            .is_some_and(|inspection| inspection.has_delayed())
    }

    /// The wait for the limit when the first delay began. Returned only once.
    pub(in crate::relay) fn take_first_delay(&mut self) -> Option<Duration> {
        self.inspection.as_mut()?.take_first_delay()
    }

    /// The violation for which the connection is to be closed.
    pub(in crate::relay) fn violation(&self) -> Option<Violation> {
        self.inspection.as_ref()?.violation()
    }

    /// Gives up the place in the queue for a shared bucket, because nothing can be passed on.
    pub(in crate::relay) fn leave_queue(&mut self) {
        if let Some(inspection) = &mut self.inspection {
            inspection.leave_queue();
        }
    }

    /// Lets the scanner follow the frames in the deferred bytes, which will not pass any more.
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

    /// Whether reading is paused because of the deferred bytes.
    pub(super) fn is_paused(&self) -> bool {
        self.inspection
            .as_ref()
            .is_some_and(|inspection| inspection.is_paused())
    }

    /// How many bytes may be read at once, the deferred bytes included.
    pub(super) fn max_read(&self) -> usize {
        self.inspection
            .as_ref()
            .map_or(BUFFER_SIZE, |inspection| inspection.max_read())
    }

    /// Copies the deferred bytes to the front of `buffer`, and returns their number. Newly read bytes go behind them.
    pub(super) fn copy_deferred(&self, buffer: &mut [u8]) -> usize {
        self.inspection
            .as_ref()
            .map_or(0, |inspection| inspection.copy_deferred(buffer))
    }

    /// The deferred bytes that can be policed now without reading more, and the position where they begin. `None` means
    /// that reading may go on, `Pending` that it may not.
    pub(super) fn poll_resume(&mut self, env: &RelayEnv, cx: &mut Context<'_>) -> Poll<Option<(Vec<u8>, usize)>> {
        match &mut self.inspection {
            Some(inspection) => inspection.poll_resume(&env.limits.clock, cx),
            None => Poll::Ready(None),
        }
    }

    /// Decides on `bytes`, which include the deferred ones. The caller has to call [`Gate::defer`] after it has written
    /// the bytes that pass.
    pub(super) fn police(&mut self, bytes: &[u8], env: &RelayEnv) -> Option<Policed> {
        let (verdict, delay) = self.inspection.as_mut()?.police(&mut self.scanner, bytes, env);
        Some(Policed { verdict, delay })
    }

    /// Defers the bytes that do not pass yet: those of `bytes` from `from` on.
    pub(super) fn defer(&mut self, bytes: Vec<u8>, from: usize, policed: Policed, env: &RelayEnv) {
        if let Some(inspection) = &mut self.inspection {
            inspection.defer(bytes, from, &policed.verdict, policed.delay, env);
            if inspection.is_disposable(env) {
                self.inspection = None;
            }
        }
    }

    /// Scans `bytes`, of which the first `scanned` have been scanned, for a frame that breaks a rule of RFC 6455. Such
    /// a frame, or an incomplete one, is deferred for a policer, together with everything behind it. Returns how many
    /// bytes pass, and how many messages begin in them.
    pub(super) fn scan_strictly(&mut self, bytes: &[u8], scanned: usize) -> (usize, u32) {
        let (used, messages) = self.scanner.scan_strictly(&bytes[scanned..]);
        let passes = scanned + used;
        if passes < bytes.len() {
            let policer = FramePolicer::new(Sender::Client);
            self.inspection = Some(Box::new(Inspection::new(policer, bytes[passes..].to_vec())));
        }
        (passes, messages)
    }

    /// How many bytes of the payload in progress may be read now, if they are limited. `Pending` while none may.
    pub(super) fn poll_allowance(&mut self, env: &RelayEnv, cx: &mut Context<'_>) -> Poll<usize> {
        match &mut self.inspection {
            Some(inspection) => inspection.poll_allowance(&self.scanner, env, cx),
            None => Poll::Ready(usize::MAX),
        }
    }

    /// Counts that so many `bytes` of payload passed without being policed. Before that, `left` bytes of the payload
    /// were to come.
    pub(super) fn spend(&mut self, bytes: usize, left: u64, env: &RelayEnv) {
        if let Some(inspection) = &mut self.inspection {
            inspection.spend(bytes as u64, left, env);
        }
    }

    /// Passes payload of the frame in progress that was not read into this process.
    pub(super) fn skip(&mut self, bytes: usize, left: u64, env: &RelayEnv) {
        self.spend(bytes, left, env);
        self.scanner.skip(bytes as u64);
    }

    /// Takes the deferred bytes of the payload in progress that may pass now. `Pending` while none of them may.
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

    /// Returns the deferred bytes without policing them.
    pub(super) fn release(&mut self) -> Option<Vec<u8>> {
        self.inspection.as_mut()?.release()
    }
}
