//! A request head: request line and header fields (RFC 9112, sections 2 to 5), read strictly.
//!
//! Requests can be smuggled where two readers understand the same bytes differently. So nothing ambiguous passes: bytes
//! that are not exactly one request by the RFC's grammar are a fault, which names the rule. httparse does not fit here:
//! it lets a bare LF end a line, refuses a target that is not UTF-8, and does not say which rule was broken. The tests
//! check that httparse reads each head that passes here in the same way.

use httparse::Header;

pub use super::rule::Rule;

use crate::wire::Step;
use crate::wire::authority::Authority;
use crate::wire::token::{is_blank, is_token_byte, trim_blanks};

/// How much of a head is read before it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadCaps {
    /// The most bytes of a head, including its last CRLF.
    pub max_size: usize,
    /// The most header lines.
    pub max_headers: usize,
}

/// Reads one request head from a growing buffer.
///
/// It remembers how far it has read. While a head arrives in pieces, each byte is looked at once, and once more when
/// the head is complete. A head that arrives at once is read in a single pass.
#[derive(Clone, Debug, Default)]
pub struct HeadScan {
    /// The start of the first line that has not been checked; 0 before the first line.
    line: usize,
    /// There is no LF between `line` and this position.
    looked: usize,
    /// Complete lines so far, including the request line.
    lines: usize,
}

/// Why bytes are not a request head that may pass. Its text is the body of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadFault {
    /// A rule of the grammar is broken: 400.
    #[error(transparent)]
    Bad(#[from] Rule),
    /// Longer than [`HeadCaps::max_size`]: 431.
    #[error("Request head larger than the limit")]
    TooLarge,
    /// More lines than [`HeadCaps::max_headers`]: 431.
    #[error("More request headers than the limit")]
    TooManyHeaders,
}

/// A complete request head, borrowed from the buffer that it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head<'b> {
    /// As sent; a token.
    pub method: &'b [u8],
    /// Path and query, byte for byte. It begins with `/`, or with `?` if the request had a URL with a query but no
    /// path.
    pub target: &'b [u8],
    /// The target was sent as a URL. Then `authority` is the URL's.
    pub absolute_form: bool,
    /// The version that the client named.
    pub version: Version,
    /// The URL's authority if the target is one, otherwise that of the Host header. `None` only in HTTP/1.0.
    pub authority: Option<Authority<'b>>,
    /// The headers in the order sent, without the blanks around their values.
    pub headers: Vec<Header<'b>>,
}

/// The HTTP versions that are supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

impl HeadScan {
    /// Looks for a complete request head in `bytes`, which are all that have arrived.
    ///
    /// A fault is reported once its line is complete. Bytes that can't begin a method are reported at once. The fault
    /// does not depend on how the bytes were split. After `Done` the scan is ready for the next head.
    pub fn parse<'b>(&mut self, bytes: &'b [u8], caps: HeadCaps) -> Result<Step<Head<'b>>, HeadFault> {
        let seen = &bytes[..bytes.len().min(caps.max_size)];
        let resumed = self.line > 0;
        let mut request = None;
        let mut headers = Vec::new();
        while let Some(found) = seen[self.looked..].iter().position(|byte| *byte == b'\n') {
            let next = self.looked + found + 1;
            let line = &seen[self.line..next];
            // RFC 9112, section 2.2: an empty line before the request line should be ignored.
            let is_stray = self.line == 0 && line == b"\r\n";
            (self.line, self.looked) = (next, next);
            if is_stray {
                continue;
            }
            if self.lines == 0 {
                request = Some(RequestLine::parse(line)?);
            } else if line == b"\r\n" {
                *self = Self::default();
                return match request {
                    Some(request) if !resumed => Ok(Step::Done {
                        value: request.with(headers)?,
                        used: next,
                    }),
                    // It came in pieces, and the lines that earlier calls checked were not kept.
                    _ => self.parse(bytes, caps),
                };
            } else if self.lines > caps.max_headers {
                return Err(HeadFault::TooManyHeaders);
            } else {
                let header = header_of(line)?;
                if !resumed {
                    if headers.is_empty() {
                        headers.reserve(TYPICAL_HEADERS.min(caps.max_headers));
                    }
                    headers.push(header);
                }
            }
            self.lines += 1;
        }
        self.looked = seen.len();
        if self.lines == 0 {
            // Garbage or a TLS ClientHello may contain no LF for a long time.
            let begun = &seen[self.line..];
            method_end(&begun[..begun.len().min(METHOD_LOOK)])?;
        }
        if bytes.len() > caps.max_size {
            Err(HeadFault::TooLarge)
        } else {
            Ok(Step::More)
        }
    }
}

impl<'b> Head<'b> {
    /// Every value of the header `name` (any case), in the order sent.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &'b [u8]> {
        self.headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    }

    /// Whether the headers announce a body (RFC 9112, section 6).
    pub fn announces_body(&self) -> bool {
        self.values("transfer-encoding").next().is_some() || self.values("content-length").any(|length| length != b"0")
    }

    /// The path without the query; `/` if the target is a URL without a path.
    pub fn path(&self) -> &'b [u8] {
        let end = self
            .target
            .iter()
            .position(|byte| *byte == b'?')
            .unwrap_or(self.target.len());
        if end == 0 { b"/" } else { &self.target[..end] }
    }
}

struct RequestLine<'b> {
    method: &'b [u8],
    target: &'b [u8],
    /// The authority of an absolute-form target.
    authority: Option<Authority<'b>>,
    version: Version,
}

