use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use super::*;

fn get(demo: &Demo, path: &str) -> String {
    ask(demo.admin, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}

#[test]
fn serves_its_pages_once_a_connection() {
    let demo = Demo::start();
    for (path, content_type, part) in [
        ("/", "text/plain; charset=utf-8", "/metrics"),
        ("/healthz", "text/plain; charset=utf-8", "ok\n"),
        ("/metrics", "text/plain; version=0.0.4", "wsguard_connections"),
        ("/readyz", "text/plain; charset=utf-8", "ready\n"),
        ("/stats", "application/json", "\"connections\""),
        ("/stats?pretty", "application/json", "\"connections\""),
    ] {
        let response = get(&demo, path);
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert_eq!(status(head), 200, "{path}");
        let head = head.to_ascii_lowercase();
        for line in [
            &format!("content-type: {content_type}"),
            "cache-control: no-store",
            "connection: close",
            "cross-origin-resource-policy: same-origin",
            "x-content-type-options: nosniff",
        ] {
            assert!(head.lines().any(|l| l == line), "{path}: no {line} in {head}");
        }
        assert!(!head.contains("access-control-"), "{head}");
        assert!(body.contains(part), "{path}: {body}");
    }
    assert_eq!(status(&get(&demo, "/nothing")), 404);

    let pipelined = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2);
    assert_eq!(ask(demo.admin, &pipelined).matches("HTTP/1.1 ").count(), 1);
}

#[test]
fn answers_head_without_a_body_and_no_other_method() {
    let demo = Demo::start();
    let response = ask(demo.admin, "HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(status(&response), 200);
    assert!(
        response.to_ascii_lowercase().contains("content-length: 3\r\n"),
        "{response}"
    );
    assert!(response.ends_with("\r\n\r\n"), "{response}");
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"] {
        let response = ask(
            demo.admin,
            &format!("{method} /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        );
        assert_eq!(status(&response), 405, "{method}");
        assert!(
            response.to_ascii_lowercase().contains("allow: get, head\r\n"),
            "{response}"
        );
    }
    // The body of the request is announced but never sent. The server does not wait for it.
    let start = Instant::now();
    let post = "POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(status(&ask(demo.admin, post)), 405);
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_foreign_host_or_page_reads_nothing() {
    let demo = Demo::start();
    for (head, expected) in [
        ("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:9191\r\n\r\n", 200),
        ("GET /metrics HTTP/1.1\r\nHost: rebound.example.net\r\n\r\n", 421),
        ("GET /metrics HTTP/1.1\r\n\r\n", 421),
        (
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
            421,
        ),
        ("GET /metrics HTTP/1.0\r\n\r\n", 421),
        (
            "GET http://rebound.example.net/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
            421,
        ),
        (
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: same-origin\r\n\r\n",
            200,
        ),
        (
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: cross-site\r\n\r\n",
            403,
        ),
        (
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: none\r\nSec-Fetch-Site: none\r\n\r\n",
            403,
        ),
        (
            "GET /metrics HTTP/1.1\r\nHost: localhost:1\r\nOrigin: http://localhost:2\r\n\r\n",
            403,
        ),
        ("GET /metrics HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\n\r\n", 403),
    ] {
        let response = ask(demo.admin, head);
        assert_eq!(status(&response), expected, "{head}");
        assert_eq!(response.contains("wsguard_"), expected == 200, "{head}");
    }
}

#[test]
fn silent_or_slow_clients_do_not_hold_its_seats() {
    let demo = Demo::start();
    let start = Instant::now();
    let mut silent: Vec<_> = (0..100).map(|_| dial(demo.admin)).collect();
    for socket in &mut silent[40..] {
        let _given_way = socket.write_all(b"G");
    }
    // The next client is answered, however many others wait there.
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(status(&get(&demo, path)), 200, "{path}");
    }
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    // Clients whose seats no other client needs are closed too, however slowly they send.
    drop(silent);
    let start = Instant::now();
    let mut dripping = dial(demo.admin);
    let drip = thread::spawn(move || {
        let _ = dripping.write_all(b"GET / HTTP/1.1\r\n");
        while start.elapsed() < Duration::from_secs(9) && dripping.write_all(b"X: y\r\n").is_ok() {
            thread::sleep(Duration::from_millis(200));
        }
        start.elapsed()
    });
    assert!(drip.join().unwrap() < Duration::from_secs(8));
}
