//! How many connections may be open, by address, by zone and in the process, and what a client above a limit gets.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use crate::rig::{
    Answer, Backend, Began, End, Request, Rig, Socket, accept_for, close_code, ip, masked, nth_ip, until,
};

#[test]
fn the_sixth_connection_of_an_address_gets_429_to_the_byte_and_never_reaches_the_server() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits]\nper_ip = 5");
    let five: Vec<Socket> = (0..5).map(|_| rig.open()).collect();
    let mut jitter = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let answer = rig.ask(Request::to("/ws"));
        answer.assert_refusal("429 Too Many Requests", "per_ip", TOO_MANY);
        jitter.insert(answer.retry_after());
    }
    assert!(jitter.len() > 1, "all have the same Retry-After: {jitter:?}");

    let other = rig.open_from(ip(2));
    assert_eq!(
        backend.dials(),
        6,
        "five of the one, one of the other, none of those refused"
    );
    rig.expect(
        r#"wsguard_handshakes_total{zone="default",outcome="rejected",reason="per_ip"}"#,
        20,
    );
    assert_eq!(rig.count(r#"wsguard_connections{zone="default"}"#), 6);
    drop((five, other));
    rig.quiet();
}

#[test]
fn the_101st_of_100_gets_503_from_any_address() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits]\nconnections = 100");
    let open: Vec<Socket> = (0..100).map(|n| rig.open_from(nth_ip(n))).collect();
    for n in [0, 50, 100, 101] {
        rig.ask_from(nth_ip(n), Request::to("/ws"))
            .assert_refusal("503 Service Unavailable", "zone_full", AT_CAPACITY);
    }
    assert_eq!(backend.dials(), 100);
    assert_eq!(rig.count(r#"wsguard_connections{zone="default"}"#), 100);
    assert_eq!(rig.count(r#"wsguard_connections_limit{zone="default"}"#), 100);
    drop(open);
    rig.quiet();
}

#[test]
fn by_default_an_address_may_have_fifty_connections() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "");
    let open: Vec<Socket> = (0..50).map(|_| rig.open()).collect();
    rig.ask(Request::to("/ws"))
        .assert_refusal("429 Too Many Requests", "per_ip", TOO_MANY);
    assert_eq!(backend.dials(), 50);
    drop(open);
    rig.quiet();
}

#[test]
fn close_opens_the_websocket_and_ends_it_with_1013_and_the_text() {
    let backend = Backend::listening();
    let rig = Rig::start(
        &backend,
        "[limits]\nper_ip = 50\nper_ip_rate = \"off\"\nreject_with = \"close\"",
    );
    let open: Vec<Socket> = (0..50).map(|_| rig.open()).collect();

    let plain = rig.ask(Request::to("/ws"));
    assert_closed_with_1013(&plain, TOO_MANY, &[]);
    let offered = Request::to("/ws")
        .add("Sec-WebSocket-Protocol", "chat.v2 , chat.v1")
        .add("Sec-WebSocket-Protocol", "chat.v0")
        .add("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits");
    assert_closed_with_1013(&rig.ask(&offered), TOO_MANY, &["chat.v2"]);

    assert_eq!(backend.dials(), 50);
    rig.expect(
        r#"wsguard_handshakes_total{zone="default",outcome="rejected",reason="per_ip"}"#,
        2,
    );
    drop(open);
    rig.quiet();
}

/// Many clients reconnect immediately when a WebSocket that was open is closed: their back-off starts again with every
/// open.
#[test]
fn a_refusal_by_close_frame_waits_a_second_or_two_with_a_seat_but_no_slot() {
    let backend = Backend::listening();
    let config = "[limits]\nper_ip = 1\nreject_with = \"close\"";
    let rig = Rig::start(&backend, config);
    let _open = rig.open();
    let (asked, mut refused) = Began::with(|| rig.send(Request::to("/ws")));
    assert!(refused.read_head().starts_with(b"HTTP/1.1 101 "));
    // The refusal is counted and logged at once.
    rig.expect(
        r#"wsguard_handshakes_total{zone="default",outcome="rejected",reason="per_ip"}"#,
        1,
    );
    assert_eq!(rig.access("per_ip")["status"], 101);
    assert_eq!(rig.count(r#"wsguard_pending{listener="front"}"#), 1);
    assert_eq!(rig.count("wsguard_process_connections"), 1);
    assert!(refused.is_silent(), "the close frame is still to come");
    // No message from the client makes the close frame come sooner.
    refused.send(&masked(1, b"hello"));
    let (heard, end) = refused.read_to_end();
    asked.assert_took(Duration::from_millis(950)..Duration::from_millis(3500));
    assert_eq!((close_code(&heard), end), (Some(1013), End::Fin));
    drop(refused);
    rig.expect(r#"wsguard_pending{listener="front"}"#, 0);

    // A client that leaves ends the hold.
    for goodbye in [&masked(8, &1000_u16.to_be_bytes())[..], b""] {
        let (asked, mut refused) = Began::with(|| rig.send(Request::to("/ws")));
        assert!(refused.read_head().starts_with(b"HTTP/1.1 101 "));
        refused.send(goodbye);
        if goodbye.is_empty() {
            refused.fin();
        }
        assert_eq!(close_code(&refused.read_to_end().0), Some(1013));
        asked.assert_took(Duration::ZERO..Duration::from_millis(900));
        drop(refused);
        rig.expect(r#"wsguard_pending{listener="front"}"#, 0);
    }
    assert_eq!(backend.dials(), 1);
}

#[test]
fn a_client_whose_refusal_waits_gets_1013_when_its_seat_is_needed() {
    let backend = Backend::listening();
    let rig = Rig::before(&backend)
        .listener("max_pending = 4")
        .config("[limits]\nper_ip = 1\nreject_with = \"close\"")
        .start();
    let _open = rig.open();
    // Sockets without a decision came first, and keep their seats.
    let mut begun = [(); 2].map(|()| rig.send_from(ip(2), "GET /ws HTTP/1.1\r\n"));
    rig.expect(r#"wsguard_pending{listener="front"}"#, 2);
    let (asked, mut held) = Began::with(|| {
        [(); 2].map(|()| {
            let mut held = rig.send(Request::to("/ws"));
            assert!(held.read_head().starts_with(b"HTTP/1.1 101 "));
            held
        })
    });
    let other = rig.open_from(ip(3));
    assert_eq!(close_code(&held[0].read_to_end().0), Some(1013));
    asked.assert_took(Duration::ZERO..Duration::from_millis(900));
    assert!(held[1].is_silent() && begun[0].is_silent() && begun[1].is_silent());
    let rest = &Request::to("/ws").into_bytes()[b"GET /ws HTTP/1.1\r\n".len()..];
    begun[0].send(rest);
    assert!(begun[0].read_head().starts_with(b"HTTP/1.1 101 "), "it is let in");
    assert_eq!(backend.dials(), 3);
    drop(other);
}

#[test]
fn a_socket_io_client_reads_an_error_before_the_close() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits]\nper_ip = 1\nreject_with = \"close\"");
    let _open = rig.open();
    for eio in [3, 4] {
        let target = format!("/socket.io/?EIO={eio}&transport=websocket");
        let (asked, mut refused) = Began::with(|| rig.send(Request::to(target)));
        assert!(refused.read_head().starts_with(b"HTTP/1.1 101 "));
        let error = br#"{"message":"Too many connections from this IP"}"#;
        assert_eq!(refused.read_frame(), (0x81, error.to_vec()));
        asked.assert_took(Duration::ZERO..Duration::from_millis(900));
        assert_eq!(close_code(&refused.read_to_end().0), Some(1013));
    }
    assert_eq!(backend.dials(), 1);
}

#[test]
fn close_says_server_at_capacity_beyond_a_full_zone() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits]\nconnections = 3\nreject_with = \"close\"");
    let open: Vec<Socket> = (1..4).map(|n| rig.open_from(ip(n))).collect();
    assert_closed_with_1013(&rig.ask_from(ip(4), Request::to("/ws")), AT_CAPACITY, &[]);
    assert_eq!(backend.dials(), 3);
    drop(open);
    rig.quiet();
}

