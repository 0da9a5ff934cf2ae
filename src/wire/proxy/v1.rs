//! Version 1 of the PROXY protocol: a line of text.

use super::fault::{Pause, ProxyFault};
use super::signature::V1_START;
use super::source::Source;
use crate::wire::address::{address, decimal_port};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Reads a header of version 1: `PROXY TCP4 192.0.2.1 192.0.2.2 4711 443` and CRLF.
pub(super) fn read(bytes: &[u8]) -> Result<(Source, usize), Pause> {
    let mut line = Line {
        bytes: bytes.get(..LONGEST).unwrap_or(bytes),
        at: V1_START.len(),
    };
    let source = match line.family()? {
        Family::Tcp4 => line.ends::<Ipv4Addr>(15, |byte| byte.is_ascii_digit() || byte == b'.')?,
        // Senders use inet_ntop, which writes the end of an IPv4-mapped address with dots.
        Family::Tcp6 => line.ends::<Ipv6Addr>(45, |byte| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.')?,
        Family::Unknown => line.anything()?,
    };
    Ok((source, line.at))
}

enum Family {
    Tcp4,
    Tcp6,
    Unknown,
}

/// A version 1 line, cut at 107 bytes, and the position up to which it was read.
struct Line<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Line<'a> {
    fn family(&mut self) -> Result<Family, Pause> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let words: [(&[u8], Family); 3] = [
            (b"TCP4 ", Family::Tcp4),
            (b"TCP6 ", Family::Tcp6),
            (b"UNKNOWN", Family::Unknown),
        ];
        for (word, family) in words {
            if rest.starts_with(word) {
                self.at += word.len();
                return Ok(family);
            }
            if word.starts_with(rest) {
                return Err(Pause::Short);
            }
        }
        Err(ProxyFault::Family.into())
    }

    /// Reads both addresses, both ports and the line's end. The destination is not used, but must be valid.
    fn ends<A: FromStr + Into<IpAddr>>(&mut self, longest: usize, allows: fn(u8) -> bool) -> Result<Source, Pause> {
        let mut end = || {
            let text = self.field(b' ', longest, allows, ProxyFault::Address)?;
            address::<A>(text).ok_or(Pause::Fault(ProxyFault::Address))
        };
        let (from, _to) = (end()?, end()?);
        let mut port = |end| {
            let text = self.field(end, 5, |byte| byte.is_ascii_digit(), ProxyFault::Port)?;
            decimal_port(text).ok_or(Pause::Fault(ProxyFault::Port))
        };
        let (from_port, _to_port) = (port(b' ')?, port(b'\r')?);
        self.line_feed(Source::Address(SocketAddr::new(from.into(), from_port)))
    }

    /// Reads what follows UNKNOWN: the line's end, or a blank and anything up to the line's end.
    fn anything(&mut self) -> Result<Source, Pause> {
        match self.next()? {
            b' ' => {}
            b'\r' => return self.line_feed(Source::Socket),
            _ => return Err(ProxyFault::Family.into()),
        }
        let mut before = b' ';
        loop {
            let byte = self.next()?;
            if before == b'\r' && byte == b'\n' {
                return Ok(Source::Socket);
            }
            before = byte;
        }
    }

    /// Returns `source` if an LF follows the CR that was just read.
    fn line_feed(&mut self, source: Source) -> Result<Source, Pause> {
        match self.next()? {
            b'\n' => Ok(source),
            _ => Err(ProxyFault::LineEnd.into()),
        }
    }

    /// Reads the bytes up to `end`, and consumes `end`.
    fn field(&mut self, end: u8, longest: usize, allows: fn(u8) -> bool, fault: ProxyFault) -> Result<&'a [u8], Pause> {
        let start = self.at;
        loop {
            let before = self.at;
            let byte = self.next()?;
            if byte == end {
                return Ok(self.bytes.get(start..before).unwrap_or_default());
            }
            if !allows(byte) || before - start == longest {
                return Err(fault.into());
            }
        }
    }

    fn next(&mut self) -> Result<u8, Pause> {
        let Some(&byte) = self.bytes.get(self.at) else {
            let is_full = self.bytes.len() == LONGEST;
            return Err(if is_full {
                ProxyFault::LineTooLong.into()
            } else {
                Pause::Short
            });
        };
        self.at += 1;
        Ok(byte)
    }
}

/// The longest line, including its CRLF.
const LONGEST: usize = 107;
