use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::limit::key::ClientKey;
use crate::limit::key::Prefixes;

fn key(last: u8) -> ClientKey {
    ClientKey::of(IpAddr::from([10, 0, 0, last]), Prefixes::default())
}

fn client(forwarded: Forwarded, last: u8, is_admitted: bool) -> Identified {
    Identified {
        forwarded,
        is_local: true,
        key: key(last),
        is_admitted,
    }
}

fn words(advice: &Advice, now: Instant) -> Vec<String> {
    let given = advice.given(true, now);
    given
        .iter()
        .map(|text| text.split(':').next().unwrap_or_default().to_owned())
        .collect()
}

const S: Duration = Duration::from_secs(1);

#[test]
fn an_untrusted_proxy_is_reported_once_a_minute_while_most_clients_come_through_it() {
    let t0 = Instant::now();
    let advice = Advice::begin(t0);
    for _ in 0..50 {
        advice.identified(client(Forwarded::Ignored, 1, true), t0);
    }
    assert!(words(&advice, t0).is_empty(), "nobody is refused for it");
    let due = [0, 1, 59, 60, 61].map(|s| advice.refused(true, t0 + s * S));
    assert_eq!(due, [true, false, false, true, false]);
    assert_eq!(words(&advice, t0 + 62 * S), ["untrusted_proxy"]);
    assert_eq!(advice.given(false, t0 + 62 * S), [""; 0], "it is trusted now");
    assert_eq!(words(&advice, t0 + 181 * S), [""; 0], "it has ended");
}

#[test]
fn one_local_client_that_sends_the_header_and_tries_again_and_again_is_no_proxy() {
    let t0 = Instant::now();
    let advice = Advice::begin(t0);
    for n in 0..20 {
        advice.identified(client(Forwarded::None, n, true), t0);
    }
    advice.identified(client(Forwarded::Ignored, 99, true), t0);
    assert!((0..1000).all(|_| !advice.refused(true, t0)));
    assert!(words(&advice, t0).is_empty());
}

#[test]
fn if_no_client_is_admitted_any_more_refusals_are_counted_instead() {
    let t0 = Instant::now();
    let advice = Advice::begin(t0);
    assert!(advice.refused(true, t0));
    assert!(!advice.refused(false, t0));
    assert!(words(&advice, t0).is_empty(), "one of two is not most");
    advice.refused(true, t0);
    assert_eq!(words(&advice, t0), ["untrusted_proxy"]);
}

#[test]
fn a_trusted_hop_without_a_header_is_reported_if_most_requests_lack_it() {
    let t0 = Instant::now();
    let advice = Advice::begin(t0);
    assert_eq!(
        advice.identified(client(Forwarded::Missing, 1, true), t0),
        Some(Hint::NoForwarding)
    );
    assert_eq!(words(&advice, t0), ["no_forwarding_header"]);
    for n in 2..5 {
        assert_eq!(advice.identified(client(Forwarded::Read, n, true), t0 + S), None);
    }
    assert!(words(&advice, t0 + S).is_empty(), "a check of one's own among clients");
}

#[test]
fn clients_that_all_have_one_private_address_are_reported_and_others_are_not() {
    let t0 = Instant::now();
    let advice = Advice::begin(t0);
    let due: Vec<bool> = (0..12)
        .map(|_| advice.identified(client(Forwarded::None, 1, true), t0).is_some())
        .collect();
    assert_eq!(due.iter().position(|due| *due), Some(9), "nine say nothing of all");
    assert_eq!(due.iter().filter(|due| **due).count(), 1);
    assert_eq!(words(&advice, t0), ["one_address"]);
    let advice = Advice::begin(t0);
    for n in 0..100 {
        advice.identified(client(Forwarded::None, n % 4, true), t0);
    }
    assert!(words(&advice, t0).is_empty());
}

#[test]
fn message_limits_that_most_tunnels_hit_are_reported() {
    let t0 = Instant::now();
    let advice = Advice::begin(t0);
    assert!((0..9).all(|_| !advice.closed(true, t0)));
    assert!(advice.closed(true, t0));
    assert_eq!(words(&advice, t0), ["message_limits"]);
    for _ in 0..10 {
        advice.closed(false, t0);
    }
    assert!(words(&advice, t0).is_empty(), "half is not most");
}

#[test]
fn a_server_whose_dials_fail_is_named_until_they_succeed_or_there_are_none() {
    let t0 = Instant::now();
    let advice = Advice::begin(t0);
    let [bad, good]: [Arc<str>; 2] = ["127.0.0.1:1".into(), "127.0.0.1:2".into()];
    let logged: Vec<Option<u32>> = [0, 100, 200, 1000, 1100]
        .into_iter()
        .map(|ms| {
            advice.dial_succeeded(&good, t0);
            advice.dial_failed(&bad, t0 + Duration::from_millis(ms))
        })
        .collect();
    assert_eq!(
        logged,
        [Some(1), None, None, Some(3), None],
        "one a second, and none is lost"
    );
    assert_eq!(
        advice.given(true, t0 + 2 * S),
        ["server_fails: 5 of 5 dials of 127.0.0.1:1 failed of late: start it, or take it out of `servers`"]
    );
    for _ in 0..5 {
        advice.dial_succeeded(&bad, t0 + 2 * S);
    }
    assert!(words(&advice, t0 + 2 * S).is_empty(), "half of them get through");
    advice.dial_failed(&bad, t0 + 3 * S);
    assert_eq!(words(&advice, t0 + 3 * S), ["server_fails"]);
    assert!(words(&advice, t0 + 200 * S).is_empty());
}

#[test]
fn the_number_of_servers_in_a_hint_is_bounded() {
    let t0 = Instant::now();
    let advice = Advice::begin(t0);
    for n in 0..1000 {
        for _ in 0..3 {
            advice.dial_failed(&format!("127.0.0.1:{n}").into(), t0);
        }
    }
    assert_eq!(words(&advice, t0).len(), MOST_TOLD);
}

#[test]
fn a_zone_full_of_silent_clients_is_reported_with_the_settings_that_are_missing() {
    let told = |open, limit, silent, first_message, ping| {
        silent_zone("games", open, limit, silent, first_message, ping).unwrap_or_default()
    };
    assert_eq!(
        told(40, Some(40), 40, false, false),
        "silent_clients: 40 of 40 are open in zone games, and 40 of them have sent nothing: \
         set `first_message` and `ping` for it"
    );
    assert!(told(32, Some(40), 17, true, false).ends_with("set `ping` for it"));
    for nothing in [
        told(31, Some(40), 31, false, false),
        told(40, Some(40), 20, false, false),
        told(40, Some(40), 40, true, true),
        told(40, None, 40, false, false),
        told(0, Some(0), 0, false, false),
    ] {
        assert_eq!(nothing, "");
    }
}

#[test]
fn a_ceiling_that_the_descriptor_limit_lowered_is_reported_when_it_is_near() {
    assert!(few_descriptors(80, 100, 10_000, 300).is_some());
    assert!(few_descriptors(79, 100, 10_000, 300).is_none(), "there is room");
    assert!(few_descriptors(100, 100, 100, 300).is_none(), "no more is wanted");
}
