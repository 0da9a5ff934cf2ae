//! The PROXY protocol, versions 1 and 2: read exactly however it is split, required from trusted peers, and refused
//! from all others. The bytes are typed from the specification.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use crate::rig::{Backend, End, Request, Rig, Setup, Socket, all_read, ip, until};

const V1: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 443\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\xc0\0\x02\x01\xc3\x50\x01\xbb";

#[test]
fn the_source_is_the_client_for_the_limits_the_log_and_the_server() {
    for header in [V1, V2] {
        let backend = Backend::listening();
        let rig = before(&backend).config("[limits]\nper_ip = 1").start();
        let mut open = rig.send_from(proxy(), [header, Request::to("/ws").as_ref()].concat());
        assert!(open.read_head().starts_with(b"HTTP/1.1 101 "));
        let second = rig.ask_from(proxy(), [header, Request::to("/ws").as_ref()].concat());
        second.assert_refusal("429 Too Many Requests", "per_ip", "Too many connections from this IP");
        assert_eq!(rig.access("per_ip")["client"], "203.0.113.7");
        assert_eq!(backend.visit(0).header("X-Forwarded-For"), ["203.0.113.7"]);
        assert_eq!(backend.visit(0).header("X-Real-IP"), ["203.0.113.7"]);
        assert!(
            backend.visit(0).head().starts_with(b"GET /ws HTTP/1.1\r\n"),
            "the header itself goes no further"
        );
        assert_eq!(backend.dials(), 1);
        drop(open);
        rig.quiet();
    }
}

#[test]
fn a_header_may_be_cut_anywhere() {
    let backend = Backend::listening();
    let rig = before(&backend)
        .config("[limits]\nper_ip = \"off\"\nper_ip_rate = \"off\"")
        .start();
    let mut sockets = Vec::new();
    for header in [V1, V2] {
        let whole = [header, Request::to("/ws").as_ref()].concat();
        for cut in 1..=header.len() {
            sockets.push((rig.send_from(proxy(), &whole[..cut]), whole[cut..].to_vec()));
        }
    }
    all_read(sockets.iter().map(|(socket, _)| socket));
    for (socket, rest) in &mut sockets {
        socket.send(rest);
    }
    for (n, (socket, _)) in sockets.iter_mut().enumerate() {
        assert!(socket.read_head().starts_with(b"HTTP/1.1 101 "), "cut {n}");
    }
    let dials = backend.dials();
    assert_eq!(dials, V1.len() + V2.len());
    for n in 0..dials {
        assert_eq!(backend.visit(n).header("X-Real-IP"), ["203.0.113.7"]);
        assert_eq!(backend.visit(n).tail(), b"");
    }
    drop(sockets);
    rig.quiet();
}

#[test]
fn a_header_and_a_head_may_come_byte_by_byte() {
    let backend = Backend::listening();
    let rig = before(&backend).config("[limits]\nper_ip = \"off\"").start();
    let wholes = [V1, V2].map(|header| [header, Request::to("/ws").as_ref()].concat());
    let mut sockets = wholes.each_ref().map(|_| rig.connect_from(proxy()));
    for at in 0..wholes[0].len().max(wholes[1].len()) {
        for (socket, whole) in sockets.iter_mut().zip(&wholes) {
            socket.send(&whole[at.min(whole.len())..(at + 1).min(whole.len())]);
        }
        thread::sleep(Duration::from_micros(500));
    }
    for socket in &mut sockets {
        assert!(socket.read_head().starts_with(b"HTTP/1.1 101 "));
    }
    for n in 0..2 {
        assert_eq!(backend.visit(n).header("X-Real-IP"), ["203.0.113.7"]);
    }
    drop(sockets);
    rig.quiet();
}

