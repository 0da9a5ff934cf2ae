#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const CAPS: HeadCaps = HeadCaps {
    max_size: 16 * 1024,
    max_headers: 64,
};

/// RFC 6455, section 1.3.
const SAMPLE: &[u8] = b"GET /chat?room=1 HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://example.com\r\n\
    Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\n\r\n";

fn parse(bytes: &[u8]) -> Result<Step<Head<'_>>, HeadFault> {
    HeadScan::default().parse(bytes, CAPS)
}

fn head_of(bytes: &[u8]) -> Head<'_> {
    match parse(bytes) {
        Ok(Step::Done { value, used }) if used == bytes.len() => value,
        other => panic!("{other:?} for {}", bytes.escape_ascii()),
    }
}

/// The first outcome that is not `More`, if the bytes arrive up to each of `ends` in turn, and then all of them.
fn outcome(bytes: &[u8], ends: impl IntoIterator<Item = usize>, caps: HeadCaps) -> Result<Step<Head<'_>>, HeadFault> {
    let mut scan = HeadScan::default();
    for end in ends {
        let outcome = scan.parse(&bytes[..end], caps);
        if outcome != Ok(Step::More) {
            return outcome;
        }
    }
    scan.parse(bytes, caps)
}

#[test]
fn the_rfc_sample_is_read() {
    let head = head_of(SAMPLE);
    assert_eq!(
        (head.method, head.target, head.path()),
        (&b"GET"[..], &b"/chat?room=1"[..], &b"/chat"[..])
    );
    assert_eq!((head.version, head.absolute_form), (Version::Http11, false));
    assert_eq!(
        head.authority,
        Some(Authority {
            host: b"server.example.com",
            port: None
        })
    );
    assert_eq!(head.headers.len(), 7);
    assert_eq!(head.values("UPGRADE").collect::<Vec<_>>(), [b"websocket"]);
}

#[test]
fn what_follows_the_head_is_left_alone() {
    let mut bytes = SAMPLE.to_vec();
    bytes.extend_from_slice(b"\x81\x85\0\0\0\0Hello\n\n\r\n\r\n");
    assert!(matches!(parse(&bytes), Ok(Step::Done { used, .. }) if used == SAMPLE.len()));
}

#[test]
fn a_scan_can_read_the_next_head() {
    let mut scan = HeadScan::default();
    for end in 0..SAMPLE.len() {
        assert_eq!(scan.parse(&SAMPLE[..end], CAPS), Ok(Step::More));
    }
    let first = scan.parse(SAMPLE, CAPS).unwrap();
    assert_eq!(scan.parse(SAMPLE, CAPS).unwrap(), first);
}

#[test]
fn these_heads_pass() {
    for head in [
        &b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nhOsT:a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost:\t a:80 \t\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nEmpty:\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\tb\x80\xff\r\n\r\n",
        b"GET /\xc3\xa9\xff?\x80 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\"<>[\\]^`{|} HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET //?? HTTP/1.1\r\nHost: a\r\n\r\n",
        b"!#$%&'*+-.^_`|~09azAZ / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n!#$%&'*+-.^_`|~: 1\r\n\r\n",
    ] {
        head_of(head);
    }
}

