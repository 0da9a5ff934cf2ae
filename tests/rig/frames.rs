//! WebSocket frames, RFC 6455 5.2, as bytes.

/// A final frame as a server sends it.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    header(opcode, payload.len(), 0)
        .into_iter()
        .chain(payload.iter().copied())
        .collect()
}

/// A final frame as a client sends it.
pub fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(opcode, payload.len(), 0x80);
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The payload of one whole masked frame of at most 125 bytes.
pub fn unmasked(bytes: &[u8]) -> Vec<u8> {
    let [_, _, a, b, c, d, payload @ ..] = bytes else {
        panic!("no masked frame: {bytes:?}")
    };
    assert_eq!(
        usize::from(bytes[1] & 0x7f),
        payload.len(),
        "one whole frame: {bytes:?}"
    );
    payload
        .iter()
        .zip([a, b, c, d].iter().cycle())
        .map(|(byte, mask)| byte ^ **mask)
        .collect()
}

/// The code in a whole, unmasked close frame that is all there is.
pub fn close_code(bytes: &[u8]) -> Option<u16> {
    match bytes {
        [0x88, len, high, low, rest @ ..] if usize::from(*len) == rest.len() + 2 => {
            Some(u16::from_be_bytes([*high, *low]))
        }
        _ => None,
    }
}

fn header(opcode: u8, len: usize, mask_bit: u8) -> Vec<u8> {
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

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
