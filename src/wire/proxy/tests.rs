#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use super::*;
use crate::wire::Step;
use proptest::prelude::*;

fn address_of(text: &str) -> Source {
    Source::Address(text.parse().unwrap())
}

/// The first outcome that is not `More`, if the bytes arrive one by one.
fn read_byte_by_byte(bytes: &[u8]) -> Result<Step<Source>, ProxyFault> {
    (0..=bytes.len())
        .map(|end| parse_proxy(&bytes[..end]))
        .find(|read| *read != Ok(Step::More))
        .unwrap_or(Ok(Step::More))
}

#[track_caller]
fn assert_source(bytes: &[u8], source: Source) {
    let whole = Ok(Step::Done {
        value: source,
        used: bytes.len(),
    });
    assert_eq!(parse_proxy(bytes), whole, "{}", bytes.escape_ascii());
    assert_eq!(read_byte_by_byte(bytes), whole, "{}", bytes.escape_ascii());
    let mut more = bytes.to_vec();
    more.extend_from_slice(b"GET / HTTP/1.1\r\n");
    assert_eq!(parse_proxy(&more), whole, "what follows is not touched");
}

#[track_caller]
fn assert_fault(bytes: &[u8], fault: ProxyFault) {
    assert_eq!(parse_proxy(bytes), Err(fault), "{}", bytes.escape_ascii());
    assert_eq!(read_byte_by_byte(bytes), Err(fault), "{}", bytes.escape_ascii());
}

/// A version 2 header with the right length.
fn block(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A".to_vec();
    bytes.extend([command, family]);
    bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// 192.0.2.1:4711 to 192.0.2.2:443.
const INET: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 0x12, 0x67, 0x01, 0xBB];

#[test]
fn lines_name_their_source() {
    assert_source(
        b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 443\r\n",
        address_of("192.0.2.1:4711"),
    );
    assert_source(
        b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n",
        address_of("0.0.0.0:0"),
    );
    assert_source(
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        address_of("255.255.255.255:65535"),
    );
    assert_source(
        b"PROXY TCP6 2001:db8::1 ::1 4711 443\r\n",
        address_of("[2001:db8::1]:4711"),
    );
    assert_source(
        b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n",
        address_of("[::ffff:192.0.2.1]:1"),
    );
    // The longest TCP6 line by the specification: 104 bytes.
    let full = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let line = format!("PROXY TCP6 {full} {full} 65535 65535\r\n");
    assert_eq!(line.len(), 104);
    assert_source(line.as_bytes(), address_of(&format!("[{full}]:65535")));
}

#[test]
fn unknown_means_the_socket_whatever_follows_within_107_bytes() {
    assert_source(b"PROXY UNKNOWN\r\n", Source::Socket);
    assert_source(b"PROXY UNKNOWN \r\n", Source::Socket);
    assert_source(b"PROXY UNKNOWN 1 2 \0\xFF\n\r\r\n", Source::Socket);
    // The specification's worst case.
    let full = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let line = format!("PROXY UNKNOWN {full} {full} 65535 65535\r\n");
    assert_eq!(line.len(), 107);
    assert_source(line.as_bytes(), Source::Socket);
    assert_fault(
        format!("PROXY UNKNOWN {full} {full} 65535 655355\r\n").as_bytes(),
        ProxyFault::LineTooLong,
    );
    assert_fault(
        &[b"PROXY UNKNOWN ".as_slice(), &[b'x'; 93]].concat(),
        ProxyFault::LineTooLong,
    );
    assert_fault(b"PROXY UNKNOWNS\r\n", ProxyFault::Family);
    assert_fault(b"PROXY UNKNOWN\n", ProxyFault::Family);
    assert_fault(b"PROXY UNKNOWN\r1 2\r\n", ProxyFault::LineEnd);
}

