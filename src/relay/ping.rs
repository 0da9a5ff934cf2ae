//! Questions of ours to a silent client, and how their answers are told from everybody else's.

use std::hash::{BuildHasher, RandomState};

use crate::wire::ws::frame::server_frame;
use crate::wire::ws::header::FrameKind;

/// The payload of a connection's pings, and how many are unanswered.
///
/// It is the same for all of them, as an endpoint may answer only the last of several (RFC 6455, 5.5.3), and tells its
/// pongs from those of the server's own pings.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExpectedPong {
    payload: [u8; LENGTH],
    unanswered: u32,
}

impl ExpectedPong {
    /// Nothing was asked yet. Nobody can guess what will be.
    pub(super) fn random() -> Self {
        let mut payload = *b"wsguard-????????";
        let number = RandomState::new().hash_one(());
        payload[LENGTH - 8..].copy_from_slice(&number.to_be_bytes());
        Self { payload, unanswered: 0 }
    }

    /// A ping to be sent.
    pub(super) fn ask(&mut self) -> Vec<u8> {
        self.unanswered += 1;
        server_frame(FrameKind::Ping, &self.payload)
    }

    /// Whether a pong of this length might be an answer to us.
    pub(super) fn may_match(&self, length: u64) -> bool {
        self.unanswered > 0 && length == LENGTH as u64
    }

    /// Whether this pong, masked, is an answer to us; and from here on one less is awaited. The client may answer all of our
    /// pings with one pong, so those that are left are not waited for.
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
