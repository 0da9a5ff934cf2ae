//! Who a trusted proxy says the client is: `X-Forwarded-For`, `Forwarded` (RFC 7239), `X-Real-IP`, `CF-Connecting-IP`; and
//! every other header that says so to somebody.
//!
//! Lists are read from the right, where the proxies that are trusted wrote, and only as far as is needed: what a client
//! put further left neither costs anything nor changes how the right end reads.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

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
    /// Every header that is understood.
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

    /// The header of this name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|header| header.name().eq_ignore_ascii_case(name))
    }
}

/// The client that `lines` name.
///
/// `lines` are the values of every header of that name, in order; `hop` is the address they came from, which the caller
/// has found to be trusted. Lists are walked from the right while `trusts` says yes: the first other hop is the client;
/// if all are trusted, the leftmost is, and after 32 trusted ones the 32nd. A malformed hop ends the walk, and the nearest
/// good one to its right counts, `hop` where there is none. The headers that hold one address must be there once.
///
/// Addresses come as they were written: an IPv4-mapped IPv6 address stays one. Nothing is allocated.
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
            walk(items.map(|item| parse_hop(trim(item))), hop, trusts)
        }
        ForwardHeader::Forwarded => {
            let elements = from_the_right.flat_map(|line| ElementsFromRight { rest: Some(line) });
            walk(
                elements.map(|element: &'a [u8]| hop_of_element(trim(element))),
                hop,
                trusts,
            )
        }
        ForwardHeader::CfConnectingIp | ForwardHeader::XRealIp => match lines {
            [only] => parse_hop(trim(only)).unwrap_or(hop),
            _ => hop,
        },
    }
}

/// Reads one hop: `ip`, `ip:port`, `[v6]` or `[v6]:port`, with nothing before or after it.
///
/// An IPv6 address without brackets has no port: its last group would be ambiguous. Zone ids, leading zeros in IPv4
/// or in the port, names, `unknown` and `_hidden` are no hops.
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

