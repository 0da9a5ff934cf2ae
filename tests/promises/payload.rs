//! Limits on bytes and on frames of every kind hold for any declared length, for any duration, and in whichever way the
//! bytes are moved. Frames that RFC 6455 forbids reach no peer.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::rig::{Backend, End, Guest, Request, Rig, close_code, frame, masked, unmasked};

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

const KIB: usize = 1024;

/// A client's header that declares 2^40 bytes, and one that declares 2^63 - 1.
const ENDLESS: [&[u8]; 2] = [
    b"\x82\xff\0\0\x01\0\0\0\0\0\0\0\0\0",
    b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0",
];

#[test]
fn a_frame_without_end_passes_at_the_rate_of_bytes_and_no_faster() {
    for (header, relay, (rate, burst)) in [
        (ENDLESS[0], "auto", (16 * KIB, 16 * KIB)),
        (ENDLESS[1], "copy", (16 * KIB, 16 * KIB)),
        // This rate is high enough for pipes.
        (ENDLESS[1], "auto", (512 * KIB, 256 * KIB)),
    ] {
        let backend = Backend::listening();
        let limits = format!("bytes_rate = \"{rate}B/s\"\nbytes_burst = \"{burst}B\"\non_exceed = \"delay\"");
        let rig = Rig::start(&backend, &with(&backend, relay, &limits));
        let begin = Instant::now();
        let mut socket = rig.open();
        socket.send(header);
        pour(socket.stream(), Duration::from_secs(2));
        let passed = backend.visit(0).tail().len();
        let most = header.len() + burst + in_time(rate, begin);
        let least = burst + rate;
        assert!(
            (least..=most).contains(&passed),
            "{passed} of {least} to {most}, {relay}"
        );
        rig.expect(&hits("bytes_rate", "delay"), 1);
        socket.reset();
        rig.quiet();
    }
}

#[test]
fn a_servers_frame_of_any_length_reaches_the_client_at_the_rate_of_bytes() {
    for (relay, rate, burst) in [
        ("auto", 16 * KIB, 16 * KIB),
        ("copy", 16 * KIB, 16 * KIB),
        ("auto", 512 * KIB, 256 * KIB),
    ] {
        let backend = Backend::start(|guest| {
            guest.open();
            guest.send(b"\x82\x7f\0\0\0\0\x03\0\0\0");
            pour(&guest.stream, Duration::from_secs(4));
        });
        let limits = format!("out_bytes_rate = \"{rate}B/s\"\nout_bytes_burst = \"{burst}B\"");
        let rig = Rig::start(&backend, &with(&backend, relay, &limits));
        let begin = Instant::now();
        let mut socket = rig.open();
        let mut passed = 0;
        while begin.elapsed() < Duration::from_secs(2) {
            passed += socket.read_exactly(4 * KIB).len();
        }
        let most = 10 + burst + in_time(rate, begin);
        let least = burst + rate / 2;
        assert!(
            (least..=most).contains(&passed),
            "{passed} of {least} to {most}, {relay}"
        );
        socket.reset();
        rig.quiet();
    }
}

#[test]
fn a_large_frame_that_is_paced_arrives_whole() {
    for relay in ["auto", "copy"] {
        let message: Vec<u8> = (0..=250).cycle().take(700_000).collect();
        let backend = Backend::start({
            let message = message.clone();
            move |guest| {
                guest.open();
                guest.send(&[frame(BINARY, &message), frame(TEXT, b"behind")].concat());
                guest.read_to_end();
            }
        });
        let limits = "bytes_rate = \"500KiB/s\"\nbytes_burst = \"100KiB\"\non_exceed = \"delay\"\n\
                      out_bytes_rate = \"500KiB/s\"\nout_bytes_burst = \"100KiB\"";
        let rig = Rig::start(&backend, &with(&backend, relay, limits));
        let begin = Instant::now();
        let mut socket = rig.open();
        let sent = [masked(BINARY, &message), masked(TEXT, b"behind")].concat();
        let mut writer = socket.stream().try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| writer.write_all(&sent).unwrap());
            assert!(socket.read_frame() == (0x82, message.clone()), "{relay}");
            assert_eq!(socket.read_frame(), (0x81, b"behind".to_vec()));
        });
        assert!(backend.visit(0).tail_of(sent.len()) == sent, "{relay}");
        // The burst of 102 400 bytes passes at once, and the rest of the 700 000 at 512 000 a second.
        assert!(begin.elapsed() >= Duration::from_millis(1160), "{:?}", begin.elapsed());
        drop((socket, writer));
        rig.quiet();
    }
}

