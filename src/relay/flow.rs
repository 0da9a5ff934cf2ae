//! One direction of a relay: read, scan, write, and keep what the peer does not take.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::task::{Context, Poll};

use crate::net::fault;
use crate::net::transport::{Transport, is_transient};
use crate::wire::ws::header::Sender;
use crate::wire::ws::scanner::FrameScanner;

use super::inspect::Inspection;
use super::mode::RelayMode;
use super::policer::{FramePolicer, RelayEnv};
use super::splice::{PeekedHeader, SpliceMode};
use super::write_buffer::WriteBuffer;

/// How one side of a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// An orderly end of stream.
    Fin,
    /// A reset.
    Reset,
    /// The kernel gave it up: nobody answered for too long.
    TimedOut,
    /// Any other error of the socket.
    Failed,
}

/// One direction.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) scanner: FrameScanner,
    /// While something is held nothing more is read: that is the back-pressure.
    pub(super) write_buffer: Option<Box<WriteBuffer>>,
    /// How the side that is read from ended.
    pub(super) source_end: Option<StreamEnd>,
    /// How it ended, as we learned in another way than by reading: what it sent before may still be read, or it was reset after
    /// its end. Where that took an error along, reading shows a mere end of stream.
    pub(super) early_end: Option<StreamEnd>,
    /// How writing to the other side failed.
    pub(super) sink_end: Option<StreamEnd>,
    /// Nothing will be written any more.
    pub(super) is_done: bool,
    /// The source has ended in order, and the sink has yet to be told.
    pub(super) owes_fin: bool,
    pub(super) bytes: u64,
    pub(super) messages: u64,
    pub(super) splice_mode: SpliceMode,
    pub(super) peeked: PeekedHeader,
    /// Where frames are judged before they pass.
    pub(super) inspection: Option<Box<Inspection>>,
}

/// What a pump moved, for the pulse and the tally.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    pub(super) read: u64,
    pub(super) messages: u64,
    /// Frames that were judged.
    pub(super) frames: u64,
    pub(super) written: bool,
    /// Something came from the source, be it for us alone.
    pub(super) received: bool,
    /// With it came a frame whose header can be, where frames are judged.
    pub(super) has_frame: bool,
}

impl Progress {
    /// Whether it was so much work that others have their turn first.
    fn is_a_turn(&self) -> bool {
        self.read + self.messages * MESSAGE_WORTH + self.frames * FRAME_WORTH >= (TURN * BUFFER_SIZE) as u64
    }
}

impl Flow {
    /// A flow that first delivers `first`, of which everything from `payload_from` on is WebSocket.
    pub(super) fn new(
        mut scanner: FrameScanner,
        mut first: Vec<u8>,
        payload_from: usize,
        mode: RelayMode,
        policer: Option<FramePolicer>,
    ) -> Self {
        let is_looked_at = scanner.is_strict() && first.len() > payload_from;
        let policer = policer.or_else(|| is_looked_at.then(|| FramePolicer::new(Sender::Client)));
        let inspection = policer.map(|policer| Box::new(Inspection::new(policer, first.split_off(payload_from))));
        let payload = first.get(payload_from..).unwrap_or_default();
        let messages = u64::from(scanner.scan(payload));
        let bytes = payload.len() as u64;
        let mut flow = Self {
            scanner,
            write_buffer: None,
            source_end: None,
            early_end: None,
            sink_end: None,
            is_done: false,
            owes_fin: false,
            bytes,
            messages,
            splice_mode: SpliceMode::of(mode),
            peeked: PeekedHeader::default(),
            inspection,
        };
        flow.buffer(first);
        flow
    }

    /// Moves what can be moved from `source` to `sink` now. After [`TURN`] steps, or as much work, it asks to be called again instead, so that
    /// one busy direction holds up neither the other nor anybody else.
    pub(super) fn pump(
        &mut self,
        source: &Transport,
        sink: &Transport,
        env: &RelayEnv,
        cx: &mut Context<'_>,
    ) -> Progress {
        let mut progress = Progress::default();
        for _ in 0..TURN {
            if self.step((source, sink), env, &mut progress, cx).is_pending() {
                return progress;
            }
            if progress.is_a_turn() {
                break;
            }
        }
        cx.waker().wake_by_ref();
        progress
    }

