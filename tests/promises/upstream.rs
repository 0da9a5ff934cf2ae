//! What the client gets for each answer of the server, which server is dialled, and that a dial ends when its client
//! leaves.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::rig::{
    Answer, Backend, End, Gate, Request, Rig, Setup, Socket, close_code, frame, full_queue, ip, nth_ip, until,
};

#[test]
fn if_every_server_refuses_the_client_gets_502_and_the_slot_is_free() {
    let rig = Setup::default()
        .server(refusing_address())
        .server(refusing_address())
        .start();
    for _ in 0..3 {
        rig.ask(Request::to("/ws"))
            .assert_refusal("502 Bad Gateway", "upstream_refused", "Bad gateway");
    }
    rig.expect(
        r#"wsguard_handshakes_total{zone="default",outcome="failed",reason="upstream_refused"}"#,
        3,
    );
    let failures = rig.metrics();
    let failures = failures.starting_with("wsguard_upstream_dial_failures_total{");
    assert_eq!(
        failures.iter().map(|(_, n)| *n).collect::<Vec<_>>(),
        ["3", "3"],
        "each server once a client"
    );
    rig.quiet();
}

#[test]
fn a_dial_that_is_neither_accepted_nor_refused_ends_in_504_in_time() {
    let (address, _held) = full_queue();
    let rig = Setup::default()
        .server(address)
        .config("[limits.timeouts]\ndial = \"300ms\"")
        .start();
    let start = Instant::now();
    rig.ask(Request::to("/ws"))
        .assert_refusal("504 Gateway Timeout", "upstream_timeout", "Gateway timeout");
    let took = start.elapsed();
    assert!(
        (Duration::from_millis(290)..Duration::from_secs(2)).contains(&took),
        "took {took:?}"
    );
    rig.expect(
        r#"wsguard_handshakes_total{zone="default",outcome="failed",reason="upstream_timeout"}"#,
        1,
    );
    rig.quiet();
}

#[test]
fn a_failed_dial_goes_to_the_next_server() {
    let backend = Backend::listening();
    let (stuck, _held) = full_queue();
    let rig = Setup::default()
        .server(refusing_address())
        .server(stuck)
        .server(backend.address())
        .config("[limits.timeouts]\ndial = \"300ms\"")
        .start();
    let open: Vec<Socket> = (0..3).map(|_| rig.open()).collect();
    assert_eq!(backend.dials(), 3);
    drop(open);
    rig.quiet();
}

#[test]
fn nothing_is_tried_again_once_the_request_was_written() {
    let broken = || {
        Backend::start(|guest| {
            guest.read_head();
        })
    };
    let (one, other) = (broken(), broken());
    let rig = Rig::before(&one).server(other.address()).start();
    rig.ask(Request::to("/ws"))
        .assert_refusal("502 Bad Gateway", "upstream_bad_reply", "Bad gateway");
    assert_eq!(one.dials() + other.dials(), 1);
    rig.quiet();
}

#[test]
fn a_server_that_does_not_answer_is_closed_and_the_client_gets_504() {
    let backend = Backend::start(|guest| {
        guest.read_head();
        guest.read_to_end();
    });
    let rig = Rig::start(&backend, "[limits.timeouts]\nupgrade = \"300ms\"");
    rig.ask(Request::to("/ws"))
        .assert_refusal("504 Gateway Timeout", "upstream_timeout", "Gateway timeout");
    backend.visit(0).ended();
    assert_eq!(backend.dials(), 1);
    rig.quiet();
}

#[test]
fn a_server_that_drips_its_reply_is_late_too() {
    let backend = Backend::start(|guest| {
        for byte in guest.switching() {
            guest.send(&[byte]);
            thread::sleep(Duration::from_millis(20));
        }
        guest.read_to_end();
    });
    let rig = Rig::start(&backend, "[limits.timeouts]\nupgrade = \"500ms\"");
    let start = Instant::now();
    assert_eq!(rig.ask(Request::to("/ws")).status(), 504);
    assert!(start.elapsed() < Duration::from_secs(2), "took {:?}", start.elapsed());
    rig.quiet();
}

