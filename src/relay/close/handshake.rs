//! The close handshake that we begin: a close frame each way, at a frame boundary.

use std::task::{Context, Poll};

use crate::net::transport::Transport;
use crate::reason::close::CloseReason;
use crate::wire::ws::frame::close_frame;

use super::super::env::RelayEnv;
use super::super::flow::flow::Flow;
use super::super::flow::progress::Progress;
use super::super::legs::Legs;

/// The close handshake of both directions.
#[derive(Debug)]
pub(in crate::relay) struct CloseHandshake {
    reason: CloseReason,
    to_client: SideClose,
    to_server: SideClose,
}

/// The close handshake with one side.
#[derive(Debug)]
struct SideClose {
    state: CloseState,
    /// A message that goes out before the close frame; may be empty. It is left out where it would come between the
    /// fragments of another message (RFC 6455 section 5.4).
    notice: Vec<u8>,
    close: Vec<u8>,
    /// Our FIN follows the peer's answer to the close frame, not the close frame itself. A proxy in between closes its
    /// client's connection once it gets the FIN. If that client has just sent something, the kernel then resets the
    /// connection and discards the close frame.
    awaits_answer: bool,
    /// The close frame has been written, and the FIN is still to come.
    owes_fin: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CloseState {
    /// A frame is incomplete. The bytes that complete it still pass.
    AwaitsBoundary,
    /// The close frame is buffered.
    Flushing,
    /// The close frame has been written. What the source still sends is dropped.
    Sent,
    /// The source has ended as well.
    Ended,
}

impl CloseHandshake {
    /// A handshake that begins now. Both close frames have this status code and text. `notice` goes out before the
    /// client's close frame: a whole message of ours, or nothing.
    pub(in crate::relay) fn new(reason: CloseReason, code: u16, text: &str, notice: Vec<u8>) -> Self {
        Self {
            reason,
            to_client: SideClose::new(notice, close_frame(code, text, None), true),
            to_server: SideClose::new(Vec::new(), close_frame(code, text, Some(MASK)), false),
        }
    }

    /// A handshake with the close frames for `reason`; `None` if this reason is closed by a reset.
    pub(in crate::relay) fn of(reason: CloseReason) -> Option<Self> {
        let frame = reason.frame()?;
        Some(Self::new(reason, frame.code, frame.text, Vec::new()))
    }

    /// Why the connection is closed.
    pub(in crate::relay) fn reason(&self) -> CloseReason {
        self.reason
    }

    /// Whether the close frame to the client has been written.
    pub(in crate::relay) fn is_sent_to_client(&self) -> bool {
        self.to_client.is_sent()
    }

    /// Whether the close frame to the server has been written.
    pub(in crate::relay) fn is_sent_to_server(&self) -> bool {
        self.to_server.is_sent()
    }

    /// Whether both sides have ended.
    pub(in crate::relay) fn is_over(&self) -> bool {
        self.to_client.state == CloseState::Ended && self.to_server.state == CloseState::Ended
    }

    /// Continues as far as possible without waiting. Returns what moved to the server and what moved to the client.
    pub(in crate::relay) fn poll(
        &mut self,
        (inbound, outbound): (&mut Flow, &mut Flow),
        legs: &Legs,
        env: &RelayEnv,
        cx: &mut Context<'_>,
    ) -> (Progress, Progress) {
        // The bytes that the gates delay will not pass any more.
        inbound.gate_mut().leave_queue();
        outbound.gate_mut().leave_queue();
        let outward = self.to_client.poll(outbound, (&legs.server, &legs.client), env, cx);
        let inward = self.to_server.poll(inbound, (&legs.client, &legs.server), env, cx);
        let has_answered = inbound.gate().saw_close() || inbound.ends().source().is_some();
        if self.to_client.take_owed_fin(has_answered) {
            legs.client.shutdown_write();
        }
        (inward, outward)
    }
}

impl SideClose {
    fn new(notice: Vec<u8>, close: Vec<u8>, awaits_answer: bool) -> Self {
        Self {
            state: CloseState::AwaitsBoundary,
            notice,
            close,
            awaits_answer,
            owes_fin: false,
        }
    }

    fn is_sent(&self) -> bool {
        matches!(self.state, CloseState::Sent | CloseState::Ended)
    }

    /// Whether our FIN is due now that this side `has_answered`. Returns true only once.
    fn take_owed_fin(&mut self, has_answered: bool) -> bool {
        has_answered && std::mem::take(&mut self.owes_fin)
    }

    /// Continues as far as possible without waiting.
    fn poll(
        &mut self,
        flow: &mut Flow,
        legs: (&Transport, &Transport),
        env: &RelayEnv,
        cx: &mut Context<'_>,
    ) -> Progress {
        let (source, sink) = legs;
        let mut progress = Progress::default();
        loop {
            let step = match self.state {
                CloseState::AwaitsBoundary => flow.poll_to_boundary(legs, env, &mut progress, cx).map(|at_boundary| {
                    if at_boundary && !flow.gate().is_within_message() {
                        flow.append(&self.notice);
                    }
                    if at_boundary {
                        flow.append(&self.close);
                    }
                    self.awaits_answer &= at_boundary;
                    CloseState::Flushing
                }),
                CloseState::Flushing => flow.poll_flush(sink, &mut progress, cx).map(|()| {
                    flow.gate_mut().scan_deferred();
                    self.owes_fin = self.awaits_answer;
                    if !self.owes_fin {
                        sink.shutdown_write();
                    }
                    CloseState::Sent
                }),
                CloseState::Sent => flow.poll_discard(source, cx).map(|()| CloseState::Ended),
                CloseState::Ended => Poll::Pending,
            };
            match step {
                Poll::Ready(next) => self.state = next,
                Poll::Pending => return progress,
            }
        }
    }
}

/// The mask of our close frames to the server. Their payload is public and always the same, so that an unpredictable
/// key (RFC 6455 section 10.3) would protect nothing.
const MASK: [u8; 4] = [0x3f, 0x81, 0x5c, 0xe2];