#[test]
fn ipv6_sources_count_by_their_64() {
    let backend = Backend::listening();
    let rig = before(&backend).config("[limits]\nper_ip = 1").start();
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24".to_vec();
    v2.extend("2001:db8:1:2::9".parse::<std::net::Ipv6Addr>().unwrap().octets());
    v2.extend([0; 20]);
    let v1 = b"PROXY TCP6 2001:db8:1:2::1 2001:db8::1 50000 443\r\n".to_vec();
    let mut open = rig.send_from(proxy(), [&v1, Request::to("/ws").as_ref()].concat());
    assert!(open.read_head().starts_with(b"HTTP/1.1 101 "));
    assert_eq!(
        rig.ask_from(proxy(), [&v2, Request::to("/ws").as_ref()].concat())
            .status(),
        429
    );
    assert_eq!(rig.access("per_ip")["key"], "2001:db8:1:2::/64");
    assert_eq!(backend.visit(0).header("X-Real-IP"), ["2001:db8:1:2::1"]);
    assert_eq!(backend.dials(), 1);
    drop(open);
    rig.quiet();
}

#[test]
fn unknown_and_local_mean_the_socket_and_no_forwarding_header_is_read() {
    let backend = Backend::listening();
    let rig = before(&backend).start();
    let request = Request::to("/ws").add("X-Forwarded-For", "203.0.113.9");
    let headers: &[&[u8]] = &[
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
        b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x0c\xcb\0\x71\x07\xc0\0\x02\x01\xc3\x50\x01\xbb",
        b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0",
    ];
    for (n, header) in headers.iter().enumerate() {
        let mut open = rig.send_from(proxy(), [header, request.as_ref()].concat());
        assert!(
            open.read_head().starts_with(b"HTTP/1.1 101 "),
            "{}",
            header.escape_ascii()
        );
        assert_eq!(
            backend.visit(n).header("X-Real-IP"),
            ["127.0.1.1"],
            "{}",
            header.escape_ascii()
        );
    }
    assert_eq!(backend.dials(), headers.len());
    rig.quiet();
}

#[test]
fn additional_fields_of_version_2_are_skipped() {
    let backend = Backend::listening();
    let rig = before(&backend).start();
    let tlvs = b"\x02\0\x05a.exa\x04\0\x03\0\0\0";
    let mut header = V2.to_vec();
    header[15] += u8::try_from(tlvs.len()).unwrap();
    header.extend(tlvs);
    let mut open = rig.send_from(proxy(), [&header, Request::to("/ws").as_ref()].concat());
    assert!(open.read_head().starts_with(b"HTTP/1.1 101 "));
    assert_eq!(backend.visit(0).header("X-Real-IP"), ["203.0.113.7"]);
    assert_eq!(backend.visit(0).tail(), b"");
    drop(open);
    rig.quiet();
}

#[test]
fn forwarding_headers_are_read_only_if_the_source_itself_is_trusted() {
    let backend = Backend::listening();
    let rig = before(&backend).start();
    let request = Request::to("/ws").add("X-Forwarded-For", "203.0.113.9");
    for (n, (source, client, hops)) in [
        ("127.0.1.200", "203.0.113.9", "203.0.113.9, 127.0.1.200"),
        ("203.0.113.7", "203.0.113.7", "203.0.113.7"),
    ]
    .into_iter()
    .enumerate()
    {
        let header = format!("PROXY TCP4 {source} 192.0.2.1 50000 443\r\n");
        let mut open = rig.send_from(proxy(), [header.as_bytes(), request.as_ref()].concat());
        assert!(open.read_head().starts_with(b"HTTP/1.1 101 "));
        assert_eq!(backend.visit(n).header("X-Real-IP"), [client]);
        assert_eq!(backend.visit(n).header("X-Forwarded-For").join(", "), hops);
    }
    rig.quiet();
}

