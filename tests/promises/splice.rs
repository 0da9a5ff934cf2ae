//! Large frames go through pipes. Every byte arrives as if it were copied, whatever happens to either side in the
//! meantime.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::relay::{MIB, Noise};
use crate::rig::{
    Backend, End, Gate, Rig, Socket, all_acknowledged, all_read, close_code, frame, ip, masked, nth_ip, until,
};

/// The number of pipes that a worker lends.
const PIPES: usize = 64;

#[test]
fn frames_of_random_sizes_arrive_intact_both_ways_through_stalls() {
    for relay in ["auto", "copy"] {
        let backend = Backend::start(|guest| {
            guest.open();
            let writing = guest.stream.try_clone().unwrap();
            thread::scope(|scope| {
                scope.spawn(|| write_in_pieces(writing, &frames(2, frame), 2));
                read_in_pieces(&mut guest.stream, &frames(1, masked), 3);
            });
            guest.send(b"\x8a\x00");
        });
        let rig = Rig::start(
            &backend,
            &format!(
                "[upstream.b]\nservers = [\"{}\"]\nrelay = \"{relay}\"",
                backend.address()
            ),
        );
        let before = pipes(&rig);
        let mut socket = rig.open();
        let writing = socket.stream().try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| write_in_pieces(writing, &frames(1, masked), 4));
            // The socket is read, and not its stream: bytes that came with the 101 may be in the socket's buffer.
            read_in_pieces(&mut socket, &frames(2, frame), 5);
        });
        assert_eq!(socket.read_exactly(2), b"\x8a\x00", "the server has read all");
        for direction in ["in", "out"] {
            let messages = format!("wsguard_messages_total{{zone=\"default\",direction=\"{direction}\"}}");
            rig.expect(&messages, SIZES.len().try_into().unwrap());
        }
        assert_eq!(
            pipes(&rig) > before,
            relay == "auto",
            "{relay}: {} more",
            pipes(&rig) - before
        );
        drop(socket);
        rig.quiet();
    }
}

/// There are more connections than pipes, and none of the clients reads. Connections without a pipe are copied, and
/// after a while the bytes in the pipes are moved to memory.
#[test]
fn when_every_pipe_is_in_use_the_rest_is_copied_and_nothing_is_lost() {
    let gate = Gate::default();
    let door = gate.clone();
    let backend = Backend::start(move |guest| {
        guest.open();
        let bytes = large(MIB, u64::try_from(guest.place()).unwrap());
        door.wait();
        guest.send(&bytes);
        guest.read_to_end();
    });
    let rig = Rig::start(&backend, "[server]\nworkers = 1");
    let before = pipes(&rig);
    let mut open: Vec<Socket> = Vec::new();
    for n in 0..PIPES + 16 {
        let narrow = |socket: &socket2::Socket| socket.set_recv_buffer_size(16 << 10).unwrap();
        let mut socket = Socket::connect_with(nth_ip(n.try_into().unwrap()), rig.front(), narrow);
        socket.send(crate::rig::Request::to("/ws").as_ref());
        assert!(socket.read_head().starts_with(b"HTTP/1.1 101 "));
        until("its server has it", || (backend.dials() > n).then_some(()));
        open.push(socket);
    }
    gate.open();
    until("every pipe is in use", || {
        (pipes(&rig) == before + 2 * PIPES && pipes_with_bytes(&rig) > 0).then_some(())
    });
    until("the pipes are given up although no client takes a byte", || {
        (pipes_with_bytes(&rig) == 0).then_some(())
    });
    for (n, socket) in open.iter_mut().enumerate() {
        let expected = large(MIB, n.try_into().unwrap());
        assert!(socket.read_exactly(expected.len()) == expected, "connection {n}");
    }
    assert!(pipes(&rig) <= before + 2 * PIPES);
    drop(open);
    rig.quiet();
}

#[test]
fn an_end_amid_a_large_frame_is_passed_on_behind_all_that_came() {
    for end in [End::Fin, End::Reset] {
        let backend = Backend::start(move |guest| {
            guest.open();
            let half = &large(MIB, 7)[..MIB / 2];
            guest.send(half);
            if end == End::Reset {
                all_acknowledged(guest.stream.local_addr().unwrap(), guest.stream.peer_addr().unwrap());
                guest.reset();
            }
        });
        let rig = Rig::start(&backend, "");
        let mut socket = rig.open();
        let (heard, heard_end) = socket.read_to_end();
        assert_eq!(heard_end, end);
        assert!(heard == large(MIB, 7)[..MIB / 2], "{} bytes", heard.len());
        drop(socket);
        rig.quiet();
        assert_eq!(pipes_with_bytes(&rig), 0);
    }
}

