//! Frames as a client sends them.

/// This many text frames of 32 bytes.
pub fn small(count: usize) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | 32];
    frame.extend([0x5a; 4 + 32]);
    frame.repeat(count)
}

/// One binary frame of 64 KiB: its length takes eight bytes.
pub fn large() -> Vec<u8> {
    let mut frame = vec![0x82, 0x80 | 127];
    frame.extend(SIZE.to_be_bytes());
    frame.resize(frame.len() + 4 + (64 << 10), 0x5a);
    frame
}

const SIZE: u64 = 64 << 10;
