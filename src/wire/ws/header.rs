//! A whole frame header (RFC 6455, 5.2), for deciding on a frame before it passes. A [`super::scanner::FrameScanner`]
//! is enough to know where frames end.

use std::fmt;

use super::bits::{
    BINARY, CLOSE, CONTINUATION, CONTROL, FIN, LENGTH_16, LENGTH_64, MASKED, OPCODE, PING, PONG, RESERVED, TEXT,
};
use crate::wire::Step;

/// Which side sent the bytes; a client must mask its frames, a server must not (RFC 6455, 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The side that requested the upgrade.
    Client,
    /// The side that answered 101.
    Server,
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What kind of frame it is.
    pub kind: FrameKind,
    /// It is the last frame of its message.
    pub is_last: bool,
    /// Bytes of payload, as declared.
    pub payload: u64,
    /// The length is written with as few bytes as possible.
    pub is_minimal: bool,
    /// The reserved bits, at their positions in the first byte. Extensions use them (5.2).
    pub reserved: u8,
}

/// The kind of a frame (RFC 6455, 5.2 and 5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The words are the RFC's.
pub enum FrameKind {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

/// The rule of RFC 6455 that a frame breaks. Its text becomes the reason of a close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameFault {
    /// Opcodes 3 to 7 and 11 to 15 (5.2).
    ReservedOpcode,
    /// A control frame without FIN (5.5).
    FragmentedControl,
    /// A control frame of more than 125 bytes (5.5).
    LongControl,
    /// A client's frame without a mask (5.1).
    NotMasked,
    /// A server's frame with a mask (5.1).
    Masked,
    /// 2^63 bytes and above (5.2).
    LengthTooLarge,
    /// A length with more bytes than needed (5.2).
    LengthNotMinimal,
    /// A continuation frame while no message is unfinished (5.4).
    NothingToContinue,
    /// A new message while another is unfinished (5.4).
    InsideMessage,
    /// A reserved bit that no extension has been agreed on for (5.2).
    ReservedBits,
    /// A frame after a close frame (5.5.1). A pong is allowed, because a ping may still be unanswered (5.5.2).
    BehindClose,
}

impl FrameHeader {
    /// Reads the header that `bytes` begin with, its mask included.
    ///
    /// # Errors
    /// The first rule that it breaks, as soon as it is certain. A length with more bytes than needed is not an error
    /// here, since it is clear where such a frame ends; [`FrameHeader::is_minimal`] is false then.
    pub fn parse(bytes: &[u8], sender: Sender) -> Result<Step<Self>, FrameFault> {
        let Some(&first) = bytes.first() else {
            return Ok(Step::More);
        };
        let kind = match first & OPCODE {
            CONTINUATION => FrameKind::Continuation,
            TEXT => FrameKind::Text,
            BINARY => FrameKind::Binary,
            CLOSE => FrameKind::Close,
            PING => FrameKind::Ping,
            PONG => FrameKind::Pong,
            _ => return Err(FrameFault::ReservedOpcode),
        };
        let is_control = first & CONTROL != 0;
        let is_last = first & FIN != 0;
        if is_control && !is_last {
            return Err(FrameFault::FragmentedControl);
        }
        let Some(&second) = bytes.get(1) else {
            return Ok(Step::More);
        };
        let mask = match (sender, second & MASKED != 0) {
            (Sender::Client, true) => 4,
            (Sender::Server, false) => 0,
            (Sender::Client, false) => return Err(FrameFault::NotMasked),
            (Sender::Server, true) => return Err(FrameFault::Masked),
        };
        let short = second & !MASKED;
        if is_control && short >= LENGTH_16 {
            return Err(FrameFault::LongControl);
        }
        let (length_bytes, least) = match short {
            LENGTH_16 => (2, u64::from(LENGTH_16)),
            LENGTH_64 => (8, 1 << 16),
            _ => (0, 0),
        };
        if length_bytes == 8 && bytes.get(2).is_some_and(|high| high & 0x80 != 0) {
            return Err(FrameFault::LengthTooLarge);
        }
        let used = 2 + length_bytes + mask;
        if bytes.len() < used {
            return Ok(Step::More);
        }
        let payload = match length_bytes {
            0 => u64::from(short),
            _ => bytes[2..2 + length_bytes]
                .iter()
                .fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        Ok(Step::Done {
            value: Self {
                kind,
                is_last,
                payload,
                is_minimal: payload >= least,
                reserved: first & RESERVED,
            },
            used,
        })
    }
}

impl FrameKind {
    /// Whether a data message begins with it, so that a message of several fragments counts once (RFC 6455, 5.4).
    pub fn begins_message(self) -> bool {
        matches!(self, Self::Text | Self::Binary)
    }

    /// Whether it may come between the fragments of a message (RFC 6455, 5.5).
    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

impl fmt::Display for FrameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReservedOpcode => "reserved opcode",
            Self::FragmentedControl => "fragmented control frame",
            Self::LongControl => "control frame longer than 125 bytes",
            Self::NotMasked => "frame without a mask",
            Self::Masked => "frame with a mask",
            Self::LengthTooLarge => "frame length of 2^63 or more",
            Self::LengthNotMinimal => "frame length not in its shortest form",
            Self::NothingToContinue => "continuation without a message",
            Self::InsideMessage => "new message inside a fragmented one",
            Self::ReservedBits => "reserved bit without an extension",
            Self::BehindClose => "frame behind a close frame",
        })
    }
}

/// The longest header: two bytes, eight of length, four of mask (RFC 6455, 5.2).
pub const LONGEST_HEADER: usize = 14;

#[cfg(test)]
mod tests;
