//! Whether clients are still there: wsguard's pings, their answers, and what happens to clients that do not answer.

use std::thread;
use std::time::{Duration, Instant};

use crate::rig::{Backend, Began, Gate, Request, Rig, Socket, close_code, frame, ip, masked, unmasked, until};

const PONG: u8 = 10;

#[test]
fn a_silent_client_is_pinged_and_its_pong_is_not_passed_on() {
    let backend = Backend::start(|guest| {
        guest.open();
        // The pong to a ping of the server's own goes to the server.
        guest.send(&frame(9, b"the server's own"));
        guest.read_to_end();
    });
    let rig = Rig::start(&backend, "[limits.messages]\nping = \"1s\"\npong_timeout = \"1s\"");
    let mut socket = rig.open();
    assert_eq!(socket.read_frame(), (0x89, b"the server's own".to_vec()));
    let (silent, ()) = Began::with(|| socket.send(&masked(PONG, b"the server's own")));
    let mut pings = 0;
    while pings < 3 {
        let (opcode, payload) = socket.read_frame();
        assert_eq!((opcode, payload.len()), (0x89, 16));
        socket.send(&masked(PONG, &payload));
        pings += 1;
    }
    silent.assert_took(Duration::from_millis(2700)..Duration::from_secs(6));
    let end = masked(1, b"still here");
    socket.send(&end);
    let expected = [masked(PONG, b"the server's own"), end].concat();
    assert_eq!(backend.visit(0).tail_of(expected.len()), expected);
    drop(socket);
    rig.quiet();
    rig.expect(r#"wsguard_ghosts_total{zone="default",outcome="reaped"}"#, 0);
}

#[test]
fn a_client_that_does_not_answer_a_ping_is_closed_and_others_stay() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits.messages]\nping = \"1s\"\npong_timeout = \"1s\"");
    let (silent, mut ghost) = Began::with(|| rig.open());
    let mut neighbour = rig.open();
    let start = Instant::now();
    let answers = thread::spawn(move || {
        while start.elapsed() < Duration::from_secs(4) {
            answer_one(&mut neighbour);
        }
        neighbour
    });
    let (opcode, _) = ghost.read_frame();
    assert_eq!(opcode, 0x89);
    let (heard, _) = ghost.read_to_end();
    silent.assert_took(Duration::from_millis(1900)..Duration::from_secs(5));
    assert_eq!(close_code(&heard), Some(1001), "{heard:?}");
    // The server gets a real close frame, so that it learns why the connection ends.
    let visit = backend.visit(0);
    visit.ended();
    assert_eq!(unmasked(&visit.tail()), b"\x03\xe9no pong");
    drop(answers.join().unwrap());
    drop(ghost);
    rig.quiet();
    rig.expect(r#"wsguard_closes_total{zone="default",reason="ghost"}"#, 1);
    rig.expect(r#"wsguard_ghosts_total{zone="default",outcome="reaped"}"#, 1);
    rig.expect(r#"wsguard_closes_total{zone="default",reason="client"}"#, 1);
}

#[test]
fn any_byte_of_the_client_is_an_answer() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits.messages]\nping = \"1s\"\npong_timeout = \"1s\"");
    let mut socket = rig.open();
    let start = Instant::now();
    let mut sent = Vec::new();
    while start.elapsed() < Duration::from_secs(4) {
        let (opcode, _) = socket.read_frame();
        assert_eq!(opcode, 0x89);
        let talk = masked(1, b"no pong, but talk");
        socket.send(&talk);
        sent.extend(talk);
    }
    assert_eq!(backend.visit(0).tail_of(sent.len()), sent);
    drop(socket);
    rig.quiet();
}