    /// Bytes that the sink has taken from us, less some that were there from the start.
    pub(super) fn bytes_accepted(&self) -> u64 {
        let write_buffer = self.write_buffer.as_ref().map_or(0, |write_buffer| write_buffer.len());
        self.bytes.saturating_sub(write_buffer as u64)
    }

    /// Whether bytes wait for the sink.
    pub(super) fn has_buffered(&self) -> bool {
        self.write_buffer.is_some()
    }

    /// Whether its source is read, so that its end is come to by reading.
    pub(super) fn is_read(&self) -> bool {
        !self.has_buffered() && !self.is_paused() && !self.is_done && self.source_end.is_none()
    }

    /// How the source has ended, whether all that it sent has been read or not.
    pub(super) fn ended(&self) -> Option<StreamEnd> {
        self.source_end.or(self.early_end)
    }

    /// Whether the source has ended in another way than in order.
    pub(super) fn has_died(&self) -> bool {
        [self.source_end, self.early_end]
            .into_iter()
            .flatten()
            .any(|end| end != StreamEnd::Fin)
    }

    /// Looks for an end of the source that reading does not come to.
    pub(super) fn probe_for_end(&mut self, source: &Transport) {
        if self.is_read() || self.has_died() {
            return;
        }
        match source.end_ahead() {
            None => {}
            Some(Ok(())) => self.early_end = Some(StreamEnd::Fin),
            Some(Err(error)) => self.early_end = Some(StreamEnd::of(&error)),
        }
    }

    /// Whether it has nothing to do until its source says more.
    pub(super) fn is_idle(&self) -> bool {
        !self.has_buffered()
            && !self.has_deferred()
            && !self.is_done
            && self.source_end.is_none()
            && self.sink_end.is_none()
    }

