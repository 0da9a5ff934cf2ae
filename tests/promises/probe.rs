//! `wsguard probe`: it finds nothing wrong with wsguard, and much with a proxy that only splices.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::rig::{Backend, Rig, side_by_side, wsguard};

const GUARDED: &str = r#"
    [limits]
    per_ip = 5
    [[route]]
    name = "federation"
    paths = ["/federation", "/server"]
    networks = ["192.0.2.0/24"]
    zone = "exempt"
    [[route]]
    name = "everyone"
"#;

#[test]
fn it_finds_the_limit_of_a_guard_and_nothing_bad() {
    let backend = Backend::listening();
    let rig = Rig::before(&backend)
        .listener("handshake_timeout = \"3s\"")
        .config(GUARDED)
        .start();
    let output = probed(&[&format!("ws://{}/chat", rig.front())]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    assert!(text.contains("ok  limit: N = 5 from one address, exactly\n"), "{text}");
    assert!(!text.contains("BAD") && !text.contains("??"), "{text}");
    for check in [
        "forged header",
        "exemption",
        "fake upgrade",
        "smuggling",
        "slow head",
        "slot",
    ] {
        assert!(text.contains(&format!("ok  {check}: ")), "{check} in {text}");
    }
    rig.quiet();
}

#[test]
fn it_finds_what_a_splicing_proxy_lets_pass() {
    let backend = Backend::listening();
    let naive = naive_proxy(backend.address(), MANY);
    let url = format!("ws://{naive}/chat");
    let output = probed(&[&url, "--patience", "2", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let bad: Vec<(&str, &str)> = findings
        .iter()
        .filter(|finding| finding["verdict"] == "bad")
        .map(|finding| (finding["check"].as_str().unwrap(), finding["says"].as_str().unwrap()))
        .collect();
    for (check, word) in [
        ("fake upgrade", "without Sec-WebSocket-Key"),
        ("fake upgrade", "version 12"),
        ("fake upgrade", "HTTP/1.0"),
        ("fake upgrade", "POST"),
        ("fake upgrade", "Connection"),
        ("fake upgrade", "body"),
        ("forged header", "X-Forwarded-For is believed"),
        ("exemption", "/federation%2f../chat"),
        ("exemption", "/server/../chat"),
        ("slot", "not free"),
        ("slow head", "silent"),
        ("slow head", "half a head"),
        ("slow head", "a byte a second"),
    ] {
        let is_found = bad.iter().any(|(known, says)| *known == check && says.contains(word));
        assert!(is_found, "{check}, {word}: {bad:#?}");
    }
    let is_told_fair = |says: &str| {
        findings
            .iter()
            .any(|finding| finding["verdict"] == "ok" && finding["says"] == says)
    };
    assert!(
        is_told_fair("X-Real-IP changes nothing"),
        "what is right is not called wrong: {findings:#?}"
    );
}

#[test]
fn a_proxy_that_never_gives_a_slot_back_is_not_said_to_have_a_limit_of_none() {
    let backend = Backend::listening();
    let naive = naive_proxy(backend.address(), 3);
    let output = probed(&[&format!("ws://{naive}/"), "--patience", "1"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("BAD slot: no connection is admitted 2 s after all were closed\n"),
        "{text}"
    );
    assert!(!text.contains("N = 0"), "{text}");
}

#[test]
fn it_opens_at_most_200_sockets_in_a_minute_whatever_it_is_asked_to_try() {
    let backend = Backend::listening();
    let dials = Arc::new(AtomicU32::new(0));
    let naive = counted_naive_proxy(backend.address(), MANY, Arc::clone(&dials));
    let url = format!("ws://{naive}/");
    let mut arguments = vec![url.as_str(), "--patience", "1"];
    for _ in 0..10 {
        arguments.extend(["--exempt", "/federation"]);
    }
    let start = Instant::now();
    let output = probed(&arguments);
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    assert_eq!(dials.load(Relaxed), 200);
    let text = stdout(&output);
    assert!(text.contains("unclear"), "what was left out is said: {text}");
    assert!(
        text.contains("BAD slow head: a silent socket"),
        "these have their share: {text}"
    );
}

#[test]
fn it_has_sockets_enough_to_prove_the_highest_limit_that_it_looks_for() {
    let backend = Backend::listening();
    side_by_side([(100, "101"), (149, "150")], |(limit, most)| {
        let rig = Rig::before(&backend)
            .listener("handshake_timeout = \"1s\"")
            .config(&GUARDED.replace("per_ip = 5", &format!("per_ip = {limit}\nper_ip_rate = \"off\"")))
            .start();
        let output = probed(&[&format!("ws://{}/chat", rig.front()), "--most", most, "--patience", "5"]);
        let text = stdout(&output);
        assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
        let line = format!("ok  limit: N = {limit} from one address, exactly\n");
        assert!(
            text.contains(&line) && !text.contains("BAD") && !text.contains("??"),
            "{text}"
        );
        rig.quiet();
    });
}

#[test]
fn without_a_limit_it_reports_none() {
    let backend = Backend::listening();
    let rig = Rig::before(&backend).listener("handshake_timeout = \"1s\"").start();
    let output = probed(&[&format!("ws://{}", rig.front()), "--most", "12", "--patience", "5"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("no limit up to 12 from one address"), "{text}");
    rig.quiet();
}

#[test]
fn it_refuses_a_target_that_is_foreign_or_not_a_ws_url() {
    for (url, word) in [
        ("ws://192.0.2.1:80/", "--i-own-this"),
        ("wss://127.0.0.1:443/", "TLS is not in this version"),
        ("http://127.0.0.1:80/", "only ws://"),
        ("127.0.0.1:80", "not a URL"),
        ("ws:///chat", "not a URL"),
        ("ws://127.0.0.1:80/a b", "not a URL"),
        ("ws://127.0.0.1:80/a\r\nX: y", "not a URL"),
    ] {
        let output = probed(&[url]);
        assert_eq!(output.status.code(), Some(2), "{url}");
        assert!(stderr(&output).contains(word), "{url}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
    let output = probed(&["ws://127.0.0.1:80/", "--exempt", "federation"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("begins with /"), "{}", stderr(&output));
}

#[test]
fn a_target_that_is_gone_or_refuses_everyone_is_named() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = probed(&[&format!("ws://{free}/")]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(
        said.contains(&format!("cannot connect to {free}")) && said.contains("refused"),
        "{said}"
    );

    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[[route]]\nname = \"chat\"\npaths = [\"/chat\"]\n");
    let output = probed(&[&format!("ws://{}/elsewhere", rig.front())]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("404 no_route"), "{}", stderr(&output));
}

#[test]
fn behind_a_proxy_that_keeps_connections_the_limit_tells_a_checked_request_from_a_smuggled_one() {
    let backend = Backend::listening();
    let cases = [
        (
            None,
            "ok  smuggling: a second request behind a request without Sec-WebSocket-Key is checked like any other: 429",
        ),
        (
            Some(backend.address()),
            "BAD smuggling: a second request behind a request without Sec-WebSocket-Key gets in past the limit",
        ),
    ];
    side_by_side(cases, |(second_goes_to, line)| {
        let rig = Rig::before(&backend)
            .listener("handshake_timeout = \"1s\"")
            .config("[limits]\nper_ip = 5\n")
            .start();
        let proxy = keeping_proxy(rig.front(), second_goes_to.unwrap_or(rig.front()));
        let text = stdout(&probed(&[&format!("ws://{proxy}/"), "--patience", "1"]));
        assert!(text.lines().any(|found| found == line), "{text}");
        // This proxy waits for ever.
        let is_else_bad = |found: &str| found.starts_with("BAD") && found != line && !found.contains("slow head");
        assert!(!text.lines().any(is_else_bad), "{text}");
        let unlimited = stdout(&probed(&[&format!("ws://{proxy}/"), "--most", "3", "--patience", "1"]));
        assert!(
            unlimited.contains("whether the second request behind a request without Sec-WebSocket-Key"),
            "without a limit it can't be told: {unlimited}"
        );
    });
}

/// A proxy that keeps connections open, as any HTTP proxy does: behind an answer other than 101 it reads the next
/// request. The first request of a connection goes to `guard`, and later ones go to `second`.
fn keeping_proxy(guard: SocketAddr, second: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || serve_and_keep(client, guard, second));
        }
    });
    address
}

fn serve_and_keep(mut client: TcpStream, guard: SocketAddr, second: SocketAddr) -> Option<()> {
    let (mut ahead, mut to) = (Vec::new(), guard);
    loop {
        let request = head_and_body(&mut client, &mut ahead)?;
        let mut server = TcpStream::connect(to).ok()?;
        server.write_all(&request).ok()?;
        let mut rest = Vec::new();
        let answer = head_and_body(&mut server, &mut rest)?;
        let is_open = answer.starts_with(b"HTTP/1.1 101 ");
        let kept = String::from_utf8_lossy(&answer).replace("Connection: close\r\n", "");
        client.write_all(kept.as_bytes()).ok()?;
        client.write_all(&rest).ok()?;
        if is_open {
            server.write_all(&ahead).ok()?;
            let (mut from_server, mut to_client) = (server.try_clone().ok()?, client.try_clone().ok()?);
            thread::spawn(move || {
                let _ = std::io::copy(&mut from_server, &mut to_client);
                let _ = to_client.shutdown(Shutdown::Both);
            });
            let _ = std::io::copy(&mut client, &mut server);
            let _ = server.shutdown(Shutdown::Both);
            return None;
        }
        to = second;
    }
}

/// Reads an HTTP message with its body. Bytes that came behind it stay in `ahead`.
fn head_and_body(stream: &mut TcpStream, ahead: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some(head) = ahead.windows(4).position(|four| four == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&ahead[..head]).into_owned();
            let body = text.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            let size = head + 4 + body.map_or(0, |size| size.parse().unwrap());
            if ahead.len() >= size {
                return Some(ahead.drain(..size).collect());
            }
        }
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(len) => ahead.extend(&buffer[..len]),
        }
    }
}

