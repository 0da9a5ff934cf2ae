//! Stopping: no new clients are accepted, every connection is closed, and the process exits with 0. Or it stops at
//! once, and exits with 1.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;

use crate::rig::{
    Backend, End, Gate, PATIENCE, Request, Rig, Socket, accept_for, all_read, close_code, frame, masked, nth_ip,
    side_by_side, until,
};

#[test]
fn a_drain_closes_two_hundred_with_1012_over_its_second_half_the_longest_silent_first() {
    let backend = Backend::listening();
    let mut rig = Rig::start(
        &backend,
        "[server]\ndrain_timeout = \"6s\"\n[limits]\nper_ip_rate = \"off\"\n[log]\nsample = \"off\"",
    );
    let mut open: Vec<Socket> = (0..200).map(|n| rig.open_from(nth_ip(n % 20))).collect();
    // The first clients to come are the last ones to send something: the drain goes by silence, and not by age. It
    // looks at silence every 250 ms.
    thread::sleep(Duration::from_millis(700));
    for socket in &mut open[..100] {
        socket.send(&masked(1, b"not silent"));
    }
    all_read(&open[..100]);
    thread::sleep(Duration::from_millis(300));

    let start = Instant::now();
    rig.signal(Signal::TERM);
    let looks = closed_by_look(open, start);
    assert_eq!(rig.ended().code(), Some(0));
    let took = start.elapsed();
    assert!(took < Duration::from_millis(6500), "exit after {took:?}");

    let times: Vec<Duration> = looks.iter().flat_map(|(at, closed)| vec![*at; closed.len()]).collect();
    for at in &times {
        assert!(
            (Duration::from_millis(2950)..Duration::from_millis(6500)).contains(at),
            "{at:?}"
        );
    }
    // In each fifth of the time some are closed, but never more than half of them.
    for fifth in 0..5 {
        let from = Duration::from_millis(3000 + fifth * 500);
        let gone = times
            .iter()
            .filter(|at| (from..from + Duration::from_millis(500)).contains(at))
            .count();
        assert!((10..=100).contains(&gone), "{gone} from {from:?} on: {times:?}");
    }
    let has_talked = |number: &usize| *number < 100;
    let first_of_the_talkers = looks.iter().position(|(_, closed)| closed.iter().any(has_talked));
    let after_it = looks[first_of_the_talkers.unwrap() + 1..]
        .iter()
        .flat_map(|(_, closed)| closed)
        .filter(|number| !has_talked(number))
        .count();
    assert!(
        after_it <= 10,
        "{after_it} that were silent longer went after one that had spoken"
    );

    // The server gets the close frame too, masked like a client's frames.
    for n in 0..200 {
        let visit = backend.visit(n);
        assert_eq!(visit.ended(), End::Fin);
        let heard = visit.tail();
        let close = &heard[heard.len() - 8..];
        assert_eq!(close[..2], [0x88, 0x82], "{heard:?}");
        assert_eq!([close[2] ^ close[6], close[3] ^ close[7]], 1012_u16.to_be_bytes());
    }
    until("a line for each", || {
        let closed = rig.lines().into_iter().filter(|line| line["reason"] == "drain");
        (closed.count() == 200).then_some(())
    });
}

#[test]
fn a_drain_waits_for_the_end_of_a_frame_and_cuts_without_a_close_frame_if_it_never_comes() {
    let whole = frame(1, b"a message that is under way");
    let (half, gate) = (whole[..9].to_vec(), Gate::default());
    let (says, door) = (whole.clone(), gate.clone());
    let backend = Backend::start(move |guest| {
        guest.open();
        if guest.place() < 2 {
            guest.send(&says[..9]);
        }
        if guest.place() == 0 {
            door.wait();
            guest.send(&says[9..]);
        }
        guest.read_to_end();
    });
    let mut rig = Rig::start(&backend, "[server]\ndrain_timeout = \"6s\"");
    let mut finishes = rig.open();
    let mut never = rig.open();
    let mut half_sent = rig.open();
    half_sent.send(&masked(1, b"half of a client's")[..9]);
    thread::sleep(Duration::from_millis(700));
    let mut last = rig.open();
    last.send(&masked(1, b"spoke last"));
    all_read([&last, &half_sent]);
    thread::sleep(Duration::from_millis(300));
    // Connections that wait for the end of a frame are cut only after all others have been asked to close.
    let later = [(); 4].map(|()| rig.open());

    rig.signal(Signal::TERM);
    // The last one gets its close frame after those three.
    assert_eq!(last.read_to_end(), (frame(8, &1012_u16.to_be_bytes()), End::Fin));
    assert_eq!(finishes.read_exactly(9), half);
    assert!(finishes.is_silent(), "no close frame inside a frame");
    gate.open();
    let (rest, end) = finishes.read_to_end();
    assert_eq!(rest, [&whole[9..], &frame(8, &1012_u16.to_be_bytes())].concat());
    assert_eq!(end, End::Fin);
    assert_eq!(never.read_to_end(), (half, End::Fin), "an end, and no byte of ours");
    let (heard, end) = half_sent.read_to_end();
    assert_eq!((close_code(&heard), end), (Some(1012), End::Fin));
    drop(later);
    assert_eq!(rig.ended().code(), Some(0));
    assert_eq!(backend.visit(2).tail(), masked(1, b"half of a client's")[..9]);
    assert_eq!(backend.visit(2).ended(), End::Fin);
}

