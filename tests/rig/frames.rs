//! WebSocket frames as bytes (RFC 6455, 5.2), written independently of the guard's code. Tests and benches share it.

/// A final frame as a server sends it.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame_header(opcode, payload.len(), 0);
    bytes.extend_from_slice(payload);
    bytes
}

/// A final frame as a client sends it.
pub fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame_header(opcode, payload.len(), 0x80);
    bytes.extend_from_slice(&MASK);
    let begins = bytes.len();
    bytes.extend_from_slice(payload);
    mask(&mut bytes[begins..], MASK);
    bytes
}

/// The header before the payload, without the four bytes of the mask.
pub fn frame_header(opcode: u8, len: usize, mask_bit: u8) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(short @ ..126), _) => bytes.push(mask_bit | short),
        (_, Ok(middle)) => {
            bytes.push(mask_bit | 0x7e);
            bytes.extend(middle.to_be_bytes());
        }
        _ => {
            bytes.push(mask_bit | 0x7f);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes
}

/// The first frame of a client in these bytes, if it is complete: its length on the wire, its opcode and its payload.
pub fn first_masked(bytes: &[u8]) -> Option<(usize, u8, Vec<u8>)> {
    let (begins, len) = match bytes.get(1)? & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (
            10,
            usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?,
        ),
        short => (2, usize::from(short)),
    };
    let key = bytes.get(begins..begins + 4)?.try_into().ok()?;
    let mut payload = bytes.get(begins + 4..begins + 4 + len)?.to_vec();
    mask(&mut payload, key);
    Some((begins + 4 + len, bytes[0] & 0x0f, payload))
}

/// The payload of the client's frame that these bytes are.
pub fn unmasked(bytes: &[u8]) -> Vec<u8> {
    match first_masked(bytes) {
        Some((len, _, payload)) if len == bytes.len() => payload,
        _ => panic!("not one whole masked frame: {bytes:?}"),
    }
}

/// The code of the server's close frame that these bytes are.
pub fn close_code(bytes: &[u8]) -> Option<u16> {
    match bytes {
        [0x88, len, high, low, rest @ ..] if usize::from(*len) == rest.len() + 2 => {
            Some(u16::from_be_bytes([*high, *low]))
        }
        _ => None,
    }
}

/// Masks, or unmasks. Eight bytes at a time: byte by byte, large payloads would take an unoptimized build seconds.
fn mask(payload: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let twice = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (eights, rest) = payload.as_chunks_mut::<8>();
    for eight in eights {
        *eight = (u64::from_ne_bytes(*eight) ^ twice).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
