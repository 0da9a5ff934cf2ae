//! WebSocket frames as bytes (RFC 6455, 5.2), written apart from the guard's own.

/// A final frame as a server sends it.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame_header(opcode, payload.len(), 0);
    bytes.extend(payload);
    bytes
}

/// A final frame as a client sends it.
pub fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame_header(opcode, payload.len(), 0x80);
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// What stands before the payload, the mask's four bytes apart.
pub fn frame_header(opcode: u8, size: usize, mask_bit: u8) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    match (u8::try_from(size), u16::try_from(size)) {
        (Ok(short @ ..126), _) => bytes.push(mask_bit | short),
        (_, Ok(middle)) => {
            bytes.push(mask_bit | 0x7e);
            bytes.extend(middle.to_be_bytes());
        }
        _ => {
            bytes.push(mask_bit | 0x7f);
            bytes.extend((size as u64).to_be_bytes());
        }
    }
    bytes
}

pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
