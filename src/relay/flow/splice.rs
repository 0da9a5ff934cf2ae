//! Decides between splicing and copying. The payload of a large frame is spliced: it goes from socket to socket through a
//! pipe (splice(2)), without a copy into this process.

use std::io::{self, ErrorKind};

use crate::net::pipe::Pipe;
use crate::net::transport::{Transport, is_transient};
use crate::wire::ws::header::LONGEST_HEADER;
use crate::wire::ws::scanner::FrameScanner;

use super::super::rules::RelayMode;
use super::buffer::BUFFER_SIZE;

/// Decides which bytes are spliced, and remembers the header that it has peeked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Splicer {
    mode: SpliceMode,
    peeked: PeekedHeader,
}

/// How the next bytes are moved. The last frames suggest whether the next one is small or large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SpliceMode {
    /// Everything is copied.
    Off,
    /// The next frame is probably small: only the rest of a frame that turned out to be large is spliced.
    Small,
    /// The next frame is probably large: its header is peeked at, so that all of it can go through a pipe.
    Large,
}

/// A header that was peeked at: the scanner has seen it, but it has not been read yet.
#[derive(Clone, Copy, Debug, Default)]
struct PeekedHeader {
    bytes: u8,
    /// Whether the header begins a message.
    is_message: bool,
}

/// The outcome of an attempt to splice.
pub(super) enum Filled {
    /// Nothing was spliced: read and copy.
    Copy,
    /// Nothing can be moved now.
    Blocked,
    /// The pipe holds this many bytes from the source.
    Pipe(Pipe, usize),
}

impl Splicer {
    /// A splicer for a connection on which nothing has arrived yet.
    pub(super) fn new(mode: RelayMode) -> Self {
        Self {
            mode: match mode {
                RelayMode::Auto => SpliceMode::Small,
                RelayMode::Copy => SpliceMode::Off,
            },
            peeked: PeekedHeader::default(),
        }
    }

    /// Notes that one read returned this many bytes, in which this many messages began.
    pub(super) fn note_read(&mut self, bytes: usize, messages: u32) {
        if bytes == BUFFER_SIZE && messages <= FEW && self.mode == SpliceMode::Small {
            self.mode = SpliceMode::Large;
        }
    }

    /// How many bytes may be copied at once if this much of a payload is left. If frames are large, only the rest of
    /// the current frame is copied, so that the next one can be spliced.
    pub(super) fn max_copy(self, payload_left: u64) -> usize {
        match (self.mode, usize::try_from(payload_left)) {
            (SpliceMode::Large, Ok(left @ 1..)) => left.saturating_add(self.peeked.bytes.into()).min(BUFFER_SIZE),
            _ => BUFFER_SIZE,
        }
    }

    /// The part of `bytes` that the scanner has not seen. `bytes` are the next ones that were read.
    pub(super) fn unscanned(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.peeked.bytes.into()..).unwrap_or_default()
    }

    /// Notes that this many bytes were read. Returns how many messages begin in the ones that had been peeked at.
    pub(super) fn consume(&mut self, bytes: usize) -> u64 {
        let peeked = &mut self.peeked;
        peeked.bytes = peeked.bytes.saturating_sub(u8::try_from(bytes).unwrap_or(u8::MAX));
        std::mem::take(&mut peeked.is_message).into()
    }

    /// Forgets the header that was peeked at.
    pub(super) fn forget_peeked(&mut self) {
        self.peeked = PeekedHeader::default();
    }

    /// Whether the next header is to be peeked at.
    pub(super) fn peeks(self) -> bool {
        self.mode == SpliceMode::Large
    }

    /// Shows the next header to `scanner`, which is at a frame boundary, if that header has arrived and its frame is
    /// large.
    ///
    /// # Errors
    /// Errors of the socket, except `WouldBlock`. Peeking takes an error such as a reset from the socket.
    pub(super) fn peek(&mut self, scanner: &mut FrameScanner, source: &Transport) -> io::Result<()> {
        let mut header = [0; LONGEST_HEADER];
        let seen = match source.peek(&mut header) {
            Ok(seen) => seen,
            Err(error) if is_transient(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let Some(len) = FrameScanner::header_len(&header[..seen]) else {
            return Ok(());
        };
        let mut ahead = scanner.clone();
        let is_forbidden = ahead.is_strict() && ahead.look(&header[..len]).is_err();
        let messages = ahead.scan(&header[..len]);
        if is_forbidden || ahead.payload_left() < MIN_SPLICE as u64 {
            self.mode = SpliceMode::Small;
            return Ok(());
        }
        *scanner = ahead;
        self.peeked = PeekedHeader {
            bytes: u8::try_from(len).unwrap_or_default(),
            is_message: messages > 0,
        };
        Ok(())
    }

    /// Fills a pipe from `source`. It takes at most as many bytes of the payload in progress as are `left` and as are
    /// `allowed`. Urgent data and the end of the stream stop splice(2); reading finds them.
    ///
    /// # Errors
    /// Errors of the source, except `WouldBlock`.
    pub(super) fn fill(&mut self, source: &Transport, left: u64, allowed: usize) -> io::Result<Filled> {
        let max = usize::try_from(left).map_or(allowed, |left| left.min(allowed));
        if self.mode == SpliceMode::Off || max < MIN_SPLICE {
            return Ok(Filled::Copy);
        }
        let Some(mut pipe) = Pipe::lend() else {
            return Ok(Filled::Copy);
        };
        let max = max.min(Pipe::SIZE);
        match source.try_fill(&mut pipe, usize::from(self.peeked.bytes) + max) {
            Ok(0) => Ok(Filled::Copy),
            Ok(read) => Ok(Filled::Pipe(pipe, read)),
            Err(error) if is_transient(&error) => Ok(Filled::Blocked),
            Err(error) if is_unsupported(&error) => {
                self.mode = SpliceMode::Off;
                Ok(Filled::Copy)
            }
            Err(error) => Err(error),
        }
    }

    /// How many of `read` bytes were not peeked at.
    pub(super) fn beyond_peeked(self, read: usize) -> usize {
        read.saturating_sub(self.peeked.bytes.into())
    }
}

/// Whether the error means that this kind of socket can't be spliced, or that a sandbox forbids the call.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidInput | ErrorKind::PermissionDenied | ErrorKind::Unsupported
    )
}

/// The smallest rest of a frame that is spliced. Below it the system calls cost more than the copy.
const MIN_SPLICE: usize = 32 * 1024;

/// If no more messages than this begin in a full buffer, frames are taken to be large.
const FEW: u32 = 2;