#[test]
fn where_too_much_closes_a_frame_that_the_bucket_does_not_hold_is_refused_by_its_header() {
    for header in [ENDLESS[0], ENDLESS[1], b"\x82\xfe\x04\x01mask".as_slice()] {
        let backend = Backend::listening();
        let rig = Rig::start(&backend, "[limits.messages]\nbytes_rate = \"1KiB/s\"");
        let mut socket = rig.open();
        let fits = masked(TEXT, &[b'x'; 20]);
        socket.send(&[fits.as_slice(), header].concat());
        assert_eq!(close_code(&socket.read_to_end().0), Some(1008));
        let visit = backend.visit(0);
        visit.ended();
        assert_eq!(visit.tail()[..fits.len()], fits);
        assert_eq!(
            visit.tail()[fits.len()..][..2],
            [0x88, 0x97],
            "our close, and nothing of the frame"
        );
        drop(socket);
        rig.quiet();
    }
}

#[test]
fn a_close_in_the_middle_of_a_frame_lets_no_more_of_it_pass_than_the_rate_allows() {
    let backend = Backend::listening();
    let rig = Rig::start(
        &backend,
        "[limits.timeouts]\nlifetime = \"1s\"\n[limits.messages]\nbytes_rate = \"16KiB/s\"\non_exceed = \"delay\"",
    );
    let begin = Instant::now();
    let mut socket = rig.open();
    socket.send(ENDLESS[0]);
    pour(socket.stream(), Duration::from_secs(3));
    let visit = backend.visit(0);
    visit.ended();
    let most = 14 + 16 * KIB + in_time(16 * KIB, begin);
    assert!(visit.tail().len() <= most, "{} of {most}", visit.tail().len());
    drop(socket);
    rig.quiet();
    rig.expect(r#"wsguard_closes_total{zone="default",reason="lifetime"}"#, 1);
}

#[test]
fn after_its_close_frame_a_client_may_send_only_the_pong_that_it_owes() {
    let goodbye = masked(CLOSE, b"\x03\xe8bye");
    for more in [goodbye.clone(), masked(TEXT, b"one more thing"), masked(PING, b"")] {
        let backend = Backend::listening();
        let rig = Rig::start(&backend, "");
        let mut socket = rig.open();
        let sent = [goodbye.clone(), masked(PONG, b"asked before")].concat();
        socket.send(&[sent.as_slice(), &more.repeat(1000)].concat());
        let (heard, _) = socket.read_to_end();
        assert_eq!(close_code(&heard), Some(1002));
        assert!(heard.ends_with(b"frame behind a close frame"));
        let visit = backend.visit(0);
        visit.ended();
        assert_eq!(visit.tail(), sent, "and no second close of ours");
        drop(socket);
        rig.quiet();
        rig.expect(r#"wsguard_closes_total{zone="default",reason="protocol"}"#, 1);
    }
}

#[test]
fn close_frames_are_counted_where_frames_are_not_strict() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits.messages]\nrate = \"1/s\"\nstrict_frames = false");
    let mut socket = rig.open();
    let goodbye = masked(CLOSE, &[0; 125]);
    let begin = Instant::now();
    let _ended_meanwhile = socket.stream().write_all(&goodbye.repeat(5000));
    socket.read_to_end();
    let visit = backend.visit(0);
    visit.ended();
    let most = goodbye.len() * (10 + in_time(10, begin));
    assert!(visit.tail().len() <= most, "{} of {most}", visit.tail().len());
    drop(socket);
    rig.quiet();
    rig.expect(&hits("frames", "close"), 1);
}