#[test]
fn pong_timeout_does_not_run_until_the_clients_host_acknowledges_the_ping() {
    let backend = Backend::listening();
    let rig = Rig::start(
        &backend,
        "[limits.timeouts]\nstalled = \"off\"\n[limits.messages]\nping = \"1s\"\npong_timeout = \"500ms\"",
    );
    let socket = rig.open();
    socket.vanish();
    thread::sleep(Duration::from_secs(4));
    rig.expect(r#"wsguard_connections{zone="default"}"#, 1);
    rig.expect(r#"wsguard_closes_total{zone="default",reason="ghost"}"#, 0);
}

#[test]
fn a_ping_waits_for_the_end_of_the_servers_frame() {
    let message = frame(2, &[b'm'; 1000]);
    let backend = Backend::start({
        let message = message.clone();
        move |guest| {
            guest.open();
            guest.send(&message[..600]);
            thread::sleep(Duration::from_millis(2500));
            guest.send(&message[600..]);
            guest.read_to_end();
        }
    });
    let rig = Rig::start(&backend, "[limits.messages]\nping = \"1s\"\npong_timeout = \"1s\"");
    let mut socket = rig.open();
    assert_eq!(socket.read_exactly(message.len()), message);
    assert_eq!(socket.read_frame().0, 0x89);
    drop(socket);
    rig.quiet();
}

#[test]
fn a_client_without_a_first_message_is_pinged_and_closed_with_1008() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits.timeouts]\nfirst_message = \"2s\"");
    let (opened, [mut silent, mut listens, mut speaks]) = Began::with(|| [(); 3].map(|()| rig.open()));
    speaks.send(&masked(1, b"hello"));
    let start = Instant::now();
    answer_one(&mut listens);
    assert!(start.elapsed() < Duration::from_millis(1900));
    assert_eq!(silent.read_frame().0, 0x89);
    let (heard, _) = silent.read_to_end();
    opened.assert_took(Duration::from_millis(1900)..Duration::from_secs(4));
    assert_eq!(close_code(&heard), Some(1008));
    assert!(heard.ends_with(b"no message in time"));
    rig.expect(r#"wsguard_closes_total{zone="default",reason="first_message"}"#, 1);
    thread::sleep(Duration::from_secs(1));
    rig.expect(r#"wsguard_connections{zone="default"}"#, 2);
    assert!(
        speaks.is_silent() && listens.is_silent(),
        "no other client is pinged where ping is off"
    );
    drop((silent, listens, speaks));
    rig.quiet();
}

#[test]
fn a_delayed_client_is_not_a_ghost() {
    let backend = Backend::listening();
    let rig = Rig::start(
        &backend,
        "[limits.messages]\nping = \"1s\"\npong_timeout = \"300ms\"\nrate = \"18/min\"\nburst = 1\non_exceed = \"delay\"",
    );
    let mut socket = rig.open();
    let one = masked(1, b"x");
    socket.send(&one.repeat(3));
    assert_eq!(backend.visit(0).tail_of(3 * one.len()), one.repeat(3));
    rig.expect(r#"wsguard_closes_total{zone="default",reason="ghost"}"#, 0);
    drop(socket);
    rig.quiet();
}

#[test]
fn heartbeats_are_counted_and_have_no_effect() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits.messages]\nrate = \"300/min\"");
    let mut socket = rig.open();
    let shown = || rig.count(r#"wsguard_suspected_heartbeats_total{zone="default"}"#);
    // On a busy machine a beat may come late. Then it takes a few more until they count as steady.
    let mut sent = 0;
    loop {
        let beat = Instant::now();
        socket.send(&masked(1, b"{\"type\":\"ping\"}"));
        sent += 1;
        if sent % 3 == 2 {
            socket.send(&masked(1, b"talk"));
        }
        thread::sleep(Duration::from_millis(300));
        if shown() >= 5 {
            break;
        }
        assert!(sent < 50, "of 50 beats {} are suspected", shown());
        thread::sleep(Duration::from_millis(400).saturating_sub(beat.elapsed()));
    }
    assert!(socket.is_silent());
    drop(socket);
    rig.quiet();
    let suspected = shown();
    assert!((5..=sent).contains(&suspected), "{suspected} of {sent}");
    assert_eq!(rig.access("client")["heartbeats"], suspected);
    assert_eq!(rig.stats()["zones"]["default"]["suspected_heartbeats"], suspected);
}

const AT_CAP: &str = "[limits]\nper_ip = 5\n[limits.messages]\nping = \"1s\"\npong_timeout = \"30s\"";

