//! What counts as an upgrade, what the answer to a broken request is, and that nothing but the one checked request
//! reaches the server.

use std::io::{ErrorKind, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::rig::{Answer, Backend, End, Gate, Request, Rig, Socket, all_read, frame, ip, masked};

#[test]
fn the_upgrade_headers_of_a_broken_request_are_named() {
    let ws = || Request::to("/ws");
    assert_400(&[
        ("no key", bytes(ws().without(KEY)), KEY),
        ("a short key", bytes(ws().set(KEY, "dGhlIHNhbXBsZSBub25jZQ=")), KEY),
        ("a long key", bytes(ws().set(KEY, "dGhlIHNhbXBsZSBub25jZQQQ==")), KEY),
        (
            "a key without ==",
            bytes(ws().set(KEY, "dGhlIHNhbXBsZSBub25jZQAA")),
            KEY,
        ),
        (
            "a key of other letters",
            bytes(ws().set(KEY, "dGhlIHNhbXBsZSBub25j_-==")),
            KEY,
        ),
        ("an empty key", bytes(ws().set(KEY, "")), KEY),
        ("two keys", bytes(ws().add(KEY, "dGhlIHNhbXBsZSBub25jZQ==")), KEY),
        (
            "another protocol beside",
            bytes(ws().set("Upgrade", "websocket, h2c")),
            "Upgrade",
        ),
        (
            "another protocol in a second line",
            bytes(ws().add("Upgrade", "h2c")),
            "Upgrade",
        ),
        ("HTTP/1.2", bytes(ws().line("GET /ws HTTP/1.2")), "version"),
        ("HTTP/2.0", bytes(ws().line("GET /ws HTTP/2.0")), "version"),
        ("HTTP/0.9", bytes(ws().line("GET /ws")), ""),
    ]);
}

#[test]
fn a_body_on_an_upgrade_is_refused() {
    let ws = || Request::to("/ws");
    assert_400(&[
        ("a body", bytes(ws().add("Content-Length", "5")), "body"),
        (
            "two lengths",
            bytes(ws().add("Content-Length", "0").add("Content-Length", "0")),
            "",
        ),
        ("a list of lengths", bytes(ws().add("Content-Length", "0, 0")), ""),
        ("a signed length", bytes(ws().add("Content-Length", "+0")), ""),
        ("chunked", bytes(ws().add("Transfer-Encoding", "chunked")), "body"),
        ("identity", bytes(ws().add("Transfer-Encoding", "identity")), ""),
        (
            "chunked and a length",
            bytes(ws().add("Transfer-Encoding", "chunked").add("Content-Length", "0")),
            "",
        ),
    ]);
}

#[test]
fn a_head_that_two_parsers_could_read_differently_is_refused() {
    let ws = || Request::to("/ws");
    assert_400(&[
        (
            "bare LF after the line",
            b"GET /ws HTTP/1.1\nHost: a\r\n\r\n".into(),
            "",
        ),
        (
            "bare LF after a header",
            bytes(ws()).replaced(b"Upgrade: websocket\r\n", b"Upgrade: websocket\n"),
            "",
        ),
        (
            "bare LF at the end",
            bytes(ws()).replaced(b"13\r\n\r\n", b"13\r\n\nxx"),
            "",
        ),
        ("bare CR in a value", bytes(ws().add("X-A", "b\rc")), ""),
        (
            "bare CR in the line",
            b"GET /ws\rHTTP/1.1\r\nHost: a\r\n\r\n".into(),
            "",
        ),
        ("a folded line", bytes(ws().add("X-A", "b\r\n c")), ""),
        ("a folded line with a tab", bytes(ws().add("X-A", "b\r\n\tc")), ""),
        ("a folded first line", bytes(ws()).replaced(b"Host:", b" Host:"), ""),
        ("NUL", bytes(ws().add("X-A", "b\0c")), ""),
        ("a control byte", bytes(ws().add("X-A", "b\x01c")), ""),
        ("DEL", bytes(ws().add("X-A", "b\x7fc")), ""),
        (
            "a blank before the colon",
            bytes(ws()).replaced(b"Upgrade:", b"Upgrade :"),
            "",
        ),
        (
            "a header without a colon",
            bytes(ws()).replaced(b"Upgrade: websocket", b"Upgrade websocket"),
            "",
        ),
        ("a header without a name", bytes(ws()).replaced(b"Upgrade:", b":"), ""),
    ]);
}

#[test]
fn a_host_that_is_not_an_authority_is_refused() {
    let ws = || Request::to("/ws");
    assert_400(&[
        ("no Host", bytes(ws().without("Host")), "Host"),
        ("two Hosts", bytes(ws().add("Host", "chat.example.org")), "Host"),
        ("a Host with a path", bytes(ws().set("Host", "a/b")), "Host"),
        ("a Host with a user", bytes(ws().set("Host", "u@a")), "Host"),
        ("a Host with a blank", bytes(ws().set("Host", "a b")), "Host"),
        ("a Host that lists two", bytes(ws().set("Host", "a, b")), "Host"),
        ("a Host with two ports", bytes(ws().set("Host", "a:1:2")), "Host"),
        ("a Host with a word as port", bytes(ws().set("Host", "a:http")), "Host"),
        ("a Host that ends nowhere", bytes(ws().set("Host", "[::1")), "Host"),
    ]);
}

#[test]
fn a_target_that_is_not_a_path_is_refused() {
    let ws = || Request::to("/ws");
    assert_400(&[
        ("a blank in the target", bytes(ws().line("GET /w s HTTP/1.1")), ""),
        ("a tab in the target", bytes(ws().line("GET /w\ts HTTP/1.1")), ""),
        (
            "a control byte in the target",
            bytes(ws().line("GET /w\x01s HTTP/1.1")),
            "",
        ),
        ("DEL in the target", bytes(ws().line("GET /w\x7fs HTTP/1.1")), ""),
        ("a fragment", bytes(ws().line("GET /ws#x HTTP/1.1")), ""),
        ("a target without /", bytes(ws().line("GET ws HTTP/1.1")), ""),
        ("an asterisk", bytes(ws().line("GET * HTTP/1.1")), ""),
        (
            "a target that is an authority",
            bytes(ws().line("GET chat.example.org:80 HTTP/1.1")),
            "",
        ),
        (
            "TLS where none is spoken",
            b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03\x03\r\n\r\n".into(),
            "",
        ),
    ]);
}

#[test]
fn an_unusual_but_valid_request_passes_as_it_was_sent() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits]\nper_ip = \"off\"");
    let ws = || Request::to("/ws");
    let good = [
        (
            "any case",
            ws().set("Connection", "uPGRADE").set("Upgrade", "WebSocket"),
        ),
        ("lists", ws().set("Connection", "keep-alive, , Upgrade,")),
        ("empty members", ws().set("Upgrade", ", websocket ,")),
        (
            "a second line",
            ws().set("Connection", "keep-alive").add("connection", "upgrade"),
        ),
        ("no blank behind the colon", ws().set("Host", "a").add("X-A", "")),
        ("a length of nothing", ws().add("Content-Length", "0")),
        ("a tab in a value", ws().add("X-A", "b\tc")),
        ("bytes from 0x80 in a value", ws().add("X-A", b"caf\xe9 \xc3\xa9")),
        ("bytes from 0x80 in the target", Request::to(b"/caf\xe9?\xff")),
        ("a Host with a port", ws().set("Host", "a:8443")),
        ("an IPv6 Host", ws().set("Host", "[::1]:8443")),
        ("an app's Origin", ws().add("Origin", "app://chat")),
    ];
    let mut open = Vec::new();
    for (what, request) in &good {
        open.push(
            rig.try_open(ip(1), request)
                .unwrap_or_else(|answer| panic!("{what}: {answer}")),
        );
    }
    assert_eq!(backend.dials(), good.len());
    assert!(backend.visit(8).head().starts_with(b"GET /caf\xe9?\xff HTTP/1.1\r\n"));
    let value = |n: usize, value: &[u8]| {
        let head = backend.visit(n).head();
        assert!(
            head.windows(value.len()).any(|window| window == value),
            "{}",
            head.escape_ascii()
        );
    };
    value(6, b": b\tc\r\n");
    value(7, b": caf\xe9 \xc3\xa9\r\n");
    drop(open);
    rig.quiet();
}

