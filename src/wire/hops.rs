//! Reads the client from the headers of a trusted hop: `X-Forwarded-For`, `Forwarded` (RFC 7239), `X-Real-IP`,
//! `CF-Connecting-IP`.
//!
//! Lists are read from the right, where the trusted proxies wrote, and only as far as needed. What a client wrote
//! further left costs nothing and does not change how the right end is read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::address::{address, decimal_port};
use super::token::{is_token, trim_blanks};

/// A header in which a proxy names the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ForwardHeader {
    /// `CF-Connecting-IP`: one address.
    CfConnectingIp,
    /// `Forwarded`, RFC 7239: a list of elements, the last hop rightmost.
    Forwarded,
    /// `X-Forwarded-For`: a list of addresses, the last hop rightmost.
    XForwardedFor,
    /// `X-Real-IP`: one address.
    XRealIp,
}

impl ForwardHeader {
    /// Every header that can be read.
    pub const ALL: [Self; 4] = [
        Self::XForwardedFor,
        Self::XRealIp,
        Self::Forwarded,
        Self::CfConnectingIp,
    ];

    /// The header's name in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CfConnectingIp => "cf-connecting-ip",
            Self::Forwarded => "forwarded",
            Self::XForwardedFor => "x-forwarded-for",
            Self::XRealIp => "x-real-ip",
        }
    }
}

/// The client that `lines` name.
///
/// `lines` are the values of every header of that name, in order. `hop` is the trusted address that they came from.
///
/// A list is walked from the right as long as `trusts` returns true. The first hop that is not trusted is the client.
/// If all are trusted, the leftmost is the client, or the 32nd if there are more. A malformed hop ends the walk; then
/// the client is the hop to its right, or `hop` if there is none. A header that holds one address must be present
/// exactly once.
///
/// Addresses are returned as written: an IPv4-mapped IPv6 address stays one. Nothing is allocated.
pub fn client_from<'a>(
    header: ForwardHeader,
    lines: &[&'a [u8]],
    hop: IpAddr,
    trusts: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    let from_the_right = lines.iter().rev().copied();
    match header {
        ForwardHeader::XForwardedFor => {
            let items = from_the_right.flat_map(|line| line.rsplit(|&byte| byte == b','));
            walk(items.map(|item| parse_hop(trim_blanks(item))), hop, trusts)
        }
        ForwardHeader::Forwarded => {
            let elements = from_the_right.flat_map(|line| ElementsFromRight { rest: Some(line) });
            walk(
                elements.map(|element: &'a [u8]| hop_of_element(trim_blanks(element))),
                hop,
                trusts,
            )
        }
        ForwardHeader::CfConnectingIp | ForwardHeader::XRealIp => match lines {
            [only] => parse_hop(trim_blanks(only)).unwrap_or(hop),
            _ => hop,
        },
    }
}

/// Reads one hop: `ip`, `ip:port`, `[v6]` or `[v6]:port`, with nothing before or after it.
///
/// An IPv6 address without brackets can't have a port, since that would look like its last group. Zone ids, leading
/// zeros in IPv4 or in the port, names, `unknown` and `_hidden` are malformed.
pub fn parse_hop(hop: &[u8]) -> Option<IpAddr> {
    if hop.len() > LONGEST_HOP {
        return None;
    }
    if let Some(bracketed) = hop.strip_prefix(b"[") {
        let (v6, after) = cut(bracketed, b']')?;
        if !after.is_empty() {
            decimal_port(after.strip_prefix(b":")?)?;
        }
        return address::<Ipv6Addr>(v6).map(IpAddr::V6);
    }
    match cut(hop, b':') {
        None => address::<Ipv4Addr>(hop).map(IpAddr::V4),
        Some((_, after)) if after.contains(&b':') => address::<Ipv6Addr>(hop).map(IpAddr::V6),
        Some((v4, port)) => {
            decimal_port(port)?;
            address::<Ipv4Addr>(v4).map(IpAddr::V4)
        }
    }
}

/// Walks over hops, rightmost first. `None` is a malformed hop.
fn walk(hops: impl Iterator<Item = Option<IpAddr>>, hop: IpAddr, trusts: impl Fn(IpAddr) -> bool) -> IpAddr {
    let mut nearest = hop;
    for read in hops.take(MOST_TRUSTED) {
        let Some(further) = read else { break };
        nearest = further;
        if !trusts(further) {
            break;
        }
    }
    nearest
}

/// The elements of one `Forwarded` line, rightmost first, split at the commas outside quoted strings.
///
/// Going left, a quote outside a string is the end of one, and the string begins at the next quote that is not escaped
/// by a backslash. A well-formed line is split in the same way from either end. In a malformed line this direction is
/// safer: a quote that a client leaves open can't swallow what the proxy appended. Each byte is looked at once,
/// backslashes twice.
struct ElementsFromRight<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Iterator for ElementsFromRight<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let line = self.rest.take()?;
        let mut quoted = false;
        let mut before = line;
        while let Some((&byte, left)) = before.split_last() {
            match byte {
                b'"' if !quoted => quoted = true,
                b'"' => quoted = is_escaped(left),
                b',' if !quoted => {
                    self.rest = Some(left);
                    return line.get(before.len()..);
                }
                _ => {}
            }
            before = left;
        }
        Some(line)
    }
}