#[test]
fn close_answers_in_http_if_there_is_no_upgrade_or_no_limit_refused() {
    let backend = Backend::listening();
    let rig = Rig::start(
        &backend,
        "[limits]\nreject_with = \"close\"\n[[route]]\nname = \"ws\"\npaths = [\"/ws\"]",
    );
    rig.ask(Request::to("/elsewhere"))
        .assert_refusal("404 Not Found", "no_route", "Not found");
    assert_eq!(rig.ask(Request::to("/ws").without("Upgrade")).status(), 426);
    assert_eq!(backend.dials(), 0);
    rig.quiet();
}

#[test]
fn after_1013_the_guard_ends_and_ignores_the_browsers_answer() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits]\nper_ip = 1\nreject_with = \"close\"");
    let _open = rig.open();
    let mut refused = rig.send(Request::to("/ws"));
    let answer = refused.answer();
    assert_closed_with_1013(&answer, TOO_MANY, &[]);
    refused.send(&crate::rig::masked(8, &1013_u16.to_be_bytes()));
    drop(refused);
    rig.expect(r#"wsguard_pending{listener="front"}"#, 0);
    assert_eq!(backend.dials(), 1);
    assert_eq!(backend.visit(0).tail(), b"");
}

#[test]
fn drop_resets_without_a_byte() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits]\nper_ip = 1\nreject_with = \"drop\"");
    let open = rig.open();
    let answer = rig.ask(Request::to("/ws"));
    assert_eq!((answer.bytes.as_slice(), answer.end), (&b""[..], End::Reset));
    assert_eq!(backend.dials(), 1);
    rig.expect(
        r#"wsguard_handshakes_total{zone="default",outcome="rejected",reason="per_ip"}"#,
        1,
    );
    drop(open);
    rig.quiet();
}