#[test]
fn path_and_query_reach_the_server_byte_for_byte() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "");
    let targets: &[&[u8]] = &[
        b"/",
        b"/?",
        b"/socket.io/?EIO=4&transport=websocket&sid=a%2Fb%3D",
        b"/a//b/./c/../d;e=f/%2e%2E/%2f%5C\\g",
        b"/%zz%?%zz#"[..].strip_suffix(b"#").unwrap(),
        b"//",
        b"/?q=/../..;%00",
        b"/~!$&'()*+,=:@\"<>^`{|}",
        b"/\xf0\x9f\x92\xac?\x80\xff",
    ];
    for (n, target) in targets.iter().enumerate() {
        let open = rig.try_open(ip(1), &Request::to(target));
        assert!(open.is_ok(), "{}: {}", target.escape_ascii(), open.err().unwrap());
        let line = [b"GET ", *target, b" HTTP/1.1\r\n"].concat();
        let head = backend.visit(n).head();
        assert_eq!(
            head[..line.len()].escape_ascii().to_string(),
            line.escape_ascii().to_string()
        );
    }
    rig.quiet();
}

#[test]
fn a_request_without_an_upgrade_gets_426_and_takes_no_slot() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits]\nper_ip = 1");
    let open = rig.open();
    let requests = [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        b"GET / HTTP/1.0\r\n\r\n".to_vec(),
        bytes(Request::to("/ws").without("Upgrade")),
        bytes(Request::to("/ws").without("Connection")),
        bytes(Request::to("/ws").set("Connection", "keep-alive, upgraded")),
        bytes(Request::to("/ws").set("Upgrade", "h2c")),
        bytes(Request::to("/ws").set("Upgrade", "h2c, TLS/1.0")),
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n".to_vec(),
        bytes(Request::to("/ws").line("POST /ws HTTP/1.1")),
        bytes(Request::to("/ws").line("get /ws HTTP/1.1")),
        bytes(Request::to("/ws").line("GET /ws HTTP/1.0")),
    ];
    for request in &requests {
        let answer = rig.ask(request);
        assert_426(
            &answer,
            "not_upgrade",
            "Upgrade",
            "websocket",
            "WebSocket upgrade required",
        );
    }
    assert_eq!(backend.dials(), 1);
    drop(open);
    rig.quiet();
    assert_eq!(
        rig.count(r#"wsguard_handshakes_total{zone="-",outcome="rejected",reason="not_upgrade"}"#),
        11
    );
}