/// If frames are large, the next header is peeked at before it is read. That must not take a reset from the socket.
#[test]
fn a_reset_behind_large_frames_is_a_reset_and_gives_the_slot_back_at_once() {
    let backend = Backend::start(|guest| {
        guest.open();
        guest.read();
        guest.send(&large(MIB, 5).repeat(4));
        if guest.place() == 0 {
            all_acknowledged(guest.stream.local_addr().unwrap(), guest.stream.peer_addr().unwrap());
            guest.reset();
        } else {
            guest.read_to_end();
        }
    });
    let rig = Rig::start(&backend, "");
    let mut socket = rig.open();
    socket.send(&masked(2, b""));
    let (heard, end) = socket.read_to_end();
    assert_eq!(
        (heard.len(), end),
        (4 * large(MIB, 5).len(), End::Reset),
        "the server's"
    );
    drop(socket);
    rig.quiet();

    let mut socket = rig.open();
    let sent = masked(2, &vec![b'x'; MIB]).repeat(4);
    socket.send(&sent);
    socket.read_exactly(4 * large(MIB, 5).len());
    all_read([&socket]);
    socket.reset();
    assert_eq!(backend.visit(1).ended(), End::Reset, "the client's");
    assert_eq!(backend.visit(1).tail().len(), sent.len());
    rig.quiet();
}

/// If frames are large, the next header is peeked at before it is read. If the beginning of a header has already been
/// read, the bytes that follow may look like another header, but they are none.
#[test]
fn a_header_in_two_parts_behind_large_frames_is_one_header() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "");
    let mut socket = rig.open();
    let mut sent = masked(2, &vec![b'x'; MIB]).repeat(8);
    socket.send(&sent);
    all_read([&socket]);
    backend.visit(0).tail_of(sent.len());
    // The length is 0x82fe. These bytes look like a frame whose length has two bytes, here 0xffff.
    let split = [
        &[0x82, 0xfe, 0x82, 0xfe, 0xff, 0xff, 0xff, 0xff],
        &vec![b'y'; 0x82fe][..],
    ]
    .concat();
    socket.send(&split[..2]);
    all_read([&socket]);
    socket.send(&split[2..]);
    sent.extend(split);
    let tail = backend.visit(0).tail_of(sent.len());
    assert!(tail == sent, "every byte in its place");
    // The frame is forbidden, because it has no mask.
    socket.send(b"\x82\x01z");
    let (heard, _) = socket.read_to_end();
    assert_eq!(close_code(&heard), Some(1002));
    drop(socket);
    backend.visit(0).ended();
    assert!(
        !backend.visit(0).tail()[sent.len()..].contains(&b'z'),
        "no byte of it passes"
    );
    rig.expect("wsguard_messages_total{zone=\"default\",direction=\"in\"}", 9);
    rig.quiet();
}

/// WebSocket peers send no urgent data. A peer that does loses that byte and no other.
#[test]
fn urgent_data_amid_a_large_frame_holds_up_nothing() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "");
    let mut socket = rig.open();
    let whole = masked(2, &vec![b'x'; 300_000]);
    socket.send(&whole[..100_000]);
    all_read([&socket]);
    socket2::SockRef::from(socket.stream()).send_out_of_band(b"!").unwrap();
    socket.send(&whole[100_000..]);
    socket.fin();
    assert_eq!(backend.visit(0).ended(), End::Fin);
    let tail = backend.visit(0).tail();
    assert!(tail == whole, "{} bytes", tail.len());
    drop(socket);
    rig.quiet();
}

#[test]
fn a_client_that_ends_amid_a_large_frame_still_receives_everything() {
    let backend = Backend::start(|guest| {
        guest.open();
        guest.read_to_end();
        guest.send(&large(MIB, 9));
    });
    let rig = Rig::start(&backend, "");
    let mut socket = rig.open();
    let half = masked(2, &vec![b'x'; MIB])[..MIB / 2].to_vec();
    socket.send(&half);
    socket.fin();
    let (heard, end) = socket.read_to_end();
    assert_eq!(end, End::Fin);
    assert!(heard == large(MIB, 9), "{} bytes", heard.len());
    assert_eq!(backend.visit(0).tail().len(), half.len());
    rig.quiet();
}

