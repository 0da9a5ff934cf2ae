//! Finds where WebSocket frames begin and end (RFC 6455, 5.2). Only the 2 to 14 header bytes of a frame are looked at;
//! payload is skipped, and never unmasked or kept. A message counts once, at the header of its first frame.

use super::bits::{BINARY, CLOSE, CONTROL, FIN, LENGTH_16, LENGTH_64, MASKED, OPCODE, PONG, TEXT};
use super::extensions::Extensions;
use super::header::{FrameFault, FrameHeader, FrameKind, Sender};
use crate::wire::Step;

/// Follows one direction of a connection from frame to frame, however its bytes are split.
///
/// An impossible header blinds it for good, because from there on it can't be known where frames begin. Impossible are
/// a reserved opcode, a fragmented control frame or one above 125 bytes, a length from 2^63 on, and a mask from a
/// server or none from a client. RSV bits are possible, since extensions use them, and so are lengths with more bytes
/// than needed.
///
/// A [strict](FrameScanner::strict) scanner applies stricter rules if it is asked to [look](FrameScanner::look) before
/// it scans.
#[derive(Clone, Debug)]
pub struct FrameScanner {
    place: Place,
    /// Within a header: the length as read so far. Within payload: the bytes that are still to come, including the
    /// mask's four.
    left: u64,
    /// Within a header: its first byte.
    first: u8,
    /// Within a header: the bytes of length that are still to come.
    length_bytes: u8,
    /// The top bit of the second byte, as this sender must set it.
    mask_bit: u8,
    /// The first byte of the last data frame.
    data: u8,
    saw_close: bool,
    /// `Some` if frames are checked against RFC 6455: the extensions that the connection agreed on.
    strict: Option<Extensions>,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Blind,
    Boundary,
    Length,
    Payload,
    Second,
}

impl FrameScanner {
    /// A scanner that begins at a boundary: right after the head of the 101 or of the request.
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

    /// The same for frames that are checked against RFC 6455, on a connection that agreed on these extensions.
    pub const fn strict(sender: Sender, extensions: Extensions) -> Self {
        let mut scanner = Self::new(sender);
        scanner.strict = Some(extensions);
        scanner
    }

    /// Takes all of `bytes` and returns how many data messages began in them. A message begins once the header of its
    /// first frame (opcode 1 or 2) is complete up to the mask. A blind scanner counts none.
    pub fn scan(&mut self, bytes: &[u8]) -> u32 {
        let mut rest = bytes;
        let mut began = 0;
        while !rest.is_empty() {
            // A complete message is often followed by another, and neither changes the state.
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

    /// Takes `bytes` up to the first end of a frame, or all of them if no frame ends. Returns how many bytes it took
    /// and how many data messages (0 or 1) began in them. At a boundary it takes the whole next frame. A blind scanner
    /// takes all of them and counts 0.
    #[inline]
    pub fn scan_to_boundary(&mut self, bytes: &[u8]) -> (usize, u32) {
        // Nearly every frame is a whole message below 64 KiB, and all of it was read at once. Such a frame changes no
        // state.
        if self.awaits_message()
            && let Some(used) = whole_message(bytes, FIN | OPCODE, self.mask_bit, 0)
        {
            return (used, 1);
        }
        self.scan_in_steps(bytes)
    }

    /// Like [`FrameScanner::scan`], but stops before a frame whose header is incomplete or that RFC 6455 forbids.
    /// Returns how many bytes it took and how many data messages began in them.
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

    /// Reads the header that `bytes` begin with. They must begin at a boundary.
    ///
    /// # Errors
    /// The first rule that the frame breaks, as soon as it is certain.
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

    /// The rule of RFC 6455 that the next frame breaks if this is its header.
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

    /// The length of the header that `bytes` begin with, including its mask; `None` if it is incomplete. The header may
    /// be an impossible one.
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

    /// Bytes of the current frame's payload that are still to come; 0 at a boundary, within a header, and when blind. A
    /// mask counts as payload.
    pub fn payload_left(&self) -> u64 {
        if self.place == Place::Payload { self.left } else { 0 }
    }

    /// Counts `count` bytes of payload as taken that the scanner did not see.
    ///
    /// # Panics
    /// If `count` is more than [`FrameScanner::payload_left`].
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

    /// Whether frames are checked against RFC 6455.
    pub fn is_strict(&self) -> bool {
        self.strict.is_some()
    }

    /// Whether the next byte begins a frame; false when blind.
    pub fn at_boundary(&self) -> bool {
        self.place == Place::Boundary
    }

    /// Whether a message has begun and its last fragment has not. Then only control frames may be inserted (RFC 6455,
    /// 5.4).
    pub fn is_within_message(&self) -> bool {
        self.data & FIN == 0
    }

    /// Whether an impossible header has been seen.
    pub fn is_blind(&self) -> bool {
        self.place == Place::Blind
    }

    /// Whether at least the first byte of a close frame has passed.
    pub fn saw_close(&self) -> bool {
        self.saw_close
    }

    /// Whether the next byte may begin a message.
    fn awaits_message(&self) -> bool {
        self.place == Place::Boundary && !self.is_within_message()
    }

    /// The general case: reads headers byte by byte, and skips payload in one step.
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

    /// Takes one byte of a header, and returns how many data messages (0 or 1) began with it.
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

    /// Continues with the payload once the length is complete.
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

/// The length of the frame that `bytes` begin with, if it is complete and a whole message below 64 KiB. Of its first
/// byte only the bits of `told` are compared. A length in two bytes must be at least `least`.
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
