//! An open tunnel: every byte arrives, every kind of end is passed on, and every count comes back.

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use crate::rig::{
    Backend, End, Gate, Request, Rig, Socket, accept_for, all_acknowledged, all_read, frame, ip, masked, until,
};

/// Bytes that are incompressible and can't match by chance. The same seed gives the same bytes.
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 27)
    }

    pub fn one_in(&mut self, chances: u64) -> bool {
        self.next().is_multiple_of(chances)
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        let (eights, rest) = bytes.as_chunks_mut::<8>();
        for eight in eights {
            *eight = self.next().to_le_bytes();
        }
        rest.copy_from_slice(&self.next().to_le_bytes()[..rest.len()]);
    }
}

pub const MIB: usize = 1 << 20;

/// Allows bytes that are no frames.
const ANY_BYTES: &str = "[limits.messages]\nstrict_frames = false";

#[test]
fn sixty_four_mebibytes_of_anything_both_ways_in_any_chunks_arrive_intact() {
    let backend = Backend::start(|guest| {
        guest.open();
        let writing = guest.stream.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| write_noise(writing, 2, 64 * MIB));
            assert_noise(&mut guest.stream, 1, 64 * MIB);
        });
        guest.send(b"all of it");
    });
    let rig = Rig::start(&backend, ANY_BYTES);
    let mut socket = rig.open();
    let writing = socket.stream().try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| write_noise(writing, 1, 64 * MIB));
        assert_noise(&mut socket, 2, 64 * MIB);
    });
    assert_eq!(socket.read_exactly(9), b"all of it", "the server saw what was sent");
    drop(socket);
    rig.quiet();
    let metrics = rig.metrics();
    let sixty_four = i64::try_from(64 * MIB).unwrap();
    assert_eq!(
        metrics.count(r#"wsguard_bytes_total{zone="default",direction="in"}"#),
        sixty_four
    );
    assert!(metrics.count(r#"wsguard_bytes_total{zone="default",direction="out"}"#) >= sixty_four + 9);
}

#[test]
fn messages_of_every_size_come_back_and_are_counted_while_the_connection_lives() {
    let backend = Backend::echo_frames();
    let rig = Rig::start(&backend, "");
    let mut socket = rig.open();
    let mut noise = Noise(7);
    let sizes = [0, 1, 125, 126, 127, 4096, 65_535, 65_536, 300_000];
    for size in sizes {
        let mut payload = vec![0; size];
        noise.fill(&mut payload);
        let bytes = masked(2, &payload);
        thread::scope(|scope| {
            let mut stream = socket.stream().try_clone().unwrap();
            scope.spawn(move || stream.write_all(&bytes).unwrap());
            assert!(socket.read_frame() == (0x82, payload), "{size} bytes");
        });
    }
    socket.send(&masked(9, b"ping"));
    assert_eq!(socket.read_frame(), (0x89, b"ping".to_vec()));
    let messages = i64::try_from(sizes.len()).unwrap();
    rig.expect(r#"wsguard_messages_total{zone="default",direction="in"}"#, messages);
    rig.expect(r#"wsguard_messages_total{zone="default",direction="out"}"#, messages);
    rig.expect(r#"wsguard_silent_connections{zone="default"}"#, 0);
    assert_eq!(rig.count(r#"wsguard_connections{zone="default"}"#), 1);

    socket.send(&masked(8, &1000_u16.to_be_bytes()));
    assert_eq!(socket.read_frame(), (0x88, 1000_u16.to_be_bytes().to_vec()));
    assert_eq!(socket.read_to_end(), (Vec::new(), End::Fin));
    drop(socket);
    rig.quiet();
    let line = rig.access("client");
    assert_eq!(
        (line["messages_in"].as_i64(), line["messages_out"].as_i64()),
        (Some(messages), Some(messages))
    );
}

#[test]
fn a_fragmented_message_counts_once() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "");
    let mut socket = rig.open();
    let mut fragments = [
        masked(1, b"one"),
        masked(0, b"two"),
        masked(9, b"ping"),
        masked(0, b"three"),
    ];
    fragments[0][0] &= 0x7f;
    fragments[1][0] &= 0x7f;
    let all = fragments.concat();
    for byte in &all {
        socket.send(&[*byte]);
    }
    assert_eq!(backend.visit(0).tail_of(all.len()), all);
    rig.expect(r#"wsguard_messages_total{zone="default",direction="in"}"#, 1);
    drop(socket);
    rig.quiet();
}

/// Plain bytes are no frames. If frames need not be valid, these bytes pass, and only what can be counted is counted.
#[test]
fn a_stream_that_is_not_websocket_passes_too() {
    let backend = Backend::echo();
    let rig = Rig::start(&backend, ANY_BYTES);
    let mut socket = rig.open();
    let bytes = vec![0xff; 100_000];
    thread::scope(|scope| {
        let mut stream = socket.stream().try_clone().unwrap();
        let bytes = &bytes;
        scope.spawn(move || stream.write_all(bytes).unwrap());
        assert!(socket.read_exactly(bytes.len()) == *bytes);
    });
    drop(socket);
    rig.quiet();
}

#[test]
fn a_client_that_has_ended_its_side_still_receives_everything() {
    let backend = Backend::start(|guest| {
        guest.open();
        guest.read_to_end();
        guest.send(&vec![b'x'; 3 * MIB]);
    });
    let rig = Rig::start(&backend, ANY_BYTES);
    let mut socket = rig.open();
    socket.send(b"done");
    socket.fin();
    let (heard, end) = socket.read_to_end();
    assert!(heard == vec![b'x'; 3 * MIB], "{} bytes", heard.len());
    assert_eq!(end, End::Fin);
    assert_eq!(
        (backend.visit(0).tail(), backend.visit(0).end()),
        (b"done".to_vec(), Some(End::Fin))
    );
    rig.quiet();
    rig.expect(r#"wsguard_closes_total{zone="default",reason="client"}"#, 1);
}

#[test]
fn a_server_that_has_ended_its_side_still_receives_everything() {
    let backend = Backend::start(|guest| {
        guest.open();
        guest.send(b"done");
        guest.fin();
        guest.read_to_end();
    });
    let rig = Rig::start(&backend, ANY_BYTES);
    let mut socket = rig.open();
    assert_eq!(socket.read_to_end(), (b"done".to_vec(), End::Fin));
    socket.send(&vec![b'x'; 3 * MIB]);
    drop(socket);
    assert_eq!(backend.visit(0).ended(), End::Fin);
    assert!(backend.visit(0).tail() == vec![b'x'; 3 * MIB]);
    rig.quiet();
    rig.expect(r#"wsguard_closes_total{zone="default",reason="upstream"}"#, 1);
}

#[test]
fn a_reset_of_the_client_is_a_reset_at_the_server_behind_all_it_had_sent() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, ANY_BYTES);
    let mut socket = rig.open();
    socket.send(&[b'x'; 5000]);
    all_read([&socket]);
    socket.reset();
    assert_eq!(backend.visit(0).ended(), End::Reset);
    assert_eq!(backend.visit(0).tail().len(), 5000);
    rig.quiet();
    rig.expect(r#"wsguard_closes_total{zone="default",reason="client"}"#, 1);
}

#[test]
fn a_reset_of_the_server_is_a_reset_at_the_client_behind_all_it_had_sent() {
    let backend = Backend::start(|guest| {
        guest.open();
        guest.send(&[b'x'; 5000]);
        all_acknowledged(guest.stream.local_addr().unwrap(), guest.stream.peer_addr().unwrap());
        guest.reset();
    });
    let rig = Rig::start(&backend, "");
    let mut socket = rig.open();
    let (heard, end) = socket.read_to_end();
    assert_eq!((heard.len(), end), (5000, End::Reset));
    rig.quiet();
    rig.expect(r#"wsguard_closes_total{zone="default",reason="upstream"}"#, 1);
}

/// The server answers, and ends without having read everything. Its kernel sends a reset, while the client has read
/// nothing yet.
#[test]
fn an_end_of_the_server_with_unread_bytes_loses_none_of_its_own() {
    let gate = Gate::default();
    let door = gate.clone();
    let backend = Backend::start(move |guest| {
        guest.open();
        guest.send(&vec![b'x'; 60_000]);
        all_acknowledged(guest.stream.local_addr().unwrap(), guest.stream.peer_addr().unwrap());
        door.wait();
    });
    let rig = Rig::start(&backend, ANY_BYTES);
    let mut socket = Socket::connect_with(ip(1), rig.front(), |socket| socket.set_recv_buffer_size(4096).unwrap());
    socket.send(Request::to("/ws").as_ref());
    assert!(socket.read_head().starts_with(b"HTTP/1.1 101 "));
    socket.send(b"never read by the server");
    all_read([&socket]);
    gate.open();
    // The client keeps writing although the server is gone. So the guard's writes fail while there is more to deliver.
    for _ in 0..20 {
        socket.send(b"neither is this");
        thread::sleep(Duration::from_millis(5));
    }
    let (heard, _) = socket.read_to_end();
    assert_eq!(heard.len(), 60_000);
    rig.quiet();
}

/// Neither side is read any more, so reading can't find an end.
#[test]
fn a_reset_is_noticed_even_behind_unread_bytes() {
    let gate = Gate::default();
    let door = gate.clone();
    let backend = Backend::start(move |guest| {
        guest.open();
        if guest.read_head().starts_with(b"GET /deaf ") {
            door.wait();
        } else {
            guest
                .stream
                .set_write_timeout(Some(Duration::from_millis(300)))
                .unwrap();
            while guest.stream.write_all(&[b'x'; 1 << 14]).is_ok() {}
            guest.reset();
        }
    });
    let rig = Rig::start(&backend, "[limits.timeouts]\nstalled = \"1s\"");
    let leaving = rig.try_open(ip(1), &Request::to("/deaf")).ok().unwrap();
    let mut stream = leaving.stream();
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    while stream.write_all(&[b'x'; 1 << 14]).is_ok() {}
    leaving.reset();
    rig.quiet_within(Duration::from_secs(5));

    let unread = rig.open();
    rig.expect(r#"wsguard_connections{zone="default"}"#, 1);
    rig.quiet_within(Duration::from_secs(5));
    assert_eq!(backend.dials(), 2);
    drop(unread);
    gate.open();
}

/// Small writes are passed on at once: neither leg waits for an acknowledgement that the other side delays.
#[test]
fn small_messages_are_not_held_back() {
    let backend = Backend::echo();
    let rig = Rig::start(&backend, "");
    let mut socket = rig.open();
    let message = masked(1, b"small");
    let mut took: Vec<Duration> = (0..100)
        .map(|_| {
            let start = Instant::now();
            socket.send(&message[..6]);
            socket.send(&message[6..]);
            assert_eq!(socket.read_exactly(message.len()), message);
            start.elapsed()
        })
        .collect();
    // If one leg waited for the other, all but the first few echoes would take 40 ms. On a busy machine some do anyway.
    took.sort_unstable();
    assert!(took[25] < Duration::from_millis(20), "small echoes took {took:?}");
    drop(socket);
    rig.quiet();
}

#[test]
fn many_ways_to_end_leave_every_count_at_zero() {
    let backend = Backend::start(|guest| {
        guest.open();
        let head = guest.read_head();
        let has = |path: &str| head.starts_with(format!("GET {path} ").as_bytes());
        if has("/server-fin") {
            guest.fin();
            guest.read_to_end();
        } else if has("/server-drop") {
        } else if has("/server-reset") {
            guest.reset();
        } else if has("/server-close-frame") {
            guest.send(&frame(8, &1001_u16.to_be_bytes()));
            guest.read_to_end();
        } else {
            guest.echo_frames();
        }
    });
    let rig = Rig::start(&backend, UNLIMITED);
    for round in 0..20 {
        for path in ["/server-fin", "/server-drop", "/server-reset", "/server-close-frame"] {
            let mut socket = rig.try_open(ip(1), &Request::to(path)).ok().unwrap();
            if path == "/server-close-frame" {
                assert_eq!(socket.read_frame().0, 0x88);
            } else {
                let expected = if path == "/server-reset" { End::Reset } else { End::Fin };
                assert_eq!(socket.read_to_end(), (Vec::new(), expected), "{path}");
            }
        }
        for way in ["fin", "drop", "reset", "close"] {
            let mut socket = rig.open();
            socket.send(&masked(1, b"hello"));
            match way {
                "fin" => {
                    socket.fin();
                    socket.read_to_end();
                }
                "reset" => socket.reset(),
                "close" => {
                    socket.send(&masked(8, &1000_u16.to_be_bytes()));
                    assert_eq!(socket.read_to_end().1, End::Fin, "in round {round}");
                }
                _ => drop(socket),
            }
        }
    }
    rig.quiet();
    assert_eq!(backend.dials(), 160);
    let metrics = rig.metrics();
    let closes: i64 = metrics
        .starting_with("wsguard_closes_total{")
        .iter()
        .map(|(_, n)| n.parse::<i64>().unwrap())
        .sum();
    assert_eq!(closes, 160, "each ended once");
}

/// A server that neither reads nor writes for a while is not gone. Bytes that were sent in the meantime wait for it.
#[test]
fn a_frozen_and_thawed_server_keeps_its_connections() {
    let server = frozen::Server::start();
    let rig = crate::rig::Setup::default().server(server.address()).start();
    let mut sockets: Vec<Socket> = (0..5).map(|_| rig.open()).collect();
    for socket in &mut sockets {
        socket.send(&masked(1, b"before"));
        assert_eq!(socket.read_exactly(12), masked(1, b"before"));
    }
    server.stop();
    for socket in &mut sockets {
        socket.send(&masked(1, b"while frozen"));
    }
    all_read(&sockets);
    thread::sleep(Duration::from_secs(2));
    assert!(sockets.iter().all(Socket::is_silent), "no client was sent anything");
    assert_eq!(rig.count(r#"wsguard_connections{zone="default"}"#), 5);
    server.carry_on();
    for socket in &mut sockets {
        assert_eq!(socket.read_exactly(18), masked(1, b"while frozen"));
    }
    drop(sockets);
    rig.quiet();
}

/// A server in a process of its own, so that the whole server can be stopped: another guard, before an echo.
mod frozen {
    use rustix::process::Signal;
    use std::fs;
    use std::net::SocketAddr;

    use crate::rig::{Backend, Rig, until};

    pub struct Server {
        _echo: Backend,
        rig: Rig,
    }

    impl Server {
        pub fn start() -> Self {
            let echo = Backend::echo();
            let rig = Rig::start(&echo, "");
            Self { _echo: echo, rig }
        }

        pub fn address(&self) -> SocketAddr {
            self.rig.front()
        }

        pub fn stop(&self) {
            self.rig.signal(Signal::STOP);
            // A thread continues until the signal has reached it.
            until("the server stands still", || {
                let threads = fs::read_dir(format!("/proc/{}/task", self.rig.pid())).unwrap();
                let stopped = |status: String| status.contains("\nState:\tT");
                threads
                    .flatten()
                    .all(|thread| fs::read_to_string(thread.path().join("status")).is_ok_and(stopped))
                    .then_some(())
            });
        }

        pub fn carry_on(&self) {
            self.rig.signal(Signal::CONT);
        }
    }
}

/// If one side takes no bytes, the other side is not read. Memory does not grow.
#[test]
fn a_reader_that_pauses_holds_up_the_sender_and_misses_nothing() {
    let backend = Backend::start(|guest| {
        guest.open();
        write_noise(guest.stream.try_clone().unwrap(), 3, 24 * MIB);
        guest.read_to_end();
    });
    let rig = Rig::start(&backend, "");
    let mut socket = rig.open();
    let mut left = 24 * MIB;
    let mut noise = Expected::new(3);
    for pause in 0..6 {
        thread::sleep(Duration::from_millis(100));
        let part = if pause == 5 { left } else { 4 * MIB };
        noise.assert_next(&mut socket, part);
        left -= part;
    }
    drop(socket);
    rig.quiet();
}

fn write_noise(mut stream: std::net::TcpStream, seed: u64, len: usize) {
    let (mut noise, mut sizes) = (Noise(seed), Noise(seed + 1000));
    let mut block = vec![0; 1 << 16];
    let mut left = len;
    while left > 0 {
        let part = left.min(block.len());
        noise.fill(&mut block[..part]);
        let mut rest = &block[..part];
        while !rest.is_empty() {
            // Most chunks are large, and some are tiny.
            let chunk = 1 + usize::try_from(sizes.next() % if sizes.next() % 8 == 0 { 100 } else { 70_000 }).unwrap();
            let (now, later) = rest.split_at(chunk.min(rest.len()));
            stream.write_all(now).unwrap();
            rest = later;
        }
        left -= part;
    }
}

fn assert_noise(stream: &mut impl Read, seed: u64, len: usize) {
    Expected::new(seed).assert_next(stream, len);
}

/// The same noise again, to compare it with the bytes that arrive.
struct Expected {
    noise: Noise,
    seen: usize,
}

impl Expected {
    fn new(seed: u64) -> Self {
        Self {
            noise: Noise(seed),
            seen: 0,
        }
    }

    fn assert_next(&mut self, stream: &mut impl Read, len: usize) {
        let (mut heard, mut expected) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        let mut left = len;
        while left > 0 {
            let part = left.min(heard.len());
            stream.read_exact(&mut heard[..part]).unwrap();
            self.noise.fill(&mut expected[..part]);
            assert!(heard[..part] == expected[..part], "differs behind byte {}", self.seen);
            self.seen += part;
            left -= part;
        }
    }
}

#[test]
fn a_real_websocket_library_talks_through_it() {
    use tokio_tungstenite::tungstenite::{Message, accept, client};

    let backend = Backend::start(|guest| {
        let mut server = accept(guest.stream.try_clone().unwrap()).unwrap();
        while let Ok(message) = server.read() {
            if message.is_text() || message.is_binary() {
                server.send(message).unwrap();
            }
        }
    });
    let rig = Rig::start(&backend, "");
    let url = format!("ws://{}/ws", rig.front());
    let (mut socket, response) = client(url, std::net::TcpStream::connect(rig.front()).unwrap()).unwrap();
    assert_eq!(response.status(), 101);
    for message in [
        Message::text("hällo"),
        Message::binary(vec![7_u8; 100_000]),
        Message::text(""),
    ] {
        socket.send(message.clone()).unwrap();
        assert_eq!(socket.read().unwrap(), message);
    }
    socket.close(None).unwrap();
    while socket.read().is_ok() {}
    drop(socket);
    rig.quiet();
    let line = until("the connection's line", || {
        rig.lines().into_iter().find(|line| line["messages_in"] == 3)
    });
    assert_eq!(line["messages_out"], 3);
    assert_eq!(
        accept_for("dGhlIHNhbXBsZSBub25jZQ=="),
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        "RFC 6455, 1.3"
    );
}

const UNLIMITED: &str = "[limits]\nper_ip = \"off\"\nper_ip_rate = \"off\"";