/// If a client resets while a pipe is full of its bytes, the pipe is never used again.
#[test]
fn a_reset_with_a_full_pipe_gives_every_count_back() {
    let sent = Arc::new(large(64 * MIB, 3));
    let sends = Arc::clone(&sent);
    let backend = Backend::start(move |guest| {
        guest.open();
        let _reset = guest.stream.write_all(&sends);
    });
    let rig = Rig::start(&backend, "[server]\nworkers = 1");
    for _ in 0..10 {
        let narrow = |socket: &socket2::Socket| socket.set_recv_buffer_size(16 << 10).unwrap();
        let mut socket = Socket::connect_with(ip(1), rig.front(), narrow);
        socket.send(crate::rig::Request::to("/ws").as_ref());
        assert!(socket.read_head().starts_with(b"HTTP/1.1 101 "));
        socket.read_exactly(200_000);
        socket.reset();
    }
    rig.quiet();
    assert_eq!(pipes_with_bytes(&rig), 0);
    let mut socket = rig.open();
    assert!(socket.read_exactly(MIB) == sent[..MIB]);
    all_read([&socket]);
    drop(socket);
    rig.quiet();
}

/// Small sizes between large ones, and the sizes around each threshold.
const SIZES: [usize; 16] = [
    100,
    MIB + 77,
    0,
    65_535,
    65_536,
    65_537,
    131_071,
    131_072,
    200_000,
    1,
    2 * MIB + 1,
    125,
    126,
    300_000,
    MIB,
    70_000,
];

/// The frames of one direction, one after the other.
fn frames(seed: u64, of: impl Fn(u8, &[u8]) -> Vec<u8>) -> Vec<u8> {
    let mut noise = Noise(seed);
    let each = SIZES.iter().map(|size| {
        let mut payload = vec![0; *size];
        noise.fill(&mut payload);
        of(2, &payload)
    });
    each.collect::<Vec<_>>().concat()
}

/// One large frame of the server.
fn large(size: usize, seed: u64) -> Vec<u8> {
    let mut payload = vec![0; size];
    Noise(seed).fill(&mut payload);
    frame(2, &payload)
}

fn write_in_pieces(mut stream: TcpStream, bytes: &[u8], seed: u64) {
    let mut dice = Noise(seed);
    let mut rest = bytes;
    while !rest.is_empty() {
        let size = 1 + usize::try_from(dice.next() % 400_000).unwrap();
        let (now, later) = rest.split_at(size.min(rest.len()));
        stream.write_all(now).unwrap();
        rest = later;
        if dice.one_in(8) {
            thread::sleep(Duration::from_millis(dice.next() % 40));
        }
    }
}

fn read_in_pieces(stream: &mut impl Read, expected: &[u8], seed: u64) {
    let mut dice = Noise(seed);
    let mut rest = expected;
    while !rest.is_empty() {
        let size = 1 + usize::try_from(dice.next() % 500_000).unwrap();
        let (now, later) = rest.split_at(size.min(rest.len()));
        let mut came = vec![0; now.len()];
        stream.read_exact(&mut came).unwrap();
        assert!(came == now, "within {} bytes, {} before the end", now.len(), rest.len());
        rest = later;
        // Sometimes the pause is longer than the guard leaves a pipe to a sink that takes nothing.
        let pause = if dice.one_in(32) { 1500 } else { dice.next() % 4 };
        thread::sleep(Duration::from_millis(pause));
    }
}

/// The number of pipe ends that the guard has, including the ones that it started with.
fn pipes(rig: &Rig) -> usize {
    pipe_ends(rig).len()
}

fn pipe_ends(rig: &Rig) -> Vec<std::path::PathBuf> {
    let all = fs::read_dir(format!("/proc/{}/fd", rig.pid())).unwrap();
    let is_pipe = |path: &std::path::PathBuf| {
        // Standard error is a pipe of the test.
        let number: u32 = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        number > 2 && fs::read_link(path).is_ok_and(|target| target.to_string_lossy().starts_with("pipe:"))
    };
    all.flatten().map(|entry| entry.path()).filter(is_pipe).collect()
}

/// The number of pipes that hold bytes.
fn pipes_with_bytes(rig: &Rig) -> usize {
    let holds = |path: &std::path::PathBuf| {
        // The pipe is opened again through /proc, so that the guard's own ends are not touched.
        let opened = fs::OpenOptions::new().read(true).open(path);
        opened.is_ok_and(|pipe| rustix::io::ioctl_fionread(&pipe).is_ok_and(|waiting| waiting > 0))
    };
    pipe_ends(rig).iter().filter(|path| holds(path)).count()
}
