//! Open connections that are silent for some seconds: wsguard parks them, and neither side notices.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::rig::{Backend, End, Gate, Request, Rig, Setup, accept_for, close_code, frame, ip, masked, unmasked, until};

#[test]
fn both_sides_can_still_send_after_parking() {
    let speaks = Gate::default();
    let backend = {
        let speaks = speaks.clone();
        Backend::start(move |guest| {
            guest.open();
            if guest.place() == 1 {
                speaks.wait();
                guest.send(&frame(1, b"the server first"));
            }
            guest.echo();
        })
    };
    let rig = Rig::start(&backend, "");
    let mut one = rig.open();
    let mut other = rig.open();
    let mut cut = rig.open();
    let message = masked(1, b"begun before a rest");
    cut.send(&message[..9]);
    assert_eq!(cut.read_exactly(9), &message[..9]);
    rig.rests(6);
    assert!(one.is_silent() && other.is_silent());

    let hello = masked(1, b"the client first");
    one.send(&hello);
    assert_eq!(one.read_exactly(hello.len()), hello);
    speaks.open();
    assert_eq!(other.read_frame(), (0x81, b"the server first".to_vec()));
    cut.send(&message[9..]);
    assert_eq!(cut.read_exactly(message.len() - 9), &message[9..]);
    // The connections are parked a second time.
    rig.rests(6);
    let large = masked(2, &vec![b'x'; 300_000]);
    thread::scope(|scope| {
        let mut writes = one.stream().try_clone().unwrap();
        let large = &large;
        scope.spawn(move || std::io::Write::write_all(&mut writes, large).unwrap());
        assert_eq!(one.read_exactly(large.len()), *large);
    });
    drop((one, other, cut));
    rig.quiet();
    rig.expect(r#"wsguard_messages_total{zone="default",direction="in"}"#, 3);
    rig.expect(r#"wsguard_closes_total{zone="default",reason="client"}"#, 3);
}

#[test]
fn the_end_of_a_parked_side_reaches_the_other_and_frees_the_slot() {
    let ends = Gate::default();
    let backend = {
        let ends = ends.clone();
        Backend::start(move |guest| {
            guest.open();
            match guest.place() {
                2 | 3 => {
                    ends.wait();
                    if guest.place() == 3 {
                        guest.reset();
                    }
                }
                _ => guest.read_to_end(),
            }
        })
    };
    let rig = Rig::start(&backend, "[limits]\nper_ip = 4");
    let leaves = rig.open();
    let breaks = rig.open();
    let mut left = rig.open();
    let mut broken = rig.open();
    rig.rests(8);
    // A parked connection still counts as open.
    rig.expect(r#"wsguard_connections{zone="default"}"#, 4);
    let refused = rig.ask(Request::to("/ws").into_bytes());
    assert_eq!(refused.status(), 429, "{refused}");

    leaves.fin();
    assert_eq!(backend.visit(0).ended(), End::Fin);
    breaks.reset();
    assert_eq!(backend.visit(1).ended(), End::Reset);
    ends.open();
    assert_eq!(left.read_to_end(), (Vec::new(), End::Fin));
    assert_eq!(broken.read_to_end(), (Vec::new(), End::Reset));
    drop((leaves, left));
    rig.quiet();
    rig.expect(r#"wsguard_closes_total{zone="default",reason="client"}"#, 2);
    rig.expect(r#"wsguard_closes_total{zone="default",reason="upstream"}"#, 2);
    rig.rests(0);
}

#[test]
fn a_parked_connection_obeys_a_command_at_once() {
    let backend = Backend::listening();
    let mut rig = Rig::start(
        &backend,
        "[server]\ndrain_delay = \"0s\"\ndrain_timeout = \"4s\"\n[[route]]\npaths = [\"/idle\"]\nzone = \"idle\"\n\
         [[route]]\n[zone.idle.timeouts]\nidle = \"7s\"",
    );
    let Ok(mut idle) = rig.try_open(ip(2), &Request::to("/idle")) else {
        panic!("refused");
    };
    let mut drained = rig.open();
    rig.rests(4);
    let (heard, _) = idle.read_to_end();
    assert_eq!(close_code(&heard), Some(1001));
    rig.rests(2);
    rig.signal(Signal::TERM);
    let (heard, _) = drained.read_to_end();
    assert_eq!(close_code(&heard), Some(1012));
    for visit in [0, 1] {
        backend.visit(visit).ended();
    }
    drop((idle, drained));
    assert!(rig.ended().success());
}

#[test]
fn a_parked_connection_is_pinged_and_parked_again() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits.messages]\nping = \"7s\"\npong_timeout = \"9s\"");
    let mut lives = rig.open();
    let mut ghost = rig.open();
    rig.rests(4);
    let (opcode, payload) = lives.read_frame();
    assert_eq!((opcode, payload.len()), (0x89, 16));
    lives.send(&masked(10, &payload));
    assert_eq!(ghost.read_frame().0, 0x89);
    // The ghost can't be parked while its pong is awaited. The other connection is parked in the meantime.
    rig.rests(2);
    assert!(ghost.is_silent());
    let (heard, _) = ghost.read_to_end();
    assert_eq!(close_code(&heard), Some(1001));
    let visit = backend.visit(1);
    visit.ended();
    assert_eq!(unmasked(&visit.tail()), b"\x03\xe9no pong");
    drop((lives, ghost));
    rig.quiet();
    rig.expect(r#"wsguard_ghosts_total{zone="default",outcome="reaped"}"#, 1);
}

#[test]
fn a_connection_with_unacknowledged_bytes_is_parked_once_they_are_acknowledged() {
    let speaks = Gate::default();
    let backend = {
        let speaks = speaks.clone();
        Backend::start(move |guest| {
            guest.open();
            speaks.wait();
            guest.send(&frame(1, b"to a phone in a tunnel"));
            guest.read_to_end();
        })
    };
    let rig = Rig::start(&backend, "");
    let mut phone = rig.open();
    phone.vanish();
    speaks.open();
    // By then the relay was asked to park, and could not.
    thread::sleep(Duration::from_secs(6));
    phone.come_back();
    rig.rests(2);
    assert_eq!(phone.read_frame(), (0x81, b"to a phone in a tunnel".to_vec()));
    drop(phone);
    rig.quiet();
}

#[test]
fn parking_refills_a_bucket_as_time_does_and_no_more() {
    let backend = Backend::echo_frames();
    let rig = Rig::start(&backend, "[limits.messages]\nrate = \"1/s\"\nburst = 2");
    let mut socket = rig.open();
    let message = masked(1, b"one of two");
    for rests in [true, false] {
        for _ in 0..2 {
            socket.send(&message);
            assert_eq!(socket.read_frame(), (0x81, b"one of two".to_vec()));
        }
        if rests {
            rig.rests(2);
            // By now the whole burst may have come back, but no more than that.
            thread::sleep(Duration::from_secs(3));
        }
    }
    socket.send(&message);
    let (heard, _) = socket.read_to_end();
    assert_eq!(close_code(&heard), Some(1008), "{heard:?}");
    drop(socket);
    rig.quiet();
}

#[test]
fn unix_sockets_are_parked_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let (front, back) = (dir.path().join("in.sock"), dir.path().join("chat.sock"));
    let server = UnixListener::bind(&back).unwrap();
    let echo = thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        read_head(&mut stream);
        let accept = accept_for("dGhlIHNhbXBsZSBub25jZQ==");
        let reply = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        stream.write_all(reply.as_bytes()).unwrap();
        let mut reads = stream.try_clone().unwrap();
        std::io::copy(&mut reads, &mut stream).unwrap();
    });
    let rig = Setup::default()
        .config(&format!(
            "[[listener]]\nname = \"front\"\nbind = [\"unix:{}\"]\n[upstream.chat]\nservers = [\"unix:{}\"]",
            front.display(),
            back.display()
        ))
        .start();
    let mut client = UnixStream::connect(&front).unwrap();
    client.write_all(Request::to("/ws").as_ref()).unwrap();
    read_head(&mut client);
    let message = masked(1, b"through two files");
    for _ in 0..2 {
        rig.rests(2);
        client.write_all(&message).unwrap();
        let mut heard = vec![0; message.len()];
        client.read_exact(&mut heard).unwrap();
        assert_eq!(heard, message);
    }
    rig.rests(2);
    drop(client);
    echo.join().unwrap();
    rig.quiet();
    rig.expect(r#"wsguard_closes_total{zone="default",reason="client"}"#, 1);
}

#[test]
fn a_phone_that_reconnects_gets_the_slot_of_its_own_dead_parked_connection() {
    let backend = Backend::echo();
    let rig = Rig::start(
        &backend,
        "[limits]\nper_ip = 2\n[limits.messages]\nping = \"7s\"\npong_timeout = \"30s\"",
    );
    let mut lives = rig.open();
    let dead = rig.open();
    dead.vanish();
    rig.rests(4);
    // The client is pinged only after a silence of `ping`.
    let newcomer = until("the dead one makes room", || {
        rig.try_open(ip(1), &Request::to("/")).ok()
    });
    assert_eq!(lives.read_frame().0, 0x89);
    let message = masked(1, b"still here");
    lives.send(&message);
    assert_eq!(lives.read_exactly(message.len()), message);
    rig.expect(r#"wsguard_ghosts_total{zone="default",outcome="replaced"}"#, 1);
    drop((lives, dead, newcomer));
    rig.quiet();
}

fn read_head(stream: &mut UnixStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
}
