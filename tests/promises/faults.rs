//! A planted panic at every stage of the walk and in the loops around it. One connection ends, everything is given
//! back, and no other connection notices. Needs the feature `faults`: `cargo test --features faults --test promises
//! faults::`.

use std::time::Duration;

use crate::rig::{Backend, End, Metrics, PATIENCE, Request, Rig, Setup, Socket, ip, masked, until};

/// The count of such a fault, beside `wsguard_panics_total`.
const REJECTED: &str = r#"wsguard_handshakes_total{zone="-",outcome="rejected",reason="panic"}"#;
const FAILED: &str = r#"wsguard_handshakes_total{zone="default",outcome="failed",reason="panic"}"#;
const CLOSED: &str = r#"wsguard_closes_total{zone="default",reason="panic"}"#;

#[test]
fn before_a_tunnel_it_ends_one_handshake() {
    for (stage, counted) in [
        ("accept", REJECTED),
        ("proxy_header", REJECTED),
        ("head", REJECTED),
        ("decide", REJECTED),
        ("dial", FAILED),
        ("reply", FAILED),
        ("open", CLOSED),
    ] {
        let backend = Backend::echo();
        let rig = on_the_second(stage, &backend);
        let mut bystander = opened(&rig, 2);
        let (heard, _) = rig.send(request(3)).read_to_end();
        assert!(heard.is_empty(), "{stage}: {heard:?}");
        assert_no_trace(&rig, counted, &mut bystander);
    }
}