#[test]
fn a_client_whose_server_has_not_answered_by_the_end_of_the_drain_leaves_a_line() {
    let backend = Backend::start(|guest| {
        guest.read_head();
        guest.read_to_end();
    });
    let mut rig = Rig::start(&backend, "[server]\ndrain_timeout = \"1s\"");
    let mut client = rig.send(Request::to("/ws").into_bytes());
    backend.visit(0).head();
    rig.signal(Signal::TERM);
    assert_eq!(rig.ended().code(), Some(0));
    assert_eq!(client.read_to_end(), (Vec::new(), End::Fin));
    let line = rig.line("what became of it", |line| line["event"] == "failed");
    assert_eq!(line["reason"], "draining");
    assert_eq!(line["route"], "default");
    assert_eq!(line["server"], backend.address().to_string());
    assert!(line["status"].is_null(), "no answer was sent: {line}");
}

#[test]
fn without_connections_it_ends_at_once_with_0() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let backend = Backend::listening();
        let mut rig = Rig::start(&backend, "");
        let mut was_open = rig.open();
        was_open.fin();
        was_open.read_to_end();
        rig.quiet();
        let start = Instant::now();
        rig.signal(signal);
        assert_eq!(rig.ended().code(), Some(0));
        assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
        rig.line("it says that it stopped", |line| line["event"] == "stopped");
    }
}

#[test]
fn a_second_signal_ends_it_at_once_with_1() {
    for (first, second) in [
        (Signal::TERM, Signal::TERM),
        (Signal::INT, Signal::INT),
        (Signal::TERM, Signal::INT),
        (Signal::QUIT, Signal::QUIT),
        (Signal::QUIT, Signal::TERM),
    ] {
        let backend = Backend::listening();
        let mut rig = Rig::start(&backend, "");
        let mut open = rig.open();
        rig.signal(first);
        refuses(&rig);
        assert!(open.is_silent(), "the first signal ends no connection yet");
        let start = Instant::now();
        rig.signal(second);
        assert_eq!(rig.ended().code(), Some(1));
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        assert_eq!(open.read_to_end().0, b"");
    }
}

#[test]
fn signals_that_other_servers_use_end_no_connection_and_are_logged() {
    let backend = Backend::echo();
    let mut rig = Rig::start(&backend, "");
    let mut open = rig.open();
    let warned = [
        (Signal::USR1, "SIGUSR1", "no file to reopen"),
        (Signal::USR2, "SIGUSR2", "no new program"),
        (Signal::ALARM, "SIGALRM", "is ignored"),
        (Signal::WINCH, "SIGWINCH", "is ignored"),
        (Signal::IO, "SIGIO", "is ignored"),
        (Signal::PROF, "SIGPROF", "is ignored"),
        (Signal::POWER, "SIGPWR", "is ignored"),
        (Signal::STKFLT, "SIGSTKFLT", "is ignored"),
        (Signal::VTALARM, "SIGVTALRM", "is ignored"),
        (Signal::XCPU, "SIGXCPU", "is ignored"),
    ];
    for (signal, name, why) in warned {
        rig.signal(signal);
        let line = rig.line(name, |line| {
            let message = line["message"].as_str().unwrap_or_default();
            line["event"] == "signal" && message.contains(name)
        });
        assert!(line["message"].as_str().unwrap().contains(why), "{line}");
        assert_eq!(line["level"], "warn");
    }
    rig.signal(Signal::XFSZ);
    rig.signal(Signal::PIPE);
    let still = masked(1, b"still here");
    open.send(&still);
    assert_eq!(open.read_exactly(still.len()), still);
    assert_eq!(rig.get("/readyz").status(), 200, "nothing drains");
    assert_eq!(
        rig.messages("signal").len(),
        warned.len(),
        "each signal once, and none of the others"
    );
    // An ignored signal does not even disturb a drain.
    rig.signal(Signal::TERM);
    refuses(&rig);
    rig.signal(Signal::USR1);
    until("the signal is logged again", || {
        (rig.messages("signal").len() == warned.len() + 1).then_some(())
    });
    rig.lives();
    open.fin();
    open.read_to_end();
    assert_eq!(rig.ended().code(), Some(0));
}

