use std::collections::BTreeMap;
use std::io::Read;
use std::net::TcpListener;
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::*;
use crate::rig::Metrics;

fn numbers(demo: &Demo) -> Value {
    let response = ask(demo.page, "GET /numbers HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(status(&response), 200);
    serde_json::from_str(response.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn post_flood(demo: &Demo, headers: &str) -> String {
    ask(
        demo.page,
        &format!(
            "POST /flood HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\n{headers}\r\n",
            demo.page
        ),
    )
}

fn upgrade(demo: &Demo, headers: &str) -> (TcpStream, u16) {
    let mut socket = dial(demo.guard);
    let head = format!(
        "GET /chat HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n",
        demo.guard
    );
    socket.write_all(head.as_bytes()).unwrap();
    let mut begin = [0; 12];
    socket.read_exact(&mut begin).unwrap();
    let code = status(str::from_utf8(&begin).unwrap());
    (socket, code)
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(10), "never: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn interrupt(demo: &mut Demo) -> ExitStatus {
    let id = demo.child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let start = Instant::now();
    loop {
        if let Some(status) = demo.child.try_wait().unwrap() {
            return status;
        }
        assert!(start.elapsed() < Duration::from_secs(5), "it goes on");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_page_may_reach_the_guard_and_nothing_else() {
    let demo = Demo::start();
    let response = ask(demo.page, &format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", demo.page));
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert_eq!(status(head), 200);
    let policy = head
        .lines()
        .find_map(|line| line.strip_prefix("content-security-policy: "))
        .unwrap();
    let rules: BTreeMap<_, _> = policy.split("; ").filter_map(|rule| rule.split_once(' ')).collect();
    assert_eq!(rules["default-src"], "'none'");
    assert_eq!(rules["connect-src"], format!("'self' ws://{}/chat", demo.guard));
    let nonce = rules["script-src"]
        .strip_prefix("'nonce-")
        .unwrap()
        .strip_suffix('\'')
        .unwrap();
    assert_eq!(body.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
    assert!(!body.contains("{{"), "every gap is filled");
    assert!(
        !body.contains("src=") && !body.contains("https://"),
        "no external resource"
    );
    for id in
        "room nick join text say log status connections mine refused ended flood flood-result open-chart away-chart"
            .split(' ')
    {
        assert_eq!(body.matches(&format!("id=\"{id}\"")).count(), 1, "{id}");
    }
}

#[test]
fn five_are_admitted_and_the_sixth_gets_429() {
    let demo = Demo::start();
    let mut open: Vec<_> = (0..5).map(|_| upgrade(&demo, "")).collect();
    assert!(open.iter().all(|(_, status)| *status == 101));
    assert_eq!(upgrade(&demo, "").1, 429);
    eventually("the refusal is counted", || numbers(&demo)["refused"] == 1);
    let now = numbers(&demo);
    assert_eq!(now["connections"], json!({"open": 5, "limit": 100}));
    assert_eq!(now["mine"], json!({"open": 5, "limit": 5}));
    assert_eq!(
        (&now["admitted"], &now["refused"], &now["drift"]),
        (&json!(5), &json!(1), &json!(0))
    );
    assert_eq!(now["reasons"], json!({"per_ip": 1}));
    open.pop();
    eventually("a closed one's place is free", || numbers(&demo)["mine"]["open"] == 4);
    assert_eq!(upgrade(&demo, "").1, 101);
}

#[test]
fn a_page_from_elsewhere_is_kept_out_of_the_chat() {
    let demo = Demo::start();
    assert_eq!(upgrade(&demo, &format!("Origin: http://{}\r\n", demo.page)).1, 101);
    assert_eq!(upgrade(&demo, "Origin: https://elsewhere.example.net\r\n").1, 403);
}

/// The counts of the flood's sockets of this `shape`.
fn fate(now: &Value, shape: &str) -> Value {
    let shapes = now["flood"]["shapes"].as_array().unwrap();
    shapes.iter().find(|fate| fate["shape"] == shape).unwrap().clone()
}

/// A client's frame, masked with zeros.
fn send(socket: &mut TcpStream, opcode: u8, payload: &[u8]) {
    let length = u8::try_from(payload.len()).unwrap();
    assert!(length < 126);
    let head = [0x80 | opcode, 0x80 | length, 0, 0, 0, 0];
    socket.write_all(&[&head, payload].concat()).unwrap();
}

/// The opcode and the payload of the server's next frame; pings are answered.
fn frame(socket: &mut TcpStream) -> (u8, Vec<u8>) {
    loop {
        let mut head = [0; 2];
        socket.read_exact(&mut head).unwrap();
        let mut long = [0; 2];
        let length = match head[1] {
            126 => {
                socket.read_exact(&mut long).unwrap();
                u16::from_be_bytes(long)
            }
            short => short.into(),
        };
        let mut payload = vec![0; length.into()];
        socket.read_exact(&mut payload).unwrap();
        match head[0] & 0x0F {
            0x9 => send(socket, 0xA, &payload),
            opcode => return (opcode, payload),
        }
    }
}

/// A chat member in the lobby.
fn chat_member(demo: &Demo, nick: &str) -> TcpStream {
    let (mut socket, status) = upgrade(demo, "");
    assert_eq!(status, 101);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    send(
        &mut socket,
        0x1,
        format!(r#"{{"join":{{"room":"lobby","nick":"{nick}"}}}}"#).as_bytes(),
    );
    assert!(String::from_utf8(frame(&mut socket).1).unwrap().contains("welcome"));
    socket
}

/// Sends `text` and waits until each of `people` has read it. Other messages are skipped.
fn send_and_await(people: &mut [TcpStream], speaker: usize, text: &str) {
    send(&mut people[speaker], 0x1, json!({ "say": text }).to_string().as_bytes());
    for listener in people {
        while !String::from_utf8(frame(listener).1).unwrap().contains(text) {}
    }
}

#[test]
fn a_flood_is_refused_by_reason_while_two_people_go_on_chatting() {
    let demo = Demo::start();
    let mut people = [chat_member(&demo, "ada"), chat_member(&demo, "bob")];
    let own_page = format!("Origin: http://{}\r\nSec-Fetch-Site: same-origin\r\n", demo.page);
    let start = Instant::now();
    assert_eq!(status(&post_flood(&demo, &own_page)), 202);
    assert_eq!(status(&post_flood(&demo, &own_page)), 409, "one at a time");
    let mut lines_sent = 0;
    while numbers(&demo)["flood"]["left_ms"] != 0 {
        assert!(start.elapsed() < Duration::from_secs(20), "it is bounded in time");
        send_and_await(&mut people, lines_sent % 2, &format!("line {lines_sent}"));
        lines_sent += 1;
        thread::sleep(Duration::from_millis(600));
    }
    assert!(lines_sent >= 10, "{lines_sent}");
    eventually("the flood's places are free", || {
        numbers(&demo)["connections"]["open"] == 2
    });

    let now = numbers(&demo);
    let shapes = now["flood"]["shapes"].as_array().unwrap().iter();
    let sockets: u64 = shapes.map(|fate| fate["dialled"].as_u64().unwrap()).sum();
    assert!(sockets <= 400, "{sockets}: it is bounded in count");
    let burst = fate(&now, "burst");
    assert_eq!(
        (&burst["from"], &burst["dialled"], &burst["admitted"]),
        (&json!("127.0.0.2"), &json!(12), &json!(5))
    );
    assert_eq!(burst["heard"], json!({"429 per_ip": 7, "1001 no pong": 5}));
    let silent = fate(&now, "silent");
    assert_eq!((&silent["dialled"], &silent["admitted"]), (&json!(60), &json!(30)));
    assert_eq!(
        silent["heard"],
        json!({"1001 no pong": 30, "an end without a word": 30})
    );
    let talker = fate(&now, "talker");
    assert_eq!(
        talker["heard"],
        json!({"1008 message rate exceeded": 5, "1009 message too big": 1})
    );
    let dialler = fate(&now, "dialler");
    let too_often = dialler["heard"]["429 per_ip_rate"].as_u64().unwrap();
    assert!(too_often > 100, "{dialler}");
    assert_eq!(
        too_often + dialler["admitted"].as_u64().unwrap(),
        dialler["dialled"].as_u64().unwrap()
    );

    // The guard counted exactly what the sockets read.
    assert_eq!(
        now["reasons"],
        json!({"head_timeout": 30, "per_ip": 7, "per_ip_rate": too_often})
    );
    assert_eq!(now["ended"], json!({"ghost": 35, "message_rate": 5, "message_size": 1}));
    assert_eq!(now["ghosts"], json!({"reaped": 35, "replaced": 0}));
    assert_eq!(now["limit_hits"]["close"], 6);
    assert!(now["heartbeats"].as_u64().unwrap() >= 5, "{now}");
    assert_eq!(
        (&now["mine"]["open"], &now["silent"], &now["drift"]),
        (&json!(2), &json!(0), &json!(0))
    );
    let turned_away = |reason: &str| -> u64 {
        let seconds = now["last_minute"].as_array().unwrap();
        seconds
            .iter()
            .filter_map(|second| second["turned_away"][reason].as_u64())
            .sum()
    };
    assert_eq!((turned_away("per_ip"), turned_away("ghost")), (7, 35));
    // Between two readings a ping may change the numbers.
    eventually("the page shows what /metrics and /stats say", || {
        let differences = differences_from_the_admin_server(&demo);
        println!("{differences:?}");
        differences.is_empty()
    });
}

/// The numbers that differ between the page and /metrics or /stats.
fn differences_from_the_admin_server(demo: &Demo) -> Vec<String> {
    let now = numbers(demo);
    let get = |path: &str| {
        let answer = ask(demo.admin, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    };
    let metrics = Metrics::parse(&get("/metrics"));
    let by_series = [
        (&now["connections"]["open"], r#"wsguard_connections{zone="default"}"#),
        (
            &now["connections"]["limit"],
            r#"wsguard_connections_limit{zone="default"}"#,
        ),
        (&now["silent"], r#"wsguard_silent_connections{zone="default"}"#),
        (
            &now["admitted"],
            r#"wsguard_handshakes_total{zone="default",outcome="admitted",reason="-"}"#,
        ),
        (
            &now["reasons"]["per_ip"],
            r#"wsguard_handshakes_total{zone="default",outcome="rejected",reason="per_ip"}"#,
        ),
        (
            &now["reasons"]["head_timeout"],
            r#"wsguard_handshakes_total{zone="-",outcome="rejected",reason="head_timeout"}"#,
        ),
        (
            &now["ended"]["ghost"],
            r#"wsguard_closes_total{zone="default",reason="ghost"}"#,
        ),
        (
            &now["messages"]["in"],
            r#"wsguard_messages_total{zone="default",direction="in"}"#,
        ),
        (
            &now["messages"]["out"],
            r#"wsguard_messages_total{zone="default",direction="out"}"#,
        ),
        (
            &now["bytes"]["in"],
            r#"wsguard_bytes_total{zone="default",direction="in"}"#,
        ),
        (
            &now["bytes"]["out"],
            r#"wsguard_bytes_total{zone="default",direction="out"}"#,
        ),
    ];
    let mut differences: Vec<String> = by_series
        .into_iter()
        .filter(|(shown, series)| shown.as_i64() != Some(metrics.count(series)))
        .map(|(shown, series)| format!("{series}: {shown}"))
        .collect();
    let stats: Value = serde_json::from_str(&get("/stats")).unwrap();
    let zone = &stats["zones"]["default"];
    let mut rejected = stats["rejected"].clone();
    rejected.as_object_mut().unwrap().retain(|_, count| *count != 0);
    for (shown, expected) in [
        (&now["limit_hits"], &zone["limit_hits"]),
        (&now["ghosts"], &zone["ghosts"]),
        (&now["heartbeats"], &zone["suspected_heartbeats"]),
        (&now["reasons"], &rejected),
    ] {
        if shown != expected {
            differences.push(format!("{expected}: {shown}"));
        }
    }
    differences
}

#[test]
fn a_person_who_types_too_fast_gets_a_notice_and_may_come_back() {
    let demo = Demo::start();
    let mut hasty = chat_member(&demo, "hasty");
    for n in 0..8 {
        send(&mut hasty, 0x1, json!({ "say": n.to_string() }).to_string().as_bytes());
    }
    let close = loop {
        if let (0x8, payload) = frame(&mut hasty) {
            break payload;
        }
    };
    assert_eq!(close, [&1008_u16.to_be_bytes()[..], b"message rate exceeded"].concat());
    eventually("it is counted", || {
        numbers(&demo)["ended"] == json!({"message_rate": 1})
    });
    chat_member(&demo, "hasty");
}

#[test]
fn with_flood_it_floods_once_and_prints_the_result() {
    let mut child = command(&["--page", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--flood"])
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut printed = Vec::new();
    for line in lines.map_while(Result::ok) {
        printed.push(line);
        if printed.last().unwrap().starts_with("flood over") {
            break;
        }
    }
    let mut demo = Demo::of(child);
    assert!(printed[0].starts_with("page http://"), "{printed:?}");
    let about = |begin: &str| {
        printed
            .iter()
            .filter(|line| line.starts_with(begin))
            .collect::<Vec<_>>()
    };
    assert_eq!(about("flood begins").len(), 1);
    assert_eq!(
        about("flood burst"),
        ["flood burst from 127.0.0.2: 12 dialled, 5 let in, 5 heard 1001 no pong, 7 heard 429 per_ip"]
    );
    assert_eq!(about("flood talker").len(), 1);
    let over = about("flood over")[0];
    for part in ["7 per_ip", "30 head_timeout", "35 ghost", "5 message_rate"] {
        assert!(over.contains(part), "{over}");
    }
    assert_eq!(interrupt(&mut demo).code(), Some(0));
}

#[test]
fn only_the_page_itself_may_flood() {
    let demo = Demo::start();
    for headers in [
        "Origin: https://elsewhere.example.net\r\nSec-Fetch-Site: cross-site\r\n",
        "Origin: http://127.0.0.1:1\r\nSec-Fetch-Site: same-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
        "Sec-Fetch-Site: none\r\n",
        "Origin: null\r\n",
    ] {
        assert_eq!(status(&post_flood(&demo, headers)), 403, "{headers}");
    }
    let foreign = "POST /flood HTTP/1.1\r\nHost: rebound.example.net\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(status(&ask(demo.page, foreign)), 421);
    assert_eq!(
        status(&ask(demo.page, "GET /flood HTTP/1.1\r\nHost: localhost\r\n\r\n")),
        405
    );
    let now = numbers(&demo);
    assert_eq!(
        (&now["admitted"], &now["flood"]["left_ms"]),
        (&json!(0), &json!(0)),
        "no visitor came"
    );
}

#[test]
fn an_interrupt_ends_it_at_once() {
    let mut demo = Demo::start();
    let (_open, status) = upgrade(&demo, "");
    assert_eq!(status, 101);
    assert!(post_flood(&demo, "").starts_with("HTTP/1.1 202 "));
    assert_eq!(interrupt(&mut demo).code(), Some(0), "in the middle of a flood too");
}

#[test]
fn a_written_address_must_be_free() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--page", "--listen"] {
        let output = command(&[flag, &address]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let output_text = String::from_utf8(output.stderr).unwrap();
        assert!(
            output_text.contains(&format!("{flag} {address}")) && output_text.contains("in use"),
            "{output_text}"
        );
    }
}
