//! One direction of a relay: read, scan, write, and keep what the peer does not take.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::task::{Context, Poll};

use crate::net::fault;
use crate::net::pipe::Pipe;
use crate::net::stream::{Stream, is_passing};
use crate::wire::frame::{FrameScanner, Sender};

use super::mode::RelayMode;

/// How one side of a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
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
    held: Option<Box<Held>>,
    /// How the side that is read from ended.
    pub(super) source_end: Option<End>,
    /// How writing to the other side failed.
    pub(super) sink_end: Option<End>,
    /// The other direction learned of the source's reset first, and took the error with it: an end of stream is one.
    pub(super) source_was_reset: bool,
    /// Nothing will be written any more.
    pub(super) is_done: bool,
    /// The source has ended in order, and the sink has yet to be told.
    pub(super) owes_end: bool,
    pub(super) bytes: u64,
    pub(super) messages: u64,
    /// Bytes that the sink has taken from us.
    pub(super) written: u64,
    mode: RelayMode,
}

/// What was read, and the peer has not taken yet. Boxed, so that an idle flow does not pay for it.
#[derive(Debug, Default)]
struct Held {
    /// What is in here goes first.
    pipe: Option<Pipe>,
    bytes: Vec<u8>,
    /// How many of the bytes were taken.
    taken: usize,
    /// Looks in a row that found the pipe as the last one had left it.
    stalls: u8,
    /// What the last look found in the pipe.
    seen: usize,
}

/// What a pump moved, for the pulse and the tally.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moved {
    pub(super) read: u64,
    pub(super) messages: u64,
    pub(super) written: bool,
}

impl Flow {
    /// A flow that first delivers `first`, of which everything from `payload_from` on is WebSocket.
    pub(super) fn new(sender: Sender, first: Vec<u8>, payload_from: usize, mode: RelayMode) -> Self {
        let mut scanner = FrameScanner::new(sender);
        let messages = u64::from(scanner.scan(&first[payload_from..]));
        let bytes = (first.len() - payload_from) as u64;
        let mut flow = Self {
            scanner,
            held: None,
            source_end: None,
            sink_end: None,
            source_was_reset: false,
            is_done: false,
            owes_end: false,
            bytes,
            messages,
            written: 0,
            mode,
        };
        flow.hold(first);
        flow
    }

    /// Moves what can be moved from `source` to `sink` now. After [`TURN`] steps it asks to be called again instead, so that
    /// one busy direction holds up neither the other nor anybody else.
    pub(super) fn pump(&mut self, source: &Stream, sink: &Stream, cx: &mut Context<'_>) -> Moved {
        let mut moved = Moved::default();
        for _ in 0..TURN {
            if self.step(source, sink, &mut moved, cx).is_pending() {
                return moved;
            }
        }
        cx.waker().wake_by_ref();
        moved
    }

    /// Whether bytes wait for the sink.
    pub(super) fn holds(&self) -> bool {
        self.held.is_some()
    }

