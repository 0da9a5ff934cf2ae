//! The bits of a frame header (RFC 6455, section 5.2).

pub(super) const FIN: u8 = 0x80;
pub(super) const OPCODE: u8 = 0x0F;
/// RSV1 to RSV3.
pub(super) const RESERVED: u8 = 0x70;
/// The opcode bit that all control frames have.
pub(super) const CONTROL: u8 = 0x08;
/// The top bit of the second byte: a mask follows the length. `MASKED >> 5` is the length of the mask, four bytes.
pub(super) const MASKED: u8 = 0x80;

pub(super) const CONTINUATION: u8 = 0x0;
pub(super) const TEXT: u8 = 0x1;
pub(super) const BINARY: u8 = 0x2;
pub(super) const CLOSE: u8 = 0x8;
pub(super) const PING: u8 = 0x9;
pub(super) const PONG: u8 = 0xA;

/// From this value on, the lower bits of the second byte are not a length: two bytes of length follow, or eight.
pub(super) const LENGTH_16: u8 = 126;
pub(super) const LENGTH_64: u8 = 127;
