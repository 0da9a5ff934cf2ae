//! How often connections may be opened, by address and by zone. The rate is exact, and a refused attempt takes nothing
//! from it.

use std::time::{Duration, Instant};

use crate::rig::{Backend, Request, Rig, ip, nth_ip};

#[test]
fn above_its_burst_an_address_gets_429_and_others_do_not() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits]\nper_ip_rate = \"1/min\"\nper_ip_burst = 3");
    for _ in 0..3 {
        drop(rig.open());
    }
    for _ in 0..5 {
        rig.ask(Request::to("/ws"))
            .assert_refusal("429 Too Many Requests", "per_ip_rate", TOO_OFTEN);
    }
    drop(rig.open_from(ip(2)));
    assert_eq!(backend.dials(), 4);
    rig.expect(
        r#"wsguard_handshakes_total{zone="default",outcome="rejected",reason="per_ip_rate"}"#,
        5,
    );
    rig.quiet();
}

#[test]
fn a_rate_written_without_its_burst_has_its_own_number_as_burst() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits]\nper_ip_rate = \"4/min\"");
    for _ in 0..4 {
        drop(rig.open());
    }
    assert_eq!(rig.ask(Request::to("/ws")).status(), 429);
    assert_eq!(backend.dials(), 4);
    rig.quiet();
}

#[test]
fn a_client_that_never_stops_trying_gets_exactly_the_rate() {
    let backend = Backend::listening();
    let rig = Rig::start(
        &backend,
        "[limits]\nper_ip_rate = \"5/s\"\nper_ip_burst = 2\n[log]\naccess = \"off\"",
    );
    let start = Instant::now();
    let mut admitted = 0_u32;
    while start.elapsed() < Duration::from_millis(1500) {
        admitted += u32::from(rig.try_open(ip(1), &Request::to("/ws")).is_ok());
    }
    // One more may have been admitted since the last look at the clock.
    let most = 2 + start.elapsed().as_millis() / 200;
    assert!((8..=most).contains(&admitted.into()), "{admitted} of at most {most}");
    assert_eq!(backend.dials(), admitted as usize);
    rig.quiet();
}

#[test]
fn an_attempt_that_another_limit_refused_has_spent_no_token() {
    let backend = Backend::listening();
    let rig = Rig::start(
        &backend,
        "[limits]\nper_ip = 1\nper_ip_rate = \"1/min\"\nper_ip_burst = 2",
    );
    let open = rig.open();
    for _ in 0..10 {
        assert_eq!(rig.ask(Request::to("/ws")).values("X-Wsguard-Reason"), ["per_ip"]);
    }
    drop(open);
    rig.quiet();
    drop(rig.open());
    rig.quiet();
    rig.ask(Request::to("/ws"))
        .assert_refusal("429 Too Many Requests", "per_ip_rate", TOO_OFTEN);
    assert_eq!(backend.dials(), 2);
}

#[test]
fn an_admitted_attempt_has_spent_its_token_even_if_the_server_then_fails() {
    let backend = Backend::answering("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    let rig = Rig::start(&backend, "[limits]\nper_ip_rate = \"1/min\"\nper_ip_burst = 2");
    assert_eq!(rig.ask(Request::to("/ws")).status(), 404);
    assert_eq!(rig.ask(Request::to("/ws")).status(), 404);
    assert_eq!(rig.ask(Request::to("/ws")).status(), 429);
    assert_eq!(backend.dials(), 2);
    rig.quiet();
}

#[test]
fn a_request_without_an_upgrade_spends_no_token() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits]\nper_ip_rate = \"1/min\"\nper_ip_burst = 1");
    for _ in 0..5 {
        assert_eq!(rig.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status(), 426);
        assert_eq!(rig.ask(Request::to("/ws").without("Sec-WebSocket-Key")).status(), 400);
    }
    drop(rig.open());
    assert_eq!(rig.ask(Request::to("/ws")).status(), 429);
    assert_eq!(backend.dials(), 1);
    rig.quiet();
}

#[test]
fn a_zone_has_a_rate_for_everyone_together() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[limits]\nrate = \"5/min\"");
    for n in 0..5 {
        drop(rig.open_from(nth_ip(n)));
    }
    let answer = rig.ask_from(nth_ip(9), Request::to("/ws"));
    answer.assert_refusal("503 Service Unavailable", "zone_rate", "Server at capacity");
    assert_eq!(backend.dials(), 5);
    rig.quiet();
}

#[test]
fn a_known_network_has_a_rate_of_its_own() {
    let backend = Backend::listening();
    let rig = Rig::start(
        &backend,
        r#"
        [limits]
        per_ip_rate = "1/min"
        [[network]]
        name = "school"
        networks = ["127.0.5.0/24"]
        per_ip_rate = "3/min"
        "#,
    );
    for (source, burst) in [("127.0.4.1", 1), ("127.0.5.1", 3)] {
        let source = source.parse().unwrap();
        for _ in 0..burst {
            drop(rig.open_from(source));
        }
        assert_eq!(
            rig.ask_from(source, Request::to("/ws")).values("X-Wsguard-Reason"),
            ["per_ip_rate"]
        );
    }
    assert_eq!(backend.dials(), 4);
    rig.quiet();
}

#[test]
fn observe_admits_and_counts_attempts_above_the_rate() {
    let backend = Backend::listening();
    let rig = Rig::start(
        &backend,
        "[limits]\nmode = \"observe\"\nper_ip_rate = \"1/min\"\nrate = \"1/min\"",
    );
    for _ in 0..3 {
        drop(rig.open());
    }
    rig.expect(
        r#"wsguard_handshakes_total{zone="default",outcome="observed",reason="per_ip_rate"}"#,
        2,
    );
    drop(rig.open_from(ip(2)));
    rig.expect(
        r#"wsguard_handshakes_total{zone="default",outcome="observed",reason="zone_rate"}"#,
        1,
    );
    assert_eq!(backend.dials(), 4);
    rig.quiet();
}

const TOO_OFTEN: &str = "Too many connection attempts from this IP";
