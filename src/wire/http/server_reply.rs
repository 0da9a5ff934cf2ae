//! Reads the server's reply to the upgrade request, and checks its 101 (`Sec-WebSocket-Accept` and the rest): RFC 9112,
//! section 4, and RFC 6455, section 4.1.

use std::mem::MaybeUninit;

use httparse::{Header, Response};

use super::body::BodyRead;
use crate::wire::Step;
use crate::wire::token::{has_member, members};
use crate::wire::ws::extensions::Extensions;

/// Reads one reply head from a growing buffer. It remembers how far it has read, so a head that arrives byte by byte
/// costs no more than one that arrives at once.
#[derive(Clone, Debug, Default)]
pub struct ReplyScan {
    /// Before this position, every LF follows a CR.
    looked: usize,
}

/// A reply that may be acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A 1xx other than 101; another reply follows.
    Interim,
    /// A valid 101: the tunnel is open, with these extensions, and the bytes from `used` on belong to it.
    Switched(Extensions),
    /// A 3xx, 4xx or 5xx, to be passed on to the client.
    PassOn {
        /// 300 to 599.
        status: u16,
        /// Status line and headers as sent. `Connection: close` replaces all headers that are about this connection or
        /// frame the body, but a 426 keeps its `Upgrade`. It ends after the last header's CRLF, where
        /// [`BodyRead::write`] continues.
        head: Vec<u8>,
        /// Reads the body that follows.
        body: BodyRead,
    },
}

/// Why a reply can't be used. For the client each is a 502; the text is for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyFault {
    /// `Content-Length` and `Transfer-Encoding` contradict each other or themselves.
    #[error("contradictory or unknown framing of the reply's body")]
    BadFraming,
    /// A 101 that is not HTTP/1.1, or without the right `Upgrade`, `Connection` and `Sec-WebSocket-Accept`.
    #[error("a 101 that does not accept this handshake")]
    BadSwitch,
    /// It breaks the grammar of a reply head, or has more than 128 headers.
    #[error("malformed reply")]
    Malformed,
    /// A 2xx, or a status outside of 100 to 599.
    #[error("status {0} in answer to an upgrade")]
    Status(u16),
    /// A head of more than 32 KiB.
    #[error("reply head larger than 32 KiB")]
    TooLarge,
}

impl ReplyScan {
    /// Looks for a complete head in `bytes`, which are all that have arrived from this reply's first byte on. `accept`
    /// is the `Sec-WebSocket-Accept` that a 101 must carry.
    ///
    /// The outcome does not depend on how the bytes were split. After `Done` the scan is ready for the next head.
    pub fn parse(&mut self, bytes: &[u8], accept: &str) -> Result<Step<Reply>, ReplyFault> {
        let seen = &bytes[..bytes.len().min(MAX_HEAD)];
        let begun = &seen[..seen.len().min(PROTOCOL.len())];
        if !PROTOCOL.starts_with(begun) {
            return Err(ReplyFault::Malformed);
        }
        while let Some(found) = seen[self.looked..].iter().position(|byte| *byte == b'\n') {
            let end = self.looked + found;
            if !seen[..end].ends_with(b"\r") {
                return Err(ReplyFault::Malformed);
            }
            self.looked = end + 1;
            if seen[..end].ends_with(b"\r\n\r") {
                *self = Self::default();
                let value = reply_of(&seen[..=end], accept)?;
                return Ok(Step::Done { value, used: end + 1 });
            }
        }
        self.looked = seen.len();
        if bytes.len() > MAX_HEAD {
            Err(ReplyFault::TooLarge)
        } else {
            Ok(Step::More)
        }
    }
}

fn reply_of(head: &[u8], accept: &str) -> Result<Reply, ReplyFault> {
    let mut room = [MaybeUninit::uninit(); MAX_HEADERS];
    let mut response = Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut response, head, &mut room);
    // Every CR must be followed by an LF; httparse accepts some that aren't.
    let is_whole = parsed == Ok(httparse::Status::Complete(head.len()));
    let (true, Some(status), Some(minor)) = (is_whole && has_no_bare_cr(head), response.code, response.version) else {
        return Err(ReplyFault::Malformed);
    };
    match status {
        101 if minor == 1 && switches(response.headers, accept) => {
            let extensions = values(response.headers, "sec-websocket-extensions");
            Ok(Reply::Switched(Extensions::agreed(extensions)))
        }
        101 => Err(ReplyFault::BadSwitch),
        100..=199 => Ok(Reply::Interim),
        300..=599 => {
            let body = framing(status, minor, response.headers)?;
            Ok(Reply::PassOn {
                status,
                head: head_for_client(status, &response),
                body,
            })
        }
        _ => Err(ReplyFault::Status(status)),
    }
}

