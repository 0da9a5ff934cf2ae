//! Limits on messages: what passes, what the client gets, and what reaches the server.

use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use crate::rig::{Backend, End, Gate, Request, Rig, Socket, close_code, frame, ip, masked, nth_ip, reaches, unmasked};

const TEXT: u8 = 1;
const PING: u8 = 9;

#[test]
fn of_six_messages_at_once_under_5_a_second_five_pass_and_the_sixth_ends_the_connection_with_1008() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits.messages]\nrate = \"5/s\"");
    let mut socket = rig.open();
    let messages: Vec<Vec<u8>> = (0..6).map(|n| masked(TEXT, &[b'a' + n])).collect();
    socket.send(&messages.concat());
    let reason = [b"\x03\xf0".as_slice(), b"message rate exceeded"].concat();
    assert_eq!(socket.read_to_end(), (frame(8, &reason), End::Fin));
    // The server gets nothing of the sixth message, and a close frame of wsguard's at a frame boundary.
    let visit = backend.visit(0);
    assert_eq!(visit.ended(), End::Fin);
    let (five, close) = split_at(visit.tail(), messages[..5].concat().len());
    assert_eq!(five, messages[..5].concat());
    assert_eq!(unmasked(&close), reason);
    drop(socket);
    rig.quiet();
    rig.expect(r#"wsguard_closes_total{zone="default",reason="message_rate"}"#, 1);
    rig.expect(
        r#"wsguard_message_limit_hits_total{zone="default",limit="rate",action="close"}"#,
        1,
    );
    let line = rig.access("message_rate");
    assert_eq!((&line["messages_in"], &line["limit_hits"]), (&5.into(), &1.into()));
    assert_eq!(line["message"], "rate");
}

/// When the guard ends, a proxy in front of it closes the connection of its client. If the client has just sent
/// something, the kernel would then drop what the client has not read yet.
#[test]
fn the_end_follows_the_clients_answer_to_the_close_frame_and_not_the_close_frame() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits.messages]\nrate = \"5/s\"\nmax_size = \"1KiB\"");
    let reason = [b"\x03\xf0".as_slice(), b"message rate exceeded"].concat();
    let (flood, close) = (masked(TEXT, b"x").repeat(9), frame(8, &reason));
    for (answers, more) in [(true, &b""[..]), (true, &flood), (false, &flood)] {
        let mut socket = rig.open();
        socket.send(&flood);
        assert_eq!(socket.read_exactly(close.len()), close);
        let heard = Instant::now();
        socket.send(more);
        if answers {
            thread::sleep(Duration::from_millis(100));
            assert!(socket.is_silent(), "no end before the answer");
            socket.send(&masked(8, b"\x03\xf0"));
        }
        assert_eq!(socket.read_to_end(), (Vec::new(), End::Fin));
        let after = heard.elapsed();
        if answers {
            assert!(after < Duration::from_millis(400), "{after:?} after the close frame");
        } else {
            assert!(after > Duration::from_millis(400), "{after:?} after the close frame");
            assert!(after < Duration::from_secs(2), "{after:?} after the close frame");
        }
        drop(socket);
        rig.quiet();
    }
}

#[test]
fn capacity_20_and_5_a_second_let_20_of_25_through_after_4_seconds_of_silence() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits.messages]\nrate = \"5/s\"\nburst = 20");
    let mut socket = rig.open();
    let one = masked(TEXT, b"x");
    socket.send(&one.repeat(20));
    backend.visit(0).tail_of(20 * one.len());
    thread::sleep(Duration::from_secs(4));
    socket.send(&one.repeat(25));
    let (heard, _) = socket.read_to_end();
    assert_eq!(close_code(&heard), Some(1008));
    let visit = backend.visit(0);
    visit.ended();
    assert_eq!(visit.tail()[..40 * one.len()], one.repeat(40));
    drop(socket);
    rig.quiet();
    assert_eq!(rig.access("message_rate")["messages_in"], 40);
}

