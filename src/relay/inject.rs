//! What we say to the client ourselves, between two frames of the server's.

use std::task::Context;
use std::time::Duration;

use crate::wire::ws::frame::server_frame;
use crate::wire::ws::header::FrameKind;

use super::flow::Progress;
use super::legs::Legs;
use super::ping::ExpectedPong;
use super::relay::Relay;

/// What we have to say to the client between the server's frames.
#[derive(Debug, Default)]
pub(super) struct InjectedFrames {
    /// Questions.
    pings: Vec<u8>,
    /// A message, which has no place between the fragments of another.
    notice: Vec<u8>,
}

impl Relay {
    /// The configured text as a frame.
    pub(super) fn notice(&self, lacks: Duration) -> Option<Vec<u8>> {
        let text = self.env.limits.notice.as_ref()?;
        // Whoever comes back in the very millisecond would be a fraction too early.
        let retry_ms = lacks.as_nanos().div_ceil(1_000_000).to_string();
        let text = text.replace("{retry_ms}", &retry_ms);
        Some(server_frame(FrameKind::Text, text.as_bytes()))
    }

    /// Puts in what we have to say to the client, where there is room between two frames of the server's.
    pub(super) fn inject(&mut self, legs: &Legs, cx: &mut Context<'_>) {
        if let Some(lacks) = self.inbound.take_first_delay()
            && let Some(notice) = self.notice(lacks)
        {
            self.injected.get_or_insert_default().notice = notice;
        }
        if self.handle.take_ping()
            && let Some(policer) = self.inbound.policer_mut()
        {
            let expected = policer.pong.get_or_insert_with(|| Box::new(ExpectedPong::random()));
            self.injected.get_or_insert_default().pings.extend(expected.ask());
        }
        let Some(injected) = &mut self.injected else { return };
        let mut frames = Vec::new();
        if self.outbound.is_between_frames() {
            frames.append(&mut injected.pings);
        }
        let pings = !frames.is_empty();
        if self.outbound.is_between_messages() {
            frames.append(&mut injected.notice);
        }
        if injected.pings.is_empty() && injected.notice.is_empty() {
            self.injected = None;
        }
        if frames.is_empty() {
            return;
        }
        let mut outward = Progress::default();
        self.outbound.append(&frames);
        let _as_far_as_it_takes_it = self.outbound.poll_flush(&legs.client, &mut outward, cx);
        self.count(Progress::default(), outward);
        if pings {
            self.handle.mark_unacked();
            self.handle.mark_pinged();
        }
    }
}
