//! The client of a connection. Forwarding headers count if a trusted proxy sends them. If anyone else sends them, they
//! change neither the limits nor what the server gets.

use std::net::IpAddr;

use crate::rig::{Backend, Request, Rig, ip};

/// Our proxies have the addresses 127.0.1.x. Other clients have 127.0.0.x.
const TRUSTED: &str = "[client_ip]\ntrusted_proxies = [\"127.0.1.0/24\"]\n";

#[test]
fn x_forwarded_for_is_walked_from_the_right_while_hops_are_trusted() {
    let deep = vec!["127.0.1.7"; 31].join(", ");
    let (at_32, at_33) = (
        format!("127.0.1.33, {deep}"),
        format!("203.0.113.7, 127.0.1.32, {deep}"),
    );
    client_is(
        TRUSTED,
        &[
            ("one client", &[("X-Forwarded-For", "203.0.113.7")], "203.0.113.7"),
            (
                "what the client wrote stands left",
                &[("X-Forwarded-For", "8.8.8.8, 203.0.113.7")],
                "203.0.113.7",
            ),
            (
                "a trusted hop is passed",
                &[("X-Forwarded-For", "8.8.8.8, 203.0.113.7,127.0.1.9")],
                "203.0.113.7",
            ),
            (
                "lines are one list",
                &[("X-Forwarded-For", "8.8.8.8"), ("x-forwarded-for", "203.0.113.7")],
                "203.0.113.7",
            ),
            (
                "the last line is the right end",
                &[("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-For", "127.0.1.9")],
                "203.0.113.7",
            ),
            (
                "all trusted: the leftmost",
                &[("X-Forwarded-For", "127.0.1.8, 127.0.1.9")],
                "127.0.1.8",
            ),
            (
                "all 32 trusted: the leftmost",
                &[("X-Forwarded-For", &at_32)],
                "127.0.1.33",
            ),
            (
                "after 32 trusted ones, the 32nd",
                &[("X-Forwarded-For", &at_33)],
                "127.0.1.32",
            ),
            (
                "a port is left off",
                &[("X-Forwarded-For", "203.0.113.7:1234")],
                "203.0.113.7",
            ),
            ("an IPv6 address", &[("X-Forwarded-For", "2001:db8::7")], "2001:db8::7"),
            ("in brackets", &[("X-Forwarded-For", "[2001:db8::7]")], "2001:db8::7"),
            (
                "with a port",
                &[("X-Forwarded-For", "[2001:db8::7]:443")],
                "2001:db8::7",
            ),
            (
                "blanks and tabs around it",
                &[("X-Forwarded-For", " \t203.0.113.7\t ")],
                "203.0.113.7",
            ),
            ("no header: the hop", &[], "127.0.1.1"),
            (
                "garbage: the hop",
                &[("X-Forwarded-For", "203.0.113.7, garbage")],
                "127.0.1.1",
            ),
            (
                "garbage further left: the good one right of it",
                &[("X-Forwarded-For", "203.0.113.7, garbage, 127.0.1.9")],
                "127.0.1.9",
            ),
            (
                "garbage left of the client does not matter",
                &[("X-Forwarded-For", "garbage, 203.0.113.7")],
                "203.0.113.7",
            ),
            ("octal-looking", &[("X-Forwarded-For", "203.0.113.010")], "127.0.1.1"),
            ("empty", &[("X-Forwarded-For", "")], "127.0.1.1"),
            ("an empty hop", &[("X-Forwarded-For", "203.0.113.7,")], "127.0.1.1"),
            ("unknown", &[("X-Forwarded-For", "unknown")], "127.0.1.1"),
            ("hidden", &[("X-Forwarded-For", "_hidden")], "127.0.1.1"),
            ("too short", &[("X-Forwarded-For", "203.0.113")], "127.0.1.1"),
            ("an open bracket", &[("X-Forwarded-For", "[2001:db8::7")], "127.0.1.1"),
            ("X-Real-IP is not asked", &[("X-Real-IP", "203.0.113.7")], "127.0.1.1"),
        ],
    );
}