#[test]
fn all_sockets_of_a_client_spend_from_one_bucket_and_a_new_one_finds_what_was_spent() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits.messages]\nper_ip_rate = \"6/min\"");
    let one = masked(TEXT, b"x");
    let (mut first, mut second) = (rig.open_from(ip(1)), rig.open_from(ip(1)));
    let mut stranger = rig.open_from(ip(2));
    first.send(&one.repeat(3));
    backend.visit(0).tail_of(3 * one.len());
    drop(first);
    rig.expect(r#"wsguard_connections{zone="default"}"#, 2);
    second.send(&one.repeat(4));
    assert_eq!(close_code(&second.read_to_end().0), Some(1008));
    drop(second);
    let mut third = rig.open_from(ip(1));
    third.send(&one);
    assert_eq!(close_code(&third.read_to_end().0), Some(1008));
    stranger.send(&one.repeat(6));
    backend.visit(2).tail_of(6 * one.len());
    assert!(stranger.is_silent());
    drop((stranger, third));
    rig.quiet();
    rig.expect(
        r#"wsguard_message_limit_hits_total{zone="default",limit="per_ip_rate",action="close"}"#,
        2,
    );
}

#[test]
fn heartbeats_pass_the_limit_and_a_flood_of_them_does_not() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits.messages]\nrate = \"5/s\"");
    let mut socket = rig.open();
    let (text, ping) = (masked(TEXT, b"x"), masked(PING, b"beat"));
    socket.send(&[text.repeat(5), ping.repeat(45)].concat());
    backend.visit(0).tail_of(5 * text.len() + 45 * ping.len());
    assert!(socket.is_silent());
    socket.send(&ping.repeat(60));
    assert_eq!(close_code(&socket.read_to_end().0), Some(1008));
    drop(socket);
    rig.quiet();
    rig.expect(
        r#"wsguard_message_limit_hits_total{zone="default",limit="frames",action="close"}"#,
        1,
    );
}

#[test]
fn a_message_that_would_be_too_large_is_refused_by_its_header_alone() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits.messages]\nmax_size = \"100B\"");
    let mut socket = rig.open();
    let fits = masked(TEXT, &[b'x'; 100]);
    socket.send(&fits);
    backend.visit(0).tail_of(fits.len());
    // The client sends a first fragment that fits, a ping, and the header of a fragment that does not fit; its payload
    // is still to come.
    let mut fragment = masked(TEXT, &[b'y'; 60]);
    fragment[0] = TEXT;
    let mut last = masked(0, &[b'z'; 41]);
    last.truncate(6);
    socket.send(&[fragment.clone(), masked(PING, b""), last].concat());
    let (heard, end) = socket.read_to_end();
    assert_eq!((close_code(&heard), end), (Some(1009), End::Fin));
    let visit = backend.visit(0);
    visit.ended();
    let passed = [fits, fragment, masked(PING, b"")].concat();
    let (before, close) = split_at(visit.tail(), passed.len());
    assert_eq!(before, passed);
    assert_eq!(unmasked(&close), [b"\x03\xf1".as_slice(), b"message too big"].concat());
    drop(socket);
    rig.quiet();
    rig.expect(r#"wsguard_closes_total{zone="default",reason="message_size"}"#, 1);
}

#[test]
fn each_fault_of_the_protocol_ends_the_connection_with_1002_and_reaches_nobody() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits.messages]\nstrict_frames = true");
    let faults: [(&[u8], &str); 8] = [
        (b"\x81\x01x", "frame without a mask"),
        (b"\x83\x80mask", "reserved opcode"),
        (b"\x8b\x80mask", "reserved opcode"),
        (b"\x09\x80mask", "fragmented control frame"),
        (b"\x89\xfe\x00\x7emask", "control frame longer than 125 bytes"),
        (b"\x82\xfe\x00\x05mask", "frame length not in its shortest form"),
        (b"\x80\x80mask", "continuation without a message"),
        (b"\x01\x80mask\x81\x80mask", "new message inside a fragmented one"),
    ];
    let before = masked(TEXT, b"before");
    for (nth, (fault, reason)) in faults.into_iter().enumerate() {
        let mut socket = rig.open_from(nth_ip(nth.try_into().unwrap()));
        socket.send(&[before.as_slice(), fault].concat());
        let (heard, _) = socket.read_to_end();
        assert_eq!(close_code(&heard), Some(1002), "{reason}");
        assert!(heard.ends_with(reason.as_bytes()), "{reason}");
        let visit = backend.visit(nth);
        visit.ended();
        let passed = if nth == 7 {
            [before.as_slice(), &fault[..6]].concat()
        } else {
            before.clone()
        };
        assert_eq!(split_at(visit.tail(), passed.len()).0, passed, "{reason}");
    }
    rig.quiet();
    rig.expect(r#"wsguard_closes_total{zone="default",reason="protocol"}"#, 8);
}

