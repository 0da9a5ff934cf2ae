//! Sockets without a complete request: how many there may be, which one gives way, and how long they may take.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::rig::{Answer, Backend, End, Request, Rig, Socket, all_read, ip, nth_ip};

#[test]
fn one_address_holds_only_so_many_seats() {
    let backend = Backend::listening();
    let rig = Rig::before(&backend).listener("max_pending_per_ip = 3").start();
    let mut held: Vec<Socket> = (0..3).map(|_| rig.connect()).collect();
    rig.expect(PENDING, 3);
    let (heard, _) = rig.send(Request::to("/ws")).read_to_end();
    assert_eq!(heard, b"", "the fourth hears nothing");
    let other = rig.open_from(ip(2));
    held[0].send(Request::to("/ws").as_ref());
    assert!(
        held[0].read_head().starts_with(b"HTTP/1.1 101 "),
        "those seated are served"
    );
    assert_eq!(backend.dials(), 2);
    rig.expect(
        r#"wsguard_handshakes_total{zone="-",outcome="rejected",reason="pending_per_ip"}"#,
        1,
    );
    drop((held, other));
    rig.quiet();
}

#[test]
fn when_all_seats_are_taken_the_silent_one_that_waited_longest_gives_way() {
    let backend = Backend::listening();
    let rig = Rig::before(&backend)
        .listener("max_pending = 3\nmax_pending_per_ip = \"off\"")
        .start();
    let mut silent: Vec<Socket> = Vec::new();
    for n in 0..3 {
        silent.push(rig.connect_from(nth_ip(n)));
        rig.expect(PENDING, i64::from(n) + 1);
    }
    let newcomer = rig.open_from(nth_ip(9));
    assert_eq!(silent[0].read_to_end().0, b"", "the oldest hears nothing");
    assert!(silent[1].is_silent() && silent[2].is_silent());
    assert_eq!(backend.dials(), 1);
    rig.expect(
        r#"wsguard_handshakes_total{zone="-",outcome="rejected",reason="pending_full"}"#,
        1,
    );
    drop((silent, newcomer));
    rig.quiet();
}

/// A socket with half a head keeps its seat although it came first. It has a second to send the rest.
#[test]
fn a_socket_that_has_sent_something_gives_way_after_the_silent_ones() {
    let backend = Backend::listening();
    let rig = Rig::before(&backend)
        .listener("max_pending = 3\nmax_pending_per_ip = \"off\"")
        .start();
    let in_time = (0..10).find(|round| {
        let start = Instant::now();
        let mut speaking = rig.send_from(nth_ip(0), "GET /ws HTTP/1.1\r\n");
        all_read([&speaking]);
        let silent = [1, 2].map(|n| rig.connect_from(nth_ip(n)));
        rig.expect(PENDING, 3);
        let newcomer = rig.open_from(nth_ip(9));
        if start.elapsed() > Duration::from_millis(900) {
            drop((speaking, silent, newcomer));
            rig.quiet();
            return false;
        }
        speaking.send(&Request::to("/ws").as_ref()[b"GET /ws HTTP/1.1\r\n".len()..]);
        assert!(speaking.read_head().starts_with(b"HTTP/1.1 101 "), "in round {round}");
        assert_eq!(silent.iter().filter(|socket| socket.is_silent()).count(), 1);
        drop((speaking, silent, newcomer));
        true
    });
    assert!(in_time.is_some(), "never within a second");
    rig.quiet();
}

#[test]
fn if_all_have_sent_something_the_one_that_waited_longest_gives_way() {
    let backend = Backend::listening();
    let rig = Rig::before(&backend)
        .listener("max_pending = 3\nmax_pending_per_ip = \"off\"")
        .start();
    let mut begun: Vec<Socket> = Vec::new();
    for n in 0..3 {
        begun.push(rig.send_from(nth_ip(n), "GET /ws"));
        rig.expect(PENDING, i64::from(n) + 1);
    }
    all_read(&begun);
    let newcomer = rig.open_from(nth_ip(9));
    assert_eq!(begun[0].read_to_end().0, b"");
    assert!(begun[1].is_silent() && begun[2].is_silent());
    assert_eq!(backend.dials(), 1);
    drop((begun, newcomer));
    rig.quiet();
}