#[test]
fn x_real_ip_counts_when_there_is_exactly_one() {
    client_is(
        &format!("{TRUSTED}headers = [\"x-real-ip\"]\n"),
        &[
            ("one", &[("X-Real-IP", "203.0.113.7")], "203.0.113.7"),
            (
                "two",
                &[("X-Real-IP", "203.0.113.7"), ("X-Real-IP", "203.0.113.7")],
                "127.0.1.1",
            ),
            (
                "two in one line",
                &[("X-Real-IP", "203.0.113.7, 203.0.113.8")],
                "127.0.1.1",
            ),
            ("garbage", &[("X-Real-IP", "me")], "127.0.1.1"),
            ("none", &[("X-Forwarded-For", "203.0.113.7")], "127.0.1.1"),
        ],
    );
}

#[test]
fn forwarded_is_read_as_rfc_7239_writes_it() {
    client_is(
        &format!("{TRUSTED}headers = [\"forwarded\"]\n"),
        &[
            ("plain", &[("Forwarded", "for=203.0.113.7")], "203.0.113.7"),
            (
                "with others",
                &[("Forwarded", "proto=https;For=203.0.113.7;by=127.0.1.1")],
                "203.0.113.7",
            ),
            (
                "quoted IPv6",
                &[("Forwarded", "for=\"[2001:db8::7]:443\"")],
                "2001:db8::7",
            ),
            (
                "a list",
                &[("Forwarded", "for=8.8.8.8, for=203.0.113.7, for=127.0.1.9")],
                "203.0.113.7",
            ),
            (
                "a comma inside quotes is no comma",
                &[("Forwarded", "for=203.0.113.7;host=\"a,for=8.8.8.8\"")],
                "203.0.113.7",
            ),
            ("unknown", &[("Forwarded", "for=unknown")], "127.0.1.1"),
            ("hidden", &[("Forwarded", "for=\"_gazonk\"")], "127.0.1.1"),
            ("no for", &[("Forwarded", "proto=https")], "127.0.1.1"),
        ],
    );
}

#[test]
fn of_several_headers_only_the_first_that_is_present_is_read() {
    client_is(
        &format!("{TRUSTED}headers = [\"cf-connecting-ip\", \"x-forwarded-for\"]\n"),
        &[
            (
                "the first",
                &[("CF-Connecting-IP", "203.0.113.7"), ("X-Forwarded-For", "8.8.8.8")],
                "203.0.113.7",
            ),
            ("the second", &[("X-Forwarded-For", "203.0.113.7")], "203.0.113.7"),
            (
                "no fall-through",
                &[("CF-Connecting-IP", "garbage"), ("X-Forwarded-For", "8.8.8.8")],
                "127.0.1.1",
            ),
        ],
    );
}