/// Whether the byte after `left` is escaped: `left` ends with an odd number of backslashes.
fn is_escaped(left: &[u8]) -> bool {
    left.iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 1
}

/// The address in an element's only `for` parameter. The rest of the element must be well-formed too: pairs of token
/// and value, separated by semicolons. Blanks around a semicolon are allowed, since proxies write them.
fn hop_of_element(element: &[u8]) -> Option<IpAddr> {
    let mut found = None;
    let mut rest = element;
    while !rest.is_empty() {
        if let Some(next) = rest.strip_prefix(b";") {
            rest = trim_blanks(next);
            continue;
        }
        let (name, value) = cut(rest, b'=')?;
        let (value, after) = split_value(value)?;
        if !is_token(name) || !(after.is_empty() || after.starts_with(b";")) {
            return None;
        }
        if name.eq_ignore_ascii_case(b"for") {
            // RFC 7239, 4: a parameter occurs once in an element.
            if found.is_some() {
                return None;
            }
            found = Some(hop_of_value(value)?);
        }
        rest = after;
    }
    found
}

/// Splits a value, with its quotes, from what follows it. An unquoted value may contain the bytes that addresses need
/// beyond a token's.
fn split_value(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = if bytes.starts_with(b"\"") {
        let mut escaped = false;
        let closing = bytes.iter().skip(1).position(|&byte| {
            let closes = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            closes
        })?;
        closing + 2
    } else {
        let is_in_value = |byte: &u8| byte.is_ascii_graphic() && !b"\",;".contains(byte);
        bytes.iter().position(|byte| !is_in_value(byte)).unwrap_or(bytes.len())
    };
    let (value, after) = bytes.split_at_checked(end)?;
    (!value.is_empty()).then_some((value, trim_blanks(after)))
}

fn hop_of_value(value: &[u8]) -> Option<IpAddr> {
    let Some(quoted) = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")) else {
        return parse_hop(value);
    };
    if !quoted.contains(&b'\\') {
        return parse_hop(quoted);
    }
    let mut plain = [0; LONGEST_HOP];
    let mut length = 0;
    let mut bytes = quoted.iter();
    while let Some(&byte) = bytes.next() {
        *plain.get_mut(length)? = if byte == b'\\' { *bytes.next()? } else { byte };
        length += 1;
    }
    parse_hop(plain.get(..length)?)
}

/// The bytes before and after the first `at`.
fn cut(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let before = bytes.iter().position(|&byte| byte == at)?;
    Some((bytes.get(..before)?, bytes.get(before + 1..)?))
}

/// The most trusted hops that are walked over. No real chain of proxies is longer.
const MOST_TRUSTED: usize = 32;

/// The longest hop has 53 bytes: `[`, an IPv6 address of 45 bytes, `]:65535`.
const LONGEST_HOP: usize = 64;

#[cfg(test)]
mod tests;