#[test]
fn another_version_gets_426_with_the_supported_version() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "");
    let version = "Sec-WebSocket-Version";
    let mut requests = vec![Request::to("/ws").without(version)];
    requests.extend(["12", "8", "", "013", "13, 8", "13.0"].map(|other| Request::to("/ws").set(version, other)));
    for request in requests {
        assert_426(
            &rig.ask(request),
            "bad_version",
            version,
            "13",
            "WebSocket version 13 required",
        );
    }
    assert_eq!(backend.dials(), 0);
    rig.quiet();
}

#[test]
fn a_head_that_is_too_long_or_has_too_many_headers_gets_431() {
    let backend = Backend::listening();
    let rig = Rig::before(&backend)
        .listener("max_head_size = \"1KiB\"\nmax_headers = 10")
        .start();
    let longest = Request::to("/ws").add("X-A", vec![b'a'; 1024 - 7 - Request::to("/ws").as_ref().len()]);
    assert_eq!(longest.as_ref().len(), 1024);
    let most = (0..5).fold(Request::to("/ws"), |request, n| request.add("X-A", n.to_string()));
    let open = [&longest, &most].map(|request| rig.try_open(ip(1), request).ok().unwrap());

    let endless = [b"GET /ws HTTP/1.1\r\nHost: a\r\nX-A: ".to_vec(), vec![b'a'; 100_000]].concat();
    let line = [b"GET /".to_vec(), vec![b'a'; 2000]].concat();
    for request in [bytes(longest.add("X", "")), bytes(most.add("X-A", "5")), endless, line] {
        let answer = rig.ask(request);
        let text = answer.body_text();
        answer.assert_refusal("431 Request Header Fields Too Large", "head_too_large", text.trim_end());
    }
    assert_eq!(backend.dials(), 2);
    drop(open);
    rig.quiet();
}

