//! Version 2 of the PROXY protocol: a binary block.

use super::fault::{Pause, ProxyFault};
use super::source::Source;
use std::net::{IpAddr, SocketAddr};

/// Reads a header of version 2: signature, version and command, family and transport, length, addresses, extensions
/// (TLVs).
pub(super) fn read(bytes: &[u8]) -> Result<(Source, usize), Pause> {
    let command = byte_at(bytes, 12)?;
    if command >> 4 != 2 {
        return Err(ProxyFault::Version.into());
    }
    let is_local = match command & 0x0F {
        0 => true,
        1 => false,
        _ => return Err(ProxyFault::Command.into()),
    };
    // With LOCAL the receiver must ignore everything that follows, including the family.
    let family = byte_at(bytes, 13)?;
    let addresses = if is_local {
        Addresses::Ignored
    } else {
        Addresses::of(family)?
    };
    let length = usize::from(u16_at(bytes, 14)?);
    if length > LONGEST {
        return Err(ProxyFault::TooLong.into());
    }
    if length < addresses.length() {
        return Err(ProxyFault::TooShort.into());
    }
    let used = FIXED + length;
    if !matches!(addresses, Addresses::Ignored) {
        check_tlvs(bytes, FIXED + addresses.length(), used)?;
    }
    let block = bytes.get(FIXED..used).ok_or(Pause::Short)?;
    Ok((addresses.source(block)?, used))
}

/// The address part of a version 2 header.
#[derive(Clone, Copy)]
enum Addresses {
    Ignored,
    Inet,
    Inet6,
    Unix,
}

impl Addresses {
    /// Reads the byte that holds the family and the transport.
    fn of(byte: u8) -> Result<Self, ProxyFault> {
        let family = match byte >> 4 {
            0 => Self::Ignored,
            1 => Self::Inet,
            2 => Self::Inet6,
            3 => Self::Unix,
            _ => return Err(ProxyFault::Family),
        };
        match byte & 0x0F {
            0 => Ok(Self::Ignored),
            1 => Ok(family),
            _ => Err(ProxyFault::Transport),
        }
    }

    const fn length(self) -> usize {
        match self {
            Self::Ignored => 0,
            Self::Inet => 12,
            Self::Inet6 => 36,
            Self::Unix => 216,
        }
    }

    /// Source address, destination address, source port, destination port, all in network order.
    fn source(self, block: &[u8]) -> Result<Source, Pause> {
        let (ip, port): (IpAddr, u16) = match self {
            Self::Ignored | Self::Unix => return Ok(Source::Socket),
            Self::Inet => (
                (*block.first_chunk::<4>().ok_or(Pause::Short)?).into(),
                u16_at(block, 8)?,
            ),
            Self::Inet6 => (
                (*block.first_chunk::<16>().ok_or(Pause::Short)?).into(),
                u16_at(block, 32)?,
            ),
        };
        Ok(Source::Address(SocketAddr::new(ip, port)))
    }
}

/// Checks that the extensions (TLVs) fill the bytes from `at` to `end` exactly. Each is a type, two bytes of length,
/// and as many bytes as that says.
fn check_tlvs(bytes: &[u8], mut at: usize, end: usize) -> Result<(), Pause> {
    while at < end {
        if at + 3 > end {
            return Err(ProxyFault::Tlv.into());
        }
        at += 3 + usize::from(u16_at(bytes, at + 1)?);
        if at > end {
            return Err(ProxyFault::Tlv.into());
        }
    }
    Ok(())
}

fn byte_at(bytes: &[u8], at: usize) -> Result<u8, Pause> {
    bytes.get(at).copied().ok_or(Pause::Short)
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Pause> {
    Ok(u16::from_be_bytes([byte_at(bytes, at)?, byte_at(bytes, at + 1)?]))
}

/// The length of the fixed part: signature, version and command, family and transport, length.
pub(super) const FIXED: usize = 16;

/// The most bytes that may follow the fixed part. Addresses take up to 216; extensions name certificates, hosts and
/// clouds.
pub(super) const LONGEST: usize = 4096;
