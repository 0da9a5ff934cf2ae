//! The files of conf/examples, unchanged except for their addresses. Each one does what its head says.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::rig::{Answer, Backend, Began, Request, Rig, Socket, close_code, frame, ip, masked, until, wsguard};

const TEXT: u8 = 1;
const TOO_MANY: &str = "Too many connections from this IP";
const TOO_OFTEN: &str = "Too many connection attempts from this IP";
const AT_CAPACITY: &str = "Server at capacity";

#[test]
fn a_chat_of_100_admits_five_of_a_scanners_twelve_and_the_next_one_when_a_slot_is_free() {
    let backend = Backend::listening();
    let rig = started(&text_of("a-chat"), &backend);
    let ask = |client: &str| rig.try_open(ip(1), &Request::to("/").add("X-Real-IP", client));
    let start = Instant::now();
    let twelve: Vec<_> = (0..12).map(|_| ask("203.0.113.1")).collect();
    assert!(start.elapsed() < Duration::from_millis(800));
    let (mut open, refused): (Vec<_>, Vec<_>) = twelve.into_iter().partition(Result::is_ok);
    assert_eq!((open.len(), refused.len()), (5, 7));
    for answer in refused.into_iter().filter_map(Result::err) {
        answer.assert_refusal("429 Too Many Requests", "per_ip", TOO_MANY);
    }
    open.pop();
    open.push(until("the freed place", || ask("203.0.113.1").ok().map(Ok)));
    for n in 5..100 {
        open.push(ask(&format!("203.0.113.{}", n / 5 + 1)));
    }
    assert!(open.iter().all(Result::is_ok));
    refused_by(ask("203.0.113.200")).assert_refusal("503 Service Unavailable", "zone_full", AT_CAPACITY);
    assert_eq!(backend.dials(), 101);
    let mut one = open.pop().unwrap().ok().unwrap();
    one.send(&masked(TEXT, b"x").repeat(6));
    assert_eq!(close_code(&one.read_to_end().0), Some(1008));
    assert_eq!(rig.access("message_rate")["messages_in"], 5);
}

#[test]
fn exactly_the_burst_of_messages_passes_at_once() {
    for (example, path, passed) in [
        ("b-course", "/ws", 20),
        ("b-course", "/gateway", 120),
        ("socket-io", "/", 60),
        ("mastodon-streaming", "/", 10),
    ] {
        let backend = Backend::listening();
        let rig = started(&text_of(example), &backend);
        let mut socket = rig.try_open(ip(1), &client(path, "203.0.113.1")).ok().unwrap();
        socket.send(&masked(TEXT, b"x").repeat(passed + 1));
        assert_eq!(close_code(&socket.read_to_end().0), Some(1008), "{example} {path}");
        assert_eq!(rig.access("message_rate")["messages_in"], passed, "{example} {path}");
    }
}

#[test]
fn etherpad_has_100_sockets_an_address_and_5_messages_a_second_for_all_of_them_and_says_blocked() {
    let backend = Backend::listening();
    let rig = started(&text_of("c-etherpad"), &backend);
    let ask = |address: &str| rig.try_open(ip(1), &client("/", address));
    let mut open: Vec<Socket> = (0..100).map(|_| ask("203.0.113.1").ok().unwrap()).collect();
    refused_by(ask("203.0.113.1")).assert_refusal("429 Too Many Requests", "per_ip", TOO_MANY);
    let allowed: Vec<Socket> = (0..101).map(|_| ask("198.51.100.1").ok().unwrap()).collect();
    // Twenty tabs reload together, and each begins as Socket.IO does: 40 messages of the 50 that may come at once.
    let begins = [masked(TEXT, b"2probe"), masked(TEXT, b"5")].concat();
    let start = Instant::now();
    for tab in &mut open[..20] {
        tab.send(&begins);
    }
    for place in 0..20 {
        backend.visit(place).tail_of(begins.len());
    }
    open[20].send(&masked(TEXT, b"x").repeat(60));
    let (_, notice) = open[20].read_frame();
    // A token comes back every 200 ms. A slow machine may see some.
    let back = u64::try_from(start.elapsed().as_millis() / 200).unwrap();
    let notice = String::from_utf8(notice).unwrap();
    let number = notice
        .strip_prefix("42[\"blocked\",{\"retry-ms\":")
        .and_then(|rest| rest.strip_suffix("}]"));
    let ms: u32 = number.unwrap_or_else(|| panic!("{notice}")).parse().unwrap();
    assert!((1..=200).contains(&ms), "{notice}");
    assert_eq!(close_code(&open[20].read_to_end().0), Some(1008));
    let passed = rig.access("message_rate")["messages_in"].as_u64().unwrap();
    assert!((10..=10 + back).contains(&passed), "{passed}, {back} came back");
    drop(allowed);
}