#[test]
fn half_a_head_dripped_a_byte_at_a_time_ends_at_the_deadline() {
    let backend = Backend::listening();
    let rig = Rig::before(&backend).listener("handshake_timeout = \"2s\"").start();
    let start = Instant::now();
    let mut dripping = rig.connect();
    let head = Request::to("/ws");
    let answer = thread::scope(|scope| {
        let mut stream = dripping.stream().try_clone().unwrap();
        scope.spawn(move || {
            use std::io::Write;
            for byte in &head.as_ref()[..40] {
                if stream.write_all(&[*byte]).is_err() {
                    return;
                }
                thread::sleep(Duration::from_millis(100));
            }
        });
        let answer = dripping.answer();
        let took = start.elapsed();
        assert!(
            (Duration::from_millis(1900)..Duration::from_secs(3)).contains(&took),
            "ended after {took:?}"
        );
        answer
    });
    assert_eq!(answer.status(), 408, "{answer}");
    assert_eq!(answer.values("X-Wsguard-Reason"), ["head_timeout"]);
    assert_eq!(backend.dials(), 0);
    rig.expect(
        r#"wsguard_handshakes_total{zone="-",outcome="rejected",reason="head_timeout"}"#,
        1,
    );
    rig.quiet();
}

#[test]
fn a_silent_socket_is_closed_at_the_deadline_without_a_byte() {
    let backend = Backend::listening();
    let rig = Rig::before(&backend).listener("handshake_timeout = \"1s\"").start();
    let start = Instant::now();
    let mut silent: Vec<Socket> = (0..20).map(|_| rig.connect()).collect();
    let half = rig.send("GET /ws HTTP/1.1\r\nHost: a\r\n").answer();
    half.assert_refusal("408 Request Timeout", "head_timeout", half.body_text().trim_end());
    for socket in &mut silent {
        assert_eq!(socket.read_to_end(), (Vec::new(), End::Fin));
    }
    assert!(
        start.elapsed() >= Duration::from_millis(950),
        "too early: {:?}",
        start.elapsed()
    );
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "too late: {:?}",
        start.elapsed()
    );
    assert_eq!(backend.dials(), 0);
    rig.quiet();
}

#[test]
fn a_client_that_ends_before_its_request_frees_the_seat_at_once() {
    let backend = Backend::listening();
    let rig = Rig::before(&backend).start();
    let sockets: Vec<Socket> = (0..10).map(|_| rig.send("GET /ws")).collect();
    rig.expect(PENDING, 10);
    for (n, socket) in sockets.into_iter().enumerate() {
        if n % 2 == 0 { drop(socket) } else { socket.reset() }
    }
    rig.quiet_within(Duration::from_secs(2));
    assert_eq!(backend.dials(), 0);
}

#[test]
fn a_client_that_ends_without_a_byte_frees_the_seat_at_once() {
    let backend = Backend::listening();
    let rig = Rig::before(&backend).start();
    let sockets: Vec<Socket> = (0..12).map(|_| rig.connect()).collect();
    rig.expect(PENDING, 12);
    let mut ended = Vec::new();
    for (n, socket) in sockets.into_iter().enumerate() {
        match n % 3 {
            0 => drop(socket),
            1 => socket.reset(),
            _ => {
                socket.fin();
                ended.push(socket);
            }
        }
    }
    rig.quiet_within(Duration::from_secs(2));
    for socket in &mut ended {
        assert_eq!(socket.read_to_end(), (Vec::new(), End::Fin));
    }
    rig.expect(SILENT, 12);
    assert_eq!(backend.dials(), 0);
}

