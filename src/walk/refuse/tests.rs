use std::collections::BTreeMap;

use super::*;
use crate::live::in_force::InForce;
use crate::walk::stop::Offer;

/// A request that is refused at its client's cap, in a zone with these `limits`.
fn stop(limits: &str) -> Stop {
    let in_force = InForce::with_limits(&format!("[limits]\n{limits}"), 1);
    let route = in_force.policy.routes.iter().next().expect("a route");
    let destination = in_force.destination(route);
    let offer = Offer {
        key: b"dGhlIHNhbXBsZSBub25jZQ==".to_vec(),
        protocol: None,
        is_engine_io: false,
    };
    Stop::new(RejectReason::PerIp).at(destination).offering(Some(&offer))
}

fn seeded() -> Random {
    Random::seeded([7; 16])
}

/// How many of `refused` clients get each value of Retry-After.
fn retry_afters(stop: &Stop, refused: u32) -> BTreeMap<u64, u32> {
    let (random, mut counts) = (seeded(), BTreeMap::new());
    for _ in 0..refused {
        let Refusal::Answer { bytes, .. } = Refusal::of(stop, &random) else {
            panic!("it is answered");
        };
        let text = String::from_utf8(bytes).expect("ASCII");
        let header = text.lines().find_map(|line| line.strip_prefix("Retry-After: "));
        let seconds = header.expect("there is one").parse().expect("a number");
        *counts.entry(seconds).or_default() += 1;
    }
    counts
}

/// The time between the 101 and the close frame.
fn hold(stop: &Stop, random: &Random) -> Duration {
    match Refusal::of(stop, random) {
        Refusal::CloseFrame { held, .. } => held,
        other => panic!("{other:?}"),
    }
}

#[test]
fn retry_after_is_spread_evenly_from_the_configured_time_to_twice_that() {
    let counts = retry_afters(&stop("retry_after = \"10s\""), 11_000);
    assert_eq!(
        counts.keys().copied().collect::<Vec<_>>(),
        (10..=20).collect::<Vec<_>>()
    );
    assert!(counts.values().all(|count| (850..1150).contains(count)), "{counts:?}");
}

#[test]
fn a_client_that_was_not_routed_yet_comes_back_after_one_or_two_seconds() {
    let counts = retry_afters(&Stop::new(RejectReason::PerIp), 1000);
    assert_eq!(counts.keys().copied().collect::<Vec<_>>(), [1, 2]);
    assert!(counts.values().all(|count| (420..580).contains(count)), "{counts:?}");
}

#[test]
fn a_close_frame_is_held_for_one_to_two_seconds_and_clients_refused_together_end_apart() {
    let (stop, random) = (stop("reject_with = \"close\""), seeded());
    let mut quarters = [0; 4];
    for _ in 0..1000 {
        let past = hold(&stop, &random)
            .checked_sub(Duration::from_secs(1))
            .expect("at least one second");
        assert!(past <= Duration::from_secs(1), "{past:?}");
        quarters[usize::try_from(past.as_millis() / 250).expect("it is small").min(3)] += 1;
    }
    assert!(quarters.iter().all(|count| (190..310).contains(count)), "{quarters:?}");
}

#[test]
fn with_the_same_random_numbers_the_same_clients_get_the_same_answers() {
    for limits in ["", "reject_with = \"close\""] {
        let (stop, first, second) = (stop(limits), seeded(), seeded());
        for _ in 0..20 {
            assert_eq!(Refusal::of(&stop, &first), Refusal::of(&stop, &second));
        }
    }
}