#[test]
fn every_deviation_ends_the_connection_without_a_byte() {
    let backend = Backend::listening();
    let rig = before(&backend).start();
    let over_long = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 100], b"\r\n".to_vec()].concat();
    let twice = |first: &[u8], second: &[u8]| [first, second].concat();
    let mut bad: Vec<Vec<u8>> = vec![over_long, twice(V1, V1), twice(V1, V2), twice(V2, V1), twice(V2, V2)];
    bad.extend(
        [
            "PROXY TCP4 203.0.113.7 192.0.2.1 50000 443\n",
            "PROXY TCP4  203.0.113.7 192.0.2.1 50000 443\r\n",
            "PROXY TCP4 203.0.113.7 192.0.2.1 50000\r\n",
            "PROXY TCP4 203.0.113.7 192.0.2.1 50000 443 1\r\n",
            "PROXY TCP4 203.0.113.7 192.0.2.1 50000 443 \r\n",
            "PROXY TCP4 203.0.113.256 192.0.2.1 50000 443\r\n",
            "PROXY TCP4 203.0.113.07 192.0.2.1 50000 443\r\n",
            "PROXY TCP4 203.0.113.7 192.0.2.1 050000 443\r\n",
            "PROXY TCP4 203.0.113.7 192.0.2.1 50000 0443\r\n",
            "PROXY TCP4 203.0.113.7 192.0.2.1 65536 443\r\n",
            "PROXY TCP4 203.0.113.7 192.0.2.1 +5000 443\r\n",
            "PROXY TCP4 2001:db8::7 2001:db8::1 50000 443\r\n",
            "PROXY TCP6 203.0.113.7 192.0.2.1 50000 443\r\n",
            "PROXY TCP5 203.0.113.7 192.0.2.1 50000 443\r\n",
            "PROXY UDP4 203.0.113.7 192.0.2.1 50000 443\r\n",
            "PROXY tcp4 203.0.113.7 192.0.2.1 50000 443\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY \r\n",
            "proxy TCP4 203.0.113.7 192.0.2.1 50000 443\r\n",
            "",
        ]
        .map(Into::into),
    );
    bad.extend([
        v2_with(12, 0x11), // version 1
        v2_with(12, 0x31), // version 3
        v2_with(12, 0x22), // command 2
        v2_with(13, 0x41), // family 4
        v2_with(13, 0x15), // transport 5
        v2_with(15, 0x0b), // a byte too short for its family
        v2_with(15, 0x00), // no address at all
        v2_with(14, 0xff), // longer than anything may be
        v2_with(11, b'\r'),
    ]);
    for header in &bad {
        let mut socket = rig.send_from(proxy(), [header, Request::to("/ws").as_ref()].concat());
        let (heard, _) = socket.read_to_end();
        assert_eq!(heard, b"", "{}", header.escape_ascii());
    }
    assert_eq!(backend.dials(), 0);
    let expected = i64::try_from(bad.len()).unwrap();
    rig.expect(
        r#"wsguard_handshakes_total{zone="-",outcome="rejected",reason="proxy_header"}"#,
        expected,
    );
    rig.quiet();
}

#[test]
fn a_stranger_is_closed_without_a_byte_with_a_header_and_without_one() {
    let backend = Backend::listening();
    let rig = before(&backend).listener("\nhealth_path = \"/up\"").start();
    let health = Request::to("/up");
    for sent in [
        [V1, Request::to("/ws").as_ref()].concat(),
        [V2, Request::to("/ws").as_ref()].concat(),
        Request::to("/ws").into_bytes(),
        health.into_bytes(),
        b"GET /ws".to_vec(),
        Vec::new(),
    ] {
        let (heard, _) = rig.send_from(ip(3), &sent).read_to_end();
        assert_eq!(heard, b"", "{}", sent.escape_ascii());
    }
    rig.expect(
        r#"wsguard_handshakes_total{zone="-",outcome="rejected",reason="proxy_header"}"#,
        6,
    );
    let line = rig.access("proxy_header");
    assert_eq!(line["client"], "127.0.0.3");
    assert_eq!(line["message"], "the peer is not in trusted_proxies");
    assert_eq!(backend.dials(), 0);
    rig.quiet();
}

