use std::collections::BTreeMap;
use std::io::Read;
use std::net::TcpListener;
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::*;

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

fn eventually(what: &str, is_so: impl Fn() -> bool) {
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
    for id in "room nick join text say log status connections mine refused flood flood-result".split(' ') {
        assert_eq!(body.matches(&format!("id=\"{id}\"")).count(), 1, "{id}");
    }
}

#[test]
fn five_are_let_in_and_the_sixth_hears_429() {
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

#[test]
fn the_flood_gets_five_in_and_leaves_the_others_their_places() {
    let demo = Demo::start();
    let (_mine, _) = upgrade(&demo, "");
    let response = post_flood(
        &demo,
        &format!("Origin: http://{}\r\nSec-Fetch-Site: same-origin\r\n", demo.page),
    );
    assert_eq!(status(&response), 200);
    let outcome: Value = serde_json::from_str(response.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(
        (&outcome["sockets"], &outcome["opened"], &outcome["refused"]),
        (&json!(12), &json!(5), &json!(7))
    );
    assert_eq!(outcome["statuses"], json!({"429": 7}));
    assert_eq!(status(&post_flood(&demo, "")), 409, "one at a time");
    let now = numbers(&demo);
    assert_eq!(
        (&now["connections"]["open"], &now["mine"]["open"]),
        (&json!(6), &json!(1))
    );
    eventually("the flood's places are free", || {
        numbers(&demo)["connections"]["open"] == 1
    });
    assert_eq!(numbers(&demo)["drift"], 0);
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
    assert_eq!(numbers(&demo)["admitted"], 0, "nobody came");
}

#[test]
fn an_interrupt_ends_it_at_once() {
    let mut demo = Demo::start();
    let (_open, status) = upgrade(&demo, "");
    assert_eq!(status, 101);
    assert_eq!(interrupt(&mut demo).code(), Some(0));
}

#[test]
fn a_written_address_must_be_free() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--page", "--listen"] {
        let output = command(&[flag, &address]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            said.contains(&format!("{flag} {address}")) && said.contains("in use"),
            "{said}"
        );
    }
}
