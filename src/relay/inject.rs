//! Frames of wsguard's own for the client, inserted between the server's frames.

/// The frames that wait for their place between two of the server's frames.
#[derive(Debug, Default)]
pub(super) struct InjectedFrames {
    pings: Vec<u8>,
    /// A text message, which must not come between the fragments of another (RFC 6455 section 5.4).
    notice: Vec<u8>,
}

/// Frames that may be written now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ReadyFrames {
    pub(super) bytes: Vec<u8>,
    pub(super) has_ping: bool,
}

impl InjectedFrames {
    /// Adds a ping frame.
    pub(super) fn add_ping(&mut self, frame: &[u8]) {
        self.pings.extend_from_slice(frame);
    }

    /// Sets the frame of the notice.
    pub(super) fn set_notice(&mut self, frame: Vec<u8>) {
        self.notice = frame;
    }

    /// Whether no frame waits.
    pub(super) fn is_empty(&self) -> bool {
        self.pings.is_empty() && self.notice.is_empty()
    }

    /// Takes the frames that may be inserted now. Pings need a place between two frames, and the notice a place between
    /// two messages.
    pub(super) fn take_ready(&mut self, is_between_frames: bool, is_between_messages: bool) -> ReadyFrames {
        let mut bytes = Vec::new();
        if is_between_frames {
            bytes.append(&mut self.pings);
        }
        let has_ping = !bytes.is_empty();
        if is_between_messages {
            bytes.append(&mut self.notice);
        }
        ReadyFrames { bytes, has_ping }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_waits_for_a_frame_to_end_and_a_notice_for_a_message() {
        let mut injected = InjectedFrames::default();
        injected.set_notice(b"notice".to_vec());
        injected.add_ping(b"ping");
        injected.add_ping(b"ping");
        let ready = |bytes: &[u8], has_ping| ReadyFrames {
            bytes: bytes.to_vec(),
            has_ping,
        };
        assert_eq!(injected.take_ready(false, false), ready(b"", false));
        assert_eq!(injected.take_ready(true, false), ready(b"pingping", true));
        assert!(!injected.is_empty(), "the notice waits");
        assert_eq!(injected.take_ready(true, true), ready(b"notice", false));
        assert!(injected.is_empty());
    }
}