#[test]
fn during_a_drain_new_clients_are_refused_within_a_second_and_open_ones_and_operators_are_served() {
    let backend = Backend::echo();
    let mut rig = Rig::start(&backend, "[server]\ndrain_timeout = \"8s\"");
    let mut open = rig.open();
    assert_eq!(rig.get("/readyz").status(), 200);
    let start = Instant::now();
    rig.signal(Signal::TERM);
    refuses(&rig);
    assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    for n in 0..5_u8 {
        let sent = masked(1, &[n; 40]);
        open.send(&sent);
        assert_eq!(open.read_exactly(sent.len()), sent);
        assert_eq!(rig.get("/readyz").status(), 503);
        assert_eq!(rig.get("/healthz").status(), 200);
        assert_eq!(rig.stats()["connections"], 1);
        assert_eq!(rig.count("wsguard_counter_drift"), 0);
    }
    assert!(start.elapsed() < Duration::from_secs(4), "all that in the first half");
    open.fin();
    open.read_to_end();
    assert_eq!(rig.ended().code(), Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(6),
        "it does not wait when no connection is open"
    );
    assert_eq!(backend.dials(), 1);
}

#[test]
fn a_head_that_is_completed_during_the_drain_is_refused_in_the_way_of_its_zone() {
    side_by_side(["http", "close", "drop"], |style| {
        let backend = Backend::listening();
        let mut rig = Rig::start(
            &backend,
            &format!("[server]\ndrain_timeout = \"6s\"\n[limits]\nreject_with = \"{style}\""),
        );
        let mut open = rig.open();
        let request = Request::to("/ws").into_bytes();
        let mut late = rig.send(&request[..40]);
        rig.expect(r#"wsguard_pending{listener="front"}"#, 1);
        rig.signal(Signal::TERM);
        refuses(&rig);
        assert!(late.is_silent(), "it may still complete its head");
        late.send(&request[40..]);
        let answer = late.answer();
        match style {
            "http" => answer.assert_refusal("503 Service Unavailable", "draining", "Service unavailable"),
            "close" => {
                assert!(answer.bytes.starts_with(b"HTTP/1.1 101 "), "{answer}");
                let key = "dGhlIHNhbXBsZSBub25jZQ==";
                assert_eq!(answer.values("Sec-WebSocket-Accept"), [accept_for(key)]);
                assert_eq!(close_code(answer.body()), Some(1013));
                assert_eq!(
                    (&answer.body()[4..], answer.end),
                    (&b"Service unavailable"[..], End::Fin)
                );
            }
            _ => assert_eq!((answer.bytes.as_slice(), answer.end), (&b""[..], End::Reset)),
        }
        assert_eq!(backend.dials(), 1);
        rig.expect(
            r#"wsguard_handshakes_total{zone="default",outcome="rejected",reason="draining"}"#,
            1,
        );
        assert!(open.is_silent());
        assert_eq!(close_code(&open.read_to_end().0), Some(1012));
        assert_eq!(rig.ended().code(), Some(0));
    });
}

/// A stopped process accepts no connection, so all are in the kernel's queue when it gets the signal.
#[test]
fn clients_that_are_queued_at_the_end_are_answered_and_not_reset() {
    let backend = Backend::listening();
    let mut rig = Rig::start(&backend, "[server]\ndrain_timeout = \"2s\"");
    rig.signal(Signal::STOP);
    let gone = rig.connect();
    let mut queued: Vec<Socket> = (0..100).map(|n| rig.send_from(nth_ip(n), Request::to("/ws"))).collect();
    gone.reset();
    rig.signal(Signal::TERM);
    rig.signal(Signal::CONT);
    for (n, socket) in queued.iter_mut().enumerate() {
        let head = socket.read_head();
        let (rest, end) = socket.read_to_end();
        assert_eq!(end, End::Fin, "number {n}");
        if head.starts_with(b"HTTP/1.1 101 ") {
            assert_eq!(close_code(&rest), Some(1012), "number {n}");
        } else {
            let head = String::from_utf8(head).unwrap();
            assert!(head.contains("X-Wsguard-Reason: draining"), "number {n}: {head:?}");
        }
    }
    assert_eq!(rig.ended().code(), Some(0));
}

#[test]
fn during_drain_delay_new_clients_are_still_served() {
    let backend = Backend::echo_frames();
    let mut rig = Rig::before(&backend)
        .listener("health_path = \"/up\"\n")
        .config("[server]\nwatch_config = false\ndrain_delay = \"3s\"\ndrain_timeout = \"2s\"")
        .start();
    let up = b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!((rig.ask(up).status(), rig.get("/readyz").status()), (200, 200));
    let start = Instant::now();
    rig.signal(Signal::TERM);
    until("/readyz is 503", || (rig.get("/readyz").status() == 503).then_some(()));
    assert_eq!(rig.ask(up).status(), 503);
    let mut open = rig.open();
    open.send(&masked(1, b"welcome"));
    assert_eq!(open.read_frame(), (0x81, b"welcome".to_vec()));
    assert!(
        start.elapsed() < Duration::from_millis(2900),
        "all that within drain_delay"
    );
    refuses(&rig);
    assert!(start.elapsed() >= Duration::from_millis(2900), "{:?}", start.elapsed());
    assert_eq!(close_code(&open.read_to_end().0), Some(1012));
    assert_eq!(rig.ended().code(), Some(0));
}

#[test]
fn a_reload_and_a_signal_to_end_at_once_end_it_in_order() {
    for round in 0..5 {
        let backend = Backend::listening();
        let text = |more: &str| {
            let config = format!("[server]\nwatch_config = false\ndrain_timeout = \"1s\"\n{more}");
            Rig::before(&backend).config(&config).text()
        };
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("wsguard.toml"), text("")).unwrap();
        let mut rig = Rig::start_in(dir);
        let mut open = rig.open();
        rig.put(&format!(
            "{}\n[[listener]]\nname = \"more\"\nbind = [\"127.0.0.2:0\"]",
            text("[limits]\nper_ip = 7")
        ));
        rig.signal(Signal::HUP);
        if round % 2 == 1 {
            thread::sleep(Duration::from_millis(round));
        }
        rig.signal(Signal::TERM);
        assert_eq!(close_code(&open.read_to_end().0), Some(1012), "round {round}");
        assert_eq!(rig.ended().code(), Some(0), "round {round}");
    }
}