    /// Puts bytes behind what is held.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        match &mut self.held {
            Some(held) => held.bytes.extend_from_slice(bytes),
            None => self.hold(bytes.to_vec()),
        }
    }

    /// Gives up what is held.
    pub(super) fn discard(&mut self) {
        self.held = None;
    }

    /// Writes what is held; `Pending` while some of it remains.
    pub(super) fn poll_flush(&mut self, sink: &Stream, moved: &mut Moved, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(held) = &mut self.held {
            if std::task::ready!(sink.poll_write_ready(cx)).is_err() {
                self.sink_failed(End::Failed);
                break;
            }
            match held.try_write(sink) {
                Ok(written) => {
                    let is_all = held.is_taken();
                    self.written += written as u64;
                    moved.written |= written > 0;
                    if is_all {
                        self.discard();
                    }
                }
                Err(error) if is_passing(&error) => {}
                Err(error) => self.sink_failed(End::of(&error)),
            }
        }
        Poll::Ready(())
    }

    /// One step: flush, then end or read. `Ready` when another step may move more.
    fn step(&mut self, source: &Stream, sink: &Stream, moved: &mut Moved, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_done {
            return Poll::Pending;
        }
        std::task::ready!(self.poll_flush(sink, moved, cx));
        if self.sink_end.is_some() {
            // Nobody is left to read for. The other direction goes on until the sink's own bytes are delivered.
            self.is_done = true;
            return Poll::Pending;
        }
        if let Some(end) = self.source_end {
            self.owes_end = end == End::Fin;
            self.is_done = true;
            return Poll::Pending;
        }
        if let Err(error) = std::task::ready!(source.poll_read_ready(cx)) {
            self.source_end = Some(End::of(&error));
            return Poll::Ready(());
        }
        if let Some((pipe, most)) = self.way_around() {
            self.pass_by(pipe, most, source, sink, moved);
            return Poll::Ready(());
        }
        with_buffer(|buffer| match source.try_read(buffer) {
            Ok(0) => self.source_ended(),
            Ok(read) => self.pass_on(&buffer[..read], sink, moved),
            Err(error) if is_passing(&error) => {}
            Err(error) => self.source_end = Some(End::of(&error)),
        });
        Poll::Ready(())
    }

    fn pass_on(&mut self, bytes: &[u8], sink: &Stream, moved: &mut Moved) {
        let messages = u64::from(self.scanner.scan(bytes));
        self.count(bytes.len(), messages, moved);
        fault::point("relay");
        match sink.try_write(bytes) {
            Ok(written) => {
                self.written += written as u64;
                moved.written |= written > 0;
                self.append(&bytes[written..]);
            }
            Err(error) if is_passing(&error) => self.append(bytes),
            Err(error) => self.sink_failed(End::of(&error)),
        }
    }

    /// A pipe, and how much may go through it: within a frame of which much is still to come nobody needs to see the bytes.
    fn way_around(&self) -> Option<(Pipe, usize)> {
        let left = self.scanner.payload_left();
        if self.mode == RelayMode::Copy || left < SPLICE_FROM {
            return None;
        }
        Some((
            Pipe::lend()?,
            usize::try_from(left).map_or(MOST_AT_ONCE, |left| left.min(MOST_AT_ONCE)),
        ))
    }

    fn pass_by(&mut self, mut pipe: Pipe, most: usize, source: &Stream, sink: &Stream, moved: &mut Moved) {
        match source.try_fill(&mut pipe, most) {
            Ok(0) => return self.source_ended(),
            Ok(read) => {
                self.scanner.skip(read as u64);
                self.count(read, 0, moved);
            }
            Err(error) if is_passing(&error) => return,
            // A kind of socket that can't.
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                self.mode = RelayMode::Copy;
                return;
            }
            Err(error) => {
                self.source_end = Some(End::of(&error));
                return;
            }
        }
        fault::point("splice");
        match sink.try_drain(&mut pipe) {
            Ok(written) => {
                self.written += written as u64;
                moved.written |= written > 0;
            }
            Err(error) if is_passing(&error) => {}
            Err(error) => return self.sink_failed(End::of(&error)),
        }
        if pipe.holds() > 0 {
            let seen = pipe.holds();
            self.held = Some(Box::new(Held {
                pipe: Some(pipe),
                seen,
                ..Held::default()
            }));
        }
    }

    /// Looks whether the pipe that is held has got any emptier since the last time. Pipes are few: one that stalls for long
    /// is emptied, and given to others.
    pub(super) fn look_at_pipe(&mut self) {
        if let Some(held) = &mut self.held
            && let Some(pipe) = &held.pipe
        {
            let is_stalled = pipe.holds() == held.seen;
            held.seen = pipe.holds();
            held.stalls = if is_stalled { held.stalls + 1 } else { 0 };
            if held.stalls >= STALLS {
                held.leave_pipe();
            }
        }
    }

    fn source_ended(&mut self) {
        self.source_end = Some(if self.source_was_reset { End::Reset } else { End::Fin });
    }

    pub(super) fn count(&mut self, bytes: usize, messages: u64, moved: &mut Moved) {
        self.bytes += bytes as u64;
        self.messages += messages;
        moved.read += bytes as u64;
        moved.messages += messages;
    }

    fn hold(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.held = Some(Box::new(Held {
                bytes,
                ..Held::default()
            }));
        }
    }

    fn sink_failed(&mut self, end: End) {
        self.sink_end = Some(end);
        self.discard();
    }
}

impl Held {
    /// Writes what the sink takes of what is first.
    fn try_write(&mut self, sink: &Stream) -> io::Result<usize> {
        if let Some(pipe) = &mut self.pipe {
            let written = sink.try_drain(pipe)?;
            if pipe.holds() == 0 {
                self.pipe = None;
            }
            return Ok(written);
        }
        let written = sink.try_write(&self.bytes[self.taken..])?;
        self.taken += written;
        Ok(written)
    }

    /// Whether all of it was taken.
    fn is_taken(&self) -> bool {
        self.pipe.is_none() && self.taken == self.bytes.len()
    }

    /// Takes what is in the pipe into memory of our own.
    fn leave_pipe(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        // Where it fails the bytes are still in the pipe.
        if let Ok(mut bytes) = pipe.empty() {
            bytes.extend_from_slice(&self.bytes[self.taken..]);
            (self.bytes, self.taken) = (bytes, 0);
            self.pipe = None;
        }
    }
}

impl End {
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

const BUFFER_SIZE: usize = 64 * 1024;

/// A frame of which so much is still to come goes through a pipe.
const SPLICE_FROM: u64 = 64 * 1024;

/// As much as one call moves at most; a pipe has room for less, unless its pages are large.
const MOST_AT_ONCE: usize = 1024 * 1024;

/// Looks, four a second, after which a pipe that nobody takes from is emptied.
const STALLS: u8 = 4;

/// Reads of a whole buffer before others have their turn.
const TURN: usize = 8;