#[test]
fn in_a_pending_socket_it_ends_that_one_and_others_are_served() {
    let backend = Backend::echo();
    let rig = faulty("lobby", &backend, "").start();
    let (mut victim, mut bystander) = (rig.connect(), rig.connect());
    rig.expect(r#"wsguard_pending{listener="front"}"#, 2);
    victim.send(&announced(3));
    let (heard, _) = victim.read_to_end();
    assert!(heard.is_empty(), "{heard:?}");
    bystander.send(&request(2));
    let answer = bystander.read_head();
    assert!(
        answer.starts_with(b"HTTP/1.1 101 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    assert_no_trace(&rig, REJECTED, &mut bystander);
}

#[test]
fn in_a_tunnel_it_ends_that_one_in_whichever_direction() {
    // Each echo passes the stage twice. The bystander's echo is the first and the second pass.
    for (nth, direction) in [(3, "in"), (4, "out")] {
        let backend = Backend::echo();
        let rig = faulty(&format!("relay:{nth}"), &backend, "").start();
        let mut bystander = opened(&rig, 2);
        let mut victim = rig.try_open_announced(3);
        victim.send(&masked(1, b"fatal"));
        let (heard, _) = victim.read_to_end();
        assert!(heard.is_empty(), "{direction}: {heard:?}");
        until("the server is let go", || backend.visit(1).end());
        assert_no_trace(&rig, CLOSED, &mut bystander);
    }
}

#[test]
fn with_a_lent_pipe_it_ends_that_one_and_the_pipe_is_closed() {
    let backend = Backend::echo();
    let rig = faulty("splice", &backend, "").start();
    let mut bystander = opened(&rig, 2);
    let mut victim = rig.try_open_announced(3);
    victim.send(&masked(2, &vec![b'x'; 1 << 20])[..600_000]);
    let (heard, _) = victim.read_to_end();
    assert!(heard.len() < 600_000, "{} bytes came back", heard.len());
    assert_no_trace(&rig, CLOSED, &mut bystander);
}

#[test]
fn during_parking_or_resuming_it_ends_that_one() {
    for stage in ["rest", "get up"] {
        let backend = Backend::echo();
        let rig = faulty(stage, &backend, "").start();
        let mut victim = rig.try_open_announced(3);
        let mut bystander = opened(&rig, 2);
        if stage == "get up" {
            rig.rests(4);
            victim.send(&masked(1, b"fatal"));
        }
        until("the silent one is ended", || {
            echoes(&mut bystander);
            (!victim.is_silent()).then_some(())
        });
        let (heard, _) = victim.read_to_end();
        assert!(heard.is_empty(), "{stage}: {heard:?}");
        until("the server is let go", || backend.visit(0).end());
        assert_no_trace(&rig, CLOSED, &mut bystander);
    }
}

#[test]
fn during_a_close_it_ends_that_one_all_the_same() {
    let backend = Backend::echo();
    let rig = faulty("goodbye", &backend, "[limits.timeouts]\nidle = \"1s\"").start();
    let mut victim = rig.try_open_announced(3);
    let mut bystander = opened(&rig, 2);
    until("the silent one is ended", || {
        echoes(&mut bystander);
        (!victim.is_silent()).then_some(())
    });
    let (heard, _) = victim.read_to_end();
    assert!(heard.is_empty(), "no close frame: {heard:?}");
    assert_no_trace(&rig, CLOSED, &mut bystander);
}

#[test]
fn while_a_refusal_is_delivered_its_seat_comes_back() {
    let backend = Backend::echo();
    let rig = faulty("deliver", &backend, "").start();
    let mut bystander = opened(&rig, 2);
    let (heard, _) = rig
        .send([announced(3), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()].concat())
        .read_to_end();
    assert!(heard.is_empty(), "{heard:?}");
    assert_no_trace(&rig, REJECTED, &mut bystander);
}

#[test]
fn the_sweep_continues_after_one_and_still_closes_idle_connections() {
    let backend = Backend::echo();
    let rig = faulty("sweep:2", &backend, "[limits.timeouts]\nidle = \"1s\"").start();
    let open: Vec<Socket> = (2..5).map(|n| rig.try_open_announced(n)).collect();
    rig.expect("wsguard_panics_total", 1);
    for mut socket in open {
        assert_eq!(socket.read_frame().0, 0x88, "a close frame for being idle");
        socket.fin();
    }
    let metrics = rig.settled_within(PATIENCE);
    assert_eq!(
        metrics.count(r#"wsguard_closes_total{zone="default",reason="idle"}"#),
        3
    );
    assert_one_log_line(&rig);
}

#[test]
fn deadlines_hold_after_one_in_their_queue() {
    let rig = faulty("expire:2", &Backend::echo(), "").start();
    rig.expect("wsguard_panics_total", 1);
    let mut dawdler = rig.send([announced(3), b"GET /ws".to_vec()].concat());
    let answer = dawdler.answer();
    assert_eq!((answer.status(), answer.end), (408, End::Fin), "{answer}");
    rig.settled_within(PATIENCE);
    assert_one_log_line(&rig);
}

#[test]
fn a_hundred_connections_and_a_transfer_live_through_one() {
    let backend = Backend::echo();
    let rig = faulty(
        "relay:150",
        &backend,
        "[limits]\nper_ip = \"off\"\nper_ip_rate = \"off\"",
    )
    .start();
    let mut others: Vec<Socket> = (0..100).map(|_| rig.try_open_announced(2)).collect();
    // The messages make 200 passes. One of these panics, and ends one connection.
    let message = masked(1, b"still here");
    let mut lost = 0;
    for socket in &mut others {
        socket.send(&message);
        let mut heard = vec![0; message.len()];
        lost += usize::from(std::io::Read::read_exact(socket, &mut heard).is_err());
    }
    assert_eq!(lost, 1);
    let alive = rig.count(r#"wsguard_connections{zone="default"}"#);
    assert_eq!(alive, 99);
    drop(others);
    assert_eq!(rig.settled_within(PATIENCE).count(CLOSED), 1);
}

/// A guard in which the second connection that reaches this stage panics there.
fn on_the_second(stage: &str, backend: &Backend) -> Rig {
    faulty(&format!("{stage}:2"), backend, "").start()
}

/// A guard with one worker, so that the worker that panicked serves the later connections.
fn faulty(fault: &str, backend: &Backend, config: &str) -> Setup {
    let common = "[server]\nworkers = 1\n[client_ip]\ntrusted_proxies = [\"loopback\"]\n";
    Rig::before(backend)
        .listener("accept_proxy_protocol = true\nhandshake_timeout = \"1s\"")
        .config(&format!("{common}{config}"))
        .under(&["env", &format!("WSGUARD_FAULT={fault}")])
}

/// The PROXY header of client number `n`.
fn announced(n: u8) -> Vec<u8> {
    format!("PROXY TCP4 203.0.113.{n} 127.0.0.1 1000 80\r\n").into_bytes()
}

fn request(n: u8) -> Vec<u8> {
    [announced(n), Request::to("/ws").into_bytes()].concat()
}

trait Announced {
    fn try_open_announced(&self, n: u8) -> Socket;
}

impl Announced for Rig {
    fn try_open_announced(&self, n: u8) -> Socket {
        let mut socket = self.send_from(ip(1), request(n));
        let head = socket.read_head();
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        socket
    }
}

/// Opens a connection, and makes one echo on it.
fn opened(rig: &Rig, n: u8) -> Socket {
    let mut socket = rig.try_open_announced(n);
    echoes(&mut socket);
    socket
}

fn echoes(socket: &mut Socket) {
    let message = masked(1, b"are you there?");
    socket.send(&message);
    assert_eq!(socket.read_exactly(message.len()), message);
}

/// Asserts that the panic was counted once and logged once, that nothing is held for it, that an open connection
/// continues, and that the next one is served.
fn assert_no_trace(rig: &Rig, counted: &str, bystander: &mut Socket) {
    rig.expect(counted, 1);
    echoes(bystander);
    let mut next = opened(rig, 4);
    for (series, number) in [
        ("wsguard_panics_total", 1),
        ("wsguard_counter_drift", 0),
        ("wsguard_process_connections", 2),
        (r#"wsguard_connections{zone="default"}"#, 2),
        (r#"wsguard_clients{zone="default"}"#, 2),
        (r#"wsguard_silent_connections{zone="default"}"#, 0),
        (r#"wsguard_pending{listener="front"}"#, 0),
    ] {
        rig.expect(series, number);
    }
    let panics = |metrics: &Metrics| -> i64 {
        let all = metrics.starting_with("wsguard_");
        let of = all.iter().filter(|(name, _)| name.contains(r#"reason="panic""#));
        of.map(|(_, number)| number.parse::<i64>().unwrap()).sum()
    };
    assert_eq!(panics(&rig.metrics()), 1, "as {counted} and as nothing else");
    assert_one_log_line(rig);
    let line = rig.access("panic");
    assert_eq!(line["level"], "error", "{line}");
    echoes(&mut next);
    drop(next);
    bystander.fin();
    let (heard, end) = bystander.read_to_end();
    assert!(heard.is_empty() && end == End::Fin);
    let metrics = rig.settled_within(PATIENCE);
    assert_eq!(metrics.count("wsguard_panics_total"), 1);
    let upstream = metrics.starting_with("wsguard_upstream_connections");
    assert!(upstream.iter().all(|(_, number)| *number == "0"), "{upstream:?}");
}

/// Asserts that one line of the log says where the panic was, and that the log has only lines of JSON.
fn assert_one_log_line(rig: &Rig) {
    let line = rig.line("a line about the panic", |line| line["event"] == "panic");
    assert_eq!(line["level"], "error");
    let message = line["message"].as_str().unwrap();
    assert!(
        message.contains("a planned fault at stage") && message.contains(" at src/") && message.contains("worker-0"),
        "{message}"
    );
    std::thread::sleep(Duration::from_millis(20));
    for line in rig.raw_log() {
        assert!(line.starts_with('{'), "raw text in the log: {line}");
    }
    assert_eq!(rig.lines().iter().filter(|line| line["event"] == "panic").count(), 1);
}
