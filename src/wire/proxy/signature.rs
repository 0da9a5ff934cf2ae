//! Whether a connection begins with a PROXY header.

/// Whether the first bytes of a connection begin a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announces {
    /// They may: they match so far, but are too few to tell.
    Maybe,
    /// They do not.
    No,
    /// They do: with `PROXY ` or the signature of version 2.
    Yes,
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

pub(super) const V1_START: &[u8] = b"PROXY ";
pub(super) const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
