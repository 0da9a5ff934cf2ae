#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::super::body::BodyState;
use super::*;

const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// RFC 6455, section 1.3.
const SAMPLE: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n";

fn parse(bytes: &[u8]) -> Result<Step<Reply>, ReplyFault> {
    ReplyScan::default().parse(bytes, ACCEPT)
}

fn reply_to(bytes: &str) -> Result<Reply, ReplyFault> {
    match parse(bytes.as_bytes())? {
        Step::Done { value, used } if used == bytes.len() => Ok(value),
        other => panic!("{other:?} for {bytes}"),
    }
}

fn outcome(bytes: &[u8], ends: impl IntoIterator<Item = usize>) -> Result<Step<Reply>, ReplyFault> {
    let mut scan = ReplyScan::default();
    for end in ends {
        let outcome = scan.parse(&bytes[..end], ACCEPT);
        if outcome != Ok(Step::More) {
            return outcome;
        }
    }
    scan.parse(bytes, ACCEPT)
}

#[test]
fn the_rfc_sample_opens_the_tunnel() {
    assert_eq!(reply_to(SAMPLE), Ok(Reply::Switched(Extensions::None)));
    let ahead = format!("{SAMPLE}\u{1}\n");
    assert_eq!(
        parse(ahead.as_bytes()),
        Ok(Step::Done {
            value: Reply::Switched(Extensions::None),
            used: SAMPLE.len()
        })
    );
    let lists = SAMPLE
        .replace("Upgrade: websocket", "upgrade: ,WebSocket")
        .replace(": Upgrade", ": x,UPGRADE");
    assert_eq!(reply_to(&lists), Ok(Reply::Switched(Extensions::None)));
}

#[test]
fn a_101_has_the_extensions_that_it_agrees_on() {
    let with =
        |line: &str| reply_to(&SAMPLE.replace("Upgrade: websocket\r\n", &format!("Upgrade: websocket\r\n{line}\r\n")));
    for (line, extensions) in [
        ("X: permessage-deflate", Extensions::None),
        ("Sec-WebSocket-Extensions: ", Extensions::None),
        (
            "sec-websocket-extensions:permessage-deflate;server_max_window_bits=10",
            Extensions::PerMessage,
        ),
        (
            "Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Extensions: x-mux",
            Extensions::Other,
        ),
    ] {
        assert_eq!(with(line), Ok(Reply::Switched(extensions)), "{line}");
    }
}

#[test]
fn an_invalid_101_opens_no_tunnel() {
    for (good, bad) in [
        ("HTTP/1.1", "HTTP/1.0"),
        ("Upgrade: websocket\r\n", ""),
        ("Upgrade: websocket\r\n", "Upgrade: websocket, h2c\r\n"),
        ("Upgrade: websocket\r\n", "Upgrade: h2c\r\n"),
        ("Connection: Upgrade\r\n", ""),
        ("Connection: Upgrade\r\n", "Connection: keep-alive\r\n"),
        ("Accept: s3p", "Accept: S3p"),
        ("xOo=\r\n", "xOo\r\n"),
        ("xOo=\r\n", "xOo=, x\r\n"),
        (
            "xOo=\r\n",
            "xOo=\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
        ),
        ("Sec-WebSocket-Accept", "X"),
    ] {
        let reply = SAMPLE.replace(good, bad);
        assert_ne!(reply, SAMPLE);
        assert_eq!(reply_to(&reply), Err(ReplyFault::BadSwitch), "{reply}");
    }
}

#[test]
fn a_1xx_is_not_the_final_reply() {
    for line in [
        "HTTP/1.1 100 Continue",
        "HTTP/1.1 103 Early Hints\r\nLink: <a>",
        "HTTP/1.1 199 ",
    ] {
        assert_eq!(reply_to(&format!("{line}\r\n\r\n")), Ok(Reply::Interim));
    }
}