/// Reads an address of one family; std refuses zone ids and leading zeros in IPv4.
pub(super) fn address<A: FromStr>(text: &[u8]) -> Option<A> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Reads a port from 0 to 65535: digits alone, without leading zeros.
pub(super) fn decimal_port(digits: &[u8]) -> Option<u16> {
    let leading_zero = digits.len() > 1 && digits.starts_with(b"0");
    if leading_zero || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The walk over hops, rightmost first; `None` is a malformed one.
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
/// Going left, a quote outside a string closes one, and the string reaches to the next quote that no backslash escapes.
/// For a well-formed line that is the same split as from the left. For another one it is the better: a quote that a
/// client leaves open can't swallow what the proxy appended. Each byte is looked at once, backslashes twice.
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

/// Whether the byte after `left` is escaped: an odd number of backslashes stands before it.
fn is_escaped(left: &[u8]) -> bool {
    left.iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 1
}

/// The address in an element's one `for` parameter. The rest of the element must be well-formed as well: pairs of
/// token and value between semicolons, round which blanks are let pass since proxies write them.
fn hop_of_element(element: &[u8]) -> Option<IpAddr> {
    let mut found = None;
    let mut rest = element;
    while !rest.is_empty() {
        if let Some(next) = rest.strip_prefix(b";") {
            rest = trim(next);
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

/// Splits a value, with its quotes, from what follows it. Unquoted ones may hold what addresses need beyond a token.
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
    (!value.is_empty()).then_some((value, trim(after)))
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

/// RFC 9110, 5.6.2.
fn is_token(name: &[u8]) -> bool {
    !name.is_empty()
        && name
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// Without the optional whitespace of RFC 9110, 5.6.3: blanks and tabs, and no other.
fn trim(mut item: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', inner @ ..] | [inner @ .., b' ' | b'\t'] = item {
        item = inner;
    }
    item
}

/// What stands before and after the first `at`.
fn cut(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let before = bytes.iter().position(|&byte| byte == at)?;
    Some((bytes.get(..before)?, bytes.get(before + 1..)?))
}

/// Whether a header says who the client is, and so is believed of trusted hops alone: any of the names that proxies set and
/// frameworks read, in any case, with any of their `-` as `_`, and with `HTTP_` before it, as CGI and some Java programs
/// have it.
pub fn names_client(name: &[u8]) -> bool {
    if !may_be(&CLIENT_NAMES, name) || !may_end(name) {
        return false;
    }
    let name = match name.split_at_checked(CGI_PREFIX.len()) {
        Some((prefix, rest)) if is_spelt(CGI_PREFIX, prefix) => rest,
        _ => name,
    };
    CLIENT_HEADERS.iter().any(|listed| is_spelt(listed, name))
        || name
            .get(..CLIENT_PREFIX.len())
            .is_some_and(|begin| is_spelt(CLIENT_PREFIX, begin))
}

/// By first letter, in either case, the lengths of names: what rules nearly every other name out.
pub(super) type Lengths = [u64; 32];

/// Whether a name has a first letter and a length of these.
#[inline]
pub(super) fn may_be(lengths: &Lengths, name: &[u8]) -> bool {
    name.first()
        .is_some_and(|first| lengths[letter(*first)] & length_bit(name.len()) != 0)
}

/// Those of [`names_client`], and of `others`.
pub(super) const fn lengths_with(others: &[&str]) -> Lengths {
    let mut lengths = lengths_of(others, lengths_of(&CLIENT_HEADERS, [0; 32], true), true);
    // Every length of names that go on behind a prefix.
    lengths[letter(b'x')] |= !(length_bit(CLIENT_PREFIX.len()) - 1);
    lengths[letter(b'h')] |= !(length_bit(CGI_PREFIX.len()) - 1);
    lengths
}

static CLIENT_NAMES: Lengths = lengths_with(&[]);

/// Whether a name ends as one of its length in the table does; those with a prefix may end in any way.
fn may_end(name: &[u8]) -> bool {
    static ENDS: Lengths = lengths_of(&CLIENT_HEADERS, [0; 32], false);
    let (Some(first), Some(last)) = (name.first(), name.last()) else {
        return false;
    };
    matches!(first.to_ascii_lowercase(), b'x' | b'h') || ENDS[letter(*last)] & length_bit(name.len()) != 0
}

fn is_spelt(listed: &str, name: &[u8]) -> bool {
    listed.len() == name.len()
        && listed.bytes().zip(name).all(|(listed, byte)| match byte {
            b'_' => listed == b'-',
            byte => byte.to_ascii_lowercase() == listed,
        })
}

/// Lengths of 63 and more are one.
const fn length_bit(length: usize) -> u64 {
    1 << if length < 63 { length } else { 63 }
}

/// The same for both cases of a letter.
const fn letter(byte: u8) -> usize {
    (byte & 0x1f) as usize
}

/// `lengths`, and those of `names` by their first or their last letter.
const fn lengths_of(names: &[&str], mut lengths: Lengths, by_first: bool) -> Lengths {
    let mut nth = 0;
    while nth < names.len() {
        let name = names[nth].as_bytes();
        let byte = name[if by_first { 0 } else { name.len() - 1 }];
        lengths[letter(byte)] |= length_bit(name.len());
        nth += 1;
    }
    lengths
}

/// Every header that begins so is one of a proxy's: `X-Forwarded-For`, `-Proto`, `-Host`, `-Port`, `-Client-Cert` and more.
const CLIENT_PREFIX: &str = "x-forwarded-";

const CGI_PREFIX: &str = "http-";

/// The other headers in which proxies, balancers and content networks name the client, as their manuals and the libraries
/// that read them have it.
pub(super) const CLIENT_HEADERS: [&str; 55] = [
    // RFC 7239, and what is read in its place.
    "forwarded",
    "forwarded-for",
    "forwarded-for-ip",
    "x-forwarded",
    "x-forward-for",
    "x-original-forwarded-for",
    "x-original-for",
    "x-original-remote-addr",
    "x-original-client-ip",
    // nginx, Apache, IIS and other servers before a server.
    "x-real-ip",
    "real-ip",
    "x-nginx-proxy",
    "client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "cluster-client-ip",
    "x-originating-ip",
    "originating-ip",
    "x-remote-ip",
    "x-remote-addr",
    "remote-ip",
    "remote-addr",
    "x-proxyuser-ip",
    "x-coming-from",
    "coming-from",
    "proxy-client-ip",
    "wl-proxy-client-ip",
    "x-ms-forwarded-client-ip",
    "x-envoy-external-address",
    "x-envoy-internal",
    // Content networks and hosts.
    "true-client-ip",
    "x-true-client-ip",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "cf-pseudo-ipv4",
    "cloudfront-viewer-address",
    "fastly-client-ip",
    "fly-client-ip",
    "do-connecting-ip",
    "ddg-connecting-ip",
    "eo-client-ip",
    "eo-connecting-ip",
    "incap-client-ip",
    "x-sucuri-clientip",
    "x-qrator-ip-source",
    "x-azure-clientip",
    "x-azure-socketip",
    "x-appengine-user-ip",
    "x-appengine-remote-addr",
    "appengine-user-ip",
    "x-nf-client-connection-ip",
    "x-vercel-forwarded-for",
    "x-vercel-proxied-for",
    "ali-cdn-real-ip",
    "cdn-src-ip",
];

/// How many trusted hops are walked over; a longer chain of proxies is nobody's.
const MOST_TRUSTED: usize = 32;

/// `[`, an IPv6 address of 45 bytes, `]:65535`: 53 bytes are enough for every hop.
const LONGEST_HOP: usize = 64;

#[cfg(test)]
mod tests;