#[test]
fn a_check_that_only_connects_leaves_no_line_and_is_counted_apart() {
    let backend = Backend::listening();
    let rig = Rig::before(&backend)
        .listener("accept_proxy_protocol = true\nhandshake_timeout = \"1s\"")
        .config("[client_ip]\ntrusted_proxies = [\"loopback\"]")
        .start();
    rig.expect(SILENT, 0);
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    for unnamed in [&b""[..], local, b"PROXY UNKNOWN\r\n"] {
        drop(rig.send(unnamed));
        let reset = rig.send(unnamed);
        all_read([&reset]);
        reset.reset();
    }
    rig.expect(SILENT, 6);
    // A socket that stays until the deadline is counted as silent, too.
    let mut stays = [rig.connect(), rig.send(local)];
    for socket in &mut stays {
        assert_eq!(socket.read_to_end(), (Vec::new(), End::Fin));
    }
    rig.expect(SILENT, 8);
    // A socket with one byte, or with a client named by a PROXY header, is not silent.
    drop(rig.send("P"));
    drop(rig.send("PROXY TCP4 203.0.113.7 192.0.2.1 50000 443\r\n"));
    drop(rig.send([&local[..], b"G"].concat()));
    rig.expect(
        r#"wsguard_handshakes_total{zone="-",outcome="rejected",reason="client_gone"}"#,
        3,
    );
    rig.quiet();
    let lines: Vec<_> = rig
        .lines()
        .into_iter()
        .filter(|line| line["event"] == "rejected")
        .collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines.iter().all(|line| line["reason"] == "client_gone"), "{lines:?}");
    rig.expect(SILENT, 8);
    assert_eq!(rig.count(r#"wsguard_accepted_total{listener="front"}"#), 11);
}

/// The end comes together with the bytes before it, so the kernel reports the socket only once.
#[test]
fn half_a_head_with_the_end_right_behind_it_frees_the_seat_at_once() {
    let backend = Backend::listening();
    let rig = Rig::before(&backend).start();
    for n in 0..20 {
        let mut socket = rig.connect();
        rig.expect(PENDING, 1);
        socket.send(b"GET /ws HTTP/1.1\r\n");
        socket.fin();
        let start = Instant::now();
        assert_eq!(socket.read_to_end(), (Vec::new(), End::Fin), "in round {n}");
        assert!(start.elapsed() < Duration::from_secs(2), "took {:?}", start.elapsed());
    }
    assert_eq!(backend.dials(), 0);
    rig.quiet();
}

/// A complete request with the end right behind it is a request. It is decided on, and then there is no client left to
/// serve.
#[test]
fn a_request_with_the_end_right_behind_it_is_decided() {
    let backend = Backend::listening();
    let rig = Rig::before(&backend).start();
    for _ in 0..20 {
        let mut socket = rig.connect();
        rig.expect(PENDING, 1);
        socket.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        socket.fin();
        let answer = socket.answer();
        assert_eq!((answer.status(), answer.end), (426, End::Fin), "{answer}");
    }
    rig.quiet();
}

/// The head is larger than one read. The rest has to be read although the kernel does not report it again.
#[test]
fn a_large_head_that_comes_after_a_while_is_read_to_its_end() {
    let backend = Backend::listening();
    let rig = Rig::before(&backend).listener("max_head_size = \"128KiB\"").start();
    let mut socket = rig.connect();
    rig.expect(PENDING, 1);
    let request = Request::to("/ws").add("X-Large", vec![b'x'; 100_000]);
    socket.send(request.as_ref());
    assert!(socket.read_head().starts_with(b"HTTP/1.1 101 "));
    drop(socket);
    rig.quiet();
}

/// Refused clients that have not closed yet hold seats and descriptors. Both become free soon.
#[test]
fn a_refused_client_that_stays_is_closed_after_a_second() {
    let backend = Backend::listening();
    let rig = Rig::before(&backend).start();
    let mut refused: Vec<Socket> = (0..5)
        .map(|_| rig.send(Request::to("/ws").without("Sec-WebSocket-Key").followed_by("more")))
        .collect();
    let answers: Vec<Answer> = refused.iter_mut().map(Socket::answer).collect();
    assert!(
        answers
            .iter()
            .all(|answer| answer.status() == 400 && answer.end == End::Fin)
    );
    rig.quiet_within(Duration::from_secs(4));
    assert_eq!(backend.dials(), 0);
    drop(refused);
}

#[test]
fn if_half_of_the_seats_are_taken_no_refused_client_lingers() {
    let backend = Backend::listening();
    let rig = Rig::before(&backend).listener("max_pending = 6").start();
    let held: Vec<Socket> = (0..3).map(|n| rig.connect_from(nth_ip(n))).collect();
    rig.expect(PENDING, 3);
    let mut refused = rig.send(Request::to("/ws").without("Sec-WebSocket-Key").followed_by("more"));
    let start = Instant::now();
    refused.answer();
    rig.expect(PENDING, 3);
    assert!(
        start.elapsed() < Duration::from_millis(700),
        "lingered {:?}",
        start.elapsed()
    );
    assert_eq!(backend.dials(), 0);
    drop((held, refused));
    rig.quiet();
}

/// A new client is served while hundreds are silent.
#[test]
fn many_silent_sockets_do_not_delay_an_honest_client() {
    let backend = Backend::listening();
    let rig = Rig::before(&backend).listener("max_pending = 300").start();
    let crowd: Vec<Socket> = (0..400)
        .map(|n| {
            if n % 2 == 0 {
                rig.connect_from(nth_ip(n))
            } else {
                rig.send_from(nth_ip(n), "GET /ws HTTP/1.1\r\nHo")
            }
        })
        .collect();
    rig.expect(PENDING, 300);
    let mut took: Vec<Duration> = (0..20).map(|_| newcomer(&rig, ip(1))).collect();
    took.sort_unstable();
    assert!(took[18] < Duration::from_millis(250), "took {took:?}");
    assert_eq!(backend.dials(), 20);
    drop(crowd);
    rig.quiet();
}

/// Thousands of sockets wait, then all begin a request at once, then all complete it. None is forgotten, and a client
/// that comes in the meantime need not wait for them.
#[test]
fn thousands_of_pending_sockets_delay_no_other_client_and_each_is_served_in_the_end() {
    raise_descriptors();
    let backend = Backend::listening();
    let rig = Rig::before(&backend)
        .listener("handshake_timeout = \"1m\"\nmax_pending_per_ip = \"off\"")
        .start();
    let served = || {
        let mut took = thread::scope(|scope| {
            let newcomers = [(); 5].map(|()| scope.spawn(|| newcomer(&rig, ip(9))));
            newcomers.map(|newcomer| newcomer.join().unwrap())
        });
        took.sort_unstable();
        took[3]
    };
    // A busy machine takes some time even without the other sockets.
    let alone = served();
    let served_at_once = |when: &str| {
        let took = served();
        let bound = Duration::from_millis(500) + 4 * alone;
        assert!(took < bound, "{when}: {took:?}, and {alone:?} before anybody waited");
    };
    let mut crowd: Vec<Socket> = (0..3000).map(|n| rig.connect_from(nth_ip(n))).collect();
    rig.expect(PENDING, 3000);
    served_at_once("while all are silent");
    for socket in &mut crowd {
        socket.send(b"GET / HTTP/1.1\r\n");
    }
    served_at_once("while all begin to speak");
    assert!(crowd.iter().all(Socket::is_silent), "no socket was refused");
    rig.expect(PENDING, 3000);
    for socket in &mut crowd {
        socket.send(b"Host: a\r\n\r\n");
    }
    served_at_once("while all are answered");
    for socket in &mut crowd {
        let answer = socket.answer();
        assert_eq!((answer.status(), answer.end), (426, End::Fin), "{answer}");
    }
    assert_eq!(backend.dials(), 20);
    drop(crowd);
    rig.quiet();
}

/// How long one client takes to be admitted: the second-longest time of several. The longest shows only what else the
/// machine did at that moment.
fn newcomer(rig: &Rig, source: IpAddr) -> Duration {
    let start = Instant::now();
    drop(rig.open_from(source));
    start.elapsed()
}

/// Raises the descriptor limit as far as that needs no privilege. This process holds one end of each connection.
fn raise_descriptors() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
}

const PENDING: &str = r#"wsguard_pending{listener="front"}"#;
const SILENT: &str = r#"wsguard_silent_closes_total{listener="front"}"#;