#[test]
fn a_zone_overrides_how_it_refuses() {
    let backend = Backend::listening();
    let rig = Rig::start(
        &backend,
        r#"
        [limits]
        per_ip = 1
        retry_after = "60s"
        [zone.quiet]
        per_ip = 1
        reject_with = "drop"
        [[route]]
        name = "quiet"
        paths = ["/quiet"]
        zone = "quiet"
        [[route]]
        name = "rest"
        "#,
    );
    let open = [rig.open(), rig.try_open(ip(1), &Request::to("/quiet")).ok().unwrap()];
    let refused = rig.ask(Request::to("/ws"));
    assert!((60..=120).contains(&refused.retry_after()), "{refused}");
    assert_eq!(rig.ask(Request::to("/quiet")).end, End::Reset);
    assert_eq!(backend.dials(), 2);
    drop(open);
    rig.quiet();
}

/// A scanner opens twelve connections in under a second, and then keeps them without sending anything.
#[test]
fn twelve_connections_within_800_ms_leave_five_open() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits]\nper_ip = 5");
    let start = Instant::now();
    let outcomes: Vec<Result<Socket, Answer>> = (0..12).map(|_| rig.try_open(ip(1), &Request::to("/ws"))).collect();
    assert!(
        start.elapsed() < Duration::from_millis(800),
        "took {:?}",
        start.elapsed()
    );
    let (open, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!((open.len(), refused.len()), (5, 7));
    for answer in refused.into_iter().filter_map(Result::err) {
        answer.assert_refusal("429 Too Many Requests", "per_ip", TOO_MANY);
    }
    assert_eq!(backend.dials(), 5);
    assert_eq!(rig.count(r#"wsguard_connections{zone="default"}"#), 5);
    rig.expect(r#"wsguard_silent_connections{zone="default"}"#, 5);
    drop(open);
    rig.quiet();
}

#[test]
fn a_slot_that_is_free_again_can_be_used_at_once() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits]\nper_ip = 3\nper_ip_rate = \"off\"");
    let mut open: Vec<Socket> = (0..3).map(|_| rig.open()).collect();
    for round in 0..30 {
        assert_eq!(rig.ask(Request::to("/ws")).status(), 429, "full in round {round}");
        let leaving = open.remove(round % 3);
        if round % 2 == 0 {
            drop(leaving);
        } else {
            leaving.reset();
        }
        let left = Instant::now();
        open.push(until("the slot is free", || {
            rig.try_open(ip(1), &Request::to("/ws")).ok()
        }));
        assert!(
            left.elapsed() < Duration::from_millis(500),
            "free only after {:?}",
            left.elapsed()
        );
    }
    assert_eq!(rig.ask(Request::to("/ws")).status(), 429, "and the limit still holds");
    assert_eq!(backend.dials(), 33);
    drop(open);
    rig.quiet();
}

