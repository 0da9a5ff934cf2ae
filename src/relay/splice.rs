//! The way around this process: what is left of a large frame goes from socket to socket through a pipe, unseen.

use std::io::{self, ErrorKind};

use crate::net::fault;
use crate::net::pipe::Pipe;
use crate::net::transport::{Transport, is_transient};
use crate::wire::ws::header::LONGEST_HEADER;
use crate::wire::ws::scanner::FrameScanner;

use super::flow::{BUFFER_SIZE, Flow, Progress, StreamEnd};
use super::mode::RelayMode;
use super::policer::RelayEnv;
use super::write_buffer::WriteBuffer;

/// What is expected of the frames that come, to judge by the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SpliceMode {
    /// Whatever comes is copied.
    Off,
    /// No more than that a frame may turn out to be large.
    Small,
    /// Large ones, so the next header is looked at before it is read, and its frame can go through a pipe as a whole.
    Large,
}

/// Bytes of a header that the scanner has seen, and that are still to be read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PeekedHeader {
    bytes: u8,
    /// Whether a message begins with them.
    is_message: bool,
}

impl SpliceMode {
    /// Where nothing has come yet.
    pub(super) fn of(mode: RelayMode) -> Self {
        match mode {
            RelayMode::Auto => Self::Small,
            RelayMode::Copy => Self::Off,
        }
    }

    /// The frames that came were large.
    pub(super) fn expect_large_frames(&mut self) {
        if *self == Self::Small {
            *self = Self::Large;
        }
    }
}

impl Flow {
    /// Moves what is there by the way around, if it is open, and no more of a payload than is `allowed`; false: it is left for
    /// reading, which also comes to know of an end, and of urgent data, at which splice stops for good.
    pub(super) fn try_splice(
        &mut self,
        (source, sink): (&Transport, &Transport),
        allowed: usize,
        env: &RelayEnv,
        progress: &mut Progress,
    ) -> bool {
        match self.splice_mode {
            SpliceMode::Off => return false,
            // Where a judge is at work the beginning of a header may be kept, and what comes next is none.
            SpliceMode::Large if self.scanner.at_boundary() && self.inspection.is_none() => {
                // Looking takes the error that tells of a reset along.
                if let Err(error) = self.peek_header(source) {
                    self.source_end = Some(StreamEnd::of(&error));
                    return true;
                }
            }
            SpliceMode::Large | SpliceMode::Small => {}
        }
        let left = self.scanner.payload_left();
        let most = usize::try_from(left).map_or(allowed, |left| left.min(allowed));
        if most < SPLICE_FROM {
            return false;
        }
        let Some(mut pipe) = Pipe::lend() else { return false };
        let most = most.min(Pipe::SIZE);
        match source.try_fill(&mut pipe, usize::from(self.peeked.bytes) + most) {
            Ok(0) => return false,
            Ok(read) => {
                let unscanned = read.saturating_sub(self.peeked.bytes.into());
                self.spend(unscanned as u64, left, env);
                self.scanner.skip(unscanned as u64);
                progress.received = true;
                self.count_read(read, 0, progress);
            }
            Err(error) if is_transient(&error) => return true,
            Err(error) if can_not(&error) => {
                self.splice_mode = SpliceMode::Off;
                return false;
            }
            Err(error) => {
                self.source_end = Some(StreamEnd::of(&error));
                return true;
            }
        }
        fault::point("splice");
        match sink.try_drain(&mut pipe) {
            Ok(written) => {
                progress.written |= written > 0;
            }
            Err(error) if is_transient(&error) => {}
            Err(error) => self.sink_failed(StreamEnd::of(&error)),
        }
        if pipe.holds() > 0 && self.sink_end.is_none() {
            self.write_buffer = Some(Box::new(WriteBuffer::pipe(pipe)));
        }
        true
    }

    /// How much is copied at once. Where frames are large, only what completes the one in hand: the next may take the pipe.
    pub(super) fn max_copy(&self) -> usize {
        match (self.splice_mode, usize::try_from(self.scanner.payload_left())) {
            (SpliceMode::Large, Ok(left @ 1..)) => left.saturating_add(self.peeked.bytes.into()).min(BUFFER_SIZE),
            _ => BUFFER_SIZE,
        }
    }

    /// What of `bytes`, the next that were read, the scanner has not seen yet.
    pub(super) fn unscanned<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        bytes.get(self.peeked.bytes.into()..).unwrap_or_default()
    }

    /// Counts what was read, and what was foreseen of it.
    pub(super) fn count_read(&mut self, bytes: usize, messages: u32, progress: &mut Progress) {
        let PeekedHeader {
            bytes: peeked,
            is_message,
        } = &mut self.peeked;
        *peeked = peeked.saturating_sub(u8::try_from(bytes).unwrap_or(u8::MAX));
        let messages = u64::from(messages) + u64::from(std::mem::take(is_message));
        self.count(bytes, messages, progress);
    }

    /// Has the scanner see the next header, if it is there and its frame is large. Where it is not, or nothing is to be seen,
    /// reading comes to know it.
    fn peek_header(&mut self, source: &Transport) -> io::Result<()> {
        let mut header = [0; LONGEST_HEADER];
        let seen = match source.peek(&mut header) {
            Ok(seen) => seen,
            Err(error) if is_transient(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let Some(len) = FrameScanner::header_len(&header[..seen]) else {
            return Ok(());
        };
        let mut scanner = self.scanner.clone();
        let is_forbidden = scanner.is_strict() && scanner.look(&header[..len]).is_err();
        let messages = scanner.scan(&header[..len]);
        if is_forbidden || scanner.payload_left() < SPLICE_FROM as u64 {
            self.splice_mode = SpliceMode::Small;
            return Ok(());
        }
        self.scanner = scanner;
        self.peeked = PeekedHeader {
            bytes: u8::try_from(len).unwrap_or_default(),
            is_message: messages > 0,
        };
        Ok(())
    }
}

/// A kind of socket that can't be spliced, or a sandbox that does not let anybody.
fn can_not(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidInput | ErrorKind::PermissionDenied | ErrorKind::Unsupported
    )
}

/// A frame of which so much is still to come goes through a pipe: below it, the calls cost more than the copy.
const SPLICE_FROM: usize = 32 * 1024;