#[test]
fn extensions_are_left_alone_by_strict_frames() {
    let backend = Backend::start(|guest| {
        let reply = String::from_utf8(guest.switching()).unwrap();
        guest.send(
            reply
                .replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions: x-all-bits\r\n\r\n")
                .as_bytes(),
        );
        guest.echo();
    });
    let rig = Rig::start(&backend, "[limits.messages]\nstrict_frames = true\nrate = \"100/s\"");
    let mut socket = rig.open();
    let mut compressed = masked(TEXT, b"looks compressed");
    compressed[0] |= 0x70;
    socket.send(&compressed);
    assert_eq!(socket.read_exactly(compressed.len()), compressed);
    drop(socket);
    rig.quiet();
}

#[test]
fn delay_loses_nothing_and_holds_the_rate() {
    let backend = Backend::echo_frames();
    let rig = Rig::start(
        &backend,
        "[limits.messages]\nrate = \"10/s\"\nburst = 3\non_exceed = \"delay\"\nnotice = '42[\"blocked\",{\"retry-ms\":{retry_ms}}]'",
    );
    let mut socket = rig.open();
    let start = Instant::now();
    let messages: Vec<Vec<u8>> = (0..13_u8).map(|n| masked(TEXT, &[n])).collect();
    socket.send(&messages.concat());
    let (mut echoes, mut notices) = (Vec::new(), Vec::new());
    while echoes.len() < 13 {
        let (_, payload) = socket.read_frame();
        if payload.len() == 1 {
            echoes.extend(payload);
        } else {
            notices.push(String::from_utf8(payload).unwrap());
        }
    }
    assert_eq!(echoes, (0..13).collect::<Vec<u8>>());
    // Ten messages had to wait, a tenth of a second each.
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(990), "{took:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(notices, ["42[\"blocked\",{\"retry-ms\":100}]"]);
    drop(socket);
    rig.quiet();
    rig.expect(
        r#"wsguard_message_limit_hits_total{zone="default",limit="rate",action="delay"}"#,
        10,
    );
    assert_eq!(backend.visit(0).tail()[..messages.concat().len()], messages.concat());
}

