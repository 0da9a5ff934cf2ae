//! WebSocket frames (RFC 6455, 5.2), of which only the 2 to 14 header bytes are looked at: payload is skipped, never
//! unmasked or kept.

use super::bits::{BINARY, CLOSE, CONTROL, FIN, LENGTH_16, LENGTH_64, MASKED, OPCODE, PONG, TEXT};
use super::extensions::Extensions;
use super::header::{FrameFault, FrameHeader, FrameKind, Sender};
use crate::wire::Step;

/// Follows one direction of a connection from frame to frame, however its bytes are split.
///
/// A header that can't be (reserved opcode, fragmented or over-long control frame, a length of 2^63 and above, a mask
/// where there must be none or none where there must be one) blinds it for good: from there on nobody knows where
/// frames begin. RSV bits pass, since extensions use them; so do lengths written longer than needed. None of this goes for
/// a [strict](FrameScanner::strict) one that is asked to [look](FrameScanner::look) first.
#[derive(Clone, Debug)]
pub struct FrameScanner {
    place: Place,
    /// Header: the length as read so far. Payload: how many bytes are still to come, the mask's four included.
    left: u64,
    /// Header: its first byte.
    first: u8,
    /// Header: how many bytes of length are still to come.
    length_bytes: u8,
    /// The second byte's top bit as this sender must set it.
    mask_bit: u8,
    /// The first byte of the last data frame.
    data: u8,
    saw_close: bool,
    /// Frames are held to RFC 6455, with these extensions.
    strict: Option<Extensions>,
}

/// Where the next byte belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Blind,
    Boundary,
    Length,
    Payload,
    Second,
}

impl FrameScanner {
    /// Begins at a boundary: right behind the 101's head, or the request's.
    pub const fn new(sender: Sender) -> Self {
        let mask_bit = match sender {
            Sender::Client => MASKED,
            Sender::Server => 0,
        };
        Self {
            place: Place::Boundary,
            left: 0,
            first: 0,
            length_bytes: 0,
            mask_bit,
            data: FIN,
            saw_close: false,
            strict: None,
        }
    }

    /// The same, of frames that are held to RFC 6455 where these extensions were agreed on.
    pub const fn strict(sender: Sender, extensions: Extensions) -> Self {
        let mut scanner = Self::new(sender);
        scanner.strict = Some(extensions);
        scanner
    }

    /// Takes all of `bytes` and tells how many data messages began in it: first frames, opcode 1 or 2, whose header (but
    /// for the mask) came to its end. None are told once it is blind.
    pub fn scan(&mut self, bytes: &[u8]) -> u32 {
        let mut rest = bytes;
        let mut began = 0;
        while !rest.is_empty() {
            // Behind a whole message there is often another, and nothing is to be noted of either.
            while self.awaits_message()
                && let Some(used) = whole_message(rest, FIN | OPCODE, self.mask_bit, 0)
            {
                began += 1;
                rest = &rest[used..];
            }
            let (used, here) = self.scan_in_steps(rest);
            began += here;
            rest = &rest[used..];
        }
        began
    }

    /// Takes `bytes` up to the first end of a frame, all of them where none ends, and tells how many it took and how many
    /// data messages (0 or 1) began in them. At a boundary that is the whole next frame. Blind: all of them and 0.
    #[inline]
    pub fn scan_to_boundary(&mut self, bytes: &[u8]) -> (usize, u32) {
        // Nearly every frame is a whole message below 64 KiB that lies whole in what was read. Behind one that is whole
        // nothing is to be noted.
        if self.awaits_message()
            && let Some(used) = whole_message(bytes, FIN | OPCODE, self.mask_bit, 0)
        {
            return (used, 1);
        }
        self.scan_in_steps(bytes)
    }