#[test]
fn every_deviation_of_a_line_is_a_fault() {
    for (line, fault) in [
        ("PROXY", None),
        ("PROXX", Some(ProxyFault::Missing)),
        ("proxy TCP4 ", Some(ProxyFault::Missing)),
        ("GET / HTTP/1.1\r\n", Some(ProxyFault::Missing)),
        ("PROXY  TCP4 ", Some(ProxyFault::Family)),
        ("PROXY tcp4 ", Some(ProxyFault::Family)),
        ("PROXY TCP5 ", Some(ProxyFault::Family)),
        ("PROXY UDP4 ", Some(ProxyFault::Family)),
        ("PROXY TCP4\t", Some(ProxyFault::Family)),
        ("PROXY \r\n", Some(ProxyFault::Family)),
        ("PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n", Some(ProxyFault::Address)),
        ("PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n", Some(ProxyFault::Address)),
        ("PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n", Some(ProxyFault::Address)),
        ("PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n", Some(ProxyFault::Address)),
        ("PROXY TCP4 192.0.2.1.1 192.0.2.2 1 2\r\n", Some(ProxyFault::Address)),
        ("PROXY TCP4 0xC0.0.2.1 192.0.2.2 1 2\r\n", Some(ProxyFault::Address)),
        ("PROXY TCP4 2001:db8::1 192.0.2.2 1 2\r\n", Some(ProxyFault::Address)),
        ("PROXY TCP4 192.0.2.1 ::1 1 2\r\n", Some(ProxyFault::Address)),
        ("PROXY TCP4 192.0.2.1 1 2\r\n", Some(ProxyFault::Address)),
        ("PROXY TCP4 192.0.2.100000000000000000", Some(ProxyFault::Address)),
        ("PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n", Some(ProxyFault::Address)),
        ("PROXY TCP6 2001:db8::1 192.0.2.2 1 2\r\n", Some(ProxyFault::Address)),
        ("PROXY TCP6 [2001:db8::1] ::1 1 2\r\n", Some(ProxyFault::Address)),
        ("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", Some(ProxyFault::Address)),
        ("PROXY TCP6 1::2::3 ::1 1 2\r\n", Some(ProxyFault::Address)),
        ("PROXY TCP6 ::fffff ::1 1 2\r\n", Some(ProxyFault::Address)),
        ("PROXY TCP4 192.0.2.1 192.0.2.2  1 2\r\n", Some(ProxyFault::Port)),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", Some(ProxyFault::Port)),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n", Some(ProxyFault::Port)),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n", Some(ProxyFault::Port)),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n", Some(ProxyFault::Port)),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", Some(ProxyFault::Port)),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 \r\n", Some(ProxyFault::Port)),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n", Some(ProxyFault::Port)),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n", Some(ProxyFault::Port)),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n", Some(ProxyFault::Port)),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\rX", Some(ProxyFault::LineEnd)),
    ] {
        match fault {
            Some(fault) => assert_fault(line.as_bytes(), fault),
            None => assert_eq!(read_byte_by_byte(line.as_bytes()), Ok(Step::More)),
        }
    }
    // Two mapped addresses at full length pass 107 bytes before the ports end.
    let full = "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255";
    assert_fault(
        format!("PROXY TCP6 {full} {full} 65535 65535\r\n").as_bytes(),
        ProxyFault::LineTooLong,
    );
}

