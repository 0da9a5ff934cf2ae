//! The authority of a Host header, an Origin or a URL (RFC 3986, section 3.2), without user information.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::address::address;

/// A host and an optional port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'b> {
    /// As sent, without the port. It is ASCII and never empty; an IPv6 address keeps its brackets.
    pub host: &'b [u8],
    /// `None` if there is no port, or an empty one.
    pub port: Option<u16>,
}

impl<'b> Authority<'b> {
    /// Reads `name`, `IPv4` or `[IPv6]` with an optional port; `None` for everything else, including user information.
    pub fn parse(text: &'b [u8]) -> Option<Self> {
        let host_len = if text.first() == Some(&b'[') {
            let close = text.iter().position(|byte| *byte == b']')?;
            address::<Ipv6Addr>(&text[1..close])?;
            close + 1
        } else {
            let colon = text.iter().position(|byte| *byte == b':').unwrap_or(text.len());
            if colon == 0 || !is_reg_name(&text[..colon]) {
                return None;
            }
            colon
        };
        let (host, rest) = text.split_at(host_len);
        let port = match rest {
            [] | [b':'] => None,
            [b':', digits @ ..] => Some(port_of(digits)?),
            _ => return None,
        };
        Some(Self { host, port })
    }
}

/// The address that a host is written as: four decimal numbers, or IPv6 in brackets. An IPv4-mapped IPv6 address
/// becomes IPv4.
///
/// Other programs may read `127.1` or `0x7f.0.0.1` as an address. Browsers never send these; here they are names.
pub fn address_of(host: &[u8]) -> Option<IpAddr> {
    let ip = match host {
        [b'[', inner @ .., b']'] => address::<Ipv6Addr>(inner)?.into(),
        [b'0'..=b'9', ..] => address::<Ipv4Addr>(host)?.into(),
        _ => return None,
    };
    Some(IpAddr::to_canonical(&ip))
}

/// `reg-name` of RFC 3986, section 3.2.2. An IPv4 address matches it too.
fn is_reg_name(name: &[u8]) -> bool {
    let mut rest = name;
    while let [first, behind @ ..] = rest {
        rest = match (*first, behind) {
            (b'%', [high, low, behind @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => behind,
            (byte, _) if byte.is_ascii_alphanumeric() || UNRESERVED_AND_DELIMITERS.contains(&byte) => behind,
            _ => return false,
        };
    }
    true
}

/// Leading zeros are allowed, as in RFC 3986.
fn port_of(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0u16, |port, digit| match digit {
        b'0'..=b'9' => port.checked_mul(10)?.checked_add(u16::from(digit - b'0')),
        _ => None,
    })
}

const UNRESERVED_AND_DELIMITERS: &[u8] = b"-._~!$&'()*+,;=";