    /// Puts bytes behind what is held.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        match &mut self.write_buffer {
            Some(write_buffer) => write_buffer.append(bytes),
            None => self.buffer(bytes.to_vec()),
        }
    }

    /// Gives up what is held.
    pub(super) fn discard(&mut self) {
        self.write_buffer = None;
    }

    /// Writes what is held; `Pending` while some of it remains.
    pub(super) fn poll_flush(&mut self, sink: &Transport, progress: &mut Progress, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(write_buffer) = &mut self.write_buffer {
            if std::task::ready!(sink.poll_write_ready(cx)).is_err() {
                self.sink_failed(StreamEnd::Failed);
                break;
            }
            match write_buffer.try_write(sink) {
                Ok(written) => {
                    let is_all = write_buffer.is_taken();
                    progress.written |= written > 0;
                    if is_all {
                        self.discard();
                    }
                }
                Err(error) if is_transient(&error) => {}
                Err(error) => self.sink_failed(StreamEnd::of(&error)),
            }
        }
        Poll::Ready(())
    }

    /// One step: flush, then end or read. `Ready` when another step may move more.
    fn step(
        &mut self,
        legs: (&Transport, &Transport),
        env: &RelayEnv,
        progress: &mut Progress,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let (source, sink) = legs;
        if self.is_done {
            return Poll::Pending;
        }
        if self.poll_flush(sink, progress, cx).is_pending() {
            self.leave_line();
            return Poll::Pending;
        }
        if self.sink_end.is_some() {
            self.leave_line();
            // Nobody is left to read for. The other direction goes on until the sink's own bytes are delivered.
            self.is_done = true;
            return Poll::Pending;
        }
        if std::task::ready!(self.poll_deferred(sink, env, progress, cx)) {
            return Poll::Ready(());
        }
        if let Some(end) = self.source_end {
            if self.release(sink, progress) {
                return Poll::Ready(());
            }
            self.owes_fin = end == StreamEnd::Fin;
            self.is_done = true;
            return Poll::Pending;
        }
        if let Err(error) = std::task::ready!(source.poll_read_ready(cx)) {
            self.source_end = Some(StreamEnd::of(&error));
            return Poll::Ready(());
        }
        let allowed = std::task::ready!(self.poll_allowance(env, cx));
        if self.try_splice((source, sink), allowed, env, progress) {
            return Poll::Ready(());
        }
        let most = self.max_copy().min(self.max_read());
        with_buffer(|buffer| {
            let kept = self.copy_deferred(buffer);
            let most = most.min(allowed.saturating_add(kept));
            match source.try_read(&mut buffer[kept..most]) {
                Ok(0) => self.source_ended(),
                Ok(read) => {
                    progress.received = true;
                    if self.inspection.is_some() {
                        self.inspect(&buffer[..kept + read], sink, env, progress);
                    } else if self.scanner.is_strict() {
                        self.inspect_form(&buffer[..read], sink, progress);
                    } else {
                        self.pass_on(&buffer[..read], sink, progress);
                    }
                }
                Err(error) if is_transient(&error) => {}
                Err(error) => self.source_end = Some(StreamEnd::of(&error)),
            }
        });
        Poll::Ready(())
    }

    fn pass_on(&mut self, bytes: &[u8], sink: &Transport, progress: &mut Progress) {
        let messages = self.scanner.scan(self.unscanned(bytes));
        self.note_frame_size(bytes.len(), messages);
        self.count_read(bytes.len(), messages, progress);
        self.write_on(bytes, sink, progress);
    }

    /// So many messages began in so many bytes that were read at once: what comes may be like that.
    pub(super) fn note_frame_size(&mut self, bytes: usize, messages: u32) {
        if bytes == BUFFER_SIZE && messages <= FEW {
            self.splice_mode.expect_large_frames();
        }
    }

    /// Writes what the sink takes of `bytes`, and holds the rest.
    pub(super) fn write_on(&mut self, bytes: &[u8], sink: &Transport, progress: &mut Progress) {
        fault::point("relay");
        if bytes.is_empty() {
            return;
        }
        match sink.try_write(bytes) {
            Ok(written) => {
                progress.written |= written > 0;
                self.append(&bytes[written..]);
            }
            Err(error) if is_transient(&error) => self.append(bytes),
            Err(error) => self.sink_failed(StreamEnd::of(&error)),
        }
    }

    /// Looks whether a pipe that is held has got any emptier since the last look.
    pub(super) fn check_pipe(&mut self) {
        if let Some(write_buffer) = &mut self.write_buffer {
            write_buffer.look();
        }
    }

    pub(super) fn source_ended(&mut self) {
        self.source_end = self.early_end.or(Some(StreamEnd::Fin));
    }

    pub(super) fn count(&mut self, bytes: usize, messages: u64, progress: &mut Progress) {
        self.bytes += bytes as u64;
        self.messages += messages;
        progress.read += bytes as u64;
        progress.messages += messages;
    }

    fn buffer(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.write_buffer = Some(Box::new(WriteBuffer::bytes(bytes)));
        }
    }

    pub(super) fn sink_failed(&mut self, end: StreamEnd) {
        self.sink_end = Some(end);
        self.discard();
    }
}

impl StreamEnd {
    pub(super) fn of(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => Self::Reset,
            ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Failed,
        }
    }
}

/// Runs `with` on the buffer that every relay of this thread shares within one synchronous read and write.
pub(super) fn with_buffer<T>(with: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| with(buffer))
}

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER_SIZE].into_boxed_slice());
}

pub(super) const BUFFER_SIZE: usize = 64 * 1024;

/// A full buffer in which no more messages began tells of large frames.
const FEW: u32 = 2;

/// Reads of a whole buffer before others have their turn.
const TURN: usize = 8;

/// What a message takes that is only counted, and a frame that is judged, in the time of bytes that are copied.
const MESSAGE_WORTH: u64 = 32;
const FRAME_WORTH: u64 = 512;