    /// As [`FrameScanner::scan`], but takes nothing of a frame whose header is not whole, or that RFC 6455 forbids: then it
    /// ends there. Tells how many bytes it took as well.
    pub fn scan_strictly(&mut self, bytes: &[u8]) -> (usize, u32) {
        let extensions = self.strict.unwrap_or_default();
        let told = FIN | OPCODE | extensions.forbidden();
        let (mut used, mut began) = (0, 0);
        while used < bytes.len() {
            while self.awaits_message()
                && !self.saw_close
                && let Some(here) = whole_message(&bytes[used..], told, self.mask_bit, LENGTH_16.into())
            {
                began += 1;
                used += here;
            }
            let rest = &bytes[used..];
            if self.place == Place::Boundary && !matches!(self.look(rest), Ok(Step::Done { .. })) {
                break;
            }
            let (here, messages) = self.scan_in_steps(rest);
            used += here;
            began += messages;
        }
        (used, began)
    }

    /// Reads the header that `bytes`, which begin where it stands at a boundary, begin with.
    ///
    /// # Errors
    /// The first rule that the frame breaks, as soon as that can be told.
    pub fn look(&self, bytes: &[u8]) -> Result<Step<FrameHeader>, FrameFault> {
        let sender = if self.mask_bit == 0 {
            Sender::Server
        } else {
            Sender::Client
        };
        let read = FrameHeader::parse(bytes, sender)?;
        match read {
            Step::Done { value, .. } => self.fault_of(value).map_or(Ok(read), Err),
            Step::More => Ok(read),
        }
    }

    /// What RFC 6455 forbids the next frame, if this is its header.
    pub fn fault_of(&self, header: FrameHeader) -> Option<FrameFault> {
        let continues = header.kind == FrameKind::Continuation;
        if self.saw_close && header.kind != FrameKind::Pong {
            Some(FrameFault::BehindClose)
        } else if !self.strict.unwrap_or_default().allow(header) {
            Some(FrameFault::ReservedBits)
        } else if !header.is_minimal {
            Some(FrameFault::LengthNotMinimal)
        } else if continues && !self.is_within_message() {
            Some(FrameFault::NothingToContinue)
        } else if !continues && !header.kind.is_control() && self.is_within_message() {
            Some(FrameFault::InsideMessage)
        } else {
            None
        }
    }

    /// How long the header is that `bytes` begin with, its mask included; `None` where they are too few to tell, or end within
    /// it. Whether it can be is not looked at.
    pub fn header_len(bytes: &[u8]) -> Option<usize> {
        let second = *bytes.get(1)?;
        let length_bytes = match second & !MASKED {
            LENGTH_16 => 2,
            LENGTH_64 => 8,
            _ => 0,
        };
        let len = 2 + length_bytes + usize::from((second & MASKED) >> 5);
        (len <= bytes.len()).then_some(len)
    }

    /// How much of the frame in hand is still to come, once its header is known; 0 at a boundary, within a header, and when
    /// blind. A mask counts as payload.
    pub fn payload_left(&self) -> u64 {
        if self.place == Place::Payload { self.left } else { 0 }
    }

    /// Takes `count` bytes of the payload that nobody saw.
    ///
    /// # Panics
    /// When there are more than [`FrameScanner::payload_left`].
    pub fn skip(&mut self, count: u64) {
        assert!(count <= self.payload_left(), "beyond the frame in hand");
        if count == 0 {
            return;
        }
        self.left -= count;
        if self.left == 0 {
            self.place = Place::Boundary;
        }
    }

    /// Whether frames are held to RFC 6455.
    pub fn is_strict(&self) -> bool {
        self.strict.is_some()
    }

    /// Whether the next byte begins a frame. Never so when blind.
    pub fn at_boundary(&self) -> bool {
        self.place == Place::Boundary
    }

    /// Whether a message has begun and its last fragment has not: then only control frames may be put in (RFC 6455, 5.4).
    pub fn is_within_message(&self) -> bool {
        self.data & FIN == 0
    }

    /// Whether an impossible header has been seen.
    pub fn is_blind(&self) -> bool {
        self.place == Place::Blind
    }

    /// Whether a close frame has passed, if only its first byte.
    pub fn saw_close(&self) -> bool {
        self.saw_close
    }