#[test]
fn other_replies_are_faults() {
    for (reply, fault) in [
        ("HTTP/1.1 200 OK\r\n\r\n", ReplyFault::Status(200)),
        ("HTTP/1.1 204 No Content\r\n\r\n", ReplyFault::Status(204)),
        ("HTTP/1.1 600 x\r\n\r\n", ReplyFault::Status(600)),
        ("HTTP/1.1 099 x\r\n\r\n", ReplyFault::Status(99)),
        ("SSH-2.0-OpenSSH_9.9\r\n", ReplyFault::Malformed),
        ("\r\nHTTP/1.1 404 x\r\n\r\n", ReplyFault::Malformed),
        ("HTTP/2 404\r\n\r\n", ReplyFault::Malformed),
        ("HTTP/1.2 404 x\r\n\r\n", ReplyFault::Malformed),
        ("HTTP/1.1 40 x\r\n\r\n", ReplyFault::Malformed),
        ("HTTP/1.1  404 x\r\n\r\n", ReplyFault::Malformed),
        ("HTTP/1.1 404 x\n\n", ReplyFault::Malformed),
        ("HTTP/1.1 404 x\r\nA: b\n\r\n", ReplyFault::Malformed),
        ("HTTP/1.1 404 x\r\r\n\r\n", ReplyFault::Malformed),
        ("HTTP/1.1 404 x\r\nA: b\r\r\n\r\n", ReplyFault::Malformed),
        ("HTTP/1.1 404 x\r\nA: b\r\n c\r\n\r\n", ReplyFault::Malformed),
        ("HTTP/1.1 404 x\r\nA : b\r\n\r\n", ReplyFault::Malformed),
        ("HTTP/1.1 404 x\r\nA: \0\r\n\r\n", ReplyFault::Malformed),
        ("HTTP/1.1 404 x\r\nA\r\n\r\n", ReplyFault::Malformed),
    ] {
        assert_eq!(parse(reply.as_bytes()), Err(fault), "{reply}");
    }
}

#[test]
fn a_refusal_is_passed_on_without_what_is_about_the_connection() {
    let reply = "HTTP/1.0 401 Go away\r\nServer: x\r\nConnection: keep-alive, x-HOP\r\nKeep-Alive: timeout=5\r\n\
        Content-Length: 5\r\nX-Hop: 1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nUpgrade: h2c\r\nTrailer: a\r\nTE: b\r\n\
        Proxy-Connection: c\r\nWWW-Authenticate: Basic\r\n\r\n";
    let expected = "HTTP/1.1 401 Go away\r\nServer: x\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nWWW-Authenticate: Basic\r\n\
        Connection: close\r\n";
    let pass_on = Reply::PassOn {
        status: 401,
        head: expected.into(),
        body: BodyRead::length(5),
    };
    assert_eq!(reply_to(reply), Ok(pass_on));
}