#[test]
fn etherpad_may_send_500_messages_a_second_to_an_address_and_a_mebibyte_a_second_to_each_connection() {
    let (small, large) = (frame(TEXT, b"x"), frame(2, &vec![b'x'; 64 << 10]));
    let sent = [small.repeat(1000), large.repeat(48)];
    let backend = {
        let sent = sent.clone();
        Backend::start(move |guest| {
            guest.open();
            let sent = &sent[guest.place()];
            guest.send(sent);
            guest.read_to_end();
        })
    };
    let rig = started(&text_of("c-etherpad"), &backend);
    let addresses = ["203.0.113.1", "203.0.113.2"];
    let mut sockets = addresses.map(|address| Began::with(|| rig.try_open(ip(1), &client("/", address)).ok().unwrap()));
    // 500 messages pass at once, and 500 more in the next second. One mebibyte passes at once, and two more in two
    // seconds.
    for ((began, socket), (sent, seconds)) in sockets.iter_mut().zip(sent.iter().zip([1, 2])) {
        assert!(socket.read_exactly(sent.len()) == *sent);
        let due = Duration::from_secs(seconds);
        began.assert_took(due * 9 / 10..due + Duration::from_secs(3));
    }
}

#[test]
fn the_relay_closes_with_1013_and_both_texts_and_federation_goes_on_beside_a_full_budget() {
    let backend = Backend::listening();
    let whole = started(&text_of("d-relay"), &backend);
    assert_eq!(whole.count(r#"wsguard_connections_limit{zone="default"}"#), 10_000);
    drop(whole);
    // 10 000 sockets are more than a test should open.
    let text = replaced(&text_of("d-relay"), "connections = 10_000", "connections = 60");
    let rig = started(&text, &backend);
    let ask = |path: &str, forwarded: &str| rig.send(client(path, forwarded));
    let mut open: Vec<Socket> = (0..50).map(|_| ask("/", "203.0.113.1")).collect();
    for socket in &mut open {
        assert!(socket.read_head().starts_with(b"HTTP/1.1 101 "));
    }
    closed_with_1013(ask("/", "203.0.113.1"), TOO_MANY);
    closed_with_1013(ask("/", "198.51.100.7, 8.8.8.8, 203.0.113.1"), TOO_MANY);
    closed_with_1013(ask("/federation", "198.51.100.7, 203.0.113.1"), TOO_MANY);
    for _ in 0..10 {
        open.push(rig.try_open(ip(1), &client("/", "203.0.113.2")).ok().unwrap());
    }
    closed_with_1013(ask("/", "203.0.113.3"), AT_CAPACITY);
    closed_with_1013(ask("/server", "203.0.113.3"), AT_CAPACITY);
    for path in ["/federation", "/server", "/server/a"] {
        open.push(rig.try_open(ip(1), &client(path, "198.51.100.7")).ok().unwrap());
    }
    assert_eq!(backend.dials(), 63);
    assert_eq!(rig.count(r#"wsguard_connections_limit{zone="default"}"#), 60);
    assert_eq!(rig.count(r#"wsguard_connections{zone="exempt"}"#), 3);
}

#[test]
fn against_exhaustion_there_are_20_an_address_and_5_seconds_for_a_head() {
    let backend = Backend::listening();
    let rig = started(&text_of("e-exhaustion"), &backend);
    let mut half = rig.send("GET / HTTP/1.1\r\n");
    let start = Instant::now();
    assert_connection_limit(&rig, 20);
    assert_eq!(half.answer().status(), 408);
    let took = start.elapsed();
    assert!(
        (Duration::from_millis(4500)..Duration::from_secs(8)).contains(&took),
        "{took:?}"
    );
}

#[test]
fn against_exhaustion_an_address_that_has_spent_20_attempts_has_5_a_second() {
    let backend = Backend::listening();
    let rig = started(&text_of("e-exhaustion"), &backend);
    let ask = || rig.try_open(ip(1), &client("/", "203.0.113.1"));
    let start = Instant::now();
    let open: Vec<Socket> = (0..20).map(|_| ask().ok().unwrap()).collect();
    drop(open);
    rig.expect(r#"wsguard_connections{zone="default"}"#, 0);
    let mut more = 0.0;
    let refusal = loop {
        match ask() {
            Ok(_) => more += 1.0,
            Err(answer) => break answer,
        }
    };
    refusal.assert_refusal("429 Too Many Requests", "per_ip_rate", TOO_OFTEN);
    assert!(more <= start.elapsed().as_secs_f64() * 5.0, "{more}");
}

#[test]
fn behind_nginx_the_forwarded_address_counts() {
    let backend = Backend::listening();
    assert_connection_limit(&started(&text_of("behind-nginx"), &backend), 50);
}

#[test]
fn behind_haproxy_the_address_of_the_proxy_header_counts() {
    let backend = Backend::listening();
    let rig = started(&text_of("behind-haproxy"), &backend);
    let ask = |last: u8| {
        let header = format!("PROXY TCP4 203.0.113.{last} 192.0.2.1 50000 443\r\n");
        rig.send([header.as_bytes(), Request::to("/").as_ref()].concat())
    };
    let mut open: Vec<Socket> = (0..50).map(|_| ask(1)).collect();
    open.push(ask(2));
    for socket in &mut open {
        assert!(socket.read_head().starts_with(b"HTTP/1.1 101 "));
    }
    ask(1)
        .answer()
        .assert_refusal("429 Too Many Requests", "per_ip", TOO_MANY);
    assert_eq!(rig.access("per_ip")["client"], "203.0.113.1");
}

#[test]
fn a_header_is_ignored_if_the_client_bypasses_cloudflare_or_nginx() {
    for (example, header) in [
        ("behind-cloudflare", "CF-Connecting-IP"),
        ("beside-nginx", "X-Forwarded-For"),
    ] {
        let backend = Backend::listening();
        let rig = started(&text_of(example), &backend);
        let ask = |n: u8| rig.try_open(ip(1), &Request::to("/").add(header, format!("203.0.113.{n}")));
        let open: Vec<Socket> = (0..50).map(|n| ask(n).ok().unwrap()).collect();
        refused_by(ask(50)).assert_refusal("429 Too Many Requests", "per_ip", TOO_MANY);
        assert_eq!(backend.visit(0).header("X-Real-IP"), ["127.0.0.1"], "{example}");
        drop(open);
    }
}

#[test]
fn beside_nginx_a_page_from_elsewhere_is_refused() {
    let backend = Backend::listening();
    let rig = started(&text_of("beside-nginx"), &backend);
    let from = |origin: &str| Request::to("/").add("Origin", origin);
    assert_eq!(rig.ask(from("http://evil.example")).status(), 403);
    assert!(rig.try_open(ip(1), &from("http://chat.example.org")).is_ok());
}

#[test]
fn federation_is_for_the_named_networks_alone_and_200_of_theirs() {
    let backend = Backend::listening();
    let rig = started(&text_of("relay-federation"), &backend);
    let ask = |path: &str, from: &str| rig.try_open(ip(1), &client(path, from));
    let open: Vec<Socket> = (0..200)
        .map(|_| ask("/federation", "198.51.100.7").ok().unwrap())
        .collect();
    let full = refused_by(ask("/federation", "198.51.100.8"));
    full.assert_refusal("503 Service Unavailable", "zone_full", AT_CAPACITY);
    let forged = refused_by(ask("/federation", "198.51.100.7, 203.0.113.1"));
    assert_eq!(forged.status(), 403);
    assert!(ask("/", "203.0.113.1").is_ok());
    drop(open);
}

#[test]
fn socket_io_and_mastodon_clients_get_1009_for_a_message_above_the_size() {
    for (example, size) in [("socket-io", 1 << 20), ("mastodon-streaming", 16 << 10)] {
        let backend = Backend::listening();
        let rig = started(&text_of(example), &backend);
        let mut socket = rig.try_open(ip(1), &client("/", "203.0.113.1")).ok().unwrap();
        let mut message = masked(TEXT, &vec![b'x'; size + 1]);
        message.truncate(14);
        socket.send(&message);
        assert_eq!(close_code(&socket.read_to_end().0), Some(1009), "{example}");
    }
}

#[test]
fn a_socket_io_client_comes_to_the_same_of_two_servers_every_time() {
    let backends = [Backend::listening(), Backend::listening()];
    let text = replaced(
        &text_of("socket-io"),
        "127.0.0.1:3001",
        &backends[1].address().to_string(),
    );
    let text = replaced(&text, "127.0.0.1:3000", &backends[0].address().to_string());
    let text = replaced(&text, "127.0.0.1:8080", "127.0.0.1:0");
    let rig = Rig::before(&backends[0]).config(&text).start();
    let mut served = [0, 0];
    for n in 0..20 {
        let ask = || {
            rig.try_open(ip(1), &client("/", &format!("203.0.113.{n}")))
                .ok()
                .unwrap()
        };
        let open: Vec<Socket> = (0..3).map(|_| ask()).collect();
        let now = backends.each_ref().map(Backend::dials);
        let came = [now[0] - served[0], now[1] - served[1]];
        assert!(came == [3, 0] || came == [0, 3], "client {n}: {came:?}");
        served = now;
        drop(open);
    }
    assert!(served.iter().all(|&number| number > 0), "{served:?}");
}

#[test]
fn a_misspelt_key_in_any_example_is_reported_with_its_place_and_the_right_key() {
    let keys = [
        ("a-chat", "headers"),
        ("b-course", "burst"),
        ("behind-cloudflare", "trusted_proxies"),
        ("behind-haproxy", "accept_proxy_protocol"),
        ("behind-nginx", "trusted_proxies"),
        ("beside-nginx", "origins"),
        ("c-etherpad", "out_per_ip_rate"),
        ("d-relay", "reject_with"),
        ("e-exhaustion", "first_message"),
        ("mastodon-streaming", "max_size"),
        ("relay-federation", "networks"),
        ("socket-io", "balance"),
    ];
    let folder = fs::read_dir(path_of("a-chat").parent().unwrap()).unwrap();
    assert_eq!(folder.count(), keys.len(), "every example is here");
    for (example, key) in keys {
        let text = fs::read_to_string(path_of(example)).unwrap();
        let line = text.lines().position(|line| line.starts_with(&format!("{key} =")));
        let line = line.unwrap_or_else(|| panic!("{key} in {example}")) + 1;
        let short = &key[..key.len() - 1];
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("wsguard.toml");
        fs::write(&file, text.replacen(&format!("\n{key} ="), &format!("\n{short} ="), 1)).unwrap();
        let output = wsguard().arg("check").arg(&file).output().unwrap();
        let output_text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{example}: {output_text}");
        for part in [
            &format!("{}:{line}:1", file.display()),
            "did you mean",
            &format!("`{key}`"),
        ] {
            assert!(output_text.contains(part), "{part} for {example}: {output_text}");
        }
    }
}

/// Checks that exactly `limit` connections of one address are admitted, while another address still gets in.
fn assert_connection_limit(rig: &Rig, limit: usize) {
    let ask = |address: &str| rig.try_open(ip(1), &client("/", address));
    let open: Vec<Socket> = (0..limit).map(|_| ask("203.0.113.1").ok().unwrap()).collect();
    refused_by(ask("8.8.8.8, 203.0.113.1")).assert_refusal("429 Too Many Requests", "per_ip", TOO_MANY);
    assert!(ask("203.0.113.2").is_ok());
    drop(open);
}

fn client(path: &str, forwarded: &str) -> Request {
    Request::to(path).add("X-Forwarded-For", forwarded)
}

fn refused_by(outcome: Result<Socket, Answer>) -> Answer {
    outcome.err().expect("a refusal")
}

fn closed_with_1013(mut socket: Socket, text: &str) {
    assert!(socket.read_head().starts_with(b"HTTP/1.1 101 "));
    let (heard, _) = socket.read_to_end();
    assert_eq!(close_code(&heard), Some(1013));
    assert_eq!(&heard[4..], text.as_bytes());
}

fn path_of(example: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conf/examples");
    folder.join(example).with_extension("toml")
}

fn text_of(example: &str) -> String {
    fs::read_to_string(path_of(example)).unwrap()
}

/// Starts a guard with this file, with this test's addresses in place of the ones in the file.
fn started(text: &str, backend: &Backend) -> Rig {
    let bind = text.lines().find(|line| line.starts_with("bind = ")).expect("a bind");
    let text = replaced(text, bind, "bind = [\"127.0.0.1:0\"]");
    let servers = text.lines().find(|line| line.starts_with("servers = "));
    let address = format!("servers = [\"{}\"]", backend.address());
    Rig::before(backend)
        .config(&replaced(&text, servers.expect("servers"), &address))
        .start()
}

fn replaced(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from} stands there once");
    text.replace(from, to)
}