impl<'b> RequestLine<'b> {
    /// Faults are found in the order of the bytes, so the method's come first: [`HeadScan::parse`] looks at the method
    /// before the line is complete, and must get the same answer.
    fn parse(line: &'b [u8]) -> Result<Self, Rule> {
        let method_end = method_end(line)?;
        let line = without_line_end(line)?;
        let method_end = method_end.ok_or(Rule::RequestLine)?;
        let (method, rest) = (&line[..method_end], &line[method_end + 1..]);
        let target_end = rest.iter().rposition(|byte| *byte == b' ').ok_or(Rule::RequestLine)?;
        let (target, version) = (&rest[..target_end], &rest[target_end + 1..]);
        if target.is_empty() || !version.starts_with(b"HTTP/") {
            return Err(Rule::RequestLine);
        }
        if target.iter().any(|byte| matches!(byte, 0..=0x20 | 0x7f | b'#')) {
            return Err(Rule::TargetByte);
        }
        let (authority, target) = if target[0] == b'/' {
            (None, target)
        } else {
            let (authority, target) = split_url(target)?;
            (Some(authority), target)
        };
        let version = match version {
            b"HTTP/1.0" => Version::Http10,
            b"HTTP/1.1" => Version::Http11,
            _ => return Err(Rule::Version),
        };
        Ok(Self {
            method,
            target,
            authority,
            version,
        })
    }

    fn with(self, headers: Vec<Header<'b>>) -> Result<Head<'b>, Rule> {
        let mut hosts = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
        let sent = match (hosts.next(), hosts.next()) {
            (Some(header), None) => Some(authority_of(header.value)?),
            (None, _) if self.version == Version::Http10 => None,
            (None, _) => return Err(Rule::NoHost),
            (Some(_), Some(_)) => return Err(Rule::ManyHosts),
        };
        Ok(Head {
            method: self.method,
            target: self.target,
            absolute_form: self.authority.is_some(),
            version: self.version,
            // RFC 9112, section 3.2.2: the URL's authority counts, whatever Host says.
            authority: self.authority.or(sent),
            headers,
        })
    }
}

/// Where the method ends in `begun`, which is a line or its beginning; `None` if the end is not in it.
fn method_end(begun: &[u8]) -> Result<Option<usize>, Rule> {
    let Some(end) = begun.iter().position(|byte| !is_token_byte(*byte)) else {
        return Ok(None);
    };
    match begun[end..] {
        [b' ', ..] if end > 0 => Ok(Some(end)),
        [b'\n', ..] | [b'\r'] | [b'\r', b'\n', ..] => Ok(None),
        [b'\r', ..] => Err(Rule::BareLineBreak),
        _ => Err(Rule::RequestLine),
    }
}

/// Splits a URL into its authority and the target after it, which is `/` if nothing follows.
fn split_url(url: &[u8]) -> Result<(Authority<'_>, &[u8]), Rule> {
    let colon = url.iter().position(|byte| *byte == b':').ok_or(Rule::TargetForm)?;
    let is_known = ["http", "https", "ws", "wss"]
        .iter()
        .any(|known| url[..colon].eq_ignore_ascii_case(known.as_bytes()));
    let behind = url[colon + 1..]
        .strip_prefix(b"//")
        .filter(|_| is_known)
        .ok_or(Rule::TargetForm)?;
    let end = behind
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?'))
        .unwrap_or(behind.len());
    let (authority, target) = behind.split_at(end);
    Ok((authority_of(authority)?, if target.is_empty() { b"/" } else { target }))
}

fn authority_of(text: &[u8]) -> Result<Authority<'_>, Rule> {
    Authority::parse(text).ok_or(Rule::Host)
}

fn header_of(line: &[u8]) -> Result<Header<'_>, Rule> {
    let line = without_line_end(line)?;
    let name_end = line
        .iter()
        .position(|byte| !is_token_byte(*byte))
        .ok_or(Rule::HeaderName)?;
    let (name, rest) = line.split_at(name_end);
    match (name, rest[0]) {
        ([], b' ' | b'\t') => return Err(Rule::FoldedHeader),
        ([_, ..], b':') => {}
        ([_, ..], b' ' | b'\t') if rest.iter().find(|byte| !is_blank(**byte)) == Some(&b':') => {
            return Err(Rule::BlankBeforeColon);
        }
        _ => return Err(Rule::HeaderName),
    }
    let value = trim_blanks(&rest[1..]);
    if value.iter().any(|byte| matches!(byte, 0..=0x08 | 0x0a..=0x1f | 0x7f)) {
        return Err(Rule::HeaderValue);
    }
    let name = str::from_utf8(name).map_err(|_| Rule::HeaderName)?;
    Ok(Header { name, value })
}

/// Removes the CRLF at the end of `line`. It is a fault if `line` ends with a bare LF or contains another CR.
fn without_line_end(line: &[u8]) -> Result<&[u8], Rule> {
    line.strip_suffix(b"\r\n")
        .filter(|rest| !rest.contains(&b'\r'))
        .ok_or(Rule::BareLineBreak)
}

/// Browsers send 13 to 18 header lines with an upgrade, and proxies add some.
const TYPICAL_HEADERS: usize = 24;
/// How many bytes of an incomplete request line are searched, at each call, for a byte that no method has. The longest
/// registered method has 17 bytes.
const METHOD_LOOK: usize = 32;

#[cfg(test)]
mod tests;