#[test]
fn a_delay_of_more_than_5_seconds_ends_the_connection() {
    let backend = Backend::listening();
    let rig = Rig::start(
        &backend,
        "[limits.messages]\nrate = \"6/min\"\nburst = 1\non_exceed = \"delay\"",
    );
    let mut socket = rig.open();
    let one = masked(TEXT, b"x");
    let start = Instant::now();
    socket.send(&one.repeat(2));
    let (heard, _) = socket.read_to_end();
    assert_eq!(close_code(&heard), Some(1008));
    let took = start.elapsed();
    assert!(
        (Duration::from_millis(4900)..Duration::from_secs(8)).contains(&took),
        "{took:?}"
    );
    drop(socket);
    rig.quiet();
    rig.expect(r#"wsguard_closes_total{zone="default",reason="message_rate"}"#, 1);
}

#[test]
fn a_notice_is_the_last_message_before_the_close() {
    let backend = Backend::listening();
    let rig = Rig::start(
        &backend,
        "[limits.messages]\nrate = \"1/s\"\nnotice = \"wait {retry_ms} ms\"",
    );
    let mut socket = rig.open();
    socket.send(&masked(TEXT, b"x").repeat(2));
    let (opcode, text) = socket.read_frame();
    let text = String::from_utf8(text).unwrap();
    let ms: u32 = text
        .strip_prefix("wait ")
        .and_then(|rest| rest.strip_suffix(" ms"))
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(opcode, 0x81);
    assert!((900..=1000).contains(&ms), "{text}");
    assert_eq!(close_code(&socket.read_to_end().0), Some(1008));
    drop(socket);
    rig.quiet();
}

#[test]
fn a_message_that_the_server_has_begun_is_completed_before_the_close() {
    let (gate, goes_on) = (Gate::default(), Gate::default());
    let backend = Backend::start({
        let (gate, goes_on) = (gate.clone(), goes_on.clone());
        move |guest| {
            guest.open();
            let message = frame(2, &[b'm'; 1000]);
            guest.send(&message[..400]);
            gate.open();
            goes_on.wait();
            guest.send(&message[400..]);
            guest.send(&frame(2, b"behind"));
            guest.read_to_end();
        }
    });
    let rig = Rig::start(&backend, "[limits.messages]\nrate = \"1/s\"");
    let mut socket = rig.open();
    gate.wait();
    let mut heard = socket.read_exactly(400);
    socket.send(&masked(TEXT, b"x").repeat(2));
    rig.expect(
        r#"wsguard_message_limit_hits_total{zone="default",limit="rate",action="close"}"#,
        1,
    );
    assert!(socket.is_silent());
    goes_on.open();
    heard.extend(socket.read_to_end().0);
    let (message, close) = split_at(heard, frame(2, &[0; 1000]).len());
    assert_eq!(message, frame(2, &[b'm'; 1000]));
    assert_eq!(close_code(&close), Some(1008));
    drop(socket);
    rig.quiet();
}

#[test]
fn a_notice_is_never_put_between_the_fragments_of_a_message() {
    let mut first = frame(TEXT, b"I am not");
    first[0] = TEXT;
    let last = frame(0, b" done yet");
    let goes_on = Gate::default();
    let backend = Backend::start({
        let (first, last, goes_on) = (first.clone(), last.clone(), goes_on.clone());
        move |guest| {
            guest.open();
            guest.send(&first);
            goes_on.wait();
            guest.send(&last);
            guest.read_to_end();
        }
    });
    let limits = |on_exceed| {
        format!("[limits.messages]\nrate = \"60/min\"\nburst = 1\non_exceed = \"{on_exceed}\"\nnotice = \"slower\"")
    };
    // A delayed client gets the notice after the message.
    let rig = Rig::start(&backend, &limits("delay"));
    let mut socket = rig.open();
    assert_eq!(socket.read_exactly(first.len()), first);
    socket.send(&masked(TEXT, b"x").repeat(2));
    rig.expect(
        r#"wsguard_message_limit_hits_total{zone="default",limit="rate",action="delay"}"#,
        1,
    );
    thread::sleep(Duration::from_millis(200));
    assert!(socket.is_silent());
    goes_on.open();
    let heard = [last, frame(TEXT, b"slower")].concat();
    assert_eq!(socket.read_exactly(heard.len()), heard);
    drop(socket);
    rig.quiet();

    // A client that is closed gets only the close frame, which may stand within a message.
    let backend = Backend::start({
        let first = first.clone();
        move |guest| {
            guest.open();
            guest.send(&first);
            guest.read_to_end();
        }
    });
    let rig = Rig::start(&backend, &limits("close"));
    let mut socket = rig.open();
    assert_eq!(socket.read_exactly(first.len()), first);
    socket.send(&masked(TEXT, b"x").repeat(2));
    assert_eq!(close_code(&socket.read_to_end().0), Some(1008));
    drop(socket);
    rig.quiet();
}

#[test]
fn observe_lets_every_message_pass() {
    let backend = Backend::echo();
    let rig = Rig::start(
        &backend,
        "[limits]\nmode = \"observe\"\n[limits.messages]\nrate = \"2/s\"\nmax_size = \"10B\"\nstrict_frames = true",
    );
    let mut socket = rig.open();
    let stream = [
        masked(TEXT, b"x").repeat(6),
        masked(TEXT, &[b'y'; 50]),
        b"\x81\x01x".to_vec(),
    ]
    .concat();
    socket.send(&stream);
    assert_eq!(socket.read_exactly(stream.len()), stream);
    drop(socket);
    rig.quiet();
    for (limit, hits) in [("rate", 5), ("max_size", 1), ("strict_frames", 1)] {
        let series = format!(r#"wsguard_message_limit_hits_total{{zone="default",limit="{limit}",action="observe"}}"#);
        rig.expect(&series, hits);
    }
    assert_eq!(rig.access("client")["limit_hits"], 7);
}

#[test]
fn messages_that_the_server_sends_too_fast_wait_there_and_arrive_complete() {
    let backend = Backend::start(|guest| {
        guest.open();
        let messages: Vec<u8> = (0..13_u8).flat_map(|n| frame(2, &[n; 100])).collect();
        guest.send(&messages);
        guest.read_to_end();
    });
    let rig = Rig::start(&backend, "[limits.messages]\nout_rate = \"10/s\"\nout_burst = 3");
    let start = Instant::now();
    let mut socket = rig.open();
    for n in 0..13_u8 {
        assert_eq!(socket.read_frame(), (0x82, vec![n; 100]));
    }
    assert!(start.elapsed() >= Duration::from_millis(990));
    drop(socket);
    rig.quiet();
    rig.expect(
        r#"wsguard_message_limit_hits_total{zone="default",limit="out_rate",action="delay"}"#,
        10,
    );
}

#[test]
fn a_client_that_loses_delayed_messages_gets_a_reset_and_no_orderly_end() {
    let backend = Backend::start(|guest| {
        guest.open();
        guest.send(&frame(2, b"one of many").repeat(20));
        guest.read_to_end();
    });
    let rig = Rig::start(
        &backend,
        "[limits.messages]\nout_rate = \"1/s\"\n[limits.timeouts]\nhalf_close = \"2s\"",
    );
    let mut socket = rig.open();
    socket.fin();
    let (heard, end) = socket.read_to_end();
    assert_eq!(end, End::Reset);
    assert!(heard.len() < 20 * 13, "{}", heard.len());
    drop(socket);
    rig.quiet();
    rig.expect(r#"wsguard_closes_total{zone="default",reason="half_close"}"#, 1);
}

#[test]
fn bytes_to_a_client_are_paced_and_those_to_all_sockets_of_a_client_together() {
    let backend = Backend::start(|guest| {
        guest.open();
        guest.send(&frame(2, &vec![b'x'; 50_000]).repeat(4));
        guest.read_to_end();
    });
    let rig = Rig::start(
        &backend,
        "[limits.messages]\nout_bytes_rate = \"100KiB/s\"\nout_bytes_burst = \"64KiB\"",
    );
    let start = Instant::now();
    let mut socket = rig.open();
    for _ in 0..4 {
        assert_eq!(socket.read_frame(), (0x82, vec![b'x'; 50_000]));
    }
    // A burst of 65 536 bytes passes at once, and the rest of the 200 000 at 102 400 a second.
    let took = start.elapsed();
    assert!(
        (Duration::from_millis(1280)..Duration::from_secs(5)).contains(&took),
        "{took:?}"
    );
    drop(socket);
    rig.quiet();

    let backend = Backend::start(|guest| {
        guest.open();
        guest.send(&frame(2, b"tick").repeat(5));
        guest.read_to_end();
    });
    let rig = Rig::start(
        &backend,
        "[limits.messages]\nout_per_ip_rate = \"10/s\"\nout_per_ip_burst = 2",
    );
    let start = Instant::now();
    let mut sockets: Vec<Socket> = (0..2).map(|_| rig.open()).collect();
    for socket in &mut sockets {
        assert_eq!(socket.read_exactly(6 * 5), frame(2, b"tick").repeat(5));
    }
    assert!(start.elapsed() >= Duration::from_millis(790));
    drop(sockets);
    rig.quiet();
}

/// Open connections keep the limits of their admission, and wait for them. Later connections wait neither for them nor
/// for the tokens that they have spent.
#[test]
fn a_rate_of_a_client_key_that_a_reload_raises_holds_at_once() {
    let backend = Backend::start(|guest| {
        guest.open();
        guest.send(&frame(2, b"tick").repeat(100));
        guest.read_to_end();
    });
    let rate = |rate: &str| format!("[limits.messages]\nout_per_ip_rate = \"{rate}\"\nout_per_ip_burst = 2");
    let setup = |rate: &str| Rig::before(&backend).config(&["[server]\nwatch_config = false\n", rate].concat());
    let rig = setup(&rate("2/h")).start();
    let mut old: Vec<Socket> = (0..2).map(|_| rig.open()).collect();
    rig.expect(
        r#"wsguard_message_limit_hits_total{zone="default",limit="out_per_ip_rate",action="delay"}"#,
        2,
    );
    assert_eq!(rig.reload(&setup(&rate("1000/s")).text()), Ok(()));
    let mut new: Vec<Socket> = (0..2).map(|_| rig.open()).collect();
    for socket in &mut new {
        assert_eq!(socket.read_exactly(6 * 100), frame(2, b"tick").repeat(100));
    }
    assert_eq!(old[0].read_exactly(6 * 2).len(), 6 * 2, "what was there for it");
    assert!(old.iter().all(Socket::is_silent), "the others wait");
    drop(new);
    old.into_iter().for_each(Socket::reset);
    rig.quiet();
}

#[test]
fn an_exempt_zone_has_no_message_limits_but_those_of_its_own() {
    let backend = Backend::echo();
    let rig = Rig::start(
        &backend,
        "[limits.messages]\nrate = \"1/s\"\n[[route]]\npaths = [\"/server\"]\nnetworks = [\"127.0.0.0/8\"]\nzone = \"exempt\"\n[[route]]\n",
    );
    let mut socket = rig.send(Request::to("/server"));
    socket.read_head();
    let stream = masked(TEXT, b"x").repeat(20);
    socket.send(&stream);
    assert_eq!(socket.read_exactly(stream.len()), stream);
    drop(socket);
    rig.quiet();
}

#[test]
fn messages_that_came_with_the_request_count_as_well() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits.messages]\nrate = \"2/s\"");
    let mut bytes = Request::to("/").as_ref().to_vec();
    bytes.extend(masked(TEXT, b"x").repeat(3));
    let mut socket = rig.send(&bytes);
    socket.read_head();
    assert_eq!(close_code(&socket.read_to_end().0), Some(1008));
    drop(socket);
    rig.quiet();
    assert_eq!(rig.access("message_rate")["messages_in"], 2);
}

