//! A request head has the same outcome however it is split, and httparse reads it in the same way. It reaches the
//! server as one request with the same target, and with no addresses but the true ones.

#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use wsguard::wire::Step;
use wsguard::wire::http::client_headers::names_client;
use wsguard::wire::http::head::{Head, HeadCaps, HeadFault, HeadScan, Version};
use wsguard::wire::http::server_request::{Forwarding, SendMode, request_for_server};
use wsguard::wire::path::{PathReading, is_below, normal_form};
use wsguard::wire::ws::upgrade_request::{Upgrade, check_upgrade};
use wsguard_fuzz::{Dice, looks};

fuzz_target!(|data: &[u8]| {
    let mut dice = Dice::of(data);
    for caps in [USUAL, narrow(&mut dice)] {
        let whole = HeadScan::default().parse(data, caps);
        assert_eq!(
            in_pieces(data, caps),
            whole,
            "the outcome depends on how it was split: {caps:?}"
        );
        if let Ok(Step::Done { value: head, used }) = whole.clone() {
            assert!(used <= data.len() && used <= caps.max_size && head.headers.len() <= caps.max_headers);
            // Bytes behind the head have no influence, and no shorter head is complete.
            assert_eq!(HeadScan::default().parse(&data[..used], caps), whole);
            assert_eq!(HeadScan::default().parse(&data[..used - 1], caps), Ok(Step::More));
            httparse_reads(&data[..used], &head);
            path_reads(&head);
            let upgrade = check_upgrade(&head);
            if head.version == Version::Http11 {
                composes(&head, upgrade.ok());
            }
        }
    }
});

/// Parses the pieces one after the other, as the scan keeps its position. Returns the first answer.
fn in_pieces(data: &[u8], caps: HeadCaps) -> Result<Step<Head<'_>>, HeadFault> {
    let mut scan = HeadScan::default();
    looks(data)
        .map(|end| scan.parse(&data[..end], caps))
        .find(|parsed| *parsed != Ok(Step::More))
        .unwrap_or(Ok(Step::More))
}

fn httparse_reads(bytes: &[u8], head: &Head<'_>) {
    // httparse refuses targets that are not UTF-8.
    if str::from_utf8(head.target).is_err() {
        return;
    }
    let mut headers = [httparse::EMPTY_HEADER; USUAL.max_headers];
    let mut request = httparse::Request::new(&mut headers);
    let parsed = request.parse(bytes);
    assert_eq!(parsed, Ok(httparse::Status::Complete(bytes.len())));
    assert_eq!(request.method.map(str::as_bytes), Some(head.method));
    assert_eq!(request.version, Some(u8::from(head.version == Version::Http11)));
    assert_eq!(request.headers, head.headers);
    let target = request.path.expect("it is complete").as_bytes();
    if head.absolute_form {
        assert!(target.ends_with(head.target) || head.target == b"/");
    } else {
        assert_eq!(target, head.target);
    }
}

fn path_reads(head: &Head<'_>) {
    let reading = PathReading::of(head.path(), head.absolute_form);
    assert!(head.path().starts_with(b"/") && reading.normal.starts_with(b"/"));
    assert!(is_below(&reading.normal, b"/") && is_below(&reading.normal, &reading.normal));
    if reading.plain {
        assert_eq!(*reading.normal, *head.path());
    }
    if !reading.normal.contains(&b'%') {
        assert_eq!(
            normal_form(&reading.normal),
            reading.normal,
            "nothing is left to resolve"
        );
    }
    let mut segments = reading.normal.split(|byte| *byte == b'/');
    assert!(!segments.any(|segment| matches!(segment, b"." | b"..") || segment.contains(&b'\\')));
}