#[test]
fn a_client_whose_dead_sockets_fill_its_cap_gets_the_slot_of_one_of_them() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, AT_CAP);
    let dead: Vec<Socket> = (0..5).map(|_| rig.open()).collect();
    let stranger = rig.open_from(ip(9));
    dead.iter().for_each(Socket::vanish);
    thread::sleep(Duration::from_millis(1500));
    let start = Instant::now();
    let newcomer = rig.open();
    let took = start.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(rig.count(r#"wsguard_connections{zone="default"}"#), 6);
    rig.expect(r#"wsguard_ghosts_total{zone="default",outcome="replaced"}"#, 1);
    assert_eq!(rig.access("ghost")["status"], 101);
    // One of the five is closed, and its server gets a close frame.
    let ended: Vec<usize> = (0..5).filter(|nth| backend.visit(*nth).end().is_some()).collect();
    assert_eq!(ended.len(), 1, "{ended:?}");
    assert_eq!(unmasked(&backend.visit(ended[0]).tail()), b"\x03\xe9no pong");
    assert_eq!(backend.dials(), 7);
    drop((dead, stranger, newcomer));
}

#[test]
fn a_client_whose_sockets_are_alive_gets_429_and_keeps_them() {
    let backend = Backend::echo();
    let rig = Rig::start(&backend, AT_CAP);
    let mut alive: Vec<Socket> = (0..5).map(|_| rig.open()).collect();
    thread::sleep(Duration::from_millis(1500));
    let start = Instant::now();
    // None of these clients answers a ping, but their machine acknowledges it. That is enough.
    let refused = rig.ask(Request::to("/"));
    let took = start.elapsed();
    refused.assert_refusal("429 Too Many Requests", "per_ip", "Too many connections from this IP");
    assert!(took < Duration::from_millis(1500), "{took:?}");
    for socket in &mut alive {
        assert_eq!(socket.read_frame().0, 0x89);
        socket.send(&masked(1, b"here"));
        assert_eq!(socket.read_exactly(10), masked(1, b"here"));
    }
    assert_eq!(backend.dials(), 5);
    drop(alive);
    rig.quiet();
    rig.expect(r#"wsguard_ghosts_total{zone="default",outcome="replaced"}"#, 0);
}

#[test]
fn only_dead_connections_make_room_each_for_one_new_one() {
    let backend = Backend::echo();
    let rig = Rig::start(&backend, AT_CAP);
    let mut sockets: Vec<Socket> = (0..5).map(|_| rig.open()).collect();
    sockets[3].vanish();
    thread::sleep(Duration::from_millis(1500));
    let newcomer = rig.open();
    // A second newcomer finds no dead connection any more.
    thread::sleep(Duration::from_millis(1100));
    assert_eq!(rig.ask(Request::to("/")).status(), 429);
    sockets.remove(3);
    for socket in &mut sockets {
        socket.send(&masked(1, b"here"));
        loop {
            let opcode = socket.read_exactly(1)[0];
            if opcode == 0x81 {
                break;
            }
            assert_eq!(opcode, 0x89);
            socket.read_exactly(17);
        }
    }
    drop((sockets, newcomer));
    rig.quiet();
    rig.expect(r#"wsguard_ghosts_total{zone="default",outcome="replaced"}"#, 1);
}

#[test]
fn a_listener_on_a_thin_line_that_always_has_something_on_its_way_is_alive() {
    let backend = Backend::start(|guest| {
        guest.open();
        let message = frame(2, &[b'm'; 10_000]);
        guest.send(&message.repeat(10));
        while guest.try_send(&message) {
            thread::sleep(Duration::from_millis(50));
        }
    });
    let rig = Rig::start(
        &backend,
        "[limits]\nper_ip = 1\n[limits.messages]\nping = \"1s\"\npong_timeout = \"1s\"",
    );
    // The client reads all that comes, and is 100 KB behind all the time.
    let mut listener = Socket::connect_with(ip(1), rig.front(), |socket| socket.set_recv_buffer_size(4096).unwrap());
    listener.send(Request::to("/").as_ref());
    let start = Instant::now();
    let reads = thread::spawn(move || {
        while start.elapsed() < Duration::from_secs(6) {
            listener.read_exactly(10_004);
            thread::sleep(Duration::from_millis(50));
        }
        listener
    });
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(rig.ask_from(ip(1), Request::to("/")).status(), 429);
    let listener = reads.join().unwrap();
    rig.expect(r#"wsguard_connections{zone="default"}"#, 1);
    rig.expect(r#"wsguard_ghosts_total{zone="default",outcome="replaced"}"#, 0);
    drop(listener);
    rig.quiet();
}

#[test]
fn one_new_connection_of_a_client_waits_and_the_others_get_429_at_once() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, AT_CAP);
    let dead: Vec<Socket> = (0..5).map(|_| rig.open()).collect();
    dead.iter().for_each(Socket::vanish);
    thread::sleep(Duration::from_millis(1500));
    let mut first = rig.send(Request::to("/"));
    rig.expect(r#"wsguard_pending{listener="front"}"#, 1);
    let start = Instant::now();
    assert_eq!(rig.ask(Request::to("/")).status(), 429);
    assert!(start.elapsed() < Duration::from_millis(500));
    assert!(first.read_head().starts_with(b"HTTP/1.1 101"));
    drop((dead, first));
}

#[test]
fn a_client_that_stops_waiting_for_its_slot_frees_its_seat_at_once() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, AT_CAP);
    let dead: Vec<Socket> = (0..5).map(|_| rig.open()).collect();
    dead.iter().for_each(Socket::vanish);
    thread::sleep(Duration::from_millis(1500));
    let newcomer = rig.send(Request::to("/"));
    rig.expect(r#"wsguard_pending{listener="front"}"#, 1);
    let start = Instant::now();
    drop(newcomer);
    rig.expect(r#"wsguard_pending{listener="front"}"#, 0);
    assert!(start.elapsed() < Duration::from_millis(800));
    rig.expect(r#"wsguard_connections{zone="default"}"#, 5);
    assert_eq!(backend.dials(), 5);
    drop(dead);
}

#[test]
fn replacement_can_be_switched_off_and_needs_ping() {
    for config in [
        "[limits]\nper_ip = 1\n[limits.messages]\nping = \"1s\"\nreplace_ghosts = false",
        "[limits]\nper_ip = 1",
    ] {
        let backend = Backend::listening();
        let rig = Rig::start(&backend, config);
        let dead = rig.open();
        dead.vanish();
        thread::sleep(Duration::from_millis(1500));
        let start = Instant::now();
        assert_eq!(rig.ask(Request::to("/")).status(), 429);
        assert!(start.elapsed() < Duration::from_millis(500));
        drop(dead);
    }
}

fn answer_one(socket: &mut Socket) {
    let (opcode, payload) = socket.read_frame();
    assert_eq!(opcode, 0x89);
    socket.send(&masked(PONG, &payload));
}

/// While the server takes nothing, the client's bytes wait in the kernel, and its pongs wait behind them.
#[test]
fn a_client_that_is_not_read_because_the_server_takes_nothing_is_neither_a_ghost_nor_idle() {
    let listens = Gate::default();
    let backend = {
        let listens = listens.clone();
        Backend::start(move |guest| {
            guest.open();
            listens.wait();
            guest.read_to_end();
        })
    };
    let rig = Rig::start(
        &backend,
        "[limits]\nper_ip = 1\n[limits.timeouts]\nidle = \"2s\"\n[limits.messages]\nping = \"1s\"\npong_timeout = \"300ms\"",
    );
    let mut socket = rig.open();
    let message = masked(2, &[b'm'; 10_000]);
    let mut writes = Socket::from(socket.stream().try_clone().unwrap());
    let sent = message.repeat(1500);
    let sends = thread::spawn({
        let sent = sent.clone();
        move || writes.send(&sent)
    });
    thread::sleep(Duration::from_millis(3500));
    assert!(!sends.is_finished(), "the kernel took it all");
    // No other connection gets its slot either.
    assert_eq!(rig.ask(Request::to("/")).status(), 429);
    listens.open();
    sends.join().unwrap();
    assert_eq!(backend.visit(0).tail_of(sent.len()), sent);
    rig.expect(r#"wsguard_connections{zone="default"}"#, 1);
    answer_one(&mut socket);
    drop(socket);
    rig.quiet();
}

#[test]
fn a_connection_whose_messages_are_delayed_in_either_direction_is_not_idle() {
    for limits in ["rate", "out_rate"] {
        let backend = Backend::echo();
        let rig = Rig::start(
            &backend,
            &format!(
                "[limits.timeouts]\nidle = \"1s\"\n[limits.messages]\n{limits} = \"15/min\"\n{}on_exceed = \"delay\"",
                if limits == "rate" {
                    "burst = 1\n"
                } else {
                    "out_burst = 1\n"
                }
            ),
        );
        let mut socket = rig.open();
        let two = masked(1, b"x").repeat(2);
        socket.send(&two);
        assert_eq!(socket.read_exactly(two.len()), two, "{limits}");
        rig.expect(r#"wsguard_closes_total{zone="default",reason="idle"}"#, 0);
        drop(socket);
        rig.quiet();
    }
}

#[test]
fn a_client_that_does_not_read_and_whose_host_answers_keeps_its_slot() {
    let backend = Backend::start(|guest| {
        guest.open();
        let message = frame(2, &[b'm'; 10_000]);
        guest.send(&message.repeat(6));
        guest.echo();
    });
    let rig = Rig::start(
        &backend,
        "[limits]\nper_ip = 1\n[limits.messages]\nping = \"1s\"\npong_timeout = \"1s\"",
    );
    let mut busy = Socket::connect_with(ip(1), rig.front(), |socket| socket.set_recv_buffer_size(4096).unwrap());
    busy.send(Request::to("/").as_ref());
    assert!(busy.read_head().starts_with(b"HTTP/1.1 101 "));
    thread::sleep(Duration::from_secs(3));
    for _ in 0..2 {
        assert_eq!(rig.ask(Request::to("/")).status(), 429);
        thread::sleep(Duration::from_millis(1100));
    }
    // No byte of the stream is missing.
    for _ in 0..6 {
        assert_eq!(busy.read_exactly(10_004), frame(2, &[b'm'; 10_000]));
    }
    let (opcode, payload) = busy.read_frame();
    assert_eq!(opcode, 0x89);
    busy.send(&masked(PONG, &payload));
    rig.expect(r#"wsguard_ghosts_total{zone="default",outcome="replaced"}"#, 0);
    drop(busy);
    rig.quiet();
}

/// The client stopped reading in the middle of a message, and then its host was gone.
#[test]
fn a_client_that_did_not_read_and_then_vanished_makes_room() {
    let backend = Backend::start(|guest| {
        guest.open();
        if guest.place() == 0 {
            guest.send(&frame(2, &[b'm'; 10_000]).repeat(6));
        }
        guest.echo();
    });
    let rig = Rig::start(
        &backend,
        "[limits]\nper_ip = 1\n[limits.messages]\nping = \"1s\"\npong_timeout = \"1s\"",
    );
    let mut gone = Socket::connect_with(ip(1), rig.front(), |socket| socket.set_recv_buffer_size(4096).unwrap());
    gone.send(Request::to("/").as_ref());
    assert!(gone.read_head().starts_with(b"HTTP/1.1 101 "));
    thread::sleep(Duration::from_millis(1500));
    gone.vanish();
    let newcomer = until("its slot is given on", || {
        thread::sleep(Duration::from_secs(1));
        rig.try_open(ip(1), &Request::to("/")).ok()
    });
    rig.expect(r#"wsguard_ghosts_total{zone="default",outcome="replaced"}"#, 1);
    drop((gone, newcomer));
    rig.quiet();
}

/// The client's program is alive, but has not read for a while.
#[test]
fn with_pong_tcp_a_client_that_does_not_read_stays_and_one_that_is_gone_is_closed() {
    let backend = Backend::listening();
    let rig = Rig::start(
        &backend,
        "[limits]\nper_ip = 1\n[limits.timeouts]\nstalled = \"2s\"\n\
         [limits.messages]\nping = \"1s\"\npong_timeout = \"100ms\"\npong = \"tcp\"",
    );
    let mut busy = rig.open();
    let gone = rig.open_from(ip(2));
    gone.vanish();
    rig.expect(r#"wsguard_closes_total{zone="default",reason="stalled"}"#, 1);
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(rig.ask(Request::to("/")).status(), 429);
    // It was pinged more than once, and reads all pings when it reads again.
    for _ in 0..3 {
        answer_one(&mut busy);
    }
    rig.expect(r#"wsguard_connections{zone="default"}"#, 1);
    rig.expect(r#"wsguard_closes_total{zone="default",reason="ghost"}"#, 0);
    busy.vanish();
    // A second without a sign of life, counted from the sweep that saw the last one: on a busy machine that may be late.
    thread::sleep(Duration::from_millis(1100));
    let newcomer = until("its slot goes to the next connection", || {
        rig.try_open(ip(1), &Request::to("/ws")).ok()
    });
    rig.expect(r#"wsguard_ghosts_total{zone="default",outcome="replaced"}"#, 1);
    drop((busy, gone, newcomer));
    rig.quiet();
}
