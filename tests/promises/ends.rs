//! How long a side that has ended holds its resources: its server's lease, or its client's slot.

use std::io::Write;
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use crate::rig::{
    Backend, Began, End, Gate, Request, Rig, Socket, all_acknowledged, all_read, close_code, frame, ip, masked, reaches,
};

const OPEN: &str = r#"wsguard_connections{zone="default"}"#;

/// This holds however the server ends. `half_close` has its default of 30 s here: that timeout is for a client that
/// ends first.
#[test]
fn the_slot_of_a_client_that_stays_is_free_two_seconds_after_its_servers_end_and_the_lease_at_once() {
    let gate = Gate::default();
    let ends = gate.clone();
    let backend = Backend::start(move |guest| {
        guest.open();
        ends.wait();
        match guest.place() {
            // The server sends a close frame and ends, ends and still reads, or is killed.
            0 => {
                guest.send(&frame(8, &1000_u16.to_be_bytes()));
                guest.fin();
                guest.read_to_end();
            }
            1 => {
                guest.fin();
                guest.read_to_end();
            }
            _ => {}
        }
    });
    let rig = Rig::start(&backend, "");
    let mut stay: Vec<Socket> = (0..3).map(|_| rig.open()).collect();
    assert_eq!(leases(&rig, &backend), 3);
    let (ended, ()) = Began::with(|| gate.open());
    let at_once = reaches(Duration::from_secs(1), || (leases(&rig, &backend) == 0).then_some(()));
    assert!(at_once.is_some(), "{} leases are still held", leases(&rig, &backend));
    assert_eq!(rig.count(OPEN), 3, "they may still answer");
    assert_eq!(close_code(&stay[0].read_to_end().0), Some(1000));
    rig.quiet_within(Duration::from_secs(5));
    ended.assert_took(Duration::from_millis(1900)..Duration::from_secs(4));
    rig.expect(r#"wsguard_closes_total{zone="default",reason="upstream"}"#, 3);
    drop(stay);
}

#[test]
fn a_client_that_has_stopped_reading_holds_its_slot_no_longer_than_stalled_after_its_servers_end() {
    let backend = Backend::start(|guest| {
        guest.open();
        guest.send(&vec![b'x'; 120_000]);
        guest.fin();
        guest.read_to_end();
    });
    let rig = Rig::start(&backend, "[limits.timeouts]\nstalled = \"1s\"");
    let (opened, unread) = Began::with(|| client_that_reads_nothing(&rig));
    let lease = reaches(Duration::from_secs(1), || (leases(&rig, &backend) == 0).then_some(()));
    assert!(
        lease.is_some(),
        "its lease is held for an end behind bytes that are not taken"
    );
    assert_eq!(rig.count(OPEN), 1);
    rig.quiet_within(Duration::from_secs(5));
    opened.assert_took(Duration::from_millis(950)..Duration::from_secs(3));
    rig.expect(r#"wsguard_closes_total{zone="default",reason="stalled"}"#, 1);
    drop(unread);
}

/// A byte now and then is progress, so `stalled` never closed such a client.
#[test]
fn a_client_that_takes_the_last_bytes_one_by_one_holds_its_slot_no_longer_either() {
    let backend = Backend::start(|guest| {
        guest.open();
        guest.send(&vec![b'x'; 120_000]);
        guest.fin();
        guest.read_to_end();
    });
    let rig = Rig::start(&backend, "[limits.timeouts]\nstalled = \"2s\"");
    let (opened, mut slow) = Began::with(|| client_that_reads_nothing(&rig));
    let reading = thread::spawn(move || {
        let mut some = [0; 500];
        while std::io::Read::read(&mut slow, &mut some).is_ok_and(|read| read > 0) {
            thread::sleep(Duration::from_millis(50));
        }
    });
    rig.quiet_within(Duration::from_secs(8));
    opened.assert_took(Duration::from_millis(1950)..Duration::from_secs(4));
    rig.expect(r#"wsguard_closes_total{zone="default",reason="stalled"}"#, 1);
    reading.join().unwrap();
}

#[test]
fn messages_delayed_by_a_rate_are_delivered_for_a_bounded_time_after_the_servers_end() {
    let backend = Backend::start(|guest| {
        guest.open();
        guest.send(&frame(1, b"one of many").repeat(40));
    });
    let rig = Rig::start(
        &backend,
        "[limits.timeouts]\nstalled = \"2s\"\n[limits.messages]\nout_rate = \"1/s\"",
    );
    let (opened, mut socket) = Began::with(|| rig.open());
    let (heard, end) = socket.read_to_end();
    opened.assert_took(Duration::from_millis(1950)..Duration::from_secs(4));
    assert!((13 * 2..13 * 6).contains(&heard.len()), "{} bytes", heard.len());
    assert_eq!(end, End::Reset, "who is denied bytes hears no orderly end");
    rig.quiet();
    rig.expect(r#"wsguard_closes_total{zone="default",reason="stalled"}"#, 1);
}

/// A server that has ended may still get its client's last bytes: a close frame, and bytes that were on their way.
#[test]
fn bytes_that_a_client_sends_within_two_seconds_of_its_servers_end_arrive() {
    let backend = Backend::start(|guest| {
        guest.open();
        guest.send(&frame(8, &1001_u16.to_be_bytes()));
        guest.fin();
        guest.read_to_end();
    });
    let rig = Rig::start(&backend, "[limits.timeouts]\nhalf_close = \"1ms\"");
    let mut socket = rig.open();
    assert_eq!(socket.read_to_end(), (frame(8, &1001_u16.to_be_bytes()), End::Fin));
    thread::sleep(Duration::from_millis(500));
    let answer = masked(8, &1001_u16.to_be_bytes());
    socket.send(&answer);
    socket.fin();
    assert_eq!(backend.visit(0).ended(), End::Fin);
    assert_eq!(backend.visit(0).tail(), answer);
    rig.quiet();
    rig.expect(r#"wsguard_closes_total{zone="default",reason="upstream"}"#, 1);
}

/// Forty messages come where one a second may pass. They are read, and wait.
#[test]
fn a_client_that_resets_while_its_messages_are_delayed_gives_its_slot_back_at_once() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, DELAY);
    let mut socket = rig.open();
    socket.send(&masked(1, b"").repeat(40));
    all_read([&socket]);
    let (reset, ()) = Began::with(|| socket.reset());
    rig.quiet_within(Duration::from_secs(5));
    reset.assert_took(Duration::ZERO..AT_ONCE);
    assert_eq!(backend.visit(0).ended(), End::Reset);
    rig.expect(r#"wsguard_closes_total{zone="default",reason="client"}"#, 1);
}

#[test]
fn a_client_that_ends_while_its_messages_are_delayed_has_half_close_and_no_more() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, DELAY);
    let mut socket = rig.open();
    socket.send(&masked(1, b"").repeat(40));
    let (half_closed, ()) = Began::with(|| socket.fin());
    rig.quiet_within(Duration::from_secs(8));
    half_closed.assert_took(Duration::from_millis(1950)..Duration::from_secs(4));
    assert_eq!(backend.visit(0).ended(), End::Reset, "it was denied most of them");
    assert!(backend.visit(0).tail().len() < 6 * 6);
    rig.expect(r#"wsguard_closes_total{zone="default",reason="half_close"}"#, 1);
}

#[test]
fn a_server_that_resets_while_its_client_is_not_read_gives_its_lease_back_and_the_client_its_slot() {
    let gate = Gate::default();
    let resets = gate.clone();
    let backend = Backend::start(move |guest| {
        guest.open();
        guest.send(&frame(1, b"one of many").repeat(40));
        all_acknowledged(guest.stream.local_addr().unwrap(), guest.stream.peer_addr().unwrap());
        resets.wait();
        guest.reset();
    });
    let both = [DELAY, "out_rate = \"1/s\""]
        .join("\n")
        .replace("half_close", "stalled");
    let rig = Rig::start(&backend, &both);
    let mut socket = rig.open();
    socket.send(&masked(1, b"").repeat(40));
    all_read([&socket]);
    let (reset, ()) = Began::with(|| gate.open());
    let lease = reaches(AT_ONCE, || (leases(&rig, &backend) == 0).then_some(()));
    assert!(lease.is_some(), "its lease is held");
    rig.quiet_within(Duration::from_secs(8));
    reset.assert_took(Duration::ZERO..Duration::from_secs(5));
}

/// The bytes wait in memory, in a pipe, or in front of a close frame that wsguard has to write.
#[test]
fn a_client_that_resets_behind_bytes_its_server_does_not_take_gives_its_slot_back_at_once() {
    let gate = Gate::default();
    let deaf = gate.clone();
    let backend = Backend::start(move |guest| {
        guest.open();
        deaf.wait();
    });
    for (what, config) in [
        ("small frames", "[limits.messages]\nmax_size = \"2MiB\""),
        ("large frames", ""),
        (
            "large frames",
            "[upstream.chat]\nrelay = \"copy\"\nservers = [\"SERVER\"]",
        ),
    ] {
        let rig = Rig::start(&backend, &config.replace("SERVER", &backend.address().to_string()));
        let mut leaving = Vec::new();
        for is_refused in [false, true] {
            if is_refused && !config.contains("max_size") {
                continue;
            }
            let socket = rig.open();
            let mut stream = socket.stream();
            stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
            let frames = match what {
                "small frames" => masked(2, &[b'x'; 1000]).repeat(100),
                _ => masked(2, &vec![b'x'; 1 << 20]),
            };
            if is_refused {
                // This is less than the two kernels buffer, so that the guard reads as far as the message that it
                // refuses.
                let _ = stream.write_all(&frames.repeat(20));
                let _ = stream.write_all(&masked(2, &vec![b'x'; 3 << 20]));
            }
            while stream.write_all(&frames).is_ok() {}
            leaving.push(socket);
        }
        assert!(rig.count(OPEN) > 0, "{what} {config}");
        let (reset, ()) = Began::with(|| leaving.into_iter().for_each(Socket::reset));
        rig.quiet_within(Duration::from_secs(6));
        reset.assert_took(Duration::ZERO..AT_ONCE);
    }
    gate.open();
}

#[test]
fn a_client_that_resets_after_its_end_gives_its_slot_back_at_once() {
    let backend = Backend::start(|guest| {
        guest.open();
        guest.read_to_end();
        thread::sleep(Duration::from_secs(8));
    });
    let rig = Rig::start(&backend, "");
    let socket = rig.open();
    socket.stream().shutdown(Shutdown::Write).unwrap();
    assert_eq!(backend.visit(0).ended(), End::Fin);
    let (reset, ()) = Began::with(|| socket.reset());
    rig.quiet_within(Duration::from_secs(6));
    reset.assert_took(Duration::ZERO..AT_ONCE);
    rig.expect(r#"wsguard_closes_total{zone="default",reason="client"}"#, 1);
}

/// Opens a WebSocket for a client with a small receive buffer. The client reads nothing more after the 101.
fn client_that_reads_nothing(rig: &Rig) -> Socket {
    let mut socket = Socket::connect_with(ip(1), rig.front(), |socket| socket.set_recv_buffer_size(4096).unwrap());
    socket.send(Request::to("/ws").as_ref());
    assert!(socket.read_head().starts_with(b"HTTP/1.1 101 "));
    socket
}

fn leases(rig: &Rig, backend: &Backend) -> i64 {
    let address = backend.address();
    rig.count(&format!(
        "wsguard_upstream_connections{{upstream=\"chat\",server=\"{address}\"}}"
    ))
}

const DELAY: &str = "[limits.timeouts]\nhalf_close = \"2s\"\n[limits.messages]\nrate = \"1/s\"\non_exceed = \"delay\"";
/// Half a second by wsguard's own clock, and as much again for a busy machine.
const AT_ONCE: Duration = Duration::from_secs(1);
