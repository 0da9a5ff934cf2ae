//! What we say to the client ourselves, between two frames of the server's.

use std::task::Context;
use std::time::Duration;

use crate::wire::ws::frame::server_frame;
use crate::wire::ws::header::FrameKind;

use super::flow::Moved;
use super::legs::Legs;
use super::ping::Expected;
use super::tunnel::Relay;

/// What we have to say to the client between the server's frames.
#[derive(Debug, Default)]
pub(super) struct Aside {
    /// Questions.
    pings: Vec<u8>,
    /// A message, which has no place between the fragments of another.
    notice: Vec<u8>,
}

impl Relay {
    /// The configured text as a frame.
    pub(super) fn notice(&self, lacks: Duration) -> Option<Vec<u8>> {
        let text = self.law.terms.notice.as_ref()?;
        // Whoever comes back in the very millisecond would be a fraction too early.
        let retry_ms = lacks.as_nanos().div_ceil(1_000_000).to_string();
        let text = text.replace("{retry_ms}", &retry_ms);
        Some(server_frame(FrameKind::Text, text.as_bytes()))
    }

    /// Puts in what we have to say to the client, where there is room between two frames of the server's.
    pub(super) fn speak_aside(&mut self, legs: &Legs, cx: &mut Context<'_>) {
        if let Some(lacks) = self.inbound.take_first_delay()
            && let Some(notice) = self.notice(lacks)
        {
            self.aside.get_or_insert_default().notice = notice;
        }
        if self.pulse.take_ask()
            && let Some(judge) = self.inbound.judge()
        {
            let expected = judge.pong.get_or_insert_with(|| Box::new(Expected::unguessable()));
            self.aside.get_or_insert_default().pings.extend(expected.ask());
        }
        let Some(aside) = &mut self.aside else { return };
        let mut words = Vec::new();
        if self.outbound.is_between_frames() {
            words.append(&mut aside.pings);
        }
        let asks = !words.is_empty();
        if self.outbound.is_between_messages() {
            words.append(&mut aside.notice);
        }
        if aside.pings.is_empty() && aside.notice.is_empty() {
            self.aside = None;
        }
        if words.is_empty() {
            return;
        }
        let mut outward = Moved::default();
        self.outbound.append(&words);
        let _as_far_as_it_takes_it = self.outbound.poll_flush(&legs.client, &mut outward, cx);
        self.count(Moved::default(), outward);
        if asks {
            self.pulse.mark_client_owes();
            self.pulse.mark_asked();
        }
    }
}
