#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::super::head::{HeadCaps, HeadScan};
use super::*;
use crate::wire::Step;
use crate::wire::http::client_headers::CLIENT_HEADERS;

const HOP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const CLIENT: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
const TRUSTED: Forwarding = Forwarding {
    hop: Some(HOP),
    hop_trusted: true,
    client: Some(CLIENT),
    proto: "http",
    send: SendMode::Append,
};
const STRANGER: Forwarding = Forwarding {
    hop: Some(HOP),
    hop_trusted: false,
    client: Some(HOP),
    proto: "https",
    send: SendMode::Append,
};

fn head_of(bytes: &[u8]) -> Head<'_> {
    match HeadScan::default().parse(
        bytes,
        HeadCaps {
            max_size: 1 << 20,
            max_headers: 1000,
        },
    ) {
        Ok(Step::Done { value, .. }) => value,
        other => panic!("{other:?} for {}", bytes.escape_ascii()),
    }
}

fn composed(request: &[u8], forwarding: &Forwarding) -> String {
    String::from_utf8_lossy(&request_for_server(&head_of(request), forwarding)).into_owned()
}

#[test]
fn a_stranger_s_forwarding_headers_are_replaced() {
    let request = b"GET /a?b HTTP/1.1\r\nhost:  A.example:8080\r\nX-Forwarded-For: 1.2.3.4\r\nCookie: a=b;  c\r\n\
        x-forwarded-proto: http\r\nX-Forwarded-Host: evil\r\nForwarded: for=1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\n\
        X-Client-IP: 1.2.3.4\r\nX-Cluster-Client-IP: 1.2.3.4\r\nTrue-Client-IP: 1.2.3.4\r\n\
        CF-Connecting-IP: 1.2.3.4\r\nConnection: keep-alive, Upgrade, Cookie\r\nUpgrade: websocket\r\n\
        connection: x\r\nX-Forwardedness: stays\r\nTE: trailers\r\n\r\n";
    assert_eq!(
        composed(request, &STRANGER),
        "GET /a?b HTTP/1.1\r\nhost: A.example:8080\r\nCookie: a=b;  c\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         X-Forwardedness: stays\r\nTE: trailers\r\nX-Forwarded-For: 10.0.0.2\r\nX-Real-IP: 10.0.0.2\r\n\
         X-Forwarded-Proto: https\r\n\r\n"
    );
}

#[test]
fn a_header_that_only_resembles_a_client_header_passes() {
    for name in [
        "X-Forwardedness",
        "X-Forwarde",
        "X-Client-IP-Country",
        "Client-Ipp",
        "CF-IPCountry",
        "CF-Ray",
        "Via",
        "X-Real-IPs",
        "HTTP2-Settings",
        "HTTP_HOST",
        "XForwardedFor",
        "X-Request-Id",
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{name}: stays\r\n\r\n");
        assert!(
            composed(request.as_bytes(), &STRANGER).contains(&format!("{name}: stays")),
            "{name}"
        );
    }
}

#[test]
fn a_trusted_hop_is_appended_to_what_it_forwards() {
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4, 5.6.7.8\r\nX-Forwarded-Proto: https\r\n\
        x-forwarded-for:\r\nX-FORWARDED-FOR: 2001:db8::1\r\nX-Real-IP: 9.9.9.9\r\nForwarded: for=1.2.3.4\r\n\
        X_Forwarded_For: 6.6.6.6\r\nCF_Connecting-IP: 6.6.6.6\r\nX-Forwarded_Host: evil\r\nMy_Header: stays\r\n\
        X-Forwarded-Host: a\r\nConnection: upgrade\r\n\r\n";
    assert_eq!(
        composed(request, &TRUSTED),
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\nForwarded: for=1.2.3.4\r\nMy_Header: stays\r\n\
         X-Forwarded-Host: a\r\nConnection: Upgrade\r\nX-Forwarded-For: 1.2.3.4, 5.6.7.8, 2001:db8::1, 10.0.0.2\r\n\
         X-Real-IP: 2001:db8::1\r\n\r\n"
    );
}

#[test]
fn a_unix_peer_has_no_address_to_append() {
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\n\r\n";
    let trusted = Forwarding {
        hop: None,
        client: None,
        ..TRUSTED
    };
    assert_eq!(
        composed(request, &trusted),
        "GET / HTTP/1.1\r\nHost: a\r\nX-Real-IP: 1.2.3.4\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: http\r\n\r\n"
    );
    let stranger = Forwarding {
        hop: None,
        client: None,
        ..STRANGER
    };
    assert_eq!(
        composed(request, &stranger),
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\r\n"
    );
}

#[test]
fn with_client_the_server_learns_the_client_as_from_a_single_proxy() {
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4, 2001:db8::1\r\nX-Forwarded-Proto: https\r\n\
        X-Real-IP: 9.9.9.9\r\nX-Forwarded-Host: b\r\nX_Forwarded_For: 6.6.6.6\r\n\r\n";
    let [trusted, stranger] = [TRUSTED, STRANGER].map(|from| Forwarding {
        send: SendMode::Client,
        ..from
    });
    assert_eq!(
        composed(request, &trusted),
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\nX-Forwarded-For: 2001:db8::1\r\n\
         X-Real-IP: 2001:db8::1\r\n\r\n"
    );
    assert_eq!(
        composed(request, &stranger),
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.0.0.2\r\nX-Real-IP: 10.0.0.2\r\nX-Forwarded-Proto: https\r\n\r\n"
    );
    let nobody = Forwarding {
        hop: None,
        client: None,
        ..trusted
    };
    let told = composed(request, &nobody);
    assert!(!told.contains("X-Forwarded-For"), "{told}");
}

