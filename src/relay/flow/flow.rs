//! One direction: it reads, scans or polices, writes, and buffers what the sink does not take.

use std::task::{Context, Poll, ready};

use crate::net::transport::Transport;
use crate::wire::ws::scanner::FrameScanner;

use super::super::env::RelayEnv;
use super::super::police::policer::FramePolicer;
use super::super::rules::RelayMode;
use super::buffer::with_buffer;
use super::ends::FlowEnds;
use super::gate::{Gate, Policed};
use super::outlet::Outlet;
use super::progress::{MAX_READS, Progress};
use super::splice::{Filled, Splicer};

/// One direction of a connection, from its source to its sink.
#[derive(Debug)]
pub(in crate::relay) struct Flow {
    gate: Gate,
    ends: FlowEnds,
    splicer: Splicer,
    /// While bytes are buffered here, nothing more is read: that is the back-pressure.
    outlet: Outlet,
}

impl Flow {
    /// A flow that first delivers `first`. The bytes of `first` from `payload_from` on are WebSocket frames. Also
    /// returns how many of these bytes and messages count as passed already.
    pub(in crate::relay) fn new(
        mut scanner: FrameScanner,
        mut first: Vec<u8>,
        payload_from: usize,
        mode: RelayMode,
        policer: Option<FramePolicer>,
    ) -> (Self, Progress) {
        let is_policed = policer.is_some() || scanner.is_strict();
        let payload = if is_policed {
            first.split_off(payload_from.min(first.len()))
        } else {
            Vec::new()
        };
        let seen = first.get(payload_from..).unwrap_or_default();
        let passed = Progress {
            read: seen.len() as u64,
            messages: scanner.scan(seen).into(),
            ..Progress::default()
        };
        let flow = Self {
            gate: Gate::new(scanner, policer, payload),
            ends: FlowEnds::default(),
            splicer: Splicer::new(mode),
            outlet: Outlet::new(first),
        };
        (flow, passed)
    }

    /// How many bytes the sink's socket has taken, if `bytes` have passed. The result may be too low by the bytes that
    /// were buffered before the tunnel opened.
    pub(in crate::relay) fn written_of(&self, bytes: u64) -> u64 {
        bytes.saturating_sub(self.outlet.buffered() as u64)
    }

    /// The gate, which knows the frames of this direction.
    pub(in crate::relay) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// As [`Flow::gate`].
    pub(in crate::relay) fn gate_mut(&mut self) -> &mut Gate {
        &mut self.gate
    }

    /// How the source and the sink ended.
    pub(in crate::relay) fn ends(&self) -> FlowEnds {
        self.ends
    }

    /// As [`Flow::ends`].
    pub(in crate::relay) fn ends_mut(&mut self) -> &mut FlowEnds {
        &mut self.ends
    }

    /// Whether bytes wait for the sink.
    pub(in crate::relay) fn has_buffered(&self) -> bool {
        self.outlet.has_buffered()
    }

    /// Whether the source is being read, so that reading finds its end.
    pub(in crate::relay) fn is_read(&self) -> bool {
        !self.has_buffered() && !self.gate.is_paused() && !self.ends.is_done() && self.ends.read_to().is_none()
    }

    /// Whether there is nothing to do until the source sends more.
    pub(in crate::relay) fn is_idle(&self) -> bool {
        !self.has_buffered() && !self.gate.has_deferred() && self.ends.is_open()
    }

    /// Whether a frame of our own may be inserted: the source's last frame is written to its end, and is not a close frame.
    pub(in crate::relay) fn is_between_frames(&self) -> bool {
        self.gate.scanner().at_boundary() && !self.gate.saw_close() && !self.has_buffered() && self.ends.is_open()
    }

    /// Finds what only system calls show: whether the source has ended behind unread bytes, and whether a pipe that
    /// holds bytes has become emptier. Must be called a few times a second.
    pub(in crate::relay) fn probe(&mut self, source: &Transport) {
        self.outlet.check_pipe();
        if !self.is_read() && !self.ends.has_died() {
            self.ends.probe(source);
        }
    }

    /// Moves as many bytes as it can from `source` to `sink` now. After [`MAX_READS`] steps, or as much work, it wakes
    /// the task and returns, so that one busy direction delays neither the other nor other connections.
    pub(in crate::relay) fn pump(
        &mut self,
        source: &Transport,
        sink: &Transport,
        env: &RelayEnv,
        cx: &mut Context<'_>,
    ) -> Progress {
        let mut progress = Progress::default();
        for _ in 0..MAX_READS {
            if self.step((source, sink), env, &mut progress, cx).is_pending() {
                return progress;
            }
            if progress.is_turn_over() {
                break;
            }
        }
        cx.waker().wake_by_ref();
        progress
    }

