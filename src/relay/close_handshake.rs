//! Ending a connection from our side: a close frame each way, at a frame boundary.

use std::io;
use std::task::{Context, Poll};

use crate::net::transport::{Transport, is_transient};
use crate::reason::close::CloseReason;
use crate::wire::ws::frame::close_frame;

use super::flow::{Flow, Progress, StreamEnd, with_buffer};
use super::policer::RelayEnv;
use super::splice::PeekedHeader;

/// The leave-taking of both directions.
#[derive(Debug)]
pub(super) struct CloseHandshake {
    pub(super) cause: CloseReason,
    /// What the client hears last.
    pub(super) frames_to_client: FinalFrames,
    /// What the server hears last.
    pub(super) frames_to_server: FinalFrames,
    pub(super) to_client: CloseState,
    pub(super) to_server: CloseState,
}

/// The last that one side hears.
#[derive(Debug)]
pub(super) struct FinalFrames {
    /// A message, or nothing. Left out where it would come between the fragments of another (RFC 6455 section 5.4).
    notice: Vec<u8>,
    close: Vec<u8>,
    /// Our end follows its answer to the close frame, and not the close frame itself: a proxy before it closes its own client's
    /// connection at our end, and what that client has just sent would have the kernel throw the close frame away.
    awaits_answer: bool,
    /// The close frame is out, and our end is still to come.
    owes_fin: bool,
}

impl CloseHandshake {
    /// One that begins now: a close frame each way, with this status code and reason; before the client's goes `notice`, a
    /// whole message of ours, or nothing.
    pub(super) fn new(cause: CloseReason, code: u16, reason: &str, notice: Vec<u8>) -> Self {
        Self {
            cause,
            frames_to_client: FinalFrames {
                notice,
                close: close_frame(code, reason, None),
                awaits_answer: true,
                owes_fin: false,
            },
            frames_to_server: FinalFrames {
                notice: Vec::new(),
                close: close_frame(code, reason, Some(MASK)),
                awaits_answer: false,
                owes_fin: false,
            },
            to_client: CloseState::AwaitsBoundary,
            to_server: CloseState::AwaitsBoundary,
        }
    }

    /// Whether both close frames are out.
    pub(super) fn is_sent(&self) -> bool {
        self.to_client.is_sent() && self.to_server.is_sent()
    }

    /// Whether both sides have ended as well.
    pub(super) fn is_finished(&self) -> bool {
        [self.to_client, self.to_server]
            .iter()
            .all(|farewell| *farewell == CloseState::Ended)
    }
}

/// One direction's leave-taking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseState {
    /// A frame is unfinished: what completes it still passes.
    AwaitsBoundary,
    /// The close frame stands behind what is held.
    Flushing,
    /// Said; what still comes from the source is thrown away.
    Said,
    /// The source has ended as well.
    Ended,
}

impl FinalFrames {
    /// Whether our end is to follow now, where its hearer `has_answered`; says so once.
    pub(super) fn take_end(&mut self, has_answered: bool) -> bool {
        has_answered && std::mem::take(&mut self.owes_fin)
    }
}

impl CloseState {
    /// Whether the close frame is out.
    pub(super) fn is_sent(self) -> bool {
        matches!(self, Self::Said | Self::Ended)
    }

    /// Goes as far as it can now.
    pub(super) fn poll(
        &mut self,
        flow: &mut Flow,
        legs: (&Transport, &Transport),
        frames: &mut FinalFrames,
        env: &RelayEnv,
        cx: &mut Context<'_>,
    ) -> Progress {
        let (source, sink) = legs;
        let mut progress = Progress::default();
        loop {
            let step = match *self {
                Self::AwaitsBoundary => flow.poll_to_boundary(legs, env, &mut progress, cx).map(|at_boundary| {
                    if at_boundary && !flow.scanner.is_within_message() {
                        flow.append(&frames.notice);
                    }
                    if at_boundary {
                        flow.append(&frames.close);
                    }
                    frames.awaits_answer &= at_boundary;
                    Self::Flushing
                }),
                Self::Flushing => flow.poll_flush(sink, &mut progress, cx).map(|()| {
                    flow.scan_deferred();
                    frames.owes_fin = frames.awaits_answer;
                    if !frames.owes_fin {
                        sink.shutdown_write();
                    }
                    Self::Said
                }),
                Self::Said => flow.poll_discard(source, cx).map(|()| Self::Ended),
                Self::Ended => Poll::Pending,
            };
            match step {
                Poll::Ready(next) => *self = next,
                Poll::Pending => return progress,
            }
        }
    }
}