#[test]
fn forwarding_headers_of_a_stranger_change_neither_the_limits_nor_what_the_server_gets() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, &format!("{TRUSTED}[limits]\nper_ip = 1"));
    let mut forged = Request::to("/ws");
    for name in FORGEABLE {
        forged = forged.add(name, "203.0.113.7");
    }
    let open = rig.try_open(ip(1), &forged).ok().unwrap();
    assert_eq!(
        rig.ask(Request::to("/ws").add("X-Forwarded-For", "203.0.113.8"))
            .status(),
        429
    );

    let mut lines = head_lines(&backend.last_head());
    assert_eq!(lines.remove(0), "GET /ws HTTP/1.1");
    lines.sort_unstable_by_key(|line| line.to_ascii_lowercase());
    let mut expected = vec![
        "connection: Upgrade",
        "host: chat.example.org",
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-version: 13",
        "upgrade: websocket",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-real-ip: 127.0.0.1",
    ];
    expected.sort_unstable();
    assert_eq!(lines, expected, "nothing forged, nothing else added");
    assert_eq!(backend.dials(), 1);
    assert_eq!(rig.count(r#"wsguard_untrusted_forwarded_total{listener="front"}"#), 2);
    drop(open);
    rig.quiet();
}

const FORGEABLE: &[&str] = &[
    "X-Forwarded-For",
    "x-forwarded-for",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Anything",
    "Forwarded",
    "X-Real-IP",
    "X-REAL-IP",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "True-Client-IP",
    "CF-Connecting-IP",
    "X-Forwarded",
    "Client-IP",
    "Forwarded-For",
    "Fly-Client-IP",
    "Fastly-Client-IP",
    "CF-Connecting-IPv6",
    "CF-Pseudo-IPv4",
    "X-Envoy-External-Address",
    "X-Original-Forwarded-For",
    "X-ProxyUser-Ip",
    "X-Remote-Addr",
    "X-Remote-IP",
    "Remote-Addr",
    "X-Azure-ClientIP",
    "X-Azure-SocketIP",
    "X-Appengine-User-Ip",
    "X-Originating-IP",
    "X-NginX-Proxy",
    "Ali-CDN-Real-IP",
    "CDN-Src-IP",
    "WL-Proxy-Client-IP",
    "Proxy-Client-IP",
    "DO-Connecting-IP",
    "CloudFront-Viewer-Address",
    "X-Vercel-Forwarded-For",
    "HTTP_X_FORWARDED_FOR",
    "HTTP_CLIENT_IP",
    "REMOTE_ADDR",
    "X_Forwarded_For",
    "X-Forwarded_For",
    "X_Real_IP",
    "X-Real_IP",
    "X_Client_IP",
    "True_Client_IP",
    "CF_Connecting_IP",
    "X_Forwarded_Proto",
];

#[test]
fn a_trusted_hop_is_appended_and_the_headers_that_it_sent_are_kept() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, TRUSTED);
    let request = Request::to("/ws")
        .add("X-Forwarded-For", "8.8.8.8, 203.0.113.7")
        .add("X-Forwarded-Proto", "https")
        .add("X-Forwarded-Host", "public.example.org")
        .add("X-Real-IP", "8.8.8.8")
        .add("X_Forwarded_For", "8.8.8.8")
        .add("X_Real_IP", "8.8.8.8");
    let open = rig.try_open("127.0.1.1".parse().unwrap(), &request).ok().unwrap();
    let visit = backend.visit(0);
    assert_eq!(
        visit.header("X-Forwarded-For").join(", "),
        "8.8.8.8, 203.0.113.7, 127.0.1.1"
    );
    assert_eq!(visit.header("X-Real-IP"), ["203.0.113.7"]);
    assert_eq!(visit.header("X-Forwarded-Proto"), ["https"]);
    assert_eq!(visit.header("X-Forwarded-Host"), ["public.example.org"]);
    assert!(
        !visit.head().contains(&b'_'),
        "spellings with _ are removed from everyone"
    );
    assert_eq!(rig.count(r#"wsguard_untrusted_forwarded_total{listener="front"}"#), 0);
    assert_eq!(backend.dials(), 1);
    drop(open);
    rig.quiet();
}

#[test]
fn the_server_gets_the_headers_that_send_says() {
    let proxy: IpAddr = "127.0.1.1".parse().unwrap();
    let request = Request::to("/ws")
        .add("X-Forwarded-For", "8.8.8.8, 203.0.113.7")
        .add("X-Forwarded-Proto", "https")
        .add("X-Forwarded-Host", "public.example.org")
        .add("X-Real-IP", "8.8.8.8")
        .add("Forwarded", "for=203.0.113.7")
        .add("True-Client-IP", "203.0.113.7")
        .add("X_Real_IP", "8.8.8.8");
    // The header comes from the proxy, and from an untrusted client.
    for (send, of_proxy, of_anyone) in [
        (
            "",
            &[
                "forwarded: for=203.0.113.7",
                "true-client-ip: 203.0.113.7",
                "x-forwarded-for: 8.8.8.8, 203.0.113.7, 127.0.1.1",
                "x-forwarded-host: public.example.org",
                "x-forwarded-proto: https",
                "x-real-ip: 203.0.113.7",
            ][..],
            &[
                "x-forwarded-for: 127.0.0.1",
                "x-forwarded-proto: http",
                "x-real-ip: 127.0.0.1",
            ][..],
        ),
        (
            "client",
            &[
                "forwarded: for=203.0.113.7",
                "true-client-ip: 203.0.113.7",
                "x-forwarded-for: 203.0.113.7",
                "x-forwarded-host: public.example.org",
                "x-forwarded-proto: https",
                "x-real-ip: 203.0.113.7",
            ],
            &[
                "x-forwarded-for: 127.0.0.1",
                "x-forwarded-proto: http",
                "x-real-ip: 127.0.0.1",
            ],
        ),
        ("none", &[], &[]),
    ] {
        let backend = Backend::listening();
        let send = if send.is_empty() {
            String::new()
        } else {
            format!("send = {send:?}\n")
        };
        let rig = Rig::start(&backend, &format!("{TRUSTED}{send}[limits]\nper_ip = 1"));
        for (nth, (peer, expected)) in [(proxy, of_proxy), (ip(1), of_anyone)].into_iter().enumerate() {
            let open = rig.try_open(peer, &request).ok().unwrap();
            let mut lines = head_lines(&backend.visit(nth).head());
            lines.retain(|line| !OF_EVERY_UPGRADE.iter().any(|other| line.starts_with(other)));
            lines.sort_unstable();
            assert_eq!(lines, expected, "{send}, from {peer}");
            assert_eq!(rig.ask_from(peer, &request).status(), 429, "and it is counted as ever");
            drop(open);
        }
        assert_eq!(backend.dials(), 2);
        rig.quiet();
    }
}

const OF_EVERY_UPGRADE: [&str; 5] = ["GET ", "connection: ", "host: ", "sec-websocket-", "upgrade: "];

#[test]
fn a_reload_changes_the_headers_of_later_connections() {
    let backend = Backend::listening();
    let text = |send: &str| {
        Rig::before(&backend)
            .config(&format!("{TRUSTED}send = {send:?}"))
            .config("[server]\nwatch_config = false")
            .text()
    };
    let rig = Rig::before(&backend)
        .config(TRUSTED)
        .config("[server]\nwatch_config = false")
        .start();
    let request = Request::to("/ws").add("X-Forwarded-For", "203.0.113.7");
    let open = |n: usize| {
        let socket = rig.try_open("127.0.1.1".parse().unwrap(), &request).ok().unwrap();
        (socket, backend.visit(n).header("X-Forwarded-For"))
    };
    let (first, received) = open(0);
    assert_eq!(received, ["203.0.113.7, 127.0.1.1"]);
    assert_eq!(rig.reload(&text("client")), Ok(()));
    let (second, received) = open(1);
    assert_eq!(received, ["203.0.113.7"]);
    assert_eq!(rig.reload(&text("none")), Ok(()));
    let (third, received) = open(2);
    assert_eq!(received, [""; 0]);
    rig.line("the log says what changed", |line| {
        line["event"] == "reloaded"
            && line["message"]
                .as_str()
                .is_some_and(|message| message.contains("client_ip changed"))
    });
    drop((first, second, third));
    rig.quiet();
}

#[test]
fn no_header_is_dropped_because_connection_names_it() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, TRUSTED);
    let named = "keep-alive, Upgrade, X-Forwarded-For, X-Real-IP, Cookie, Authorization, Sec-WebSocket-Protocol";
    let request = Request::to("/ws")
        .set("Connection", named)
        .add("X-Forwarded-For", "203.0.113.7")
        .add("Cookie", "a=b")
        .add("Authorization", "Bearer c")
        .add("Sec-WebSocket-Protocol", "chat");
    let open = rig.try_open("127.0.1.1".parse().unwrap(), &request).ok().unwrap();
    let visit = backend.visit(0);
    assert_eq!(visit.header("Connection"), ["Upgrade"]);
    assert_eq!(visit.header("X-Real-IP"), ["203.0.113.7"]);
    assert_eq!(visit.header("Cookie"), ["a=b"]);
    assert_eq!(visit.header("Authorization"), ["Bearer c"]);
    assert_eq!(visit.header("Sec-WebSocket-Protocol"), ["chat"]);
    drop(open);
    rig.quiet();
}