/// Waits until the front has no listener.
fn refuses(rig: &Rig) {
    until("newcomers are refused", || {
        TcpStream::connect_timeout(&rig.front(), Duration::from_secs(5))
            .is_err()
            .then_some(())
    });
}

/// The status code of a process that is about to end.
const CLOSED: [u8; 2] = 1012_u16.to_be_bytes();

/// Which of these connections were closed with 1012: for each look, the time after `start` and the connections that it
/// found closed. Within one look the order is not known, but a connection found by an earlier look was closed earlier.
fn closed_by_look(open: Vec<Socket>, start: Instant) -> Vec<(Duration, Vec<usize>)> {
    let mut open: Vec<(usize, Socket)> = open.into_iter().enumerate().collect();
    let mut looks = Vec::new();
    while !open.is_empty() {
        let mut watched: Vec<PollFd<'_>> = open
            .iter()
            .map(|(_, socket)| PollFd::new(socket.stream(), PollFlags::IN))
            .collect();
        let found = poll(&mut watched, Some(&PATIENCE.try_into().unwrap())).unwrap();
        let at = start.elapsed();
        assert!(found > 0, "{} got no close frame", open.len());
        let is_closing: Vec<bool> = watched.iter().map(|socket| !socket.revents().is_empty()).collect();
        let mut closed = Vec::new();
        let mut is_closing = is_closing.into_iter();
        for (number, mut socket) in open.extract_if(.., |_| is_closing.next().unwrap()) {
            let heard = socket.read_exactly(frame(8, &CLOSED).len());
            assert_eq!(heard, frame(8, &CLOSED));
            // A client that answers the close frame is closed at once.
            socket.send(&masked(8, &CLOSED));
            assert_eq!(socket.read_to_end(), (Vec::new(), End::Fin));
            closed.push(number);
        }
        looks.push((at, closed));
    }
    looks
}
