//! wsguard's pings to a silent client, and how their pongs are told from the pongs to the server's pings.

use crate::net::random::Random;
use crate::wire::ws::frame::server_frame;
use crate::wire::ws::header::FrameKind;

/// The payload of a connection's pings, and how many are unanswered.
///
/// All pings of a connection have the same payload, because an endpoint may answer only the last of several pings (RFC
/// 6455, 5.5.3).
#[derive(Clone, Copy, Debug)]
pub(super) struct ExpectedPong {
    payload: [u8; LENGTH],
    unanswered: u32,
}

impl ExpectedPong {
    /// The state before the first ping, with a payload that can't be guessed.
    pub(super) fn new(random: &Random) -> Self {
        let mut payload = *b"wsguard-????????";
        payload[LENGTH - 8..].copy_from_slice(&random.bytes::<8>());
        Self { payload, unanswered: 0 }
    }

    /// Returns a ping frame to be sent, and counts it as unanswered.
    pub(super) fn ping(&mut self) -> Vec<u8> {
        self.unanswered += 1;
        server_frame(FrameKind::Ping, &self.payload)
    }

    /// Whether a pong with a payload of this length could be an answer.
    pub(super) fn may_match(&self, length: u64) -> bool {
        self.unanswered > 0 && length == LENGTH as u64
    }

    /// Whether this masked payload is that of a pong to one of these pings, which then counts as answered. The client
    /// may answer several pings with one pong. The other pings then stay unanswered, and nothing waits for them.
    pub(super) fn matches(&mut self, payload: &[u8], mask: [u8; 4]) -> bool {
        let unmasked = payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key);
        let is_ours = unmasked.eq(self.payload);
        if is_ours {
            self.unanswered -= 1;
        }
        is_ours
    }
}

const LENGTH: usize = 16;