#[test]
fn a_server_that_vanished_before_its_101_costs_no_slot() {
    let backend = Backend::start(|guest| {
        guest.vanish();
        thread::sleep(Duration::from_secs(2));
    });
    let rig = Rig::start(&backend, "[limits.timeouts]\nupgrade = \"500ms\"");
    assert_eq!(rig.ask(Request::to("/ws")).status(), 504);
    rig.quiet();
}

#[test]
fn an_invalid_reply_to_an_upgrade_makes_502_and_opens_no_tunnel() {
    let long_head = format!("HTTP/1.1 404 Not Found\r\nX-A: {}\r\n\r\n", "a".repeat(40_000));
    let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    let many_interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(9);
    let replies = [
        ("a 200", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned()),
        ("a 204", "HTTP/1.1 204 No Content\r\n\r\n".to_owned()),
        ("garbage", "220 mail.example.org ESMTP\r\n\r\n".to_owned()),
        ("a long head", long_head),
        ("no accept", "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n".to_owned()),
        ("a wrong accept", "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOO=\r\n\r\n".to_owned()),
        ("two accepts", format!("HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{accept}\r\n{accept}\r\n\r\n")),
        ("no Upgrade", format!("HTTP/1.1 101 S\r\nConnection: Upgrade\r\n{accept}\r\n\r\n")),
        ("another Upgrade", format!("HTTP/1.1 101 S\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n{accept}\r\n\r\n")),
        ("no Connection", format!("HTTP/1.1 101 S\r\nUpgrade: websocket\r\n{accept}\r\n\r\n")),
        ("HTTP/1.0", format!("HTTP/1.0 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{accept}\r\n\r\n")),
        ("nine interim replies", many_interim),
        ("two lengths of one body", "HTTP/1.1 404 N\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n".into()),
    ];
    for (what, reply) in replies {
        let backend = Backend::answering(&reply);
        let rig = Rig::start(&backend, "");
        let answer = rig.ask(Request::to("/ws"));
        assert_eq!(answer.status(), 502, "{what}: {answer}");
        answer.assert_refusal("502 Bad Gateway", "upstream_bad_reply", "Bad gateway");
        backend.visit(0).ended();
        assert_eq!(backend.dials(), 1, "{what}");
        rig.expect(
            r#"wsguard_handshakes_total{zone="default",outcome="failed",reason="upstream_bad_reply"}"#,
            1,
        );
        let line = rig.access("upstream_bad_reply");
        let message = line["message"].as_str().unwrap();
        assert!(!message.is_empty() && !message.contains('\\'), "{what}: {message}");
        rig.quiet();
    }
}

#[test]
fn a_server_that_ends_instead_of_answering_makes_502() {
    for (what, reply_bytes) in [("nothing", ""), ("half a head", "HTTP/1.1 101 Switch")] {
        for end in [End::Fin, End::Reset] {
            let backend = Backend::start(move |guest| {
                guest.read_head();
                guest.send(reply_bytes.as_bytes());
                if end == End::Reset {
                    guest.reset();
                }
            });
            let rig = Rig::start(&backend, "");
            let answer = rig.ask(Request::to("/ws"));
            assert_eq!(answer.status(), 502, "{what}, {end:?}: {answer}");
            assert_eq!(
                answer.values("X-Wsguard-Reason"),
                ["upstream_bad_reply"],
                "{what}, {end:?}"
            );
            assert_eq!(backend.dials(), 1);
            rig.quiet();
        }
    }
}