#[test]
fn half_a_header_is_not_lost_when_its_sender_ends() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits.messages]\nrate = \"5/s\"");
    let mut socket = rig.open();
    let stream = [masked(TEXT, b"x").as_slice(), b"\x82\xfe\x01"].concat();
    socket.send(&stream);
    socket.fin();
    let visit = backend.visit(0);
    visit.ended();
    assert_eq!(visit.tail(), stream);
    drop(socket);
    rig.quiet();
}

#[test]
fn large_messages_go_through_limits_intact() {
    let backend = Backend::echo();
    let rig = Rig::start(
        &backend,
        "[limits.messages]\nrate = \"1000/s\"\nbytes_rate = \"500MiB/s\"\nmax_size = \"16MiB\"\nout_rate = \"1000/s\"",
    );
    let mut socket = rig.open();
    for size in [0, 125, 126, 65_535, 65_536, 1 << 20, 16 << 20] {
        let message = masked(2, &vec![b'x'; size]);
        // A server may not send such a frame, so the frames on the way back are not followed.
        let mut writer = socket.stream().try_clone().unwrap();
        let sent = message.clone();
        let sender = thread::spawn(move || std::io::Write::write_all(&mut writer, &sent));
        assert!(socket.read_exactly(message.len()) == message, "{size}");
        sender.join().unwrap().unwrap();
    }
    drop(socket);
    rig.quiet();
}