#[test]
fn a_unix_peer_without_a_header_is_closed_without_a_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.sock");
    let backend = Backend::listening();
    let rig = Rig::before(&backend)
        .config(&format!(
            "[[listener]]\nname = \"front\"\nbind = [\"unix:{}\"]\naccept_proxy_protocol = true\n\
             [client_ip]\ntrusted_proxies = [\"unix\"]",
            path.display()
        ))
        .config("[admin]\nlisten = \"127.0.0.1:0\"")
        .start();
    let heard = |sent: &[u8]| {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(sent).unwrap();
        let mut heard = [0; 12];
        stream
            .read_exact(&mut heard)
            .map(|()| heard.to_vec())
            .unwrap_or_default()
    };
    assert_eq!(heard(Request::to("/ws").as_ref()), b"");
    assert_eq!(backend.dials(), 0);
    assert_eq!(heard(&[V1, Request::to("/ws").as_ref()].concat()), b"HTTP/1.1 101");
    assert_eq!(backend.visit(0).header("X-Real-IP"), ["203.0.113.7"]);
    rig.quiet();
}

#[test]
fn a_proxy_header_on_a_listener_without_them_is_a_broken_request() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "");
    let answer = rig.ask([V1, Request::to("/ws").as_ref()].concat());
    assert!(answer.status() == 400 || answer.bytes.is_empty(), "{answer}");
    assert_eq!(backend.dials(), 0);
    rig.quiet();
}

#[test]
fn an_unfinished_header_is_closed_at_the_deadline_without_a_byte() {
    let backend = Backend::listening();
    let rig = before(&backend).listener("\nhandshake_timeout = \"1s\"").start();
    let starts: [&[u8]; 5] = [b"", b"P", b"PROXY TCP4 203", &V2[..5], &V2[..20]];
    let mut sockets: Vec<Socket> = starts.iter().map(|start| rig.send_from(proxy(), start)).collect();
    let started = std::time::Instant::now();
    for socket in &mut sockets {
        assert_eq!(socket.read_to_end(), (Vec::new(), End::Fin));
    }
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "took {:?}",
        started.elapsed()
    );
    assert_eq!(backend.dials(), 0);
    rig.quiet();
}

#[test]
fn pending_sockets_behind_a_proxy_are_capped_by_their_source() {
    let backend = Backend::listening();
    let rig = before(&backend).listener("\nmax_pending_per_ip = 3").start();
    let held: Vec<Socket> = (0..3)
        .map(|_| rig.send_from(proxy(), [V1, b"GET /ws"].concat()))
        .collect();
    let silent: Vec<Socket> = (0..10).map(|_| rig.connect_from(proxy())).collect();
    rig.expect(r#"wsguard_pending{listener="front"}"#, 13);
    let (heard, _) = rig
        .send_from(proxy(), [V1, Request::to("/ws").as_ref()].concat())
        .read_to_end();
    assert_eq!(heard, b"");
    let other = b"PROXY TCP4 203.0.113.8 192.0.2.1 50000 443\r\n";
    let mut newcomer = rig.send_from(proxy(), [other, Request::to("/ws").as_ref()].concat());
    assert!(newcomer.read_head().starts_with(b"HTTP/1.1 101 "));
    until("the refusal is counted", || {
        (rig.count(r#"wsguard_handshakes_total{zone="-",outcome="rejected",reason="pending_per_ip"}"#) == 1)
            .then_some(())
    });
    assert_eq!(backend.dials(), 1);
    drop((held, silent, newcomer));
    rig.quiet();
}

fn before(backend: &Backend) -> Setup {
    let setup = Rig::before(backend).listener("accept_proxy_protocol = true");
    setup.config("[client_ip]\ntrusted_proxies = [\"127.0.1.0/24\"]")
}

fn proxy() -> IpAddr {
    "127.0.1.1".parse().unwrap()
}

/// The valid header of version 2 with one byte changed.
fn v2_with(at: usize, byte: u8) -> Vec<u8> {
    let mut header = V2.to_vec();
    header[at] = byte;
    header
}