#[test]
fn an_honest_refusal_of_the_server_is_passed_on_with_its_body_and_closed() {
    let cases = [
        (
            "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Length: 4\r\n\r\nwho?",
            "who?",
        ),
        (
            "HTTP/1.1 302 Found\r\nLocation: https://a.example/\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n",
            "",
        ),
        (
            "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nnot\r\n5;x=y\r\n here\r\n0\r\n\r\n",
            "not here",
        ),
        (
            "HTTP/1.1 500 Oops\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nContent-Length: 4\r\n\r\noops",
            "oops",
        ),
        (
            "HTTP/1.1 503 Busy\r\nRetry-After: 3\r\nContent-Length: 4\r\n\r\nbusy",
            "busy",
        ),
        (
            "HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n",
            "",
        ),
        (
            "HTTP/1.1 405 No\r\nAllow: POST\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            "",
        ),
        (
            "HTTP/1.1 400 No\r\nSec-WebSocket-Version: 8, 7\r\nDate: x\r\nServer: y\r\nContent-Length: 0\r\n\r\n",
            "",
        ),
    ];
    for (reply, body) in cases {
        let backend = Backend::answering(reply);
        let rig = Rig::start(&backend, "");
        let answer = rig.ask(Request::to("/ws"));
        let (line, _) = reply.split_once("\r\n").unwrap();
        assert!(answer.bytes.starts_with(line.as_bytes()), "{answer}");
        assert_eq!((answer.body_text().as_str(), answer.end), (body, End::Fin), "{answer}");
        assert_eq!(answer.values("Connection"), ["close"], "{answer}");
        assert_eq!(answer.values("Transfer-Encoding"), [""; 0], "{answer}");
        assert_eq!(answer.values("Keep-Alive"), [""; 0], "{answer}");
        for header in [
            "WWW-Authenticate",
            "Location",
            "Set-Cookie",
            "Retry-After",
            "Sec-WebSocket-Version",
            "Proxy-Authenticate",
            "Allow",
            "Date",
            "Server",
        ] {
            assert_eq!(
                answer.values(header).len(),
                usize::from(reply.contains(&format!("{header}: "))),
                "{header}: {answer}"
            );
        }
        rig.expect(
            r#"wsguard_handshakes_total{zone="default",outcome="failed",reason="upstream_status"}"#,
            1,
        );
        assert_eq!(
            u64::from(answer.status()),
            rig.access("upstream_status")["status"].as_u64().unwrap()
        );
        rig.quiet();
    }
}

#[test]
fn a_body_until_the_end_of_the_connection_is_passed_on_too() {
    let backend = Backend::start(|guest| {
        guest.read_head();
        guest.send(b"HTTP/1.1 403 Forbidden\r\n\r\nnot you");
    });
    let rig = Rig::start(&backend, "");
    let answer = rig.ask(Request::to("/ws"));
    assert_eq!((answer.status(), answer.body_text().as_str()), (403, "not you"));
    // The end of the connection marks the end of the body, as in the server's reply. A length would claim that the body
    // is complete.
    assert_eq!(answer.values("Content-Length"), [""; 0], "{answer}");
    assert_eq!(answer.values("Transfer-Encoding"), [""; 0], "{answer}");
    assert_eq!(answer.end, End::Fin);
    rig.quiet();
}

/// RFC 9110, 15.5.22 and 7.8: a 426 must say what to upgrade to, and a message with Upgrade names it in Connection.
#[test]
fn the_servers_own_426_says_what_to_upgrade_to() {
    for connection in ["", "Connection: Upgrade\r\n", "Connection: upgrade, keep-alive\r\n"] {
        let reply_bytes = format!(
            "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\n{connection}Sec-WebSocket-Version: 13, 8\r\n\
             Content-Length: 3\r\n\r\nnot"
        );
        let (rig, answer) = reply(reply_bytes.as_bytes(), Ends::Never);
        assert_eq!(
            String::from_utf8_lossy(&answer.bytes),
            "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13, 8\r\n\
             Connection: close, Upgrade\r\nContent-Length: 3\r\n\r\nnot"
        );
        assert_eq!(answer.end, End::Fin);
        rig.quiet();
    }
    // Another refusal may describe the server's connection. That does not concern the client.
    let (_rig, answer) = reply(
        b"HTTP/1.1 401 Who\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n",
        Ends::Never,
    );
    assert_eq!(
        (answer.values("Upgrade"), answer.values("Connection")),
        (vec![], vec!["close".to_owned()])
    );
}

/// What ends the server's reply.
#[derive(Clone, Copy, Debug)]
enum Ends {
    Fin,
    Reset,
    /// The reply does not end before the upgrade timeout.
    Never,
}

