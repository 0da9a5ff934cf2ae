//! Open connections that are silent for some seconds: wsguard puts them aside, and nobody can tell.

use std::thread;

use rustix::process::Signal;

use crate::rig::{Backend, End, Gate, Request, Rig, close_code, frame, ip, masked, unmasked};

#[test]
fn both_sides_still_speak_after_a_rest() {
    let speaks = Gate::default();
    let backend = {
        let speaks = speaks.clone();
        Backend::start(move |guest| {
            guest.open();
            if guest.place() == 1 {
                speaks.wait();
                guest.say(&frame(1, b"the server first"));
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
    // And again.
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
fn whoever_ends_at_rest_is_heard_by_the_other_side_and_gives_its_slot_back() {
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
                _ => guest.listen(),
            }
        })
    };
    let rig = Rig::start(&backend, "[limits]\nper_ip = 4");
    let leaves = rig.open();
    let breaks = rig.open();
    let mut left = rig.open();
    let mut broken = rig.open();
    rig.rests(8);
    // Who rests is open all the same.
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
fn what_is_told_to_one_at_rest_is_done_at_once() {
    let backend = Backend::listening();
    let mut rig = Rig::start(
        &backend,
        "[server]\ndrain_delay = \"0s\"\ndrain_timeout = \"2s\"\n[[route]]\npaths = [\"/idle\"]\nzone = \"idle\"\n\
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
fn one_at_rest_is_asked_whether_it_is_there_and_rests_again() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits.messages]\nping = \"7s\"\npong_timeout = \"5s\"");
    let mut lives = rig.open();
    let mut ghost = rig.open();
    rig.rests(4);
    let (opcode, payload) = lives.read_frame();
    assert_eq!((opcode, payload.len()), (0x89, 16));
    lives.send(&masked(10, &payload));
    assert_eq!(ghost.read_frame().0, 0x89);
    // The ghost is waited for, so it can't rest.
    rig.rests(2);
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
fn a_rest_refills_a_bucket_as_time_does_and_no_further() {
    let backend = Backend::echo_frames();
    let rig = Rig::start(&backend, "[limits.messages]\nrate = \"1/min\"\nburst = 3");
    let mut socket = rig.open();
    let message = masked(1, b"one of three");
    for _ in 0..2 {
        socket.send(&message);
        assert_eq!(socket.read_frame(), (0x81, b"one of three".to_vec()));
    }
    rig.rests(2);
    socket.send(&message);
    assert_eq!(socket.read_frame(), (0x81, b"one of three".to_vec()));
    socket.send(&message);
    let (heard, _) = socket.read_to_end();
    assert_eq!(close_code(&heard), Some(1008), "{heard:?}");
    drop(socket);
    rig.quiet();
}
