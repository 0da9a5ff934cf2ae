//! How frames make up messages: their order and their size (RFC 6455, section 5.4).

use std::num::NonZeroU64;

use super::header::{FrameFault, FrameHeader, FrameKind};

/// The messages of one direction, from frame to frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageSequence {
    /// One more than the declared bytes of the current message; `None` between messages. It is never 0, so the option
    /// takes no more memory: every connection whose frames are checked has one.
    unfinished: Option<NonZeroU64>,
}

impl MessageSequence {
    /// Declared bytes of the message that this frame belongs to, summed over its fragments up to and including this
    /// frame; 0 for a control frame, which belongs to no message.
    ///
    /// # Errors
    /// The frame must not come here (RFC 6455, 5.4).
    pub fn size_with(self, header: FrameHeader) -> Result<u64, FrameFault> {
        match (header.kind, self.unfinished()) {
            (FrameKind::Continuation, Some(before)) => Ok(before.saturating_add(header.payload)),
            (FrameKind::Continuation, None) => Err(FrameFault::NothingToContinue),
            (FrameKind::Text | FrameKind::Binary, None) => Ok(header.payload),
            (FrameKind::Text | FrameKind::Binary, Some(_)) => Err(FrameFault::InsideMessage),
            (FrameKind::Close | FrameKind::Ping | FrameKind::Pong, _) => Ok(0),
        }
    }

    /// Notes that this frame has passed. One that must not come here counts as what its opcode says.
    pub fn pass(&mut self, header: FrameHeader) {
        if header.kind.is_control() {
            return;
        }
        let before = match header.kind {
            FrameKind::Continuation => self.unfinished().unwrap_or(0),
            _ => 0,
        };
        let more = NonZeroU64::MIN.saturating_add(before).saturating_add(header.payload);
        self.unfinished = (!header.is_last).then_some(more);
    }

    fn unfinished(self) -> Option<u64> {
        self.unfinished.map(|more| more.get() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_its_fragments_and_control_frames_may_come_between_them() {
        let frame = |kind, is_last, payload| FrameHeader {
            kind,
            is_last,
            payload,
            is_minimal: true,
            reserved: 0,
        };
        let mut sequence = MessageSequence::default();
        for (header, size) in [
            (
                frame(FrameKind::Continuation, true, 1),
                Err(FrameFault::NothingToContinue),
            ),
            (frame(FrameKind::Text, false, 5), Ok(5)),
            (frame(FrameKind::Ping, true, 4), Ok(0)),
            (frame(FrameKind::Text, true, 1), Err(FrameFault::InsideMessage)),
            (frame(FrameKind::Continuation, false, 0), Ok(5)),
            (frame(FrameKind::Continuation, true, u64::MAX), Ok(u64::MAX)),
            (frame(FrameKind::Binary, true, 7), Ok(7)),
            (
                frame(FrameKind::Continuation, false, 1),
                Err(FrameFault::NothingToContinue),
            ),
        ] {
            assert_eq!(sequence.size_with(header), size, "{header:?}");
            if size.is_ok() {
                sequence.pass(header);
            }
        }
    }
}