#[test]
fn pings_are_counted_in_bytes() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits.messages]\nbytes_rate = \"1KiB/min\"");
    let mut socket = rig.open();
    let ping = masked(PING, &[b'p'; 125]);
    socket.send(&ping.repeat(20));
    assert_eq!(close_code(&socket.read_to_end().0), Some(1008));
    let visit = backend.visit(0);
    visit.ended();
    assert_eq!(visit.tail()[..8 * ping.len()], ping.repeat(8));
    assert_eq!(visit.tail()[8 * ping.len()], 0x88, "1024 bytes are eight pings");
    drop(socket);
    rig.quiet();
    rig.expect(&hits("bytes_rate", "close"), 1);
}

#[test]
fn empty_messages_are_counted_where_bytes_or_sizes_alone_are_limited() {
    for (limit, rate, burst) in [
        ("max_size = \"1KiB\"", 10_000, 10_000),
        ("bytes_rate = \"8KiB/s\"", 1024, 1024),
    ] {
        let backend = Backend::listening();
        let rig = Rig::start(&backend, &format!("[limits.messages]\n{limit}"));
        let mut socket = rig.open();
        let empty = masked(TEXT, b"");
        let begin = Instant::now();
        let _ended_meanwhile = socket.stream().write_all(&empty.repeat(200_000));
        socket.read_to_end();
        let visit = backend.visit(0);
        visit.ended();
        let most = empty.len() * (burst + in_time(rate, begin)) + 29;
        let passed = visit.tail().len();
        assert!((empty.len() * burst..=most).contains(&passed), "{passed} of {most}");
        drop(socket);
        rig.quiet();
        rig.expect(&hits("frames", "close"), 1);
    }
}