#[test]
fn a_hundred_racing_upgrades_admit_exactly_ten_in_every_round() {
    let backend = Backend::listening();
    let setup = Rig::before(&backend).listener("max_pending_per_ip = 200");
    let rig = setup
        .config("[limits]\nper_ip = 10\nper_ip_rate = \"off\"\n[log]\naccess = \"off\"")
        .start();
    for round in 1..=50 {
        let sockets: Vec<Socket> = (0..100).map(|_| rig.connect()).collect();
        let (open, refused) = race(sockets);
        assert_eq!((open.len(), refused.len()), (10, 90), "in round {round}");
        assert!(refused.iter().all(|answer| answer.status() == 429));
        assert_eq!(backend.dials(), 10 * round);
        drop(open);
        rig.expect(r#"wsguard_connections{zone="default"}"#, 0);
    }
    rig.quiet();
}

#[test]
fn a_hundred_new_addresses_a_second_stop_exactly_at_the_budget() {
    let backend = Backend::listening();
    let rig = Rig::start(
        &backend,
        "[limits]\nconnections = 120\nper_ip = 5\nper_ip_rate = \"1/s\"",
    );
    let start = Instant::now();
    let (mut open, mut refused) = (Vec::new(), Vec::new());
    for n in 0..200 {
        let due = Duration::from_millis(10) * u32::from(n);
        thread::sleep(due.saturating_sub(start.elapsed()));
        match rig.try_open(nth_ip(n), &Request::to("/ws")) {
            Ok(socket) => open.push(socket),
            Err(answer) => refused.push((n, answer)),
        }
    }
    assert_eq!(open.len(), 120);
    assert_eq!(
        refused.iter().map(|(n, _)| *n).collect::<Vec<_>>(),
        (120..200).collect::<Vec<_>>()
    );
    for (_, answer) in refused {
        answer.assert_refusal("503 Service Unavailable", "zone_full", AT_CAPACITY);
    }
    assert_eq!(backend.dials(), 120);
    assert_eq!(rig.count(r#"wsguard_clients{zone="default"}"#), 120);
    drop(open);
    rig.quiet();
}

#[test]
fn a_racing_budget_is_never_exceeded_from_many_addresses() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits]\nconnections = 37\n[log]\naccess = \"off\"");
    for round in 1..=5 {
        let (open, refused) = race((0..100).map(|n| rig.connect_from(nth_ip(n))).collect());
        assert_eq!((open.len(), refused.len()), (37, 63));
        assert_eq!(backend.dials(), 37 * round);
        drop(open);
        rig.expect(r#"wsguard_connections{zone="default"}"#, 0);
    }
    rig.quiet();
}

#[test]
fn known_networks_have_caps_of_their_own_and_the_longest_prefix_decides() {
    let backend = Backend::listening();
    let rig = Rig::start(
        &backend,
        r#"
        [limits]
        per_ip = 1
        [[network]]
        name = "school"
        networks = ["127.0.5.0/24"]
        per_ip = 3
        [[network]]
        name = "its-proxy"
        networks = ["127.0.5.128/25"]
        per_ip = 4
        "#,
    );
    let mut all = Vec::new();
    for (source, cap) in [
        ("127.0.4.9", 1),
        ("127.0.5.9", 3),
        ("127.0.5.10", 3),
        ("127.0.5.200", 4),
    ] {
        let source = source.parse().unwrap();
        all.extend((0..cap).map(|_| rig.open_from(source)));
        rig.ask_from(source, Request::to("/ws"))
            .assert_refusal("429 Too Many Requests", "per_ip", TOO_MANY);
    }
    assert_eq!(backend.dials(), 11);
    drop(all);
    rig.quiet();
}

#[test]
fn observe_counts_what_it_would_refuse_and_admits_it() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits]\nmode = \"observe\"\nper_ip = 1\nconnections = 3");
    let one = rig.open();
    let two = rig.open();
    rig.expect(
        r#"wsguard_handshakes_total{zone="default",outcome="observed",reason="per_ip"}"#,
        1,
    );
    let others: Vec<Socket> = (2..5).map(|n| rig.open_from(ip(n))).collect();
    rig.expect(
        r#"wsguard_handshakes_total{zone="default",outcome="observed",reason="zone_full"}"#,
        2,
    );
    let metrics = rig.metrics();
    assert_eq!(metrics.count(r#"wsguard_connections{zone="default"}"#), 5);
    let handshakes = metrics.starting_with("wsguard_handshakes_total{");
    assert!(
        handshakes
            .iter()
            .all(|(name, n)| *n == "0" || !name.contains("rejected"))
    );
    assert_eq!(backend.dials(), 5);
    drop((one, two, others));
    rig.quiet();
}

#[test]
fn a_zone_can_observe_while_the_others_enforce() {
    let backend = Backend::listening();
    let rig = Rig::start(
        &backend,
        r#"
        [limits]
        per_ip = 1
        [zone.trial]
        mode = "observe"
        [[route]]
        name = "trial"
        paths = ["/trial"]
        zone = "trial"
        [[route]]
        name = "rest"
        "#,
    );
    let trial: Vec<_> = (0..3)
        .map(|_| rig.try_open(ip(1), &Request::to("/trial")).ok().unwrap())
        .collect();
    let open = rig.open();
    assert_eq!(rig.ask(Request::to("/ws")).status(), 429);
    assert_eq!(backend.dials(), 4);
    drop((trial, open));
    rig.quiet();
}

#[test]
fn the_process_ceiling_holds_even_where_a_zone_only_observes() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[server]\nmax_connections = 20\n[limits]\nmode = \"observe\"");
    let open: Vec<Socket> = (0..20).map(|n| rig.open_from(nth_ip(n))).collect();
    for n in 18..22 {
        let answer = rig.ask_from(nth_ip(n), Request::to("/ws"));
        answer.assert_refusal("503 Service Unavailable", "process_full", AT_CAPACITY);
    }
    assert_eq!(backend.dials(), 20);
    assert_eq!(rig.count("wsguard_process_connections"), 20);
    assert_eq!(rig.count("wsguard_process_connections_limit"), 20);
    drop(open);
    rig.quiet();
}

