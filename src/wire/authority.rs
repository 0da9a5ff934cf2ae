//! Who is asked: the authority of a Host header or a URL (RFC 3986, section 3.2), without user information.

use std::net::Ipv6Addr;

use super::http::rule::Rule;

/// An authority without user information.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host<'b> {
    /// As sent, without the port; never empty; an IPv6 address keeps its brackets.
    pub name: &'b [u8],
    /// `None` where there is none, or an empty one.
    pub port: Option<u16>,
}

impl<'b> Host<'b> {
    /// Reads `name`, `IPv4` or `[IPv6]` with an optional port.
    pub(super) fn parse(authority: &'b [u8]) -> Result<Self, Rule> {
        let name_len = if authority.first() == Some(&b'[') {
            let close = authority.iter().position(|byte| *byte == b']').ok_or(Rule::Host)?;
            let address = str::from_utf8(&authority[1..close]).map_err(|_| Rule::Host)?;
            address.parse::<Ipv6Addr>().map_err(|_| Rule::Host)?;
            close + 1
        } else {
            let colon = authority
                .iter()
                .position(|byte| *byte == b':')
                .unwrap_or(authority.len());
            if colon == 0 || !is_reg_name(&authority[..colon]) {
                return Err(Rule::Host);
            }
            colon
        };
        let (name, rest) = authority.split_at(name_len);
        let port = match rest {
            [] | [b':'] => None,
            [b':', digits @ ..] => Some(port_of(digits).ok_or(Rule::Host)?),
            _ => return Err(Rule::Host),
        };
        Ok(Self { name, port })
    }
}

/// `reg-name` of RFC 3986, section 3.2.2, of which an IPv4 address is one.
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

fn port_of(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0u16, |port, digit| match digit {
        b'0'..=b'9' => port.checked_mul(10)?.checked_add(u16::from(digit - b'0')),
        _ => None,
    })
}

const UNRESERVED_AND_DELIMITERS: &[u8] = b"-._~!$&'()*+,;=";