#[test]
fn clients_behind_one_proxy_are_counted_one_by_one() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, &format!("{TRUSTED}[limits]\nper_ip = 1"));
    let proxy: IpAddr = "127.0.1.1".parse().unwrap();
    let from = |client: &str| Request::to("/ws").add("X-Forwarded-For", client);
    let open: Vec<_> = (1..20)
        .map(|n| rig.try_open(proxy, &from(&format!("203.0.113.{n}"))).ok().unwrap())
        .collect();
    assert_eq!(rig.ask_from(proxy, from("203.0.113.5")).status(), 429);
    let elsewhere: IpAddr = "127.0.1.2".parse().unwrap();
    assert_eq!(
        rig.ask_from(elsewhere, from("203.0.113.5")).status(),
        429,
        "whichever proxy it comes through"
    );
    assert_eq!(
        rig.ask_from(proxy, from("8.8.8.8, 203.0.113.5")).status(),
        429,
        "whatever it claims before"
    );
    assert_eq!(backend.dials(), 19);
    assert_eq!(rig.count(r#"wsguard_clients{zone="default"}"#), 19);
    drop(open);
    rig.quiet();
    let line = rig.line("the client as it is known", |line| line["client"] == "203.0.113.7");
    assert_eq!(line["key"], "203.0.113.7");
}

#[test]
fn an_ipv6_household_is_one_client_and_its_key_says_so() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, &format!("{TRUSTED}[limits]\nper_ip = 2"));
    let proxy: IpAddr = "127.0.1.1".parse().unwrap();
    let from = |client: &str| Request::to("/ws").add("X-Forwarded-For", client);
    let own = [from("2001:db8:1:2::1"), from("2001:db8:1:2:ffff:ffff:ffff:ffff")];
    let open: Vec<_> = own
        .iter()
        .map(|request| rig.try_open(proxy, request).ok().unwrap())
        .collect();
    assert_eq!(rig.ask_from(proxy, from("2001:db8:1:2::3")).status(), 429);
    let neighbour = rig.try_open(proxy, &from("2001:db8:1:3::1")).ok().unwrap();

    let line = rig.access("per_ip");
    assert_eq!(
        (line["client"].as_str(), line["key"].as_str()),
        (Some("2001:db8:1:2::3"), Some("2001:db8:1:2::/64"))
    );
    assert_eq!((line["open"].as_u64(), line["limit"].as_u64()), (Some(2), Some(2)));
    assert_eq!(backend.dials(), 3);
    drop((open, neighbour));
    rig.quiet();
}

