//! Which extensions a 101 agrees on (RFC 6455, section 9.1), and so which reserved bits frames may have.

use super::header::{FrameHeader, FrameKind};
use crate::wire::token::{members, trim_blanks};

/// The use of reserved bits that was agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extensions {
    /// Nothing: no extension was agreed on.
    #[default]
    None,
    /// Only compression of messages (RFC 7692): RSV1, on the first frame of a message.
    PerMessage,
    /// Any, because wsguard does not know one of the extensions.
    Other,
}

impl Extensions {
    /// The use that these values of a 101's `Sec-WebSocket-Extensions` agree on together.
    pub fn agreed<'h>(values: impl IntoIterator<Item = &'h [u8]>) -> Self {
        let mut names = values.into_iter().flat_map(members).map(name).peekable();
        if names.peek().is_none() {
            Self::None
        } else if names.all(|name| name.eq_ignore_ascii_case(b"permessage-deflate")) {
            Self::PerMessage
        } else {
            Self::Other
        }
    }

    /// Whether a frame may have the reserved bits of this header.
    pub fn allow(self, header: FrameHeader) -> bool {
        let first_of_message = matches!(header.kind, FrameKind::Text | FrameKind::Binary);
        header.reserved & self.forbidden() == 0
            && (first_of_message || self != Self::PerMessage || header.reserved == 0)
    }

    /// The reserved bits that no frame may have.
    pub(super) const fn forbidden(self) -> u8 {
        match self {
            Self::None => 0x70,
            Self::PerMessage => 0x30,
            Self::Other => 0,
        }
    }
}

/// The name of an extension, without its parameters. After a comma in a quoted parameter the rest is taken for another
/// name, which counts as an unknown extension.
fn name(member: &[u8]) -> &[u8] {
    trim_blanks(member.split(|byte| *byte == b';').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deflate_may_use_one_bit_and_an_unknown_extension_all_of_them() {
        use Extensions::{None, Other, PerMessage};
        let cases: [(&[&[u8]], Extensions); 8] = [
            (&[], None),
            (&[b""], None),
            (&[b" , "], None),
            (&[b"permessage-deflate"], PerMessage),
            (
                &[b"Permessage-Deflate; client_max_window_bits=15 ; server_no_context_takeover"],
                PerMessage,
            ),
            (&[b"permessage-deflate, x-mux"], Other),
            (&[b"permessage-deflate", b"x-mux; channels=4"], Other),
            (&[b"permessage-deflate-2"], Other),
        ];
        for (values, expected) in cases {
            assert_eq!(Extensions::agreed(values.iter().copied()), expected, "{values:?}");
        }
    }

    #[test]
    fn a_bit_passes_only_where_its_extension_may_set_it() {
        use FrameKind::{Binary, Close, Continuation, Ping, Pong, Text};
        for kind in [Continuation, Text, Binary, Close, Ping, Pong] {
            for reserved in (0..8).map(|bits| bits << 4) {
                let header = FrameHeader {
                    kind,
                    is_last: true,
                    payload: 1,
                    is_minimal: true,
                    reserved,
                };
                let begins = matches!(kind, Text | Binary);
                assert_eq!(Extensions::None.allow(header), reserved == 0);
                let is_deflates = reserved == 0 || reserved == 0x40 && begins;
                assert_eq!(
                    Extensions::PerMessage.allow(header),
                    is_deflates,
                    "{kind:?} {reserved:x}"
                );
                assert!(Extensions::Other.allow(header));
            }
        }
    }
}