fn composes(head: &Head<'_>, upgrade: Option<Upgrade<'_>>) {
    let untrusted = Forwarding {
        hop: Some(HOP),
        hop_trusted: false,
        client: Some(HOP),
        proto: "https",
        send: SendMode::Append,
    };
    let trusted = Forwarding {
        hop_trusted: true,
        client: Some(CLIENT),
        ..untrusted
    };
    let unix = Forwarding {
        hop: None,
        client: None,
        ..trusted
    };
    for forwarding in [untrusted, trusted, unix] {
        let request = request_for_server(head, &forwarding);
        let composed = match HeadScan::default().parse(&request, WIDE) {
            Ok(Step::Done { value, used }) if used == request.len() => value,
            // Every head has a Host line. If its target is a URL, the authority of the URL replaces the value of that
            // line.
            other => panic!("composed as {}: {other:?}", request.escape_ascii()),
        };
        let origin_form = [if head.target.starts_with(b"/") { &b""[..] } else { b"/" }, head.target].concat();
        assert_eq!((composed.method, composed.target), (head.method, &*origin_form));
        assert_eq!((composed.authority, composed.path()), (head.authority, head.path()));
        assert_eq!((composed.version, composed.absolute_form), (Version::Http11, false));
        assert_eq!(
            others(&composed),
            others(head),
            "headers that do not name the client pass unchanged"
        );
        if let Some(upgrade) = upgrade {
            assert_eq!(check_upgrade(&composed), Ok(upgrade));
        }
        names_the_true_client(head, &composed, &forwarding);
    }
}

fn names_the_true_client(head: &Head<'_>, composed: &Head<'_>, forwarding: &Forwarding) {
    let naming: Vec<(String, &[u8])> = composed
        .headers
        .iter()
        .filter(|header| names_client(header.name.as_bytes()))
        .map(|header| (header.name.to_ascii_lowercase(), header.value))
        .collect();
    assert!(naming.iter().all(|(name, _)| !name.contains('_')), "{naming:?}");
    let values = |name: &str| -> Vec<&[u8]> {
        let named = naming.iter().filter(|(given, _)| given == name);
        named.map(|(_, value)| *value).collect()
    };
    let (hop, client) = (HOP.to_string(), forwarding.client.map(|client| client.to_string()));
    if !forwarding.hop_trusted {
        // Nothing that the client said about itself is left, and each of these headers is there once.
        assert_eq!(naming.len(), 3, "{naming:?}");
        assert_eq!(values("x-forwarded-for"), [hop.as_bytes()]);
        assert_eq!(values("x-real-ip"), [hop.as_bytes()]);
        assert_eq!(values("x-forwarded-proto"), [b"https"]);
        return;
    }
    if let Some(client) = client {
        assert_eq!(values("x-real-ip"), [client.as_bytes()]);
    }
    assert!(!values("x-forwarded-proto").is_empty());
    let sent: Vec<&[u8]> = head.values("x-forwarded-for").filter(|line| !line.is_empty()).collect();
    let hop = forwarding.hop.map(|_| hop.as_bytes());
    let joined = sent.into_iter().chain(hop).collect::<Vec<_>>().join(&b", "[..]);
    let expected = if joined.is_empty() { vec![] } else { vec![&*joined] };
    assert_eq!(values("x-forwarded-for"), expected);
}

/// The names and values of the headers that do not name the client and do not concern the connection.
fn others<'b>(head: &Head<'b>) -> Vec<(&'b str, &'b [u8])> {
    let passes =
        |name: &str| !names_client(name.as_bytes()) && !["connection", "host"].contains(&&*name.to_ascii_lowercase());
    let headers = head.headers.iter().filter(|header| passes(header.name));
    headers.map(|header| (header.name, header.value)).collect()
}

fn narrow(dice: &mut Dice) -> HeadCaps {
    HeadCaps {
        max_size: dice.below(300),
        max_headers: dice.below(8),
    }
}

const USUAL: HeadCaps = HeadCaps {
    max_size: 16 * 1024,
    max_headers: 64,
};
/// Limits for the request to the server, which is larger than the client's request.
const WIDE: HeadCaps = HeadCaps {
    max_size: 64 * 1024,
    max_headers: 128,
};
/// Addresses that no input has by chance.
const HOP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 77));
const CLIENT: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xbeef));