#[test]
fn a_head_may_be_cut_anywhere() {
    let backend = Backend::listening();
    let rig = Rig::before(&backend)
        .listener("max_pending_per_ip = \"off\"")
        .config(UNLIMITED)
        .start();
    let whole = bytes(Request::to("/ws?a=b"));
    let mut sockets: Vec<Socket> = (1..whole.len()).map(|cut| rig.send(&whole[..cut])).collect();
    all_read(&sockets);
    for (n, socket) in sockets.iter_mut().enumerate() {
        socket.send(&whole[n + 1..]);
    }
    for (n, socket) in sockets.iter_mut().enumerate() {
        assert!(socket.read_head().starts_with(b"HTTP/1.1 101 "), "cut at {}", n + 1);
    }
    assert_eq!(backend.dials(), sockets.len());
    drop(sockets);
    rig.quiet();
}

/// If bytes arrive that are not read, the close is a reset. The answer must still arrive.
#[test]
fn a_refusal_is_out_before_a_close_that_has_to_reset() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, UNLIMITED);
    let mut heard = 0;
    for pause in 0..600_u64 {
        let mut socket = rig.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let begin = std::time::Instant::now();
        // The pause ends about when the guard has read the request and has not closed the connection yet.
        while begin.elapsed().as_micros() < u128::from(10 + pause % 90) {}
        socket.send(b"more of it");
        heard += u32::from(socket.read_to_end().0.starts_with(b"HTTP/1.1 426 "));
    }
    // A reset may still overtake bytes that its peer has not read yet. The kernel causes that, and it is rare.
    assert!(heard > 590, "{heard} of 600");
    assert_eq!(backend.dials(), 0);
    rig.quiet();
}

#[test]
fn bytes_in_the_requests_own_segment_arrive_once_and_in_order() {
    let backend = Backend::echo();
    let rig = Rig::start(&backend, "");
    let first: Vec<u8> = (0..50_u8).flat_map(|n| masked(2, &[n; 40])).collect();
    let mut socket = rig.send(Request::to("/ws").followed_by(&first));
    socket.send(&masked(1, b"later"));
    let all = [first, masked(1, b"later")].concat();
    assert!(socket.read_head().starts_with(b"HTTP/1.1 101 "));
    assert_eq!(socket.read_exactly(all.len()), all);
    assert_eq!(backend.visit(0).tail(), all);
    assert_eq!(backend.dials(), 1);
    drop(socket);
    rig.quiet();
}

