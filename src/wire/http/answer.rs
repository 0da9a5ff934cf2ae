//! Answers that wsguard itself gives to a client: an error, or the 101 before a refusal by close frame.

use crate::wire::ws::upgrade_request::accept_for;

/// An answer in plain HTTP, after which the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// HTTP status.
    pub status: u16,
    /// Further headers, in order. Neither name nor value may hold a CR or LF.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body is this text and CRLF.
    pub text: &'a str,
}

impl Answer<'_> {
    /// The answer to a HEAD: the same without its body (RFC 9110, section 9.3.2).
    pub fn render_head(&self) -> Vec<u8> {
        let mut answer = self.render();
        answer.truncate(answer.len() - self.text.len() - 2);
        answer
    }

    /// The bytes of the answer: status line, `Content-Type`, `Connection: close`, `Content-Length`, the headers, then
    /// the body.
    pub fn render(&self) -> Vec<u8> {
        let Self { status, headers, text } = self;
        let reason = reason_phrase(*status);
        let length = text.len() + 2;
        let mut answer = format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: {length}\r\n"
        );
        for (name, value) in *headers {
            debug_assert!(
                !name.contains(['\r', '\n']) && !value.contains(['\r', '\n']),
                "{name} would split the answer"
            );
            answer.extend([*name, ": ", *value, "\r\n"]);
        }
        answer.extend(["\r\n", *text, "\r\n"]);
        answer.into_bytes()
    }
}

/// A 101 for a connection that will be closed soon. It answers `key`, accepts `protocol` (a browser whose subprotocol
/// is not accepted fails the connection, and its page never sees the close frame) and no extension.
///
/// For clients that can read the code of a close frame but not the status of a refused handshake, such as the pages of
/// every browser.
pub fn accepted(key: &[u8], protocol: Option<&[u8]>) -> Vec<u8> {
    let mut answer = Vec::with_capacity(256);
    answer.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
    answer.extend_from_slice(b"Sec-WebSocket-Accept: ");
    answer.extend_from_slice(accept_for(key).as_bytes());
    if let Some(protocol) = protocol {
        answer.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
        answer.extend_from_slice(protocol);
    }
    answer.extend_from_slice(b"\r\n\r\n");
    answer
}

/// The reason phrase of RFC 9110, section 15, or RFC 6585. Statuses that wsguard never sends have an empty one, which
/// the grammar allows.
fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        408 => "Request Timeout",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_exactly_these_bytes() {
        let answer = Answer {
            status: 429,
            headers: &[("Retry-After", "7"), ("X-Wsguard-Reason", "per_ip")],
            text: "Too many connections from this IP",
        };
        let expected = "HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain\r\nConnection: close\r\n\
            Content-Length: 35\r\nRetry-After: 7\r\nX-Wsguard-Reason: per_ip\r\n\r\nToo many connections from this IP\r\n";
        assert_eq!(answer.render(), expected.as_bytes());
    }

    #[test]
    fn the_answer_to_head_has_no_body_but_keeps_its_length() {
        let answer = Answer {
            status: 200,
            headers: &[],
            text: "OK",
        };
        let expected = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: 4\r\n\r\n";
        assert_eq!(answer.render_head(), expected);
        assert_eq!(answer.render(), [&expected[..], b"OK\r\n"].concat());
    }

    #[test]
    fn every_status_that_is_sent_has_its_phrase() {
        for status in [200, 400, 403, 404, 408, 426, 429, 431, 502, 503, 504] {
            let answer = Answer {
                status,
                headers: &[],
                text: "x",
            }
            .render();
            let mut headers = [httparse::EMPTY_HEADER; 4];
            let mut reply = httparse::Response::new(&mut headers);
            assert!(
                reply.parse(&answer).is_ok_and(|parsed| parsed.is_complete()),
                "{status}"
            );
            assert_eq!(reply.code, Some(status));
            assert!(reply.reason.is_some_and(|reason| !reason.is_empty()), "{status}");
        }
    }

    #[test]
    fn a_handshake_is_accepted_with_the_offered_subprotocol_and_no_other() {
        let answer = accepted(b"dGhlIHNhbXBsZSBub25jZQ==", Some(b"chat"));
        let expected = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n";
        assert_eq!(answer, expected);
        let answer = accepted(b"dGhlIHNhbXBsZSBub25jZQ==", None);
        let expected = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        assert_eq!(answer, expected);
    }
}