#[test]
fn with_none_no_header_names_the_client() {
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nForwarded: for=1.2.3.4\r\n\
        X-Real-IP: 9.9.9.9\r\nX-Forwarded-Host: b\r\nTrue-Client-IP: 9.9.9.9\r\nCookie: c\r\n\r\n";
    for from in [TRUSTED, STRANGER] {
        let none = Forwarding {
            send: SendMode::None,
            ..from
        };
        assert_eq!(
            composed(request, &none),
            "GET / HTTP/1.1\r\nHost: a\r\nCookie: c\r\n\r\n"
        );
    }
}

#[test]
fn a_mapped_address_is_written_as_ipv4() {
    let mapped = Some(Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().into());
    let forwarding = Forwarding {
        hop: mapped,
        client: mapped,
        ..STRANGER
    };
    let request = composed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &forwarding);
    assert!(
        request.contains("X-Forwarded-For: 192.0.2.1\r\nX-Real-IP: 192.0.2.1\r\n"),
        "{request}"
    );
}

#[test]
fn a_url_becomes_path_and_host() {
    for (target, line, host) in [
        (
            "http://Example.org:81/a/../b?c",
            "GET /a/../b?c HTTP/1.1",
            "Host: Example.org:81",
        ),
        ("ws://example.org", "GET / HTTP/1.1", "Host: example.org"),
        ("ws://[::1]:443?q", "GET /?q HTTP/1.1", "Host: [::1]:443"),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nA: b\r\nHost: other\r\nC: d\r\n\r\n");
        let expected = format!("{line}\r\nA: b\r\n{host}\r\nC: d\r\nX-Forwarded-For: ");
        assert!(
            composed(request.as_bytes(), &TRUSTED).starts_with(&expected),
            "{target}"
        );
    }
}

#[test]
fn one_allocation_is_enough() {
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {CLIENT}\r\nX-Real-IP: ::1\r\n\r\n");
    let head = head_of(request.as_bytes());
    let longest = Some("2001:db80:2001:db80:2001:db80:2001:db80".parse().unwrap());
    let forwarding = Forwarding {
        hop: longest,
        hop_trusted: true,
        client: longest,
        proto: "https",
        send: SendMode::Append,
    };
    let capacity = capacity_for(&head);
    assert!(request_for_server(&head, &forwarding).len() <= capacity);
}

/// A header that names a client: in any case, with `_` for any `-`, and with or without the prefix of CGI.
fn spelling() -> impl Strategy<Value = String> {
    let names = CLIENT_HEADERS
        .into_iter()
        .chain(["x-forwarded-for", "x-forwarded-proto", "x-forwarded-anything"]);
    let name = prop::sample::select(names.collect::<Vec<_>>());
    (name, any::<bool>(), any::<u32>(), any::<u32>()).prop_map(|(name, cgi, cases, dashes)| {
        let name = if cgi { format!("http-{name}") } else { name.to_owned() };
        let respell = |(index, letter): (usize, char)| match letter {
            '-' if dashes >> (index % 32) & 1 == 1 => '_',
            letter if cases >> (index % 32) & 1 == 1 => letter.to_ascii_uppercase(),
            letter => letter,
        };
        name.chars().enumerate().map(respell).collect()
    })
}

proptest! {
    #[test]
    fn no_spelling_lets_a_stranger_forge_a_client(names in prop::collection::vec(spelling(), 1..8)) {
        let lines = names.join(": forged\r\n") + ": forged\r\n";
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        prop_assert!(!composed(request.as_bytes(), &STRANGER).contains("forged"));
    }

    #[test]
    fn no_underscore_passes_even_from_a_trusted_hop(name in spelling()) {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{name}: forged\r\n\r\n");
        let composed = composed(request.as_bytes(), &TRUSTED);
        prop_assert!(!name.contains('_') || !composed.contains("forged"));
    }

    #[test]
    fn a_composed_request_reads_as_what_was_sent(
        target in "/[!-\"$-~é]{0,40}",
        headers in prop::collection::vec(("[A-Za-z0-9!_-]{1,20}", "[!-~é]([ -~é]{0,20}[!-~])?"), 0..12),
        trusted in any::<bool>(),
    ) {
        let mut lines = String::new();
        for (name, value) in &headers {
            let is_other = !["host", "connection"].contains(&&*name.to_ascii_lowercase());
            if is_other && !names_client(name.as_bytes()) {
                lines.extend([name, ": ", value, "\r\n"]);
            }
        }
        let request = format!("GET {target} HTTP/1.1\r\nHost: a:1\r\nConnection: x, upgrade\r\n{lines}\r\n");
        let head = head_of(request.as_bytes());
        let forwarding = if trusted { TRUSTED } else { STRANGER };
        let composed = request_for_server(&head, &forwarding);
        let again = head_of(&composed);
        prop_assert_eq!((again.method, again.target, again.authority), (head.method, head.target, head.authority));
        prop_assert_eq!(&again.headers[2..again.headers.len() - 3], &head.headers[2..]);
        prop_assert_eq!(again.values("connection").collect::<Vec<_>>(), [b"Upgrade"]);
        prop_assert!(composed.ends_with(b"\r\n\r\n"));
    }
}