#[test]
fn bytes_in_the_101s_own_segment_arrive_once_and_in_order() {
    let greeting: Vec<u8> = (0..50_u8).flat_map(|n| frame(2, &[n; 40])).collect();
    let more = greeting.clone();
    let backend = Backend::start(move |guest| {
        let whole = [guest.switching(), more.clone()].concat();
        guest.send(&whole);
        guest.send(&frame(1, b"later"));
        guest.read_to_end();
    });
    let rig = Rig::start(&backend, "");
    let mut socket = rig.open();
    let all = [greeting, frame(1, b"later")].concat();
    assert_eq!(socket.read_exactly(all.len()), all);
    assert!(socket.is_silent());
    rig.expect(r#"wsguard_messages_total{zone="default",direction="out"}"#, 51);
    drop(socket);
    rig.quiet();
}

#[test]
fn a_101_may_be_cut_anywhere() {
    let backend = Backend::start(|guest| {
        let whole = [guest.switching(), frame(1, b"hello")].concat();
        let cut = 1 + guest.place() * 3;
        let cut = cut.min(whole.len() - 1);
        guest.stream.set_nodelay(true).unwrap();
        guest.send(&whole[..cut]);
        thread::sleep(Duration::from_millis(5));
        guest.send(&whole[cut..]);
        guest.read_to_end();
    });
    let rig = Rig::start(&backend, UNLIMITED);
    let mut sockets: Vec<Socket> = (0..50).map(|_| rig.send(Request::to("/ws"))).collect();
    for socket in &mut sockets {
        assert!(socket.read_head().starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"));
        assert_eq!(socket.read_frame(), (0x81, b"hello".to_vec()));
        assert!(socket.is_silent());
    }
    drop(sockets);
    rig.quiet();
}

#[test]
fn no_byte_behind_the_head_reaches_the_server_before_its_101() {
    let (gate, (report, early)) = (Gate::default(), mpsc::channel());
    let door = gate.clone();
    let backend = Backend::start(move |guest| {
        let reply = guest.switching();
        door.wait();
        guest.stream.set_nonblocking(true).unwrap();
        let early = guest.stream.peek(&mut [0]);
        guest.stream.set_nonblocking(false).unwrap();
        report
            .send(early.is_err_and(|error| error.kind() == ErrorKind::WouldBlock))
            .unwrap();
        guest.send(&reply);
        guest.echo();
    });
    let rig = Rig::start(&backend, "[limits.messages]\nstrict_frames = false");
    let mut socket = rig.send(Request::to("/ws").followed_by(b"early"));
    backend.visit(0).head();

    // The guard does not read on, so the client can't send more: the waiting bytes are bounded.
    let sent = send_until_full(&mut socket);
    assert_eq!(backend.visit(0).tail(), b"");
    gate.open();
    assert_eq!(
        early.recv_timeout(Duration::from_secs(10)),
        Ok(true),
        "nothing had come before the 101"
    );
    assert!(socket.read_head().starts_with(b"HTTP/1.1 101 "));
    let all = [b"early".to_vec(), vec![b'x'; sent]].concat();
    assert!(
        socket.read_exactly(all.len()) == all,
        "all of it arrives, once and in order"
    );
    assert_eq!(backend.dials(), 1);
    drop(socket);
    rig.quiet();
}

#[test]
fn a_second_request_behind_the_first_never_reaches_the_server() {
    let replies: &[(&str, u16)] = &[
        ("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n", 426),
        (
            "HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nno",
            400,
        ),
        (
            "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
            404,
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 502),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            502,
        ),
        (WRONG_ACCEPT, 502),
    ];
    for (reply, status) in replies {
        let backend = Backend::answering(reply);
        let rig = Rig::start(&backend, "");
        let mut socket = rig.send(Request::to("/ws").followed_by(Request::to("/internal/second")));
        let head = socket.read_head();
        socket.send(Request::to("/internal/third").as_ref());
        let answer = socket.answer_after(head);
        assert_eq!(answer.status(), *status, "{answer}");
        backend.visit(0).ended();
        assert_eq!(backend.visit(0).tail(), b"", "behind {reply}");
        assert_eq!(backend.dials(), 1, "behind {reply}");
        rig.quiet();
    }
}

#[test]
fn a_second_request_behind_a_refused_one_is_never_dialled_for() {
    let backend = Backend::listening();
    let rig = Rig::start(
        &backend,
        "[limits]\nper_ip = 1\n[[route]]\nname = \"ws\"\npaths = [\"/ws\"]",
    );
    let open = rig.open();
    let refused = [
        Request::to("/ws"),
        Request::to("/elsewhere"),
        Request::to("/ws").without("Upgrade"),
        Request::to("/ws").without("Sec-WebSocket-Key"),
    ];
    for request in refused {
        let mut socket = rig.send(request.followed_by(Request::to("/ws")));
        let answer = socket.answer();
        assert!([404, 429, 426, 400].contains(&answer.status()), "{answer}");
        assert_eq!(
            answer.body_text().matches("HTTP/1.1").count(),
            0,
            "one answer, and no second: {answer}"
        );
        assert_eq!(answer.end, End::Fin);
    }
    assert_eq!(backend.dials(), 1);
    drop(open);
    rig.quiet();
}

/// A client that has sent more than its request must still be able to read its refusal: no reset may discard it.
#[test]
fn an_answer_survives_what_the_client_is_still_sending() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits]\nper_ip = 1");
    let open = rig.open();
    let mut socket = rig.send(Request::to("/ws").followed_by(vec![b'x'; 20_000]));
    thread::sleep(Duration::from_millis(20));
    socket.send(&[b'y'; 16_000]);
    socket
        .answer()
        .assert_refusal("429 Too Many Requests", "per_ip", "Too many connections from this IP");
    assert_eq!(backend.dials(), 1);
    drop(open);
    rig.quiet();
}