#[test]
fn off_switches_a_limit_off() {
    let backend = Backend::listening();
    let rig = Rig::start(
        &backend,
        "[limits]\nper_ip = \"off\"\nper_ip_rate = \"off\"\nconnections = \"off\"",
    );
    let open: Vec<Socket> = (0..80).map(|_| rig.open()).collect();
    assert_eq!(backend.dials(), 80);
    drop(open);
    rig.quiet();
}

#[test]
fn no_more_clients_are_remembered_than_the_table_has_room_for() {
    let backend = Backend::listening();
    let server = "[server]\nmax_connections = 20\ntable_size = 20";
    let rig = Rig::start(&backend, &format!("{server}\n[limits]\nper_ip_rate = \"1/min\""));
    let held = rig.open();
    for n in 0..60 {
        drop(rig.open_from(nth_ip(n)));
    }
    let evicted = rig.count("wsguard_client_evictions_total");
    assert!((20..=60).contains(&evicted), "{evicted} of 61 clients evicted");
    assert_eq!(
        rig.ask(Request::to("/ws")).values("X-Wsguard-Reason"),
        ["per_ip_rate"],
        "who has something open is not forgotten"
    );
    assert_eq!(backend.dials(), 61);
    drop(held);
    rig.quiet();
}

#[test]
fn an_address_may_hold_its_full_share_in_each_zone() {
    let backend = Backend::listening();
    let rig = Rig::start(
        &backend,
        r#"
        [limits]
        per_ip = 2
        [zone.games]
        [[route]]
        name = "games"
        paths = ["/games"]
        zone = "games"
        [[route]]
        name = "rest"
        "#,
    );
    let chat: Vec<Socket> = (0..2).map(|_| rig.open()).collect();
    let games: Vec<_> = (0..2)
        .map(|_| rig.try_open(ip(1), &Request::to("/games/7")).ok().unwrap())
        .collect();
    assert_eq!(rig.ask(Request::to("/games/8")).status(), 429);
    assert_eq!(rig.ask(Request::to("/ws")).status(), 429);
    assert_eq!(backend.dials(), 4);
    drop((chat, games));
    rig.quiet();
    assert_eq!(rig.count(r#"wsguard_connections{zone="games"}"#), 0);
}

/// Sends one upgrade on each socket, all at once, from four threads.
fn race(sockets: Vec<Socket>) -> (Vec<Socket>, Vec<Answer>) {
    let mut lanes: Vec<Vec<Socket>> = (0..4).map(|_| Vec::new()).collect();
    for (n, socket) in sockets.into_iter().enumerate() {
        lanes[n % 4].push(socket);
    }
    let start = Arc::new(Barrier::new(lanes.len()));
    let runners: Vec<_> = lanes
        .into_iter()
        .map(|mut lane| {
            let start = Arc::clone(&start);
            thread::spawn(move || {
                start.wait();
                for socket in &mut lane {
                    socket.send(Request::to("/ws").as_ref());
                }
                lane
            })
        })
        .collect();
    let (mut open, mut refused) = (Vec::new(), Vec::new());
    for mut socket in runners.into_iter().flat_map(|runner| runner.join().unwrap()) {
        let head = socket.read_head();
        if head.starts_with(b"HTTP/1.1 101 ") {
            open.push(socket);
        } else {
            refused.push(socket.answer_after(head));
        }
    }
    (open, refused)
}

fn assert_closed_with_1013(answer: &Answer, text: &str, protocol: &[&str]) {
    assert!(
        answer.bytes.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"),
        "{answer}"
    );
    assert_eq!(answer.values("Upgrade"), ["websocket"]);
    assert_eq!(answer.values("Connection"), ["Upgrade"]);
    assert_eq!(
        answer.values("Sec-WebSocket-Accept"),
        [accept_for("dGhlIHNhbXBsZSBub25jZQ==")]
    );
    assert_eq!(answer.values("Sec-WebSocket-Protocol"), protocol);
    assert_eq!(answer.values("Sec-WebSocket-Extensions"), [""; 0]);
    assert_eq!(close_code(answer.body()), Some(1013), "{answer}");
    assert_eq!(&answer.body()[4..], text.as_bytes());
    assert_eq!(answer.end, End::Fin, "its own side ended, not the connection torn down");
}

const TOO_MANY: &str = "Too many connections from this IP";
const AT_CAPACITY: &str = "Server at capacity";