#[test]
fn translated_addresses_count_by_the_ipv4_inside() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, &format!("{TRUSTED}[limits]\nper_ip = 1"));
    let proxy: IpAddr = "127.0.1.1".parse().unwrap();
    let from = |client: &str| Request::to("/ws").add("X-Forwarded-For", client);
    let open = rig.try_open(proxy, &from("203.0.113.7")).ok().unwrap();
    for same in [
        "::ffff:203.0.113.7",
        "64:ff9b::203.0.113.7",
        "2002:cb00:7107::1",
        "2002:cb00:7107:ffff::2",
        "64:ff9b:1::203.0.113.7",
        "64:ff9b:1:cb00:71:700::",
        "2001:0:4136:e378:8000:63bf:34ff:8ef8",
    ] {
        assert_eq!(rig.ask_from(proxy, from(same)).status(), 429, "{same}");
    }
    assert_eq!(backend.dials(), 1);
    drop(open);
    rig.quiet();
}

#[test]
fn clients_behind_a_translator_of_one_s_own_count_by_the_ipv4_inside_and_by_nothing_else() {
    let backend = Backend::listening();
    let translators = "translation_prefixes = [\"2001:db8:64::/96\", \"2001:db8:aaaa::/48\"]\n";
    let routes = "[[route]]\nname = \"inside\"\nnetworks = [\"203.0.113.0/24\"]\n[[route]]\nname = \"rest\"\n";
    let rig = Rig::start(
        &backend,
        &format!("{TRUSTED}{translators}[limits]\nper_ip = 1\n{routes}"),
    );
    let proxy: IpAddr = "127.0.1.1".parse().unwrap();
    let from = |client: &str| Request::to("/ws").add("X-Forwarded-For", client);
    let open = rig.try_open(proxy, &from("2001:db8:64::203.0.113.7")).ok().unwrap();
    for same in ["203.0.113.7", "2001:db8:aaaa:cb00:71:700::"] {
        assert_eq!(rig.ask_from(proxy, from(same)).status(), 429, "{same}");
    }
    let other = rig.try_open(proxy, &from("2001:db8:64::203.0.113.8")).ok().unwrap();
    drop((open, other));
    rig.quiet();
    // Routes and the server get the original address.
    assert_eq!(backend.visit(0).header("X-Real-IP"), ["2001:db8:64::cb00:7107"]);
    let line = rig.line("the line has the address as it came", |line| {
        line["client"] == "2001:db8:64::cb00:7107"
    });
    assert_eq!((&line["key"], &line["route"]), (&"203.0.113.7".into(), &"rest".into()));
    assert_eq!(backend.dials(), 2);
}

