//! The work that a flow did in one turn.

use super::buffer::BUFFER_SIZE;

/// The bytes and frames that a flow moved in one turn.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::relay) struct Progress {
    /// Bytes from the source that count as passed.
    pub(in crate::relay) read: u64,
    /// Data messages that began in these bytes.
    pub(in crate::relay) messages: u64,
    /// Frames that the policer decided on.
    pub(in crate::relay) frames: u64,
    /// The sink has taken bytes.
    pub(in crate::relay) written: bool,
    /// The source has sent bytes, including those that are not passed on.
    pub(in crate::relay) received: bool,
    /// A frame with a valid header has arrived. Set only if frames are policed.
    pub(in crate::relay) has_frame: bool,
}

impl Progress {
    /// Adds bytes that count as passed, and the messages that began in them.
    pub(super) fn count(&mut self, bytes: usize, messages: u64) {
        self.read += bytes as u64;
        self.messages += messages;
    }

    /// Whether the turn has done so much work that other connections go first.
    pub(super) fn is_turn_over(&self) -> bool {
        self.read + self.messages * MESSAGE_COST + self.frames * FRAME_COST >= (MAX_READS * BUFFER_SIZE) as u64
    }
}

/// The most reads of a whole buffer in one turn.
pub(super) const MAX_READS: usize = 8;

/// The costs of counting a message and of policing a frame, as a number of bytes that could be copied in the same time.
const MESSAGE_COST: u64 = 32;
const FRAME_COST: u64 = 512;
