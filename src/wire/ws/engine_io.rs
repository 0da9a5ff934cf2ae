//! The parts of Engine.IO, the transport of Socket.IO, that a refusal needs.

use super::frame::server_frame;
use super::header::FrameKind;

/// Whether a request's target asks for a WebSocket of Engine.IO 3 or 4, as Socket.IO 2, 3 and 4 do.
pub fn is_asked_for(target: &[u8]) -> bool {
    let Some(at) = target.iter().position(|byte| *byte == b'?') else {
        return false;
    };
    let has = |wanted: &[&[u8]]| {
        target[at + 1..]
            .split(|byte| *byte == b'&')
            .any(|pair| wanted.contains(&pair))
    };
    has(&[b"EIO=3", b"EIO=4"]) && has(&[b"transport=websocket"])
}

/// A frame that makes a client end its handshake with an error. It is not a packet, since packets begin with a digit.
/// So socket.io-client 2, 3 and 4 report `connect_error` at once, and retry after growing waits. After a
/// `CONNECT_ERROR` packet they would never retry, or begin again with short waits.
///
/// `text` is wsguard's own and needs no escaping.
pub fn error_frame(text: &str) -> Vec<u8> {
    debug_assert!(
        !text.contains(['"', '\\']) && !text.contains(char::is_control),
        "{text} would need an escape"
    );
    server_frame(FrameKind::Text, ["{\"message\":\"", text, "\"}"].concat().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engine_io_is_recognised_by_the_query() {
        for (target, expected) in [
            ("/socket.io/?EIO=4&transport=websocket", true),
            ("/socket.io/?EIO=3&transport=websocket&sid=x", true),
            ("/any?a=b&transport=websocket&t=1&EIO=4", true),
            ("/socket.io/?EIO=4&transport=polling", false),
            ("/socket.io/?EIO=2&transport=websocket", false),
            ("/socket.io/?EIO=44&transport=websocket", false),
            ("/socket.io/?xEIO=4&transport=websocket", false),
            ("/socket.io/?EIO=4", false),
            ("/EIO=4&transport=websocket", false),
            ("/", false),
        ] {
            assert_eq!(is_asked_for(target.as_bytes()), expected, "{target}");
        }
    }

    #[test]
    fn the_error_is_one_text_frame() {
        assert_eq!(error_frame("no"), b"\x81\x10{\"message\":\"no\"}");
    }
}