    /// Adds bytes to the end of the buffer.
    pub(in crate::relay) fn append(&mut self, bytes: &[u8]) {
        self.outlet.append(bytes);
    }

    /// Writes the buffered bytes; `Pending` while some of them remain.
    pub(in crate::relay) fn poll_flush(
        &mut self,
        sink: &Transport,
        progress: &mut Progress,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let flushed = ready!(self.outlet.poll_flush(sink, progress, cx));
        self.ends.note_write(flushed);
        Poll::Ready(())
    }

    /// Passes on the bytes that complete the frame in progress, and nothing of the next frame. Then returns whether a
    /// close frame may follow. It may not if the boundary is unknown, or if the source has ended or has sent a close
    /// frame itself.
    pub(in crate::relay) fn poll_to_boundary(
        &mut self,
        (source, sink): (&Transport, &Transport),
        env: &RelayEnv,
        progress: &mut Progress,
        cx: &mut Context<'_>,
    ) -> Poll<bool> {
        loop {
            let is_over = self.ends.is_done() || self.ends.read_to().is_some();
            if self.gate.scanner().is_blind() || self.gate.saw_close() || is_over {
                return Poll::Ready(false);
            }
            if self.gate.scanner().at_boundary() {
                return Poll::Ready(true);
            }
            ready!(self.poll_flush(sink, progress, cx));
            if self.ends.sink().is_some() || self.gate.violation().is_some() {
                return Poll::Ready(false);
            }
            let (deferred, allowed) = ready!(self.gate.poll_deferred_payload(env, cx));
            if !deferred.is_empty() {
                progress.count(deferred.len(), 0);
                self.append(&deferred);
                continue;
            }
            if let Err(error) = ready!(source.poll_read_ready(cx)) {
                self.ends.source_failed(&error);
                return Poll::Ready(false);
            }
            let read = with_buffer(|buffer| {
                let max = buffer.len().min(allowed);
                let read = source.try_read(&mut buffer[..max])?;
                let unscanned = self.splicer.unscanned(&buffer[..read]);
                let peeked = read - unscanned.len();
                let left = self.gate.scanner().payload_left();
                let (used, messages) = self.gate.scanner_mut().scan_to_boundary(unscanned);
                self.gate.spend(used, left, env);
                let used = peeked + used;
                self.count_read(used, messages, progress);
                self.append(&buffer[..used]);
                Ok(read)
            });
            self.ends.note_read(read);
        }
    }

    /// Reads `source` to its end and drops everything. The scanner still follows the frames.
    pub(in crate::relay) fn poll_discard(&mut self, source: &Transport, cx: &mut Context<'_>) -> Poll<()> {
        while self.ends.read_to().is_none() {
            if let Err(error) = ready!(source.poll_read_ready(cx)) {
                self.ends.source_failed(&error);
                break;
            }
            let read = with_buffer(|buffer| {
                let read = source.try_read(buffer)?;
                self.gate.scanner_mut().scan(self.splicer.unscanned(&buffer[..read]));
                self.splicer.forget_peeked();
                Ok(read)
            });
            self.ends.note_read(read);
        }
        Poll::Ready(())
    }

    /// Takes one step: flushes, then ends the direction or reads. `Ready` means that another step may move more.
    fn step(
        &mut self,
        (source, sink): (&Transport, &Transport),
        env: &RelayEnv,
        progress: &mut Progress,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if self.ends.is_done() {
            return Poll::Pending;
        }
        if self.poll_flush(sink, progress, cx).is_pending() {
            self.gate.leave_queue();
            return Poll::Pending;
        }
        if self.ends.sink().is_some() {
            self.gate.leave_queue();
            // The sink takes no more bytes. The other direction goes on until the bytes that the sink has sent are
            // delivered.
            self.ends.abandon();
            return Poll::Pending;
        }
        if ready!(self.poll_deferred(sink, env, progress, cx)) {
            return Poll::Ready(());
        }
        if self.ends.read_to().is_some() {
            // The policer can't decide on these bytes without more, so they pass, and the receiver deals with them.
            if let Some(released) = self.gate.release() {
                progress.count(released.len(), 0);
                self.write(&released, sink, progress);
                return Poll::Ready(());
            }
            self.ends.finish();
            return Poll::Pending;
        }
        if let Err(error) = ready!(source.poll_read_ready(cx)) {
            self.ends.source_failed(&error);
            return Poll::Ready(());
        }
        let allowed = ready!(self.gate.poll_allowance(env, cx));
        if !self.try_splice((source, sink), allowed, env, progress) {
            self.copy((source, sink), allowed, env, progress);
        }
        Poll::Ready(())
    }