#[test]
fn blocks_name_their_source() {
    // Typed from the specification, 2.2, and as HAProxy 2.x sends it.
    assert_source(
        b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A\x21\x11\x00\x0C\
          \xAC\x13\x00\x01\xAC\x13\x00\x03\xA6\x52\x00\x50",
        address_of("172.19.0.1:42578"),
    );
    let mut inet6 = Vec::new();
    inet6.extend([0x20, 0x01, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    inet6.extend([0x20, 0x01, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    inet6.extend([0x12, 0x67, 0x01, 0xBB]);
    assert_source(&block(0x21, 0x21, &inet6), address_of("[2001:db8::1]:4711"));
    inet6[..16].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 192, 0, 2, 1]);
    assert_source(&block(0x21, 0x21, &inet6), address_of("[::ffff:192.0.2.1]:4711"));
    // PP2_TYPE_ALPN "h2", an empty NOOP, PP2_TYPE_UNIQUE_ID of 3 bytes.
    let with_tlvs = [INET.as_slice(), b"\x01\x00\x02h2", b"\x04\x00\x00", b"\x05\x00\x03abc"].concat();
    assert_source(&block(0x21, 0x11, &with_tlvs), address_of("192.0.2.1:4711"));
    let to_the_cap = [INET.as_slice(), &[0x04, 0x0F, 0xF1], &[0; 4081]].concat();
    assert_eq!(to_the_cap.len(), 4096);
    assert_source(&block(0x21, 0x11, &to_the_cap), address_of("192.0.2.1:4711"));
}

#[test]
fn local_unspec_and_unix_mean_the_socket() {
    assert_source(&block(0x20, 0x00, b""), Source::Socket);
    assert_source(&block(0x20, 0xFF, b"the family of LOCAL is ignored"), Source::Socket);
    assert_source(&block(0x20, 0x11, &INET), Source::Socket);
    assert_source(&block(0x21, 0x00, b""), Source::Socket);
    assert_source(&block(0x21, 0x00, b"anything"), Source::Socket);
    assert_source(&block(0x21, 0x10, &INET), Source::Socket);
    assert_source(&block(0x21, 0x31, &[0; 216]), Source::Socket);
    assert_source(
        &block(0x21, 0x31, &[[0; 216].as_slice(), b"\x04\x00\x01x"].concat()),
        Source::Socket,
    );
}

#[test]
fn every_deviation_of_a_block_is_a_fault() {
    for (bytes, fault) in [
        (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), ProxyFault::Missing),
        (block(0x11, 0x11, &INET), ProxyFault::Version),
        (block(0x31, 0x11, &INET), ProxyFault::Version),
        (block(0x22, 0x11, &INET), ProxyFault::Command),
        (block(0x2F, 0x11, &INET), ProxyFault::Command),
        (block(0x21, 0x41, &INET), ProxyFault::Family),
        (block(0x21, 0xF0, &INET), ProxyFault::Family),
        (block(0x21, 0x12, &INET), ProxyFault::Transport),
        (block(0x21, 0x22, &[0; 36]), ProxyFault::Transport),
        (block(0x21, 0x32, &[0; 216]), ProxyFault::Transport),
        (block(0x21, 0x02, b""), ProxyFault::Transport),
        (block(0x21, 0x13, &INET), ProxyFault::Transport),
        (block(0x21, 0x11, &INET[..11]), ProxyFault::TooShort),
        (block(0x21, 0x21, &[0; 35]), ProxyFault::TooShort),
        (block(0x21, 0x31, &[0; 215]), ProxyFault::TooShort),
        (block(0x21, 0x11, &[0; 4097]), ProxyFault::TooLong),
        (block(0x20, 0x00, &[0; 4097]), ProxyFault::TooLong),
        (block(0x21, 0x11, &[INET.as_slice(), b"\x04"].concat()), ProxyFault::Tlv),
        (
            block(0x21, 0x11, &[INET.as_slice(), b"\x04\x00"].concat()),
            ProxyFault::Tlv,
        ),
        (
            block(0x21, 0x11, &[INET.as_slice(), b"\x04\x00\x01"].concat()),
            ProxyFault::Tlv,
        ),
        (
            block(0x21, 0x11, &[INET.as_slice(), b"\x04\x00\x00\x04\xFF\xFF"].concat()),
            ProxyFault::Tlv,
        ),
    ] {
        assert_fault(&bytes, fault);
    }
}

#[test]
fn faults_are_reported_before_the_header_is_complete() {
    assert_eq!(parse_proxy(b"PROXY X"), Err(ProxyFault::Family));
    assert_eq!(parse_proxy(b"PROXY TCP4 192.0.2.1 x"), Err(ProxyFault::Address));
    assert_eq!(parse_proxy(&block(0x31, 0x11, &INET)[..13]), Err(ProxyFault::Version));
    assert_eq!(parse_proxy(&block(0x21, 0x12, &INET)[..14]), Err(ProxyFault::Transport));
    assert_eq!(
        parse_proxy(&block(0x21, 0x11, &[0; 4097])[..16]),
        Err(ProxyFault::TooLong)
    );
    assert_eq!(parse_proxy(&block(0x21, 0x11, &INET)[..27]), Ok(Step::More));
}

#[test]
fn the_first_bytes_tell_whether_a_header_follows() {
    for (bytes, announced) in [
        (b"".as_slice(), Announces::Maybe),
        (b"PROXY", Announces::Maybe),
        (b"\r\n\r\n\0\r\nQUIT", Announces::Maybe),
        (b"PROXY ", Announces::Yes),
        (b"PROXY TCP4", Announces::Yes),
        (b"\r\n\r\n\0\r\nQUIT\n\x21", Announces::Yes),
        (b"POST", Announces::No),
        (b"\r\n\r\nG", Announces::No),
        (b"GET / HTTP/1.1", Announces::No),
    ] {
        assert_eq!(announces(bytes), announced, "{}", bytes.escape_ascii());
    }
}

/// Bytes of which a parser reads much: headers of both versions, made of right and wrong pieces.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        "TCP4|TCP6|UNKNOWN|[A-Z]{0,8}",
        any::<std::net::IpAddr>().prop_map(|ip| ip.to_string()),
        any::<u16>().prop_map(|port| port.to_string()),
        "[ -~\r\n]{0,12}",
    ];
    let line = (prop::collection::vec(word, 0..8), "(\r\n)?").prop_map(|(words, end)| {
        let line = format!("PROXY {}{end}", words.join(" "));
        line.into_bytes()
    });
    let command = prop_oneof![Just(0x20), Just(0x21), any::<u8>()];
    let family = prop_oneof![Just(0x00), Just(0x11), Just(0x21), Just(0x31), any::<u8>()];
    let payload = prop::collection::vec(prop_oneof![Just(0), Just(1), any::<u8>()], 0..300);
    let whole = (command, family, payload).prop_map(|(command, family, payload)| block(command, family, &payload));
    prop_oneof![line, whole, prop::collection::vec(any::<u8>(), 0..64)]
}

proptest! {
    #[test]
    fn any_split_gives_the_same_result(bytes in hostile()) {
        prop_assert_eq!(parse_proxy(&bytes), read_byte_by_byte(&bytes));
    }

    #[test]
    fn announcing_agrees_with_parsing(bytes in hostile()) {
        let is_missing = parse_proxy(&bytes) == Err(ProxyFault::Missing);
        prop_assert_eq!(announces(&bytes) == Announces::No, is_missing);
    }

    #[test]
    fn every_line_of_two_addresses_of_one_family_is_read(
        from: SocketAddr, to: std::net::Ipv4Addr, to6: std::net::Ipv6Addr, port: u16
    ) {
        let line = match from.ip() {
            std::net::IpAddr::V4(ip) => format!("PROXY TCP4 {ip} {to} {} {port}\r\n", from.port()),
            std::net::IpAddr::V6(ip) => format!("PROXY TCP6 {ip} {to6} {} {port}\r\n", from.port()),
        };
        let source = Source::Address(SocketAddr::new(from.ip(), from.port()));
        prop_assert_eq!(parse_proxy(line.as_bytes()), Ok(Step::Done { value: source, used: line.len() }));
    }
}
