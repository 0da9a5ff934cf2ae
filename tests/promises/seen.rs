//! What operators see: every metric from the start, the log, the advice, and which requests may read them.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::rig::{Backend, Request, Rig, Setup, Socket, frame, ip, masked, nth_ip, until};

#[test]
fn every_series_is_there_from_the_start() {
    let backend = Backend::listening();
    let rig = Rig::before(&backend).config("[zone.games]\nper_ip = 16").start();
    let metrics = rig.metrics();
    let server = format!("{{upstream=\"chat\",server=\"{}\"}}", backend.address());
    let mut at_zero: Vec<String> = [
        "wsguard_process_connections",
        "wsguard_client_evictions_total",
        "wsguard_counter_drift",
        "wsguard_log_lines_dropped_total",
        "wsguard_panics_total",
        "wsguard_accept_errors_total",
        r#"wsguard_pending{listener="front"}"#,
        r#"wsguard_accepted_total{listener="front"}"#,
        r#"wsguard_silent_closes_total{listener="front"}"#,
        r#"wsguard_untrusted_forwarded_total{listener="front"}"#,
    ]
    .map(String::from)
    .into();
    at_zero.push(format!("wsguard_upstream_connections{server}"));
    at_zero.push(format!("wsguard_upstream_dial_failures_total{server}"));
    for zone in ["default", "exempt", "games"] {
        for name in ["connections", "clients", "client_connections_max", "silent_connections"] {
            at_zero.push(format!("wsguard_{name}{{zone=\"{zone}\"}}"));
        }
        for name in ["bytes_total", "messages_total"] {
            at_zero.extend(["in", "out"].map(|way| format!("wsguard_{name}{{zone=\"{zone}\",direction=\"{way}\"}}")));
        }
        for le in ["1", "2", "3", "5", "10", "20", "50", "100", "+Inf"] {
            at_zero.push(format!("wsguard_clients_by_connections{{zone=\"{zone}\",le=\"{le}\"}}"));
        }
        for reason in [
            "client",
            "upstream",
            "idle",
            "lifetime",
            "half_close",
            "stalled",
            "io",
            "panic",
        ] {
            at_zero.push(format!("wsguard_closes_total{{zone=\"{zone}\",reason=\"{reason}\"}}"));
        }
        at_zero.push(format!(
            "wsguard_handshakes_total{{zone=\"{zone}\",outcome=\"admitted\",reason=\"-\"}}"
        ));
        at_zero.push(format!("wsguard_handshake_duration_seconds_count{{zone=\"{zone}\"}}"));
        at_zero.push(format!("wsguard_connection_duration_seconds_count{{zone=\"{zone}\"}}"));
    }
    for series in at_zero {
        assert!(metrics.has(&series), "{series} is not there");
        assert_eq!(metrics.count(&series), 0, "{series}");
    }
    for (series, number) in [
        (format!("wsguard_upstream_up{server}").as_str(), 1),
        (r#"wsguard_connections_limit{zone="default"}"#, 10_000),
        ("wsguard_config_generation", 1),
        ("wsguard_config_last_reload_successful", 1),
    ] {
        assert_eq!(metrics.count(series), number, "{series}");
    }
    assert!(metrics.count("wsguard_process_connections_limit") >= 16);
    for prefix in [
        r#"wsguard_build_info{version=""#,
        "wsguard_start_time_seconds",
        "wsguard_config_last_reload_success_timestamp_seconds",
        r#"wsguard_config_reloads_total{outcome=""#,
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
    ] {
        assert!(!metrics.starting_with(prefix).is_empty(), "{prefix}");
    }
}

#[test]
fn names_have_the_type_that_dashboards_expect_and_end_as_prometheus_wants() {
    let rig = Rig::start(&Backend::listening(), "");
    let metrics = rig.metrics();
    for (name, kind) in metrics.types() {
        let is_total = name.ends_with("_total");
        match kind.as_str() {
            "counter" => assert!(is_total, "{name} counts and says so"),
            "gauge" => assert!(!is_total, "{name}"),
            "histogram" => assert!(name.ends_with("_duration_seconds"), "{name}"),
            other => panic!("{name} is a {other}"),
        }
    }
    let of = |name: &str| metrics.types().get(name).map(String::as_str);
    assert_eq!(of("wsguard_connections"), Some("gauge"));
    assert_eq!(of("wsguard_handshakes_total"), Some("counter"));
    assert_eq!(of("wsguard_handshake_duration_seconds"), Some("histogram"));
    assert_eq!(of("process_cpu_seconds_total"), Some("counter"));
    assert_eq!(
        of("wsguard_clients_by_connections"),
        None,
        "its label le makes every type but a histogram look wrong"
    );
}

#[test]
fn no_label_comes_from_traffic() {
    let backend = Backend::listening();
    let rig = Rig::start(
        &backend,
        "[[route]]\nname = \"chat\"\nhosts = [\"chat.example.org\"]\npaths = [\"/ws\"]",
    );
    drop(rig.open());
    rig.ask(Request::to("/secret-path").set("Host", "secret-host.example"));
    let telling = Request::to("/ws")
        .add("Origin", "https://secret-origin.example")
        .add("X-Forwarded-For", "203.0.113.77");
    drop(rig.try_open(ip(1), &telling));
    rig.quiet();
    let text = rig.get("/metrics").body_text();
    for secret in ["secret", "203.0.113", "127.0.0.1\"", "chat.example.org"] {
        assert!(!text.contains(secret), "{secret}");
    }
}

#[test]
fn numbers_follow_what_happens() {
    let backend = Backend::echo();
    let rig = Rig::start(&backend, "[limits]\nper_ip = 3");
    let mut open: Vec<Socket> = (0..3).map(|_| rig.open()).collect();
    let other = rig.open_from(ip(2));
    assert_eq!(rig.ask(Request::to("/ws")).status(), 429);
    let silent = rig.connect();
    let hello = masked(1, b"hello");
    open[0].send(&hello);
    assert_eq!(open[0].read_exactly(hello.len()), hello);

    let size = i64::try_from(hello.len()).unwrap();
    rig.expect(r#"wsguard_bytes_total{zone="default",direction="in"}"#, size);
    rig.expect(r#"wsguard_silent_connections{zone="default"}"#, 3);
    rig.expect(r#"wsguard_pending{listener="front"}"#, 1);
    let metrics = rig.metrics();
    for (series, number) in [
        (r#"wsguard_connections{zone="default"}"#, 4),
        ("wsguard_process_connections", 4),
        (r#"wsguard_accepted_total{listener="front"}"#, 6),
        (
            r#"wsguard_handshakes_total{zone="default",outcome="admitted",reason="-"}"#,
            4,
        ),
        (
            r#"wsguard_handshakes_total{zone="default",outcome="rejected",reason="per_ip"}"#,
            1,
        ),
        (r#"wsguard_handshake_duration_seconds_count{zone="default"}"#, 4),
        (r#"wsguard_connection_duration_seconds_count{zone="default"}"#, 0),
        (r#"wsguard_messages_total{zone="default",direction="in"}"#, 1),
        (r#"wsguard_clients{zone="default"}"#, 2),
        (r#"wsguard_client_connections_max{zone="default"}"#, 3),
        (r#"wsguard_clients_by_connections{zone="default",le="1"}"#, 1),
        (r#"wsguard_clients_by_connections{zone="default",le="2"}"#, 1),
        (r#"wsguard_clients_by_connections{zone="default",le="3"}"#, 2),
        (r#"wsguard_clients_by_connections{zone="default",le="+Inf"}"#, 2),
    ] {
        assert_eq!(metrics.count(series), number, "{series}");
    }
    let server = format!(
        "wsguard_upstream_connections{{upstream=\"chat\",server=\"{}\"}}",
        backend.address()
    );
    assert_eq!(metrics.count(&server), 4);
    drop((open, other, silent));
    rig.quiet();
    assert_eq!(
        rig.count(r#"wsguard_connection_duration_seconds_count{zone="default"}"#),
        4
    );
}

#[test]
fn stats_says_the_same_to_people_and_scripts() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits]\nper_ip = 3");
    let open: Vec<Socket> = (0..3).map(|_| rig.open()).collect();
    let other = rig.open_from(ip(2));
    for _ in 0..2 {
        assert_eq!(rig.ask(Request::to("/ws")).status(), 429);
    }
    rig.expect(
        r#"wsguard_handshakes_total{zone="default",outcome="rejected",reason="per_ip"}"#,
        2,
    );
    let text = rig.get("/stats").body_text();
    assert!(text.ends_with("}\n") && text.lines().count() == 1, "{text:?}");
    let stats = rig.stats();
    assert_eq!(stats["connections"], 4);
    assert_eq!(stats["zones"]["default"]["connections"], 4);
    assert_eq!(stats["zones"]["exempt"]["connections"], 0);
    assert!(stats["upstreams"]["chat"].is_array() || stats["upstreams"]["chat"].is_object());
    assert_eq!(
        (&stats["top"][0]["key"], &stats["top"][0]["open"]),
        (&"127.0.0.1".into(), &3.into())
    );
    assert_eq!(
        (&stats["top"][1]["key"], &stats["top"][1]["open"]),
        (&"127.0.0.2".into(), &1.into())
    );
    assert_eq!(stats["rejected"]["per_ip"], 2);
    assert_eq!(stats["generation"], 1);
    assert!(!stats["last_reload"].is_null());
    assert_eq!(stats["advice"], Value::Array(Vec::new()));
    drop((open, other));
    rig.quiet();
    assert_eq!(rig.stats()["connections"], 0);
    assert_eq!(rig.stats()["top"], Value::Array(Vec::new()));
}

#[test]
fn the_busiest_clients_are_bounded() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "");
    let mut open: Vec<Socket> = (0..150).map(|n| rig.open_from(nth_ip(n))).collect();
    open.push(rig.open_from(nth_ip(77)));
    let top = rig.stats()["top"].as_array().unwrap().clone();
    assert!(top.len() <= 100, "{} lines", top.len());
    assert_eq!(top[0]["open"], 2, "the busiest first");
    drop(open);
    rig.quiet();
}

#[test]
fn clients_can_be_shown_by_prefix_or_not_at_all() {
    for (clients, key) in [
        ("show", Some("203.0.113.7")),
        ("prefix", Some("203.0.113.0/24")),
        ("hide", None),
    ] {
        let backend = Backend::listening();
        let trusted = "[client_ip]\ntrusted_proxies = [\"loopback\"]";
        let admin = format!("[admin]\nlisten = \"127.0.0.1:0\"\nclients = \"{clients}\"\n{trusted}");
        let rig = Rig::before(&backend).config(&admin).start();
        let open = rig
            .try_open(ip(1), &Request::to("/ws").add("X-Forwarded-For", "203.0.113.7"))
            .ok()
            .unwrap();
        let stats = rig.stats();
        assert_eq!(stats["top"][0]["open"], 1);
        assert_eq!(stats["top"][0]["key"].as_str(), key, "{clients}");
        assert_eq!(stats.to_string().contains("203.0.113.7"), clients == "show");
        drop(open);
        rig.quiet();
    }
}

#[test]
fn it_answers_healthz_and_readyz() {
    let rig = Rig::start(&Backend::listening(), "");
    for path in ["/healthz", "/readyz", "/metrics", "/stats"] {
        let answer = rig.get(path);
        assert_eq!(answer.status(), 200, "{path}: {answer}");
        assert!(!answer.body().is_empty());
    }
    assert!(rig.get("/metrics").values("Content-Type")[0].starts_with("text/plain; version=0.0.4"));
    assert!(rig.get("/stats").values("Content-Type")[0].starts_with("application/json"));
    assert_eq!(
        rig.get("/").status(),
        rig.get("/healthz").status(),
        "a page that names the others"
    );
    assert_eq!(rig.get("/elsewhere").status(), 404);
}

#[test]
fn a_request_under_a_foreign_host_name_reads_nothing() {
    let config = "[admin]\nlisten = \"127.0.0.1:0\"\nhosts = [\"metrics.example.org\"]";
    let rig = Rig::before(&Backend::listening()).config(config).start();
    let port = rig.admin().port();
    let ask = |host: &str| {
        rig.admin_ask(&format!(
            "GET /stats HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        ))
    };
    for host in [
        "127.0.0.1",
        "localhost",
        "localhost:1",
        "[::1]",
        "127.3.4.5:80",
        "metrics.example.org",
        "METRICS.example.org:9",
    ] {
        assert_eq!(ask(host).status(), 200, "{host}");
    }
    assert_eq!(ask(&format!("127.0.0.1:{port}")).status(), 200);
    for host in [
        "evil.example",
        "192.168.0.1",
        "localhost.evil.example",
        "metrics.example.org.evil.example",
        "0.0.0.0",
        "",
    ] {
        let answer = ask(host);
        assert_eq!(answer.status(), 421, "{host}: {answer}");
        assert!(!answer.body_text().contains("connections"));
    }
}

#[test]
fn health_and_readiness_are_answered_under_any_host_name() {
    let rig = Rig::start(&Backend::listening(), "");
    for path in ["/healthz", "/readyz"] {
        for (head, has_body) in [
            (format!("GET {path} HTTP/1.0\r\n\r\n"), true),
            (format!("HEAD {path} HTTP/1.0\r\n\r\n"), false),
            (format!("OPTIONS {path} HTTP/1.0\r\n\r\n"), true),
            (format!("HEAD {path} HTTP/1.1\r\nHost: 10.1.2.3:9191\r\n\r\n"), false),
            (
                format!("GET {path} HTTP/1.1\r\nHost: wsguard.internal\r\nConnection: close\r\n\r\n"),
                true,
            ),
        ] {
            let answer = rig.admin_ask(&head);
            assert_eq!(answer.status_of_any_version(), 200, "{head}: {answer}");
            assert_eq!(!answer.body().is_empty(), has_body, "{head}: {answer}");
            assert_eq!(answer.values("Access-Control-Allow-Origin"), [""; 0]);
        }
    }
    for path in ["/stats", "/metrics", "/", "/elsewhere"] {
        let answer = rig.admin_ask(&format!("GET {path} HTTP/1.0\r\n\r\n"));
        assert_eq!(answer.status_of_any_version(), 421, "{path}: {answer}");
        let answer = rig.admin_ask(&format!(
            "GET {path} HTTP/1.1\r\nHost: wsguard.internal\r\nConnection: close\r\n\r\n"
        ));
        assert_eq!(answer.status(), 421, "{path}: {answer}");
    }
    let page = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: cross-site\r\nConnection: close\r\n\r\n";
    assert_eq!(rig.admin_ask(page).status(), 403);
}

#[test]
fn a_page_of_another_site_reads_nothing() {
    let rig = Rig::start(&Backend::listening(), "");
    let ask = |header: &str| {
        rig.admin_ask(&format!(
            "GET /stats HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}\r\n\r\n"
        ))
    };
    for header in [
        "Sec-Fetch-Site: cross-site",
        "Origin: https://evil.example",
        "Origin: null",
    ] {
        let answer = ask(header);
        assert_eq!(answer.status(), 403, "{header}: {answer}");
        assert!(!answer.body_text().contains("connections"));
    }
    for header in ["Sec-Fetch-Site: none", "Sec-Fetch-Site: same-origin"] {
        let answer = ask(header);
        assert_eq!(answer.status(), 200, "{header}: {answer}");
        assert_eq!(answer.values("Access-Control-Allow-Origin"), [""; 0]);
    }
}

#[test]
fn the_admin_holds_32_connections_and_idle_ones_give_way_to_a_health_check() {
    let rig = Rig::start(&Backend::listening(), "");
    let hang = |_| {
        let mut socket = Socket::connect(ip(1), rig.admin());
        socket.send(b"G");
        socket
    };
    let held: Vec<Socket> = (0..100).map(hang).collect();
    let start = Instant::now();
    for path in ["/healthz", "/readyz"] {
        assert_eq!(rig.get(path).status(), 200, "{path}");
    }
    // A head has five seconds. The health checks did not wait for that.
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert!(held[99].is_silent(), "the last ones still have their seats");
    let left = held.iter().filter(|socket| socket.is_silent()).count();
    assert!(left < 32, "{left} of the hundred");
}

#[test]
fn a_connection_leaves_one_line_with_everything_about_it() {
    let backend = Backend::start(|guest| {
        guest.open();
        guest.send(&frame(1, b"welcome"));
        guest.read_to_end();
    });
    let config =
        "[[route]]\nname = \"chat\"\npaths = [\"/ws\"]\nzone = \"games\"\n[zone.games]\n[[route]]\nname = \"rest\"";
    let rig = Rig::start(&backend, config);
    let mut socket = rig.try_open(ip(5), &Request::to("/ws?token=hunter2")).ok().unwrap();
    assert_eq!(socket.read_frame(), (0x81, b"welcome".to_vec()));
    let spoken = masked(1, b"hello");
    socket.send(&spoken);
    backend.visit(0).tail_of(spoken.len());
    assert!(
        rig.lines().iter().all(|line| line["client"].is_null()),
        "no line before the end"
    );
    thread::sleep(Duration::from_millis(20));
    drop(socket);
    rig.quiet();

    let line = rig.access("client");
    let server = backend.address().to_string();
    for (field, value) in [
        ("level", Value::from("info")),
        ("client", "127.0.0.5".into()),
        ("key", "127.0.0.5".into()),
        ("listener", "front".into()),
        ("route", "chat".into()),
        ("zone", "games".into()),
        ("server", server.into()),
        ("reason", "client".into()),
        ("status", 101.into()),
        ("bytes_in", spoken.len().into()),
        ("bytes_out", 9.into()),
        ("messages_in", 1.into()),
        ("messages_out", 1.into()),
    ] {
        assert_eq!(line[field], value, "{field} in {line}");
    }
    assert!(line["time"].as_str().unwrap().ends_with('Z') && line["event"].is_string());
    assert!((20..5000).contains(&line["duration_ms"].as_u64().unwrap()), "{line}");
    assert!(line["open"].is_null() && line["limit"].is_null());
    assert!(!rig.raw_log().concat().contains("hunter2"), "never the query string");
    assert_eq!(rig.lines().iter().filter(|line| !line["client"].is_null()).count(), 1);
}

#[test]
fn a_refusal_leaves_a_line_with_the_count_and_the_limit() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits]\nper_ip = 2\nconnections = 3");
    let open: Vec<Socket> = [1, 1, 2].iter().map(|n| rig.open_from(ip(*n))).collect();
    rig.ask(Request::to("/ws"));
    let by_client = rig.access("per_ip");
    assert_eq!(
        (&by_client["open"], &by_client["limit"], &by_client["status"]),
        (&2.into(), &2.into(), &429.into())
    );
    assert_eq!(
        (&by_client["client"], &by_client["zone"]),
        (&"127.0.0.1".into(), &"default".into())
    );
    rig.ask_from(ip(3), Request::to("/ws"));
    let by_zone = rig.access("zone_full");
    assert_eq!(
        (&by_zone["open"], &by_zone["limit"], &by_zone["status"]),
        (&3.into(), &3.into(), &503.into())
    );
    for absent in ["bytes_in", "messages_out", "server"] {
        assert!(by_zone[absent].is_null(), "{absent} in {by_zone}");
    }
    drop(open);
    rig.quiet();
}

#[test]
fn a_refusal_by_rate_leaves_a_line_with_the_rate_its_burst_and_the_wait() {
    let backend = Backend::listening();
    for (mode, limits, event, reason) in [
        (
            "enforce",
            "per_ip = 40\nper_ip_rate = \"2/min\"\nper_ip_burst = 2",
            "rejected",
            "per_ip_rate",
        ),
        (
            "observe",
            "per_ip = 40\nper_ip_rate = \"2/min\"\nper_ip_burst = 2",
            "observed",
            "per_ip_rate",
        ),
        ("enforce", "rate = \"2/min\"", "rejected", "zone_rate"),
    ] {
        let rig = Rig::start(&backend, &format!("[limits]\nmode = \"{mode}\"\n{limits}"));
        for _ in 0..3 {
            drop(rig.try_open(ip(1), &Request::to("/ws")));
        }
        let line = rig.line("the refusal", |line| line["event"] == event && line["reason"] == reason);
        assert_eq!((&line["rate"], &line["burst"]), (&"2/min".into(), &2.into()), "{line}");
        assert!((1..=30_000).contains(&line["wait_ms"].as_u64().unwrap()), "{line}");
        assert!(
            line["open"].is_null() && line["limit"].is_null(),
            "per_ip is not what refused it: {line}"
        );
    }
}

#[test]
fn a_pending_socket_that_is_closed_for_a_cap_leaves_a_line_with_the_cap() {
    let backend = Backend::listening();
    let listener = "[[listener]]\nname = \"front\"\nbind = [\"127.0.0.1:0\"]\nmax_pending = 3\nmax_pending_per_ip = 2";
    let rig = Setup::default().server(backend.address()).config(listener).start();
    let _held = [rig.connect(), rig.connect()];
    rig.expect(r#"wsguard_pending{listener="front"}"#, 2);
    let mut third = rig.connect();
    third.read_to_end();
    let line = rig.access("pending_per_ip");
    assert_eq!((&line["open"], &line["limit"]), (&2.into(), &2.into()), "{line}");
    let _more = [rig.connect_from(ip(2)), rig.connect_from(ip(3))];
    let line = rig.access("pending_full");
    assert_eq!(line["limit"], 3, "{line}");
    assert!((3..=4).contains(&line["open"].as_u64().unwrap()), "{line}");
}

#[test]
fn a_line_has_the_requested_target_if_that_explains_the_refusal() {
    let backend = Backend::listening();
    let routes = "[[route]]\nname = \"chat\"\nhosts = [\"chat.example.org\"]\npaths = [\"/ws\"]\nallow = [\"192.0.2.0/24\"]\n\
                  [[route]]\nname = \"far\"\npaths = [\"/far\"]\nnetworks = [\"192.0.2.0/24\"]\n\
                  [[route]]\nname = \"peers\"\npaths = [\"/peers\"]\nnetworks = [\"127.0.0.0/8\"]\nzone = \"exempt\"";
    let rig = Rig::start(&backend, routes);
    for (path, reason, message) in [
        ("/ws/a?token=hunter2", "network", None),
        (
            "/far?token=hunter2",
            "no_route",
            Some("a route has this path, but for other networks: path /far, host chat.example.org"),
        ),
        (
            "/peers;x?token=hunter2",
            "no_route",
            Some("a route has this path, but takes only its plain spelling: path /peers;x, host chat.example.org"),
        ),
        (
            "/a\"b\u{e9}=c?token=hunter2",
            "no_route",
            Some(r#"no route has the path /a\"b\xc3\xa9=c, host chat.example.org"#),
        ),
    ] {
        rig.ask(Request::to(path).set("Host", "chat.example.org"));
        let line = rig.line(path, |line| {
            line["reason"] == reason && message.is_none_or(|message| line["message"] == message)
        });
        assert_eq!(line["host"], "chat.example.org", "{line}");
        assert!(line["path"].as_str().unwrap().starts_with(&path[..2]), "{line}");
    }
    rig.ask("GET /plain HTTP/1.1\r\nHost: chat.example.org\r\n\r\n");
    assert_eq!(rig.access("not_upgrade")["path"], "/plain");
    rig.ask(Request::to(format!("/{}", "a".repeat(2000))).set("Host", "chat.example.org"));
    let line = rig.line("the long one", |line| {
        line["path"].as_str().unwrap_or_default().len() > 20
    });
    assert_eq!(line["path"].as_str().unwrap().len(), 256);
    assert!(!rig.raw_log().concat().contains("hunter2"), "never the query string");
}

#[test]
fn text_from_clients_is_escaped_once_and_cut_in_the_log() {
    let backend = Backend::listening();
    let route = "[[route]]\nname = \"chat\"\nhosts = [\"chat.example.org\"]\norigins = [\"https://chat.example.org\"]";
    let rig = Rig::start(&backend, route);
    rig.ask(Request::to("/ws").set("Host", "a".repeat(2000)));
    let line = rig.access("no_route").to_string();
    assert!(
        line.contains(&"a".repeat(200)) && !line.contains(&"a".repeat(257)),
        "{line}"
    );
    rig.ask(Request::to("/ws").add("Origin", b"https://caf\xc3\xa9\t\".example"));
    let line = rig.access("origin");
    let message = line["message"].as_str().unwrap();
    assert!(message.contains(r#"https://caf\xc3\xa9\t\".example"#), "{message}");
    assert!(
        rig.raw_log()
            .iter()
            .all(|line| line.is_ascii() && !line.contains('\x1b'))
    );
    assert_eq!(backend.dials(), 0);
    rig.quiet();
}

#[test]
fn a_flood_of_equal_lines_is_summed_and_names_the_busiest() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits]\nper_ip = 1\n[log]\nsample = \"10/s\"");
    let open = [rig.open(), rig.open_from(ip(2))];
    for n in 0..300 {
        let source = if n % 3 == 0 { ip(2) } else { ip(1) };
        rig.ask_from(source, Request::to("/ws"));
    }
    let logged = |line: &Value| match line["event"].as_str() {
        Some("summed") => line["unlogged"].as_u64().unwrap(),
        _ => u64::from(line["status"] == 429),
    };
    until("every one is a line, or in a sum", || {
        (rig.lines().iter().map(logged).sum::<u64>() == 300).then_some(())
    });
    let lines = rig.lines();
    let sums: Vec<&Value> = lines.iter().filter(|line| line["event"] == "summed").collect();
    for sum in &sums {
        let ending = format!(
            ": per_ip, top client {} with {}",
            sum["top_client"].as_str().unwrap(),
            sum["top_count"]
        );
        let message = sum["message"].as_str().unwrap();
        assert!(
            message.starts_with(&format!("{} refusals in ", sum["count"])) && message.ends_with(&ending),
            "{sum}"
        );
        for (field, value) in [("reason", "per_ip"), ("outcome", "rejected"), ("zone", "default")] {
            assert_eq!(sum[field], value, "{sum}");
        }
        assert!(sum["client"].is_null(), "{sum}");
    }
    assert!(sums.iter().any(|sum| sum["top_client"] == "127.0.0.1"), "{sums:?}");
    let lines = rig.lines().iter().filter(|line| line["status"] == 429).count();
    assert!(lines < 150, "{lines} lines of their own");
    rig.expect(
        r#"wsguard_handshakes_total{zone="default",outcome="rejected",reason="per_ip"}"#,
        300,
    );
    assert_eq!(backend.dials(), 2);
    drop(open);
    rig.quiet();
}

#[test]
fn the_log_can_be_limited_to_refusals_or_to_no_connections() {
    for (access, lines) in [("all", 2), ("rejected", 1), ("off", 0)] {
        let backend = Backend::listening();
        let rig = Rig::start(&backend, &format!("[limits]\nper_ip = 1\n[log]\naccess = \"{access}\""));
        let open = rig.open();
        assert_eq!(rig.ask(Request::to("/ws")).status(), 429);
        drop(open);
        rig.quiet();
        let of_connections = || rig.lines().iter().filter(|line| !line["client"].is_null()).count();
        until("the lines that are due", || (of_connections() == lines).then_some(()));
        thread::sleep(Duration::from_millis(50));
        assert_eq!(of_connections(), lines, "access = {access}");
    }
}

#[test]
fn advice_names_a_proxy_that_is_not_trusted() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits]\nper_ip = 1");
    let through_proxy = |n: u8| Request::to("/ws").add("X-Forwarded-For", format!("203.0.113.{n}"));
    let open = rig.try_open(ip(1), &through_proxy(1)).ok().unwrap();
    assert_eq!(rig.stats()["advice"], Value::Array(Vec::new()), "nothing is wrong yet");
    for n in 2..6 {
        assert_eq!(rig.ask(through_proxy(n)).status(), 429);
    }
    let advice = "every client looks like 127.0.0.1: set [client_ip] trusted_proxies";
    let word = "untrusted_proxy: every client";
    let has_advice = |line: &&Value| line.to_string().contains(advice);
    rig.line("the advice", |line| has_advice(&line));
    rig.expect(
        r#"wsguard_handshakes_total{zone="default",outcome="rejected",reason="per_ip"}"#,
        4,
    );
    assert_eq!(rig.lines().iter().filter(has_advice).count(), 1, "once a minute");
    let given = rig.stats()["advice"].to_string();
    assert!(given.contains(advice) && given.contains(word), "{given}");
    drop(open);
    rig.quiet();
}

#[test]
fn advice_names_a_trusted_proxy_that_names_no_client() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[client_ip]\ntrusted_proxies = [\"loopback\"]");
    drop(rig.open());
    until("the advice", || {
        (rig.stats()["advice"].as_array().unwrap().len() == 1).then_some(())
    });
    rig.line("the advice in the log", |line| {
        line.to_string().contains("forwarding header")
    });
    rig.quiet();
}

#[test]
fn one_local_client_that_sends_a_forwarding_header_and_reconnects_is_not_taken_for_a_proxy() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits]\nper_ip = 1");
    let mut open: Vec<Socket> = (10..16).map(|n| rig.open_from(ip(n))).collect();
    let odd = || Request::to("/ws").add("X-Forwarded-For", "203.0.113.7");
    open.push(rig.try_open(ip(1), &odd()).ok().unwrap());
    for _ in 0..20 {
        assert_eq!(rig.ask(odd()).status(), 429);
    }
    rig.expect(
        r#"wsguard_handshakes_total{zone="default",outcome="rejected",reason="per_ip"}"#,
        20,
    );
    assert_eq!(rig.stats()["advice"], Value::Array(Vec::new()));
    assert!(!rig.raw_log().concat().contains("every client looks like 127.0.0.1"));
    drop(open);
    rig.quiet();
}

#[test]
fn advice_names_a_zone_full_of_silent_clients_until_they_send() {
    let backend = Backend::echo();
    let rig = Rig::start(&backend, "[limits]\nconnections = 5");
    let mut open: Vec<Socket> = (0..5).map(|n| rig.open_from(nth_ip(n))).collect();
    let expected_advice = "silent_clients: 5 of 5 are open in zone default, and 5 of them have sent nothing: \
                set `first_message` and `ping` for it";
    until("the advice", || {
        (rig.stats()["advice"][0] == expected_advice).then_some(())
    });
    let hello = masked(1, b"hello");
    for socket in &mut open {
        socket.send(&hello);
        assert_eq!(socket.read_exactly(hello.len()), hello);
    }
    until("its end", || {
        (rig.stats()["advice"] == Value::Array(Vec::new())).then_some(())
    });
    drop(open);
    rig.quiet();
}

#[test]
fn log_and_advice_name_a_server_whose_dials_fail() {
    let backend = Backend::listening();
    let closed = {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap()
    };
    let rig = Rig::before(&backend).server(closed).start();
    let open: Vec<Socket> = (0..8).map(|n| rig.open_from(nth_ip(n))).collect();
    let line = rig.line("the failed dial", |line| line["event"] == "dial_failed");
    for (field, value) in [
        ("level", Value::from("warn")),
        ("server", closed.to_string().into()),
        ("reason", "upstream_refused".into()),
    ] {
        assert_eq!(line[field], value, "{field} in {line}");
    }
    assert!(
        line["count"].as_u64().unwrap() >= 1 && line["message"].as_str().unwrap().contains("refused"),
        "{line}"
    );
    let advice = rig.stats()["advice"].to_string();
    assert!(
        advice.contains(&format!("dials of {closed} failed of late")) && advice.contains("server_fails: "),
        "{advice}"
    );
    assert!(!advice.contains(&format!("dials of {}", backend.address())), "{advice}");
    drop(open);
    rig.quiet();
}

#[test]
fn no_admin_means_no_admin() {
    let backend = Backend::listening();
    let rig = Rig::before(&backend).config("[admin]\nlisten = \"off\"").start();
    drop(rig.open());
    assert!(rig.lines().iter().all(|line| line["event"] != "admin"));
    assert_eq!(rig.access("client")["status"], 101);
}

#[test]
fn every_bind_has_a_line_and_serves() {
    let backend = Backend::listening();
    let listeners = r#"
        [[listener]]
        name = "front"
        bind = ["127.0.0.1:0", "[::1]:0"]
        [[listener]]
        name = "side"
        bind = ["127.0.0.1:0"]
    "#;
    let rig = Setup::default().server(backend.address()).config(listeners).start();
    assert_eq!(rig.fronts().len(), 3);
    for address in rig.fronts() {
        let mut socket = Socket::connect(ip(1), *address);
        socket.send(Request::to("/ws").as_ref());
        assert!(socket.read_head().starts_with(b"HTTP/1.1 101 "), "{address}");
    }
    assert_eq!(backend.dials(), 3);
    rig.quiet();
    let metrics = rig.metrics();
    assert_eq!(metrics.count(r#"wsguard_accepted_total{listener="front"}"#), 2);
    assert_eq!(metrics.count(r#"wsguard_accepted_total{listener="side"}"#), 1);
    let clients: Vec<String> = rig
        .lines()
        .iter()
        .filter_map(|line| line["client"].as_str().map(str::to_owned))
        .collect();
    assert!(clients.contains(&"::1".to_owned()), "{clients:?}");
}