#[test]
fn a_target_passes_byte_for_byte() {
    let head = head_of(b"GET /\xc3\x28/../%2e//a;b?\xff%00 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(head.target, b"/\xc3\x28/../%2e//a;b?\xff%00");
    assert_eq!(head.path(), b"/\xc3\x28/../%2e//a;b");
}

#[test]
fn the_authority_of_a_url_counts_and_not_the_host_header() {
    for (target, name, port, expected, path) in [
        ("http://example.org/ws?x", "example.org", None, "/ws?x", "/ws"),
        ("WS://example.org:81/", "example.org", Some(81), "/", "/"),
        ("wss://[2001:db8::1]:443", "[2001:db8::1]", Some(443), "/", "/"),
        ("HTTPS://192.0.2.1:/a", "192.0.2.1", None, "/a", "/a"),
        ("http://example.org?x=/", "example.org", None, "?x=/", "/"),
    ] {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: other\r\n\r\n");
        let head = head_of(bytes.as_bytes());
        assert!(head.absolute_form);
        assert_eq!(
            head.authority,
            Some(Authority {
                host: name.as_bytes(),
                port
            }),
            "{target}"
        );
        assert_eq!(
            (head.target, head.path()),
            (expected.as_bytes(), path.as_bytes()),
            "{target}"
        );
    }
}

#[test]
fn each_broken_rule_is_named() {
    use Rule::*;
    for (line, rule) in [
        (&b"GET / HTTP/1.1\n"[..], BareLineBreak),
        (b"GET /\r HTTP/1.1\r\n", BareLineBreak),
        (b"\rGET / HTTP/1.1\r\n", BareLineBreak),
        (b"\nGET / HTTP/1.1\r\n", BareLineBreak),
        (b"\r\n\r\nGET / HTTP/1.1\r\n", RequestLine),
        (b"GET /\r\n", RequestLine),
        (b"GET\r\n", RequestLine),
        (b" GET / HTTP/1.1\r\n", RequestLine),
        (b"GET  HTTP/1.1\r\n", RequestLine),
        (b"GET / HTTP/1.1 \r\n", RequestLine),
        (b"GET / http/1.1\r\n", RequestLine),
        (b"GET\t/ HTTP/1.1\r\n", RequestLine),
        (b"G(T / HTTP/1.1\r\n", RequestLine),
        (b"GET /a b HTTP/1.1\r\n", TargetByte),
        (b"GET  / HTTP/1.1\r\n", TargetByte),
        (b"GET /#a HTTP/1.1\r\n", TargetByte),
        (b"GET /\0 HTTP/1.1\r\n", TargetByte),
        (b"GET /\x1f HTTP/1.1\r\n", TargetByte),
        (b"GET /\x7f HTTP/1.1\r\n", TargetByte),
        (b"GET /\t HTTP/1.1\r\n", TargetByte),
        (b"GET chat HTTP/1.1\r\n", TargetForm),
        (b"GET ?x HTTP/1.1\r\n", TargetForm),
        (b"GET \\ HTTP/1.1\r\n", TargetForm),
        (b"OPTIONS * HTTP/1.1\r\n", TargetForm),
        (b"CONNECT example.org:443 HTTP/1.1\r\n", TargetForm),
        (b"GET ftp://example.org/ HTTP/1.1\r\n", TargetForm),
        (b"GET http:/example.org/ HTTP/1.1\r\n", TargetForm),
        (b"GET http:///ws HTTP/1.1\r\n", Host),
        (b"GET http://u@example.org/ HTTP/1.1\r\n", Host),
        (b"GET http://a\\b/ HTTP/1.1\r\n", Host),
        (b"GET / HTTP/1.2\r\n", Version),
        (b"GET / HTTP/2.0\r\n", Version),
        (b"GET / HTTP/01.1\r\n", Version),
        (b"GET / HTTP/\r\n", Version),
    ] {
        let mut bytes = line.to_vec();
        bytes.extend_from_slice(b"Host: a\r\n\r\n");
        assert_eq!(parse(&bytes), Err(HeadFault::Bad(rule)), "{}", line.escape_ascii());
    }
    for (line, rule) in [
        (&b"X: a\n"[..], BareLineBreak),
        (b"X: a\rb\r\n", BareLineBreak),
        (b"X: a\r\r\n", BareLineBreak),
        (b"\n", BareLineBreak),
        (b"X\r: a\r\n", BareLineBreak),
        (b"X: a\r\n b\r\n", FoldedHeader),
        (b"\tb\r\n", FoldedHeader),
        (b" \r\n", FoldedHeader),
        (b"X : a\r\n", BlankBeforeColon),
        (b"X\t : a\r\n", BlankBeforeColon),
        (b"X y: a\r\n", HeaderName),
        (b"X\r\n", HeaderName),
        (b": a\r\n", HeaderName),
        (b"X\0: a\r\n", HeaderName),
        (b"X\xe9: a\r\n", HeaderName),
        (b"X(: a\r\n", HeaderName),
        (b"X: a\0\r\n", HeaderValue),
        (b"X: \x01a\r\n", HeaderValue),
        (b"X: \x1b\r\n", HeaderValue),
        (b"X: \x7f\r\n", HeaderValue),
        (b"X: \x0b\r\n", HeaderValue),
        (b"Host: a\r\n", ManyHosts),
        (b"HOST: b\r\n", ManyHosts),
    ] {
        let mut bytes = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
        bytes.extend_from_slice(line);
        bytes.extend_from_slice(b"\r\n");
        assert_eq!(parse(&bytes), Err(HeadFault::Bad(rule)), "{}", line.escape_ascii());
    }
    assert_eq!(parse(b"GET / HTTP/1.1\r\n\r\n"), Err(HeadFault::Bad(NoHost)));
    assert_eq!(parse(b"GET http://a/ HTTP/1.1\r\n\r\n"), Err(HeadFault::Bad(NoHost)));
    assert_eq!(
        parse(b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"),
        Err(HeadFault::Bad(ManyHosts))
    );
}

#[test]
fn a_host_must_be_an_authority() {
    for (host, name, port) in [
        ("example.org", "example.org", None),
        ("example.org.", "example.org.", None),
        ("a_b-c.%41~!$&'()*+,;=", "a_b-c.%41~!$&'()*+,;=", None),
        ("192.0.2.1:8080", "192.0.2.1", Some(8080)),
        ("[::1]", "[::1]", None),
        ("[::ffff:192.0.2.1]:0080", "[::ffff:192.0.2.1]", Some(80)),
        ("a:65535", "a", Some(65535)),
        ("a:", "a", None),
    ] {
        let bytes = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(
            head_of(bytes.as_bytes()).authority,
            Some(Authority {
                host: name.as_bytes(),
                port
            }),
            "{host}"
        );
    }
    for host in [
        "",
        ":80",
        "a:b",
        "a:65536",
        "a:-1",
        "a:+1",
        "a:8:0",
        "u@a",
        "u:p@a",
        "a/",
        "a b",
        "a\tb",
        "http://a",
        "a?",
        "a%4",
        "a%zz",
        "é",
        "[",
        "[]",
        "[::1",
        "::1",
        "[::1]a",
        "[::1%25eth0]",
        "[v1.a]",
        "[192.0.2.1]",
        "a\\b",
        "<a>",
        "a\"",
    ] {
        let bytes = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(parse(bytes.as_bytes()), Err(HeadFault::Bad(Rule::Host)), "{host}");
    }
}

#[test]
fn a_fault_is_found_as_soon_as_it_can_be() {
    let tls: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    assert_eq!(parse(&tls[..1]), Err(HeadFault::Bad(Rule::RequestLine)));
    assert_eq!(
        parse(b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n"),
        Err(HeadFault::Bad(Rule::BlankBeforeColon))
    );
    assert_eq!(parse(b"PRI * HTTP/2.0\r\n"), Err(HeadFault::Bad(Rule::TargetForm)));
    assert_eq!(parse(b"GET / HTTP/1.1\r\nHost: a\r\nX : y"), Ok(Step::More));
}

#[test]
fn a_head_may_have_exactly_the_size_and_the_lines_that_are_allowed() {
    let exact = HeadCaps {
        max_size: SAMPLE.len(),
        max_headers: 7,
    };
    let mut bytes = SAMPLE.to_vec();
    bytes.extend_from_slice(b"more");
    for ends in [0..0, 0..bytes.len()] {
        assert!(matches!(outcome(&bytes, ends.clone(), exact), Ok(Step::Done { .. })));
        let smaller = HeadCaps {
            max_size: SAMPLE.len() - 1,
            ..exact
        };
        assert_eq!(outcome(&bytes, ends.clone(), smaller), Err(HeadFault::TooLarge));
        let fewer = HeadCaps {
            max_headers: 6,
            ..exact
        };
        assert_eq!(outcome(&bytes, ends, fewer), Err(HeadFault::TooManyHeaders));
    }
    assert_eq!(
        HeadScan::default().parse(
            &SAMPLE[..100],
            HeadCaps {
                max_size: 100,
                max_headers: 7
            }
        ),
        Ok(Step::More)
    );
}

#[test]
fn each_byte_of_a_head_that_arrives_slowly_is_looked_at_once() {
    let mut bytes = b"GET /".to_vec();
    bytes.resize(1_000_000, b'a');
    let caps = HeadCaps {
        max_size: 1 << 20,
        max_headers: 64,
    };
    let mut scan = HeadScan::default();
    // If every call began at the first byte, this would look at 10^12 bytes and not end.
    for end in 1..=bytes.len() {
        assert_eq!(scan.parse(&bytes[..end], caps), Ok(Step::More));
    }
}

#[test]
fn the_text_of_a_fault_is_what_the_client_gets() {
    assert_eq!(
        HeadFault::Bad(Rule::ManyHosts).to_string(),
        "Bad request: two Host headers"
    );
    assert_eq!(HeadFault::TooLarge.to_string(), "Request head larger than the limit");
}

/// Bytes that resemble a head: fragments of heads in any order.
fn fragments() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop::sample::select(vec![
        &b"GET / HTTP/1.1\r\n"[..],
        b"GET ",
        b"http://a:1?",
        b"/\xff",
        b" HTTP/1.0",
        b"\r\n",
        b"\r\n\r\n",
        b"\r",
        b"\n",
        b"\0",
        b"Host: a\r\n",
        b"Host",
        b" ",
        b"\t",
        b":",
        b"X: y\r\n",
        b"Content-Length: 0\r\n",
        b"\x80",
        b"#",
    ]);
    prop::collection::vec(fragment, 0..16).prop_map(|fragments| fragments.concat())
}

proptest! {
    #[test]
    fn any_bytes_have_one_outcome_however_they_are_split(
        bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..200), fragments()],
        begin in prop::bool::ANY,
        split in any::<prop::sample::Index>(),
        max_size in 0..120usize,
        max_headers in 0..5usize,
    ) {
        let bytes = if begin { [b"GET / HTTP/1.1\r\nHost: a\r\n", &bytes[..]].concat() } else { bytes };
        let caps = HeadCaps { max_size, max_headers };
        let whole = outcome(&bytes, [], caps);
        prop_assert_eq!(&outcome(&bytes, [split.index(bytes.len() + 1)], caps), &whole);
        prop_assert_eq!(&outcome(&bytes, 0..bytes.len(), caps), &whole);
    }

    #[test]
    fn httparse_reads_every_head_that_passes_in_the_same_way(bytes in fragments()) {
        let bytes = [b"GET /x HTTP/1.1\r\nHost: a\r\n", &bytes[..], b"\r\n\r\n"].concat();
        if let Ok(Step::Done { value: head, used }) = parse(&bytes) {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut request = httparse::Request::new(&mut headers);
            prop_assert_eq!(request.parse(&bytes), Ok(httparse::Status::Complete(used)));
            prop_assert_eq!(&*request.headers, &head.headers[..]);
        }
    }
}