#[test]
fn prefixes_can_be_set() {
    let backend = Backend::listening();
    let prefixes = "ipv4_prefix = 24\nipv6_prefix = 48\n";
    let rig = Rig::start(&backend, &format!("{TRUSTED}{prefixes}[limits]\nper_ip = 1"));
    let proxy: IpAddr = "127.0.1.1".parse().unwrap();
    let from = |client: &str| Request::to("/ws").add("X-Forwarded-For", client);
    for (first, same, other) in [
        ("203.0.113.7", "203.0.113.8", "203.0.114.7"),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", "2001:db8:2:2::1"),
    ] {
        let open = [
            rig.try_open(proxy, &from(first)).ok().unwrap(),
            rig.try_open(proxy, &from(other)).ok().unwrap(),
        ];
        assert_eq!(rig.ask_from(proxy, from(same)).status(), 429);
        drop(open);
    }
    assert_eq!(backend.dials(), 4);
    rig.quiet();
}

#[test]
fn a_unix_peer_is_one_client_unless_it_is_trusted() {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    let backend = Backend::listening();
    let dir = tempfile::tempdir().unwrap();
    for (trusted, client) in [("", "unix"), ("trusted_proxies = [\"unix\"]", "203.0.113.7")] {
        let path = dir.path().join(format!("{client}.sock"));
        let listener = format!("[[listener]]\nname = \"front\"\nbind = [\"unix:{}\"]\n", path.display());
        let rig = Rig::before(&backend)
            .config(&format!("{listener}[client_ip]\n{trusted}\n[limits]\nper_ip = 1"))
            .start();
        let open = || {
            let mut stream = UnixStream::connect(&path).unwrap();
            stream
                .write_all(Request::to("/ws").add("X-Forwarded-For", "203.0.113.7").as_ref())
                .unwrap();
            let mut head = [0; 12];
            stream.read_exact(&mut head).unwrap();
            (stream, String::from_utf8_lossy(&head).into_owned())
        };
        let (first, second) = (open(), open());
        assert_eq!((first.1.as_str(), second.1.as_str()), ("HTTP/1.1 101", "HTTP/1.1 429"));
        drop((first, second));
        rig.quiet();
        assert_eq!(rig.access("per_ip")["key"], client);
    }
    assert_eq!(backend.dials(), 2);
}

/// Names and values of headers, in order.
type Headers<'a> = &'a [(&'a str, &'a str)];

/// Checks which client each of these headers names if a trusted hop sends it. From an untrusted client the header has
/// no effect.
fn client_is(config: &str, cases: &[(&str, Headers<'_>, &str)]) {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, config);
    for (what, headers, client) in cases {
        let request = headers
            .iter()
            .fold(Request::to("/ws"), |request, (name, value)| request.add(name, value));
        for (peer, expected) in [("127.0.1.1", *client), ("127.0.0.1", "127.0.0.1")] {
            let dials = backend.dials();
            let open = rig.try_open(peer.parse().unwrap(), &request);
            assert!(open.is_ok(), "{what}: {}", open.err().unwrap());
            assert_eq!(
                backend.visit(dials).header("X-Real-IP"),
                [expected],
                "{what}, from {peer}"
            );
            let hops = backend.visit(dials).header("X-Forwarded-For").join(", ");
            assert!(hops.ends_with(peer), "{what}, from {peer}: {hops}");
        }
    }
    assert_eq!(backend.dials(), 2 * cases.len());
    rig.quiet();
}

fn head_lines(head: &[u8]) -> Vec<String> {
    let text = String::from_utf8(head.to_vec()).unwrap();
    text.split("\r\n")
        .filter(|line| !line.is_empty())
        .map(|line| {
            line.split_once(": ")
                .map_or(line.to_owned(), |(n, v)| format!("{}: {v}", n.to_ascii_lowercase()))
        })
        .collect()
}