#[test]
fn a_body_is_framed_in_one_way_only() {
    for (status, headers, expected) in [
        ("1.1 404", "", Ok(BodyRead::until_close())),
        ("1.0 404", "", Ok(BodyRead::until_close())),
        ("1.1 503", "Content-Length: 0\r\n", Ok(BodyRead::length(0))),
        (
            "1.1 503",
            "Content-Length: 7\r\ncontent-length: 7\r\n",
            Ok(BodyRead::length(7)),
        ),
        ("1.1 302", "Transfer-Encoding: Chunked\r\n", Ok(BodyRead::chunked())),
        ("1.1 304", "Content-Length: 9\r\n", Ok(BodyRead::none())),
        ("1.1 304", "", Ok(BodyRead::none())),
        (
            "1.1 404",
            "Content-Length: 7\r\nContent-Length: 8\r\n",
            Err(ReplyFault::BadFraming),
        ),
        ("1.1 404", "Content-Length: 7, 7\r\n", Err(ReplyFault::BadFraming)),
        ("1.1 404", "Content-Length: -1\r\n", Err(ReplyFault::BadFraming)),
        ("1.1 404", "Content-Length: +1\r\n", Err(ReplyFault::BadFraming)),
        ("1.1 404", "Content-Length:\r\n", Err(ReplyFault::BadFraming)),
        (
            "1.1 404",
            "Content-Length: 18446744073709551616\r\n",
            Err(ReplyFault::BadFraming),
        ),
        (
            "1.1 404",
            "Content-Length: 7\r\nTransfer-Encoding: chunked\r\n",
            Err(ReplyFault::BadFraming),
        ),
        (
            "1.1 404",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            Err(ReplyFault::BadFraming),
        ),
        (
            "1.1 404",
            "Transfer-Encoding: gzip, chunked\r\n",
            Err(ReplyFault::BadFraming),
        ),
        ("1.0 404", "Transfer-Encoding: chunked\r\n", Err(ReplyFault::BadFraming)),
    ] {
        let body = reply_to(&format!("HTTP/{status} x\r\n{headers}\r\n")).map(|reply| match reply {
            Reply::PassOn { body, .. } => body,
            other => panic!("{other:?}"),
        });
        assert_eq!(body, expected, "{status} {headers}");
    }
}

#[test]
fn a_head_may_have_32_kib() {
    let mut reply = b"HTTP/1.1 404 x\r\nA: ".to_vec();
    reply.resize(32 * 1024 - 4, b'a');
    reply.extend_from_slice(b"\r\n\r\nbody");
    assert!(matches!(parse(&reply), Ok(Step::Done { used, .. }) if used == 32 * 1024));
    assert_eq!(parse(&reply[..32 * 1024 - 1]), Ok(Step::More));
    reply.insert(20, b'a');
    assert_eq!(parse(&reply[..32 * 1024]), Ok(Step::More));
    assert_eq!(parse(&reply), Err(ReplyFault::TooLarge));
}

#[test]
fn headers_are_counted() {
    let lines = |count| format!("HTTP/1.1 404 x\r\n{}\r\n", "A: b\r\n".repeat(count));
    assert!(reply_to(&lines(128)).is_ok());
    assert_eq!(reply_to(&lines(129)), Err(ReplyFault::Malformed));
}

fn fragments() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop::sample::select(vec![
        &b"HTTP/1.1 404 x\r\n"[..],
        b"HTTP/1.1 101 x\r\n",
        b"HTTP/1.",
        b"0 3",
        b"02\r\n",
        b"\r\n",
        b"\r\n\r\n",
        b"\r",
        b"\n",
        b"\0",
        b"Content-Length: 1\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b" ",
        b":",
        b"\xff",
    ]);
    prop::collection::vec(fragment, 0..12).prop_map(|fragments| fragments.concat())
}

proptest! {
    #[test]
    fn any_bytes_have_one_outcome_however_they_come(
        bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..100), fragments()],
        begin in any::<bool>(),
        split in any::<prop::sample::Index>(),
    ) {
        let bytes = if begin { [b"HTTP/1.1 404 x\r\n", &bytes[..]].concat() } else { bytes };
        let whole = outcome(&bytes, []);
        prop_assert_eq!(&outcome(&bytes, [split.index(bytes.len() + 1)]), &whole);
        prop_assert_eq!(&outcome(&bytes, 0..bytes.len()), &whole);
        if let Ok(Step::Done { value: Reply::PassOn { head, mut body, .. }, used }) = whole {
            let ends = [&b"\r\nConnection: close\r\n"[..], b"\r\nConnection: close, Upgrade\r\n"];
            prop_assert!(head.starts_with(b"HTTP/1.1 ") && ends.iter().any(|end| head.ends_with(end)));
            let mut out = Vec::new();
            let ended = body.feed(&bytes[used..], &mut out, 10);
            prop_assert!(out.len() <= 10 && (out.len() < 10 || ended == Ok(BodyState::Done)));
        }
    }
}
