//! Every timeout of an open connection. Each one gives everything back.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use crate::rig::{
    Backend, Began, End, Gate, Rig, Socket, close_code, frame, keepalive_in, keepalive_to, masked, nth_ip, reaches,
    until,
};

#[test]
fn an_idle_connection_is_closed_with_1001() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits.timeouts]\nidle = \"1s\"");
    let (silent, mut socket) = Began::with(|| rig.open());
    let (heard, end) = socket.read_to_end();
    silent.assert_took(Duration::from_millis(950)..Duration::from_millis(2500));
    assert_eq!((close_code(&heard), end), (Some(1001), End::Fin));
    drop(socket);
    backend.visit(0).ended();
    rig.quiet();
    rig.expect(r#"wsguard_closes_total{zone="default",reason="idle"}"#, 1);
    assert_eq!(rig.access("idle")["status"], 101);
}

#[test]
fn a_byte_either_way_keeps_an_idle_clock_from_running_out() {
    let backend = Backend::start(|guest| {
        guest.open();
        for _ in 0..8 {
            thread::sleep(Duration::from_millis(300));
            guest.send(&frame(9, b""));
        }
        guest.read_to_end();
    });
    let rig = Rig::start(&backend, "[limits.timeouts]\nidle = \"1s\"");
    let mut hearing = rig.open();
    let mut speaking = rig.open();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2400) {
        speaking.send(&masked(9, b""));
        thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(rig.count(r#"wsguard_connections{zone="default"}"#), 2);
    let (heard, _) = hearing.read_to_end();
    assert_eq!(
        close_code(&heard[16..]),
        Some(1001),
        "eight pings, then the end: {heard:?}"
    );
    drop((hearing, speaking));
    rig.quiet();
}

#[test]
fn a_close_is_never_inserted_in_a_frame() {
    let half = frame(1, b"half a message")[..9].to_vec();
    let sent = half.clone();
    let backend = Backend::start(move |guest| {
        guest.open();
        guest.send(&sent);
        guest.read_to_end();
    });
    let rig = Rig::start(&backend, "[limits.timeouts]\nidle = \"1s\"");
    let mut socket = rig.open();
    assert_eq!(socket.read_to_end(), (half, End::Fin), "an end, and no byte of ours");
    drop(socket);
    rig.quiet();
    rig.expect(r#"wsguard_closes_total{zone="default",reason="idle"}"#, 1);
}

#[test]
fn nothing_is_inserted_into_a_stream_that_is_not_websocket() {
    let backend = Backend::start(|guest| {
        guest.open();
        guest.send(&[0xff; 100]);
        guest.read_to_end();
    });
    let rig = Rig::start(&backend, "[limits.timeouts]\nidle = \"1s\"");
    let mut socket = rig.open();
    assert_eq!(socket.read_to_end(), (vec![0xff; 100], End::Fin));
    drop(socket);
    rig.quiet();
}

#[test]
fn lifetime_ends_even_a_busy_connection_with_1001_and_spreads_the_ends() {
    let backend = Backend::echo_frames();
    let rig = Rig::start(&backend, "[limits.timeouts]\nlifetime = \"2s\"");
    let mut sockets: Vec<(Began, Socket)> = (0..10).map(|n| Began::with(|| rig.open_from(nth_ip(n)))).collect();
    let start = Instant::now();
    let writers: Vec<_> = sockets
        .iter()
        .map(|(_, socket)| {
            let mut stream = socket.stream().try_clone().unwrap();
            thread::spawn(move || {
                while stream.write_all(&masked(1, b"busy")).is_ok() && start.elapsed() < Duration::from_secs(6) {
                    thread::sleep(Duration::from_millis(50));
                }
            })
        })
        .collect();
    for (opened, socket) in &mut sockets {
        let last = loop {
            let (opcode, payload) = socket.read_frame();
            if opcode == 0x88 {
                break payload;
            }
            assert_eq!((opcode, payload.as_slice()), (0x81, &b"busy"[..]));
        };
        opened.assert_took(Duration::from_millis(1750)..Duration::from_millis(3500));
        assert_eq!(last[..2], 1001_u16.to_be_bytes());
    }
    drop(sockets);
    for writer in writers {
        writer.join().unwrap();
    }
    rig.quiet();
    rig.expect(r#"wsguard_closes_total{zone="default",reason="lifetime"}"#, 10);
}

#[test]
fn after_its_clients_end_a_server_has_half_close_to_finish() {
    let gate = Gate::default();
    let door = gate.clone();
    let backend = Backend::start(move |guest| {
        guest.open();
        guest.read_to_end();
        guest.send(b"still talking");
        door.wait();
    });
    let rig = Rig::start(&backend, "[limits.timeouts]\nhalf_close = \"1s\"");
    let mut socket = rig.open();
    let (half_closed, ()) = Began::with(|| socket.fin());
    let (heard, _) = socket.read_to_end();
    half_closed.assert_took(Duration::from_millis(950)..Duration::from_millis(2500));
    assert_eq!(heard, b"still talking");
    rig.quiet();
    rig.expect(r#"wsguard_closes_total{zone="default",reason="half_close"}"#, 1);
    gate.open();
}

/// The cable is pulled while bytes are on their way, so the bytes are not acknowledged.
#[test]
fn a_vanished_client_is_closed_after_stalled() {
    let backend = Backend::echo();
    let rig = Rig::start(&backend, "[limits.timeouts]\nstalled = \"2s\"");
    let mut socket = rig.open();
    socket.send(&masked(1, b"last words"));
    socket.read_exactly(16);
    socket.send(&masked(1, b"and an answer to them that can't arrive"));
    socket.vanish();
    socket.send(&masked(1, b"the last that is heard of it"));
    let start = Instant::now();
    rig.quiet_within(Duration::from_secs(8));
    assert!(start.elapsed() < Duration::from_secs(6), "took {:?}", start.elapsed());
    rig.expect(r#"wsguard_closes_total{zone="default",reason="stalled"}"#, 1);
    backend.visit(0).ended();
}

#[test]
fn a_vanished_server_is_closed_by_idle() {
    let backend = Backend::start(|guest| {
        guest.open();
        guest.vanish();
        thread::sleep(Duration::from_secs(8));
    });
    let rig = Rig::start(&backend, "[limits.timeouts]\nidle = \"1s\"\nhalf_close = \"1s\"");
    let mut socket = rig.open();
    socket.send(&masked(1, b"hello?"));
    let (heard, _) = socket.read_to_end();
    assert_eq!(close_code(&heard), Some(1001));
    drop(socket);
    rig.quiet_within(Duration::from_secs(6));
}

/// It takes the kernel a minute to give up. But its settings show at once that it watches both legs.
#[test]
fn both_legs_are_kept_alive_as_configured() {
    for (config, seconds) in [("", 60), ("[limits.timeouts]\nkeepalive = \"20s\"", 20)] {
        let backend = Backend::listening();
        let rig = Rig::start(&backend, config);
        let socket = rig.open();
        let client_leg = keepalive_in(rig.front(), |remote| remote == socket.local());
        let server_leg = until("it counts as one that stays", || keepalive_to(backend.address()));
        for leg in [client_leg.expect("a keepalive timer"), server_leg] {
            let leg = leg.as_secs();
            assert!((seconds - 3..=seconds).contains(&leg), "{leg} s of {seconds}");
        }
        drop(socket);
        rig.quiet();
    }
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits.timeouts]\nkeepalive = \"off\"");
    let socket = rig.open();
    assert_eq!(keepalive_in(rig.front(), |remote| remote == socket.local()), None);
    assert_eq!(
        reaches(Duration::from_millis(1500), || keepalive_to(backend.address())),
        None
    );
}

/// The slowest test: a reader that has stopped costs almost no memory, and is closed in time.
#[test]
fn a_stopped_reader_costs_under_a_mebibyte_and_is_ended_within_twenty_seconds() {
    let backend = Backend::start(|guest| {
        guest.open();
        let block = vec![b'x'; 1 << 16];
        while guest.stream.write_all(&block).is_ok() {}
    });
    let rig = Rig::start(&backend, "[limits.timeouts]\nstalled = \"15s\"");
    // The first connection makes the process allocate memory that it keeps. That is not this connection's cost.
    let mut warm = rig.open();
    warm.read_exactly(8 << 20);
    drop(warm);
    rig.quiet();

    let before = proportional_memory(rig.pid());
    let stopped = rig.open();
    let start = Instant::now();
    let wait = |until: u64| thread::sleep(Duration::from_secs(until).saturating_sub(start.elapsed()));
    wait(10);
    let grown = proportional_memory(rig.pid()).saturating_sub(before);
    assert!(grown < 1024, "{grown} KiB more after ten seconds");
    wait(13);
    assert_eq!(
        rig.count(r#"wsguard_connections{zone="default"}"#),
        1,
        "not ended too early"
    );
    rig.quiet_within(Duration::from_secs(20).saturating_sub(start.elapsed()));
    rig.expect(r#"wsguard_closes_total{zone="default",reason="stalled"}"#, 1);
    drop(stopped);
}

/// The PSS of a process in KiB, without the files that it maps. Those are shared with every other guard on the machine,
/// and the share changes as guards come and go.
fn proportional_memory(pid: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss_Anon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