fn split_at(mut bytes: Vec<u8>, at: usize) -> (Vec<u8>, Vec<u8>) {
    let rest = bytes.split_off(at.min(bytes.len()));
    (bytes, rest)
}

/// Each token wakes one waiting connection, and not all of them.
#[test]
fn many_connections_that_wait_for_a_shared_bucket_are_served_in_turn_at_the_cost_of_one() {
    let backend = Backend::start(|guest| {
        guest.open();
        guest.send(&frame(2, b"tick").repeat(10_000));
        guest.read_to_end();
    });
    let measure = |crowd: usize| {
        let rig = Rig::start(
            &backend,
            "[server]\nworkers = 1\n[limits.messages]\nout_per_ip_rate = \"600/s\"\nout_per_ip_burst = 1",
        );
        let mut sockets: Vec<Socket> = (0..crowd).map(|_| rig.open()).collect();
        // Bytes that came before all connections were open do not count.
        for socket in &mut sockets {
            received(socket);
        }
        let before = cpu_ticks(rig.pid());
        let mut got = vec![0; crowd];
        // The rate is 600 a second, but a busy machine takes its time.
        let came = reaches(Duration::from_secs(40), || {
            for (got, socket) in got.iter_mut().zip(&mut sockets) {
                *got += received(socket).len();
            }
            (got.iter().sum::<usize>() >= 1800 * 6).then_some(())
        });
        assert!(came.is_some(), "{got:?}");
        let ticks = cpu_ticks(rig.pid()) - before;
        let got: Vec<usize> = got.iter().map(|bytes| bytes / 6).collect();
        (ticks, got)
    };
    let (of_one, _) = measure(1);
    let (of_all, got) = measure(48);
    let (least, most) = (got.iter().min().unwrap(), got.iter().max().unwrap());
    assert!(most - least <= most / 4 + 5, "{got:?}");
    assert!(of_all <= 3 * of_one + 15, "{of_all} ticks, where one took {of_one}");
}

/// The bytes that have arrived so far.
fn received(socket: &mut Socket) -> Vec<u8> {
    socket.stream().set_nonblocking(true).unwrap();
    let mut got = Vec::new();
    let _nothing_more = Read::read_to_end(socket, &mut got);
    got
}

/// The user and system time of a process.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}