/// A guard before a server that sends this reply and ends in this way, and the answer that a client gets.
fn reply(reply_bytes: &[u8], ends: Ends) -> (Rig, Answer) {
    let reply_bytes = reply_bytes.to_vec();
    let backend = Backend::start(move |guest| {
        guest.read_head();
        guest.try_send(&reply_bytes);
        match ends {
            Ends::Fin => {}
            // The reply must be on its way before the reset.
            Ends::Reset => {
                thread::sleep(Duration::from_millis(200));
                guest.reset();
            }
            Ends::Never => guest.read_to_end(),
        }
    });
    let rig = Rig::start(&backend, "[limits.timeouts]\nupgrade = \"1s\"");
    let answer = rig.ask(Request::to("/ws"));
    (rig, answer)
}

/// What is missing or wrong, the server's bytes behind its status line, how the reply ends, and the framing and the
/// body that the client gets.
type Case = (&'static str, Vec<u8>, &'static [Ends], &'static str, Vec<u8>);

#[test]
fn an_incomplete_reply_never_looks_complete() {
    const CHUNKED: &str = "Transfer-Encoding: chunked";
    let kib = 64 * 1024;
    let long = "x".repeat(100_000);
    let cases: [Case; 8] = [
        (
            "more than 64 KiB of a length",
            format!("Content-Length: 100000\r\n\r\n{long}").into(),
            &[Ends::Fin, Ends::Never],
            "Content-Length: 100000",
            long[..kib].into(),
        ),
        (
            "less than the length",
            b"Content-Length: 50\r\n\r\nnine byte".to_vec(),
            &[Ends::Fin, Ends::Reset, Ends::Never],
            "Content-Length: 50",
            b"nine byte".to_vec(),
        ),
        (
            "the middle of a chunk",
            format!("{CHUNKED}\r\n\r\n40\r\nnine byte").into(),
            &[Ends::Fin, Ends::Reset, Ends::Never],
            CHUNKED,
            b"9\r\nnine byte\r\n".to_vec(),
        ),
        (
            "the trailers",
            format!("{CHUNKED}\r\n\r\n9\r\nnine byte\r\n0\r\nA: b\r\n").into(),
            &[Ends::Fin, Ends::Reset, Ends::Never],
            CHUNKED,
            b"9\r\nnine byte\r\n".to_vec(),
        ),
        (
            "no chunk at all",
            format!("{CHUNKED}\r\n\r\n").into(),
            &[Ends::Fin, Ends::Reset, Ends::Never],
            CHUNKED,
            Vec::new(),
        ),
        (
            "more than 64 KiB in chunks",
            format!("{CHUNKED}\r\n\r\n186a0\r\n{long}\r\n0\r\n\r\n").into(),
            &[Ends::Fin],
            CHUNKED,
            format!("10000\r\n{}\r\n", &long[..kib]).into(),
        ),
        (
            "more than 64 KiB until the end",
            format!("A: b\r\n\r\n{long}").into(),
            &[Ends::Fin],
            CHUNKED,
            format!("10000\r\n{}\r\n", &long[..kib]).into(),
        ),
        (
            "something else than the end",
            b"A: b\r\n\r\nnine byte".to_vec(),
            &[Ends::Reset, Ends::Never],
            CHUNKED,
            b"9\r\nnine byte\r\n".to_vec(),
        ),
    ];
    for (what, reply_bytes, all_ends, framing, body) in cases {
        for ends in all_ends {
            let case = format!("{what}, {ends:?}");
            let (rig, answer) = reply(&[b"HTTP/1.1 404 Not Found\r\n", &reply_bytes[..]].concat(), *ends);
            assert_eq!((answer.status(), answer.end), (404, End::Fin), "{case}");
            let (name, value) = framing.split_once(": ").unwrap();
            for header in ["Content-Length", "Transfer-Encoding"] {
                let expected: &[&str] = if header == name { &[value] } else { &[] };
                assert_eq!(answer.values(header), expected, "{case}");
            }
            assert!(
                answer.body() == body,
                "{case}: {} bytes, not {}",
                answer.body().len(),
                body.len()
            );
            let line = rig.access("upstream_status");
            assert!(
                line["message"].as_str().unwrap_or_default().starts_with("the server"),
                "{case}: the log says why: {line}"
            );
            rig.quiet();
        }
    }
}

#[test]
fn a_reply_of_64_kib_is_whole() {
    let text = "x".repeat(64 * 1024);
    for (reply_bytes, length) in [
        (format!("Content-Length: 65536\r\n\r\n{text}"), &["65536"][..]),
        (
            format!("Transfer-Encoding: chunked\r\n\r\n10000\r\n{text}\r\n0\r\n\r\n"),
            &["65536"],
        ),
        (format!("A: b\r\n\r\n{text}"), &[]),
    ] {
        let (rig, answer) = reply(
            &[b"HTTP/1.1 404 Not Found\r\n", reply_bytes.as_bytes()].concat(),
            Ends::Fin,
        );
        assert_eq!((answer.status(), answer.end), (404, End::Fin));
        assert_eq!(answer.values("Content-Length"), length);
        assert_eq!(answer.values("Transfer-Encoding"), [""; 0]);
        assert!(answer.body() == text.as_bytes(), "{} bytes", answer.body().len());
        assert_eq!(rig.access("upstream_status")["message"], serde_json::Value::Null);
        rig.quiet();
    }
}

#[test]
fn a_304_has_no_body_whatever_its_length_would_say() {
    let reply_bytes = b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 9\r\n\r\n";
    let (rig, answer) = reply(reply_bytes, Ends::Never);
    assert_eq!(
        String::from_utf8_lossy(&answer.bytes),
        "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nConnection: close\r\n\r\n"
    );
    rig.quiet();
}

#[test]
fn interim_replies_are_neither_final_nor_restart_the_clock() {
    let backend = Backend::start(|guest| {
        let switching = guest.switching();
        for _ in 0..4 {
            guest.send(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n");
        }
        guest.send(&switching);
        guest.send(&frame(1, b"hello"));
        guest.read_to_end();
    });
    let rig = Rig::start(&backend, "");
    let mut open = rig.open();
    assert_eq!(open.read_frame(), (0x81, b"hello".to_vec()));
    drop(open);
    rig.quiet();

    let dripping = Backend::start(|guest| {
        guest.read_head();
        for _ in 0..8 {
            guest.send(b"HTTP/1.1 102 Processing\r\n\r\n");
            thread::sleep(Duration::from_millis(150));
        }
        guest.read_to_end();
    });
    let rig = Rig::start(&dripping, "[limits.timeouts]\nupgrade = \"500ms\"");
    let start = Instant::now();
    assert_eq!(rig.ask(Request::to("/ws")).status(), 504);
    assert!(
        start.elapsed() < Duration::from_millis(1100),
        "took {:?}",
        start.elapsed()
    );
    rig.quiet();
}

#[test]
fn the_servers_101_reaches_the_client_as_the_server_wrote_it() {
    let backend = Backend::start(|guest| {
        guest.read_head();
        guest.send(
            b"HTTP/1.1 101 Web Socket Protocol Handshake\r\nupgrade: WebSocket\r\nCONNECTION: upgrade\r\n\
              Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\
              Sec-WebSocket-Extensions: permessage-deflate\r\nSet-Cookie: a=b\r\nServer: x\r\n\r\n",
        );
        guest.read_to_end();
    });
    let rig = Rig::start(&backend, "");
    let offers = Request::to("/ws")
        .add("Sec-WebSocket-Protocol", "chat")
        .add("Sec-WebSocket-Extensions", "permessage-deflate");
    let mut socket = rig.send(&offers);
    let head = socket.read_head();
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    let text = String::from_utf8(head).unwrap().to_ascii_lowercase();
    for line in [
        "sec-websocket-protocol: chat",
        "sec-websocket-extensions: permessage-deflate",
        "set-cookie: a=b",
        "server: x",
    ] {
        assert_eq!(text.matches(line).count(), 1, "{line} in {text}");
    }
    assert_eq!(
        backend.visit(0).header("Sec-WebSocket-Extensions"),
        ["permessage-deflate"]
    );
    drop(socket);
    rig.quiet();
}

#[test]
fn a_client_that_leaves_before_the_101_ends_the_wait_at_once() {
    for end in [End::Fin, End::Reset] {
        let backend = Backend::start(|guest| {
            guest.read_head();
            guest.read_to_end();
        });
        let rig = Rig::start(&backend, "");
        let socket = rig.send(Request::to("/ws"));
        backend.visit(0).head();
        assert_eq!(rig.count(r#"wsguard_connections{zone="default"}"#), 1);
        let left = Instant::now();
        if end == End::Fin {
            socket.fin();
        } else {
            socket.reset();
        }
        backend.visit(0).ended();
        rig.quiet();
        assert!(
            left.elapsed() < Duration::from_secs(2),
            "{end:?}: took {:?}",
            left.elapsed()
        );
        rig.expect(
            r#"wsguard_handshakes_total{zone="default",outcome="failed",reason="client_gone"}"#,
            1,
        );
        assert_eq!(backend.dials(), 1);
    }
}

#[test]
fn a_client_that_leaves_while_it_is_dialled_for_ends_the_dial_at_once() {
    for end in [End::Fin, End::Reset] {
        let (address, _held) = full_queue();
        let rig = Setup::default()
            .server(address)
            .config("[limits.timeouts]\ndial = \"60s\"")
            .start();
        let socket = rig.send(Request::to("/ws"));
        rig.expect(r#"wsguard_connections{zone="default"}"#, 1);
        let left = Instant::now();
        let socket = if end == End::Fin {
            socket.fin();
            Some(socket)
        } else {
            socket.reset();
            None
        };
        rig.quiet();
        assert!(
            left.elapsed() < Duration::from_secs(2),
            "{end:?}: took {:?}",
            left.elapsed()
        );
        rig.expect(
            r#"wsguard_handshakes_total{zone="default",outcome="failed",reason="client_gone"}"#,
            1,
        );
        drop(socket);
    }
}

/// Bytes that a client has sent behind its request must not hide that it has left.
#[test]
fn a_client_that_sent_more_and_then_left_ends_the_wait_too() {
    for (len, end) in [(1000, End::Fin), (50_000, End::Fin), (50_000, End::Reset)] {
        let backend = Backend::start(|guest| {
            guest.read_head();
            guest.read_to_end();
        });
        let rig = Rig::start(&backend, "");
        let socket = rig.send(Request::to("/ws").followed_by(vec![b'x'; len]));
        backend.visit(0).head();
        if end == End::Fin {
            socket.fin();
            rig.quiet_within(Duration::from_secs(3));
        } else {
            socket.reset();
            rig.quiet_within(Duration::from_secs(3));
        }
        rig.expect(
            r#"wsguard_handshakes_total{zone="default",outcome="failed",reason="client_gone"}"#,
            1,
        );
        assert_eq!(backend.visit(0).tail(), b"");
        assert_eq!(backend.dials(), 1);
    }
}

#[test]
fn least_conn_dials_the_server_with_the_fewest_open() {
    let backends = [Backend::listening(), Backend::listening(), Backend::listening()];
    let rig = before_all(&backends, "least-conn");
    let mut open: Vec<Socket> = (0..9).map(|n| rig.open_from(nth_ip(n))).collect();
    assert_eq!(backends.each_ref().map(Backend::dials), [3, 3, 3]);

    // The first server's connections have ended, so it gets the next three.
    let first: Vec<usize> = (0..9).filter(|n| is_at(&backends[0], &open[*n])).collect();
    assert_eq!(first.len(), 3);
    for n in first.into_iter().rev() {
        drop(open.remove(n));
    }
    until("the first is idle", || {
        let address = backends[0].address();
        (rig.count(&format!(
            "wsguard_upstream_connections{{upstream=\"chat\",server=\"{address}\"}}"
        )) == 0)
            .then_some(())
    });
    open.extend((10..13).map(|n| rig.open_from(nth_ip(n))));
    assert_eq!(backends.each_ref().map(Backend::dials), [6, 3, 3]);
    drop(open);
    rig.quiet();
}

#[test]
fn round_robin_dials_each_in_turn() {
    let backends = [Backend::listening(), Backend::listening(), Backend::listening()];
    let rig = before_all(&backends, "round-robin");
    for _ in 0..4 {
        let before = backends.each_ref().map(Backend::dials);
        for _ in 0..3 {
            drop(rig.open());
        }
        assert_eq!(backends.each_ref().map(Backend::dials), before.map(|dials| dials + 1));
    }
    rig.quiet();
}

#[test]
fn hash_ip_keeps_an_address_at_its_server_and_spreads_the_addresses() {
    let backends = [Backend::listening(), Backend::listening(), Backend::listening()];
    let rig = before_all(&backends, "hash-ip");
    let mut homes: BTreeMap<u16, usize> = BTreeMap::new();
    for round in 0..3 {
        for n in 0..20 {
            let before = backends.each_ref().map(Backend::dials);
            drop(rig.open_from(nth_ip(n)));
            let home = (0..3).find(|b| backends[*b].dials() > before[*b]).unwrap();
            let known = *homes.entry(n).or_insert(home);
            assert_eq!(known, home, "address {n} in round {round}");
        }
    }
    let used: std::collections::BTreeSet<_> = homes.values().collect();
    assert_eq!(used.len(), 3, "twenty addresses, all at {used:?}");
    rig.quiet();
}

/// Reads a request, which is returned, and answers it with 101.
fn switch_protocols(stream: &mut (impl Read + Write)) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    let accept = crate::rig::accept_for("dGhlIHNhbXBsZSBub25jZQ==");
    let reply = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(reply.as_bytes()).unwrap();
    head
}

#[test]
fn a_server_may_be_a_unix_socket() {
    use std::os::unix::net::UnixListener;

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chat.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (sender, seen) = mpsc::channel();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        sender.send(switch_protocols(&mut stream)).unwrap();
        stream.write_all(b"hello").unwrap();
        let _ = stream.read(&mut [0]);
    });
    let rig = Setup::default()
        .config(&format!("[upstream.chat]\nservers = [\"unix:{}\"]", path.display()))
        .start();
    let mut open = rig.open();
    assert_eq!(open.read_exactly(5), b"hello");
    assert!(seen.recv().unwrap().starts_with(b"GET /ws HTTP/1.1\r\n"));
    drop(open);
    rig.quiet();
}

/// Each server that was tried, in the order of the dials, with the error of the system.
#[test]
fn the_line_of_a_failed_connection_names_each_server_and_why_it_failed() {
    let refusing = refusing_address();
    let (silent, _held) = full_queue();
    let folder = tempfile::tempdir().unwrap();
    let (missing, file) = (folder.path().join("missing.sock"), folder.path().join("file"));
    std::fs::write(&file, "").unwrap();
    for (servers, reason, causes) in [
        (
            format!("\"{refusing}\", \"unix:{}\"", missing.display()),
            "upstream_refused",
            vec![
                format!("{refusing}: Connection refused (os error 111)"),
                format!("unix:{}: No such file or directory (os error 2)", missing.display()),
            ],
        ),
        (
            format!("\"unix:{}\", \"{silent}\"", file.display()),
            "upstream_timeout",
            vec![
                format!("unix:{}: Connection refused (os error 111)", file.display()),
                format!("{silent}: no answer within `dial`"),
            ],
        ),
    ] {
        let rig = Setup::default()
            .config(&format!(
                "[upstream.chat]\nbalance = \"round-robin\"\nservers = [{servers}]\n[limits.timeouts]\ndial = \"100ms\""
            ))
            .start();
        let status = rig.ask(Request::to("/ws")).status();
        assert_eq!(status, if reason == "upstream_refused" { 502 } else { 504 });
        let line = rig.line("the connection's line", |line| {
            line["reason"] == reason && line["event"] != "dial_failed"
        });
        assert_eq!(line["message"], causes.join("; "));
        rig.quiet();
    }
}

/// A Unix socket refuses a connection that its queue has no place for; TCP lets it wait.
#[test]
fn the_full_queue_of_a_unix_socket_is_tried_until_it_has_a_place() {
    const CLIENTS: u16 = 20;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.sock");
    let listener = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    listener.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    listener.listen(5).unwrap();
    let server = thread::spawn(move || {
        let serve = |_| {
            thread::sleep(Duration::from_millis(20));
            let (mut stream, _) = listener.accept().unwrap();
            switch_protocols(&mut stream);
            stream
        };
        (0..CLIENTS).map(serve).collect::<Vec<_>>()
    });
    let rig = Setup::default()
        .config(&format!("[upstream.chat]\nservers = [\"unix:{}\"]", path.display()))
        .start();
    let mut clients: Vec<Socket> = (0..CLIENTS)
        .map(|n| rig.send_from(nth_ip(n), Request::to("/ws")))
        .collect();
    for client in &mut clients {
        let head = client.read_head();
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    }
    let failures = rig.metrics();
    let failures = failures.starting_with("wsguard_upstream_dial_failures_total{");
    assert_eq!(failures.iter().map(|(_, number)| *number).collect::<Vec<_>>(), ["0"]);
    drop((clients, server.join().unwrap()));
    rig.quiet();
}

#[test]
fn a_server_may_have_a_name() {
    let backend = Backend::listening();
    let port = backend.address().port();
    let rig = Setup::default()
        .config(&format!("[upstream.chat]\nservers = [\"localhost:{port}\"]"))
        .start();
    let open = until("the name is known", || rig.try_open(ip(1), &Request::to("/ws")).ok());
    assert!(backend.dials() >= 1);
    drop(open);
    rig.quiet();
}

#[test]
fn a_name_that_has_no_address_means_503() {
    let rig = Setup::default()
        .config("[upstream.chat]\nservers = [\"nowhere.invalid:80\"]")
        .start();
    let answer = rig.ask(Request::to("/ws"));
    answer.assert_refusal("503 Service Unavailable", "upstream_down", "Service unavailable");
    rig.quiet();
}

#[test]
fn an_upstream_that_is_down_can_be_reported_by_close_frame_too() {
    let rig = Setup::default()
        .config("[limits]\nreject_with = \"close\"\n[upstream.chat]\nservers = [\"nowhere.invalid:80\"]")
        .start();
    let answer = rig.ask(Request::to("/ws"));
    assert_eq!(
        (answer.status(), close_code(answer.body())),
        (101, Some(1013)),
        "{answer}"
    );
    assert_eq!(&answer.body()[4..], b"Service unavailable");
    rig.quiet();
    // A client that is held has a pending seat, and no slot any more.
    let mut held = rig.send(Request::to("/ws"));
    assert!(held.read_head().starts_with(b"HTTP/1.1 101 "));
    rig.expect(r#"wsguard_pending{listener="front"}"#, 1);
    assert_eq!(rig.count(r#"wsguard_connections{zone="default"}"#), 0);
    assert!(held.is_silent());
    drop(held);
    rig.quiet();

    let rig = Setup::default()
        .config("[limits]\nreject_with = \"drop\"")
        .server(refusing_address())
        .start();
    let answer = rig.ask(Request::to("/ws"));
    answer.assert_refusal("502 Bad Gateway", "upstream_refused", "Bad gateway");
    rig.quiet();
}

/// The slot is taken before the dial: a connection counts while it waits for its 101.
#[test]
fn a_client_that_waits_for_the_server_holds_a_slot() {
    let gate = Gate::default();
    let door = gate.clone();
    let backend = Backend::start(move |guest| {
        guest.read_head();
        door.wait();
        guest.open();
        guest.read_to_end();
    });
    let rig = Rig::start(&backend, "[limits]\nper_ip = 1");
    let mut waiting = rig.send(Request::to("/ws"));
    backend.visit(0).head();
    assert_eq!(rig.ask(Request::to("/ws")).status(), 429);
    // The client is not pending any more, but open.
    rig.expect(r#"wsguard_pending{listener="front"}"#, 0);
    assert_eq!(rig.count(r#"wsguard_connections{zone="default"}"#), 1);
    gate.open();
    assert!(waiting.read_head().starts_with(b"HTTP/1.1 101 "));
    assert_eq!(backend.dials(), 1);
    drop(waiting);
    rig.quiet();
}

fn before_all(backends: &[Backend; 3], balance: &str) -> Rig {
    let servers = backends.each_ref().map(|backend| backend.address().to_string());
    Setup::default()
        .config(&format!(
            "[upstream.chat]\nservers = {servers:?}\nbalance = \"{balance}\""
        ))
        .start()
}

/// Whether the connection of this client went to this server.
fn is_at(backend: &Backend, socket: &Socket) -> bool {
    let address = socket.local().ip().to_string();
    (0..backend.dials()).any(|n| backend.visit(n).header("X-Real-IP") == [address.clone()])
}

/// An address where every dial is refused.
fn refusing_address() -> SocketAddr {
    let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 77, 1)), 0);
    TcpListener::bind(any).unwrap().local_addr().unwrap()
}