    /// Polices the deferred bytes that can be decided on without reading more. `Ready(true)` means that bytes were
    /// policed, and more may be left to do. `Ready(false)` means that reading may go on, `Pending` that it may not.
    fn poll_deferred(
        &mut self,
        sink: &Transport,
        env: &RelayEnv,
        progress: &mut Progress,
        cx: &mut Context<'_>,
    ) -> Poll<bool> {
        let Some((bytes, from)) = ready!(self.gate.poll_resume(env, cx)) else {
            return Poll::Ready(false);
        };
        if let Some(policed) = self.police(&bytes[from..], sink, env, progress) {
            let from = from + policed.verdict.rest;
            self.gate.defer(bytes, from, policed, env);
        }
        Poll::Ready(true)
    }

    /// Reads once, and passes on the bytes that may pass. Reads at most `allowed` bytes of the payload in progress.
    fn copy(
        &mut self,
        (source, sink): (&Transport, &Transport),
        allowed: usize,
        env: &RelayEnv,
        progress: &mut Progress,
    ) {
        let left = self.gate.scanner().payload_left();
        let max = self.splicer.max_copy(left).min(self.gate.max_read());
        with_buffer(|buffer| {
            let deferred = self.gate.copy_deferred(buffer);
            let max = max.min(allowed.saturating_add(deferred));
            let read = source.try_read(&mut buffer[deferred..max]);
            if let Ok(new @ 1..) = read {
                progress.received = true;
                self.pass(&buffer[..deferred + new], sink, env, progress);
            }
            self.ends.note_read(read);
        });
    }

    /// Passes on those of `bytes` that may pass. `bytes` are the deferred bytes and the ones just read.
    fn pass(&mut self, bytes: &[u8], sink: &Transport, env: &RelayEnv, progress: &mut Progress) {
        if self.gate.polices() {
            if let Some(policed) = self.police(bytes, sink, env, progress) {
                self.gate.defer(bytes[policed.verdict.rest..].to_vec(), 0, policed, env);
            }
            return;
        }
        let unscanned = self.splicer.unscanned(bytes);
        let (passes, messages) = if self.gate.scanner().is_strict() {
            self.gate.scan_strictly(bytes, bytes.len() - unscanned.len())
        } else {
            (bytes.len(), self.gate.scanner_mut().scan(unscanned))
        };
        self.splicer.note_read(passes, messages);
        self.count_read(passes, messages, progress);
        self.write(&bytes[..passes], sink, progress);
    }

    /// Polices `bytes` and writes those that may pass. The caller defers the rest.
    fn police(&mut self, bytes: &[u8], sink: &Transport, env: &RelayEnv, progress: &mut Progress) -> Option<Policed> {
        let policed = self.gate.police(bytes, env)?;
        let verdict = &policed.verdict;
        progress.frames += u64::from(verdict.frames);
        progress.has_frame |= verdict.has_frame;
        progress.count(verdict.rest, verdict.messages.into());
        self.write(&bytes[..verdict.passes], sink, progress);
        Some(policed)
    }

    /// Splices, if possible now. Returns false if the caller has to copy instead.
    fn try_splice(
        &mut self,
        (source, sink): (&Transport, &Transport),
        allowed: usize,
        env: &RelayEnv,
        progress: &mut Progress,
    ) -> bool {
        // A policer may have deferred the beginning of a header. The next bytes would then not be a header.
        if self.splicer.peeks()
            && self.gate.scanner().at_boundary()
            && !self.gate.polices()
            && let Err(error) = self.splicer.peek(self.gate.scanner_mut(), source)
        {
            self.ends.source_failed(&error);
            return true;
        }
        let left = self.gate.scanner().payload_left();
        let (pipe, read) = match self.splicer.fill(source, left, allowed) {
            Ok(Filled::Pipe(pipe, read)) => (pipe, read),
            Ok(Filled::Blocked) => return true,
            Ok(Filled::Copy) => return false,
            Err(error) => {
                self.ends.source_failed(&error);
                return true;
            }
        };
        self.gate.skip(self.splicer.beyond_peeked(read), left, env);
        progress.received = true;
        self.count_read(read, 0, progress);
        let written = self.outlet.drain(pipe, sink, progress);
        self.ends.note_write(written);
        true
    }

    fn write(&mut self, bytes: &[u8], sink: &Transport, progress: &mut Progress) {
        let written = self.outlet.write(bytes, sink, progress);
        self.ends.note_write(written);
    }

    /// Counts bytes that were read, and the messages that begin in them. Some of them may have been peeked at before.
    fn count_read(&mut self, bytes: usize, messages: u32, progress: &mut Progress) {
        let messages = u64::from(messages) + self.splicer.consume(bytes);
        progress.count(bytes, messages);
    }
}
