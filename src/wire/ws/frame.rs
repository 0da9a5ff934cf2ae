//! Whole frames, as wsguard itself sends them (RFC 6455, sections 5.2 and 5.5).

use super::bits::{BINARY, CLOSE, CONTINUATION, FIN, LENGTH_16, MASKED, PING, PONG, TEXT};
use super::header::FrameKind;

/// A whole close frame with this status code (RFC 6455, 7.4) and reason. With a mask it is a client's, without one a
/// server's.
///
/// The reason is cut between characters to at most 123 bytes, because a control frame holds 125 in all.
pub fn close_frame(code: u16, reason: &str, mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut room = u8::try_from(reason.len()).unwrap_or(u8::MAX).min(LENGTH_16 - 3);
    while !reason.is_char_boundary(usize::from(room)) {
        room -= 1;
    }
    let payload = code
        .to_be_bytes()
        .into_iter()
        .chain(reason.bytes().take(usize::from(room)));
    let length = 2 + room;
    let mut frame = Vec::with_capacity(6 + usize::from(length));
    frame.push(FIN | CLOSE);
    match mask {
        None => {
            frame.push(length);
            frame.extend(payload);
        }
        Some(mask) => {
            frame.push(MASKED | length);
            frame.extend(mask);
            frame.extend(payload.zip(mask.into_iter().cycle()).map(|(byte, key)| byte ^ key));
        }
    }
    frame
}

/// A whole unmasked frame, as a server sends it: a control frame of at most 125 bytes, or a message of at most 65 535.
/// Bytes above that are cut off.
pub fn server_frame(kind: FrameKind, payload: &[u8]) -> Vec<u8> {
    let (opcode, most) = match kind {
        FrameKind::Continuation => (CONTINUATION, u16::MAX),
        FrameKind::Text => (TEXT, u16::MAX),
        FrameKind::Binary => (BINARY, u16::MAX),
        FrameKind::Close => (CLOSE, u16::from(LENGTH_16) - 1),
        FrameKind::Ping => (PING, u16::from(LENGTH_16) - 1),
        FrameKind::Pong => (PONG, u16::from(LENGTH_16) - 1),
    };
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX).min(most);
    let mut frame = Vec::with_capacity(4 + payload.len());
    frame.push(FIN | opcode);
    match u8::try_from(length) {
        Ok(short) if short < LENGTH_16 => frame.push(short),
        _ => {
            frame.push(LENGTH_16);
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend(&payload[..length.into()]);
    frame
}

#[cfg(test)]
mod tests;
