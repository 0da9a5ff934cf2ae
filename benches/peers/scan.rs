//! Finds where the WebSocket frames of a client begin and end in a stream of bytes.

/// The state of the frame that is coming in.
#[derive(Debug, Default)]
pub struct Scan {
    header: [u8; 14],
    has: usize,
    /// The bytes of the payload that are still to come, once the header is complete.
    left: Option<u64>,
    size: u64,
}

/// A frame that has come in completely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    pub size: u64,
}

impl Scan {
    /// Takes bytes up to the end of a frame. Returns the frame, if it is complete, and how many bytes were taken.
    pub fn feed(&mut self, bytes: &[u8]) -> (Option<Frame>, usize) {
        let mut used = 0;
        loop {
            if let Some(left) = &mut self.left {
                let part = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - used);
                *left -= part as u64;
                used += part;
                if *left > 0 {
                    return (None, used);
                }
                let frame = Frame {
                    opcode: self.header[0] & 0x0f,
                    size: self.size,
                };
                (self.has, self.left) = (0, None);
                return (Some(frame), used);
            }
            let Some(byte) = bytes.get(used) else {
                return (None, used);
            };
            self.header[self.has] = *byte;
            self.has += 1;
            used += 1;
            self.look();
        }
    }

    /// Sets the size of the payload once the header is complete, including the mask.
    fn look(&mut self) {
        let header = &self.header;
        let (length, size) = match header[1] & 0x7f {
            _ if self.has < 2 => return,
            126 => (4, u64::from(u16::from_be_bytes([header[2], header[3]]))),
            127 => {
                let bytes = header[2..10].try_into().expect("eight of them");
                (10, u64::from_be_bytes(bytes))
            }
            short => (2, u64::from(short)),
        };
        if self.has == length + 4 {
            (self.size, self.left) = (size, Some(size));
        }
    }
}