/// Whether a 101 switches to our WebSocket and to nothing else: RFC 6455, section 4.1, conditions 2 to 4.
fn switches(headers: &[Header<'_>], accept: &str) -> bool {
    let mut protocols = values(headers, "upgrade").flat_map(members);
    let is_websocket = |protocol: &[u8]| protocol.eq_ignore_ascii_case(b"websocket");
    let mut accepts = values(headers, "sec-websocket-accept");
    protocols.next().is_some_and(is_websocket)
        && protocols.all(is_websocket)
        && values(headers, "connection").any(|value| has_member(value, "upgrade"))
        && accepts.next() == Some(accept.as_bytes())
        && accepts.next().is_none()
}

/// How the body is framed: RFC 9112, section 6.3, without its leniencies.
fn framing(status: u16, minor: u8, headers: &[Header<'_>]) -> Result<BodyRead, ReplyFault> {
    let mut length = None;
    for value in values(headers, "content-length") {
        let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let number = str::from_utf8(value)
            .ok()
            .filter(|_| is_number)
            .and_then(|digits| digits.parse::<u64>().ok());
        if number.is_none() || (length.is_some() && length != number) {
            return Err(ReplyFault::BadFraming);
        }
        length = number;
    }
    let mut encodings = values(headers, "transfer-encoding");
    let framed = match (encodings.next(), encodings.next(), length) {
        (None, _, None) => BodyRead::until_close(),
        (None, _, Some(length)) => BodyRead::length(length),
        (Some(encoding), None, None) if minor == 1 && encoding.eq_ignore_ascii_case(b"chunked") => BodyRead::chunked(),
        // Any other coding would have to be decoded, or announced to the client.
        _ => return Err(ReplyFault::BadFraming),
    };
    Ok(if status == 304 { BodyRead::none() } else { framed })
}

fn head_for_client(status: u16, response: &Response<'_, '_>) -> Vec<u8> {
    let headers: &[Header<'_>] = response.headers;
    let size: usize = headers
        .iter()
        .map(|header| header.name.len() + header.value.len() + 4)
        .sum();
    let mut head = Vec::with_capacity(size + 64);
    let reason = response.reason.unwrap_or_default();
    head.extend_from_slice(format!("HTTP/1.1 {status} {reason}\r\n").as_bytes());
    // The `Upgrade` of a 426 says what to upgrade to (RFC 9110, section 15.5.22), which the client has to know.
    let passes_upgrade = status == 426;
    let mut has_upgrade = false;
    for header in headers {
        let is_upgrade = passes_upgrade && header.name.eq_ignore_ascii_case("upgrade");
        has_upgrade |= is_upgrade;
        let is_named = || values(headers, "connection").any(|value| has_member(value, header.name));
        if is_upgrade || !NOT_PASSED.iter().any(|name| header.name.eq_ignore_ascii_case(name)) && !is_named() {
            head.extend_from_slice(header.name.as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(header.value);
            head.extend_from_slice(b"\r\n");
        }
    }
    head.extend_from_slice(if has_upgrade {
        // Section 7.8: a sender of Upgrade must list it in Connection.
        b"Connection: close, Upgrade\r\n"
    } else {
        b"Connection: close\r\n"
    });
    head
}

fn values<'h>(headers: &'h [Header<'h>], name: &str) -> impl Iterator<Item = &'h [u8]> {
    headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .map(|header| header.value)
}

fn has_no_bare_cr(head: &[u8]) -> bool {
    head.windows(2).all(|pair| pair[0] != b'\r' || pair[1] == b'\n')
}

/// Every reply begins with this.
const PROTOCOL: &[u8] = b"HTTP/1.";
/// The most bytes of a reply head, including its last CRLF.
const MAX_HEAD: usize = 32 * 1024;
/// The most header lines of a reply.
const MAX_HEADERS: usize = 128;
/// Headers about this connection (RFC 9110, section 7.6.1), or about the framing of the body, which is written anew.
const NOT_PASSED: [&str; 8] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

#[cfg(test)]
mod tests;
