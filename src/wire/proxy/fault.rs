//! What is wrong with a PROXY header.

use thiserror::Error;

/// The rule that a PROXY header breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProxyFault {
    /// Version 1: a field is not one address of the family that the line names, followed by one space.
    #[error("PROXY line: malformed address, or one of another family")]
    Address,
    /// Version 2: neither LOCAL nor PROXY.
    #[error("PROXY header: unknown command")]
    Command,
    /// Version 1: neither TCP4, TCP6 nor UNKNOWN. Version 2: an address family that it does not define.
    #[error("PROXY header: unknown address family")]
    Family,
    /// Version 1: a CR without its LF.
    #[error("PROXY line: CR without LF")]
    LineEnd,
    /// Version 1: no CRLF within 107 bytes.
    #[error("PROXY line: longer than 107 bytes")]
    LineTooLong,
    /// The bytes are not the beginning of a PROXY header.
    #[error("PROXY header: missing")]
    Missing,
    /// Version 1: a port is not a number from 0 to 65535, has leading zeros, or is not followed by the right byte.
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
    /// Version 2: the transport is not a stream, although this connection is one, or it is one that version 2 does not
    /// define.
    #[error("PROXY header: the transport is no stream")]
    Transport,
    /// It has the signature of version 2, but another version number.
    #[error("PROXY header: unknown version")]
    Version,
}

/// Why reading stopped before the end of the header.
pub(super) enum Pause {
    Fault(ProxyFault),
    Short,
}

impl From<ProxyFault> for Pause {
    fn from(fault: ProxyFault) -> Self {
        Self::Fault(fault)
    }
}