    /// Whether the next byte may begin a message.
    fn awaits_message(&self) -> bool {
        self.place == Place::Boundary && !self.is_within_message()
    }

    /// The general case: headers byte by byte, payload in one step.
    fn scan_in_steps(&mut self, bytes: &[u8]) -> (usize, u32) {
        let mut began = 0;
        let mut used = 0;
        while let Some(&byte) = bytes.get(used) {
            match self.place {
                Place::Blind => return (bytes.len(), began),
                Place::Payload => {
                    let here = bytes.len() - used;
                    let skipped = usize::try_from(self.left).map_or(here, |left| left.min(here));
                    used += skipped;
                    self.left -= skipped as u64;
                    if self.left == 0 {
                        self.place = Place::Boundary;
                    }
                }
                Place::Boundary | Place::Second | Place::Length => {
                    used += 1;
                    began += self.header_byte(byte);
                }
            }
            if self.place == Place::Boundary {
                break;
            }
        }
        (used, began)
    }

    /// One byte of a header; tells how many data messages began with it.
    fn header_byte(&mut self, byte: u8) -> u32 {
        match self.place {
            Place::Boundary => {
                let is_control = byte & CONTROL != 0;
                let is_reserved = if is_control {
                    byte & OPCODE > PONG
                } else {
                    byte & OPCODE > BINARY
                };
                if is_reserved || is_control && byte & FIN == 0 {
                    self.place = Place::Blind;
                    return 0;
                }
                self.saw_close |= byte & OPCODE == CLOSE;
                if !is_control {
                    self.data = byte;
                }
                self.first = byte;
                self.place = Place::Second;
                0
            }
            Place::Second => {
                let length = byte ^ self.mask_bit;
                if length & MASKED != 0 || self.first & CONTROL != 0 && length >= LENGTH_16 {
                    self.place = Place::Blind;
                    return 0;
                }
                (self.left, self.length_bytes) = match length {
                    LENGTH_16 => (0, 2),
                    LENGTH_64 => (0, 8),
                    _ => (u64::from(length), 0),
                };
                self.place = Place::Length;
                self.header_ended()
            }
            Place::Length => {
                if self.length_bytes == 8 && byte & 0x80 != 0 {
                    self.place = Place::Blind;
                    return 0;
                }
                self.left = self.left << 8 | u64::from(byte);
                self.length_bytes -= 1;
                self.header_ended()
            }
            Place::Blind | Place::Payload => 0,
        }
    }

    /// Goes on to the payload once the length is whole.
    fn header_ended(&mut self) -> u32 {
        if self.length_bytes > 0 {
            return 0;
        }
        self.left += u64::from(self.mask_bit >> 5);
        self.place = if self.left == 0 {
            Place::Boundary
        } else {
            Place::Payload
        };
        u32::from(matches!(self.first & OPCODE, TEXT | BINARY))
    }
}

/// How long the frame is that `bytes` begin with, if it is a whole message below 64 KiB of which everything is there. Of its
/// first byte only these bits are `told`; a length in two bytes is at least `least`.
#[inline]
fn whole_message(bytes: &[u8], told: u8, mask_bit: u8, least: u16) -> Option<usize> {
    let [first, second, ref rest @ ..] = *bytes else {
        return None;
    };
    if !matches!(first & told, WHOLE_TEXT | WHOLE_BINARY) {
        return None;
    }
    let unmasked = match (second ^ mask_bit, rest) {
        (length @ 0..LENGTH_16, _) => 2 + usize::from(length),
        (LENGTH_16, &[high, low, ..]) => {
            let length = u16::from_be_bytes([high, low]);
            if length < least {
                return None;
            }
            4 + usize::from(length)
        }
        _ => return None,
    };
    let used = unmasked + usize::from(mask_bit >> 5);
    (used <= bytes.len()).then_some(used)
}

const WHOLE_TEXT: u8 = FIN | TEXT;
const WHOLE_BINARY: u8 = FIN | BINARY;

#[cfg(test)]
mod tests;
