//! The PROXY protocol, versions 1 and 2, by `HAProxy`'s `doc/proxy-protocol.txt` (2020/03/05), sections 2.1 and 2.2.
//!
//! Both are read strictly from the left, so that the first wrong byte decides, however the bytes were split. Where
//! the specification lets a receiver choose, this one refuses: who may send the header is trusted with an identity.

mod block;
mod line;

use super::Step;
use std::net::SocketAddr;
use thiserror::Error;

/// Whom a PROXY header names as the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// This address. An IPv4-mapped IPv6 address stays as it is.
    Address(SocketAddr),
    /// Whoever holds the other end of the socket: UNKNOWN, LOCAL, UNSPEC or `AF_UNIX`.
    Socket,
}

/// Whether the first bytes of a connection begin a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announces {
    /// Too few bytes to tell; so far they do.
    Maybe,
    /// They do not, whatever comes.
    No,
    /// They begin with `PROXY ` or the signature of version 2.
    Yes,
}

/// The rule that a PROXY header broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProxyFault {
    /// Version 1: not exactly one address of the family it names, followed by one space.
    #[error("PROXY line: malformed address, or one of another family")]
    Address,
    /// Version 2: neither LOCAL nor PROXY.
    #[error("PROXY header: unknown command")]
    Command,
    /// Neither TCP4, TCP6 nor UNKNOWN; or an address family that version 2 does not know.
    #[error("PROXY header: unknown address family")]
    Family,
    /// Version 1: a CR without its LF.
    #[error("PROXY line: CR without LF")]
    LineEnd,
    /// Version 1: no CRLF within 107 bytes.
    #[error("PROXY line: longer than 107 bytes")]
    LineTooLong,
    /// The bytes begin no PROXY header.
    #[error("PROXY header: missing")]
    Missing,
    /// Version 1: a port that is no number from 0 to 65535, has leading zeros, or is not followed by what must follow.
    #[error("PROXY line: malformed port, or something behind it")]
    Port,
    /// Version 2: the extensions do not end where the header ends.
    #[error("PROXY header: an extension (TLV) reaches beyond the header")]
    Tlv,
    /// Version 2: it announces more than 4096 bytes.
    #[error("PROXY header: longer than 4096 bytes")]
    TooLong,
    /// Version 2: it announces fewer bytes than its addresses take.
    #[error("PROXY header: shorter than its addresses")]
    TooShort,
    /// Version 2: not a stream, and this connection is one; or a transport that version 2 does not know.
    #[error("PROXY header: the transport is no stream")]
    Transport,
    /// It begins as version 2 and has another number.
    #[error("PROXY header: unknown version")]
    Version,
}

/// Whether `bytes`, the first of a connection, begin a PROXY header.
pub fn announces(bytes: &[u8]) -> Announces {
    if bytes.starts_with(V1_START) || bytes.starts_with(V2_SIGNATURE) {
        Announces::Yes
    } else if V1_START.starts_with(bytes) || V2_SIGNATURE.starts_with(bytes) {
        Announces::Maybe
    } else {
        Announces::No
    }
}

/// Reads the PROXY header that `bytes` begin with. Needs at most 107 bytes of a version 1 header, 4112 of a version 2 one.
///
/// A fault is told as soon as the field that holds it has ended, or earlier where a byte can't belong to it.
pub fn parse_proxy(bytes: &[u8]) -> Result<Step<Source>, ProxyFault> {
    let read = match announces(bytes) {
        Announces::No => Err(Pause::Fault(ProxyFault::Missing)),
        Announces::Maybe => Err(Pause::Short),
        Announces::Yes if bytes.starts_with(V1_START) => line::read(bytes),
        Announces::Yes => block::read(bytes),
    };
    match read {
        Ok((value, used)) => Ok(Step::Done { value, used }),
        Err(Pause::Short) => Ok(Step::More),
        Err(Pause::Fault(fault)) => Err(fault),
    }
}

/// Why reading stopped before the end of the header.
enum Pause {
    Fault(ProxyFault),
    Short,
}

impl From<ProxyFault> for Pause {
    fn from(fault: ProxyFault) -> Self {
        Self::Fault(fault)
    }
}

const V1_START: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// No header is longer, of either version: a fault or a value is certain once so many bytes are there.
pub const MAX_PROXY_HEADER: usize = block::FIXED + block::LONGEST;

#[cfg(test)]
mod tests;