/// A proxy like many first attempts: it believes every header, never gives a slot back, and waits for ever.
fn naive_proxy(backend: SocketAddr, per_ip: u32) -> SocketAddr {
    counted_naive_proxy(backend, per_ip, Arc::default())
}

/// The same proxy. It also counts the sockets that it gets.
fn counted_naive_proxy(backend: SocketAddr, per_ip: u32, dials: Arc<AtomicU32>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let counts = Arc::new(Mutex::new(HashMap::<String, u32>::new()));
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            dials.fetch_add(1, Relaxed);
            let counts = Arc::clone(&counts);
            thread::spawn(move || serve_naively(client, backend, per_ip, &counts));
        }
    });
    address
}

fn serve_naively(mut client: TcpStream, backend: SocketAddr, per_ip: u32, counts: &Mutex<HashMap<String, u32>>) {
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        let mut buffer = [0; 4096];
        match client.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(len) => head.extend(&buffer[..len]),
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let path = text.split(' ').nth(1).unwrap_or_default();
    let is_exempt = path.starts_with("/federation") || path.starts_with("/server");
    if !text.to_ascii_lowercase().contains("upgrade") {
        return;
    }
    let forwarded = text.lines().find_map(|line| line.strip_prefix("X-Forwarded-For: "));
    let who = forwarded.map_or_else(|| client.peer_addr().unwrap().ip().to_string(), ToOwned::to_owned);
    if !is_exempt {
        let mut counts = counts.lock().unwrap();
        let open = counts.entry(who).or_default();
        if *open >= per_ip {
            let _ = client.write_all(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n");
            return;
        }
        *open += 1;
    }
    let mut server = TcpStream::connect(backend).unwrap();
    server.write_all(&head).unwrap();
    let (mut from_server, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    thread::spawn(move || {
        let _ = std::io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
    let _ = std::io::copy(&mut client, &mut server);
    let _ = server.shutdown(Shutdown::Both);
}

fn probed(arguments: &[&str]) -> Output {
    wsguard()
        .arg("probe")
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// More attempts than the probe makes before it looks for the limit. They use up slots, since this proxy gives none
/// back.
const MANY: u32 = 20;