#[test]
fn the_health_path_answers_every_checker_and_nothing_else() {
    let backend = Backend::listening();
    let rig = Rig::before(&backend)
        .listener("health_path = \"/lb/health\"")
        .config("[limits]\nper_ip = 1")
        .start();
    let open = rig.open();
    let ask = |line: &str| rig.ask(format!("{line}\r\nHost: lb\r\n\r\n"));
    for (line, body) in [
        ("GET /lb/health HTTP/1.1", "OK\r\n"),
        ("GET /lb/health?from=lb HTTP/1.1", "OK\r\n"),
        ("HEAD /lb/health HTTP/1.1", ""),
        ("OPTIONS /lb/health HTTP/1.1", "OK\r\n"),
        ("GET /lb/health HTTP/1.0", "OK\r\n"),
        ("HEAD /lb/health HTTP/1.0", ""),
        ("OPTIONS /lb/health HTTP/1.0", "OK\r\n"),
    ] {
        let healthy = ask(line);
        assert_eq!((healthy.status(), healthy.end), (200, End::Fin), "{line}: {healthy}");
        assert_eq!(healthy.values("Connection"), ["close"]);
        // The answer to a HEAD has the length that the answer to a GET would have (RFC 9110, 9.3.2).
        assert_eq!(healthy.values("Content-Length"), ["4"]);
        assert_eq!(healthy.body_text(), body, "{line}");
    }
    let without_host = rig.ask("GET /lb/health HTTP/1.0\r\n\r\n");
    assert_eq!(without_host.status(), 200, "{without_host}");
    assert_eq!(ask("GET /lb/healthy HTTP/1.1").status(), 426);
    let head = ask("HEAD /lb/healthy HTTP/1.1");
    assert_eq!(
        (head.status(), head.body()),
        (426, &b""[..]),
        "no HEAD is answered with a body"
    );
    assert_eq!(ask("POST /lb/health HTTP/1.1").status(), 426);
    assert_eq!(backend.dials(), 1);
    drop(open);
    rig.quiet();
}

#[test]
fn without_a_health_path_there_is_none() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "");
    assert_eq!(rig.ask("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").status(), 426);
    assert_eq!(rig.ask("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").status(), 426);
    assert_eq!(backend.dials(), 0);
    rig.quiet();
}

/// Asserts that each of these requests gets 400 with the rule that it broke, and that no server is dialled.
fn assert_400(broken: &[(&str, Vec<u8>, &str)]) {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "");
    for (what, request, rule) in broken {
        let answer = rig.ask(request);
        assert_eq!(answer.status(), 400, "{what}: {answer}");
        let body = answer.body_text();
        answer.assert_refusal("400 Bad Request", "bad_request", body.trim_end());
        assert!(
            body.len() > 4 && body.to_lowercase().contains(&rule.to_lowercase()),
            "{what}: {body}"
        );
    }
    assert_eq!(backend.dials(), 0);
    let number = i64::try_from(broken.len()).unwrap();
    rig.expect(
        r#"wsguard_handshakes_total{zone="-",outcome="rejected",reason="bad_request"}"#,
        number,
    );
    rig.quiet();
}

/// Sends until the guard takes no more. Returns how many bytes it took.
fn send_until_full(socket: &mut Socket) -> usize {
    let mut stream = socket.stream();
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut sent = 0;
    while let Ok(n) = stream.write(&[b'x'; 16 * 1024]) {
        sent += n;
        assert!(sent < 64 << 20, "the guard takes everything before the 101");
    }
    stream.set_write_timeout(None).unwrap();
    sent
}

fn assert_426(answer: &Answer, reason: &str, header: &str, value: &str, text: &str) {
    assert!(
        answer
            .bytes
            .starts_with(b"HTTP/1.1 426 Upgrade Required\r\nContent-Type: text/plain\r\n"),
        "{answer}"
    );
    assert_eq!(answer.values("Connection"), ["close"]);
    assert_eq!(answer.values("Content-Length"), [(text.len() + 2).to_string()]);
    assert_eq!(answer.values(header), [value]);
    assert_eq!(answer.values("X-Wsguard-Reason"), [reason]);
    assert_eq!(answer.body_text(), format!("{text}\r\n"));
    assert_eq!(answer.end, End::Fin);
}

fn bytes(request: Request) -> Vec<u8> {
    request.into_bytes()
}

trait Replaced {
    fn replaced(self, what: &[u8], with: &[u8]) -> Self;
}

impl Replaced for Vec<u8> {
    fn replaced(mut self, what: &[u8], with: &[u8]) -> Self {
        let at = self
            .windows(what.len())
            .position(|window| window == what)
            .expect("what is to be replaced");
        self.splice(at..at + what.len(), with.iter().copied());
        self
    }
}

const KEY: &str = "Sec-WebSocket-Key";
const UNLIMITED: &str = "[limits]\nper_ip = \"off\"\nper_ip_rate = \"off\"";
const WRONG_ACCEPT: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                            Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n";
