//! Checks whether a request is a WebSocket upgrade: RFC 6455, sections 4.1 and 4.2.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

use crate::wire::http::head::{Head, Rule, Version};
use crate::wire::token::{has_member, members};

/// Why a request is not an upgrade that may pass, in the order of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoUpgrade {
    /// It asks for no upgrade or for one to another protocol, or is not a GET of HTTP/1.1: 426 with `Upgrade:
    /// websocket`.
    #[error("WebSocket upgrade required")]
    NotUpgrade,
    /// `Sec-WebSocket-Version` is not present once with the value 13: 426 with `Sec-WebSocket-Version: 13`.
    #[error("WebSocket version 13 required")]
    BadVersion,
    /// It asks for a WebSocket and breaks a rule: 400.
    #[error(transparent)]
    Bad(#[from] Rule),
}

/// What an upgrade request says, borrowed from its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upgrade<'b> {
    /// `Sec-WebSocket-Key`: 24 bytes of base64.
    pub key: &'b [u8],
    /// The subprotocol that the client prefers.
    pub first_protocol: Option<&'b [u8]>,
    /// The Origin as sent. Browsers always send one.
    pub origin: Option<&'b [u8]>,
}

/// Checks that `head` asks for a WebSocket, and for nothing else.
pub fn check_upgrade<'b>(head: &Head<'b>) -> Result<Upgrade<'b>, NoUpgrade> {
    let Some(asked) = Asked::of(head) else {
        return Err(NoUpgrade::NotUpgrade);
    };
    if asked.version != Only::One(b"13") {
        return Err(NoUpgrade::BadVersion);
    }
    if asked.other_protocol {
        return Err(Rule::OtherProtocol.into());
    }
    let key = match asked.key {
        Only::None => return Err(Rule::NoKey.into()),
        Only::One(key) if is_key(key) => key,
        Only::One(_) => return Err(Rule::Key.into()),
        Only::Many => return Err(Rule::ManyKeys.into()),
    };
    if asked.transfer_encoding || !matches!(asked.length, Only::None | Only::One(b"0")) {
        return Err(Rule::Body.into());
    }
    let origin = match asked.origin {
        Only::None => None,
        Only::One(origin) => Some(origin),
        Only::Many => return Err(Rule::ManyOrigins.into()),
    };
    Ok(Upgrade {
        key,
        first_protocol: asked.first_protocol,
        origin,
    })
}

/// The `Sec-WebSocket-Accept` that answers `key`: RFC 6455, section 4.2.2, step 5.4.
pub fn accept_for(key: &[u8]) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// The headers that matter, gathered in one pass.
#[derive(Default)]
struct Asked<'b> {
    other_protocol: bool,
    transfer_encoding: bool,
    version: Only<'b>,
    key: Only<'b>,
    length: Only<'b>,
    origin: Only<'b>,
    first_protocol: Option<&'b [u8]>,
}

/// The value of a header that may be sent once.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Only<'b> {
    #[default]
    None,
    One(&'b [u8]),
    Many,
}

impl<'b> Asked<'b> {
    /// `None` if the request does not ask for a WebSocket.
    fn of(head: &Head<'b>) -> Option<Self> {
        let mut asked = Self::default();
        let (mut connection, mut websocket) = (false, false);
        for header in &head.headers {
            let (name, value) = (header.name, header.value);
            if name.eq_ignore_ascii_case("connection") {
                connection |= has_member(value, "upgrade");
            } else if name.eq_ignore_ascii_case("upgrade") {
                for protocol in members(value) {
                    let is_websocket = protocol.eq_ignore_ascii_case(b"websocket");
                    websocket |= is_websocket;
                    asked.other_protocol |= !is_websocket;
                }
            } else if name.eq_ignore_ascii_case("sec-websocket-version") {
                asked.version.add(value);
            } else if name.eq_ignore_ascii_case("sec-websocket-key") {
                asked.key.add(value);
            } else if name.eq_ignore_ascii_case("sec-websocket-protocol") {
                asked.first_protocol = asked.first_protocol.or_else(|| members(value).next());
            } else if name.eq_ignore_ascii_case("origin") {
                asked.origin.add(value);
            } else if name.eq_ignore_ascii_case("content-length") {
                asked.length.add(value);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                asked.transfer_encoding = true;
            }
        }
        let can = head.method == b"GET" && head.version == Version::Http11;
        (can && connection && websocket).then_some(asked)
    }
}

impl<'b> Only<'b> {
    fn add(&mut self, value: &'b [u8]) {
        *self = match self {
            Self::None => Self::One(value),
            Self::One(_) | Self::Many => Self::Many,
        };
    }
}

fn is_key(key: &[u8]) -> bool {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(is_base64)
}

const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

#[cfg(test)]
mod tests;