impl Flow {
    /// Passes on what completes the frame in hand, and nothing of the next one. Ready with whether a close frame may
    /// follow: not where the boundary is unknown, the source has ended, or it has sent a close frame of its own.
    fn poll_to_boundary(
        &mut self,
        (source, sink): (&Transport, &Transport),
        env: &RelayEnv,
        progress: &mut Progress,
        cx: &mut Context<'_>,
    ) -> Poll<bool> {
        loop {
            if self.scanner.is_blind() || self.scanner.saw_close() || self.is_done || self.source_end.is_some() {
                return Poll::Ready(false);
            }
            if self.scanner.at_boundary() {
                return Poll::Ready(true);
            }
            std::task::ready!(self.poll_flush(sink, progress, cx));
            if self.sink_end.is_some() || self.violation().is_some() {
                return Poll::Ready(false);
            }
            let allowed = std::task::ready!(self.poll_allowance(env, cx));
            let kept = self.take_deferred(allowed);
            if !kept.is_empty() {
                self.spend(kept.len() as u64, self.scanner.payload_left(), env);
                self.scanner.skip(kept.len() as u64);
                self.count(kept.len(), 0, progress);
                self.append(&kept);
                continue;
            }
            if let Err(error) = std::task::ready!(source.poll_read_ready(cx)) {
                self.source_end = Some(StreamEnd::of(&error));
                return Poll::Ready(false);
            }
            let read = with_buffer(|buffer| {
                let most = buffer.len().min(allowed);
                let read = source.try_read(&mut buffer[..most])?;
                let unscanned = self.unscanned(&buffer[..read]);
                let seen = read - unscanned.len();
                let left = self.scanner.payload_left();
                let (used, messages) = self.scanner.scan_to_boundary(unscanned);
                self.spend(used as u64, left, env);
                let used = seen + used;
                self.count_read(used, messages, progress);
                self.append(&buffer[..used]);
                Ok(read)
            });
            self.note_end(read);
        }
    }

    /// Notes the end of the source, if a read came to it.
    fn note_end(&mut self, read: io::Result<usize>) {
        match read {
            Ok(0) => self.source_ended(),
            Err(error) if !is_transient(&error) => self.source_end = Some(StreamEnd::of(&error)),
            Ok(_) | Err(_) => {}
        }
    }

    /// Whether the source has answered a close frame, or ended.
    pub(super) fn has_answered(&self) -> bool {
        self.scanner.saw_close() || self.ended().is_some()
    }

    /// Reads `source` to its end and keeps nothing; only its frames are followed.
    fn poll_discard(&mut self, source: &Transport, cx: &mut Context<'_>) -> Poll<()> {
        while self.source_end.is_none() {
            if let Err(error) = std::task::ready!(source.poll_read_ready(cx)) {
                self.source_end = Some(StreamEnd::of(&error));
                break;
            }
            let read = with_buffer(|buffer| {
                let read = source.try_read(buffer)?;
                let unscanned = self.unscanned(&buffer[..read]);
                self.scanner.scan(unscanned);
                self.peeked = PeekedHeader::default();
                Ok(read)
            });
            self.note_end(read);
        }
        Poll::Ready(())
    }
}

/// Our words are the same each time, so an unpredictable key (RFC 6455 section 10.3) would guard nothing.
const MASK: [u8; 4] = [0x3f, 0x81, 0x5c, 0xe2];