#[test]
fn by_default_a_frame_that_rfc_6455_forbids_reaches_no_server() {
    let frames: [(&[u8], &str); 4] = [
        (b"\x81\x01x", "frame without a mask"),
        (b"\xc1\x80mask", "reserved bit without an extension"),
        (b"\xb1\x80mask", "reserved bit without an extension"),
        (b"\x80\x80mask", "continuation without a message"),
    ];
    for (bytes, reason) in frames {
        let backend = Backend::listening();
        let rig = Rig::start(&backend, "");
        let mut socket = rig.open();
        let before = masked(TEXT, b"before").repeat(3);
        for byte in [before.as_slice(), bytes].concat() {
            socket.send(&[byte]);
        }
        let (heard, end) = socket.read_to_end();
        assert_eq!((close_code(&heard), end), (Some(1002), End::Fin), "{reason}");
        assert!(heard.ends_with(reason.as_bytes()), "{reason}");
        let visit = backend.visit(0);
        visit.ended();
        assert_eq!(visit.tail()[..before.len()], before);
        assert_eq!(unmasked(&visit.tail()[before.len()..])[2..], *reason.as_bytes());
        drop(socket);
        rig.quiet();
        rig.expect(&hits("strict_frames", "close"), 1);
        rig.expect(r#"wsguard_messages_total{zone="default",direction="in"}"#, 3);
    }
}

#[test]
fn reserved_bits_pass_where_the_101_agrees_on_an_extension_that_has_them() {
    let first = |first: u8| {
        let mut frame = masked(TEXT, b"perhaps compressed");
        frame[0] = first;
        frame
    };
    for (line, bits, passes) in [
        ("", 0xc1, false),
        ("Sec-WebSocket-Extensions: permessage-deflate\r\n", 0xc1, true),
        (
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=15\r\n",
            0xa1,
            false,
        ),
        ("Sec-WebSocket-Extensions: x-unheard-of\r\n", 0xf1, true),
    ] {
        let backend = Backend::start(move |guest| {
            open_with(guest, line);
            guest.echo();
        });
        let rig = Rig::start(&backend, "");
        let mut socket = rig.send(Request::to("/ws"));
        socket.read_head();
        let sent = first(bits);
        socket.send(&sent);
        if passes {
            assert_eq!(socket.read_exactly(sent.len()), sent, "{line}");
        } else {
            assert_eq!(close_code(&socket.read_to_end().0), Some(1002), "{line}");
            assert!(!backend.visit(0).tail().starts_with(&sent));
        }
        drop(socket);
        rig.quiet();
    }
}

#[test]
fn frames_of_a_server_are_not_checked() {
    let sent: &[u8] = b"\xf1\x02hi\x88\x02\x03\xe8\x81\x05again\x83\x00 and no frame at all";
    let backend = Backend::start(move |guest| {
        guest.open();
        guest.send(sent);
        guest.read_to_end();
    });
    let rig = Rig::start(&backend, "");
    let mut socket = rig.open();
    assert_eq!(socket.read_exactly(sent.len()), sent);
    drop(socket);
    rig.quiet();
}

#[test]
fn an_exempt_zone_passes_forbidden_frames_unless_it_has_a_limit_or_strict_frames() {
    let route = "[[route]]\nnetworks = [\"127.0.0.0/8\"]\nzone = \"exempt\"\n";
    for (own, passes) in [("", true), ("[zone.exempt.messages]\nstrict_frames = true\n", false)] {
        let backend = Backend::echo();
        let rig = Rig::start(&backend, &format!("{own}{route}"));
        let mut socket = rig.open();
        let sent = b"\xf1\x80mask\x81\x01x no frame";
        socket.send(sent);
        if passes {
            assert_eq!(socket.read_exactly(sent.len()), sent);
        } else {
            assert_eq!(close_code(&socket.read_to_end().0[..]), Some(1002));
        }
        drop(socket);
        rig.quiet();
    }
}

#[test]
fn neither_a_byte_nor_half_a_header_is_a_first_message() {
    let whole = masked(TEXT, &[b'x'; 300]);
    for (bytes, is_one) in [
        (&b"\x81"[..], false),
        (&whole[..7], false),
        (b"\x83", false),
        (&whole[..8], true),
        (b"\x8a\x80mask", true),
    ] {
        let backend = Backend::listening();
        let rig = Rig::start(
            &backend,
            "[limits.timeouts]\nfirst_message = \"1s\"\n[limits.messages]\nstrict_frames = false",
        );
        let mut socket = rig.open();
        socket.send(bytes);
        if is_one {
            thread::sleep(Duration::from_millis(1800));
            rig.expect(r#"wsguard_connections{zone="default"}"#, 1);
            assert!(socket.is_silent(), "a client that has sent a message is not pinged");
        } else {
            let (heard, _) = socket.read_to_end();
            assert!(heard.ends_with(b"no message in time"), "{bytes:?}: {heard:?}");
        }
        drop(socket);
        rig.quiet();
        let ended = i64::from(!is_one);
        rig.expect(r#"wsguard_closes_total{zone="default",reason="first_message"}"#, ended);
    }
}

/// A configuration with one upstream that is relayed in this way.
fn with(backend: &Backend, relay: &str, limits: &str) -> String {
    let address = backend.address();
    format!("[upstream.b]\nservers = [\"{address}\"]\nrelay = \"{relay}\"\n[limits.messages]\n{limits}\n")
}

/// Writes all that the socket takes for this long.
fn pour(mut stream: &TcpStream, time: Duration) {
    let (begin, zeroes) = (Instant::now(), vec![0; 64 * KIB]);
    stream.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
    while begin.elapsed() < time {
        match stream.write(&zeroes) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

fn open_with(guest: &mut Guest, line: &str) {
    let reply = String::from_utf8(guest.switching()).unwrap();
    guest.send(
        reply
            .replace("Upgrade: websocket\r\n", &format!("Upgrade: websocket\r\n{line}"))
            .as_bytes(),
    );
}

/// How many come at this rate from `begin` until now.
fn in_time(rate: usize, begin: Instant) -> usize {
    usize::try_from(rate as u128 * begin.elapsed().as_millis() / 1000).unwrap() + 1
}

fn hits(limit: &str, action: &str) -> String {
    format!(r#"wsguard_message_limit_hits_total{{zone="default",limit="{limit}",action="{action}"}}"#)
}
