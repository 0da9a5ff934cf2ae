use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use super::*;
use crate::limit::key::Prefixes;
use crate::reason::close::CloseReason;
use crate::reason::reject::RejectReason;

fn key(last: u8) -> ClientKey {
    ClientKey::of(IpAddr::from([203, 0, 113, last]), Prefixes::default())
}

fn rate(tokens: u32, seconds: u64) -> Rate {
    let tokens = NonZeroU32::new(tokens).expect("more than none");
    Rate {
        tokens,
        per: Duration::from_secs(seconds),
        burst: tokens,
    }
}

fn second(n: u64) -> Duration {
    Duration::from_secs(n)
}

const PER_IP: Class = Class::Rejected(RejectReason::PerIp);

#[test]
fn a_flood_becomes_one_line_that_names_the_busiest_client() {
    let t0 = Instant::now();
    let sampler = Sampler::new(t0, 4);
    let zone: Arc<str> = "games".into();
    let passed = (0..12_345)
        .filter(|n| {
            let key = key(if n % 100 == 99 { 1 } else { 7 });
            sampler.passes(PER_IP, Some(key), Some(&zone), Some(rate(10, 1)))
        })
        .count();
    assert_eq!(passed, 11, "up to the rate, and the first of the other one");
    let sums = sampler.sums(t0 + second(1));
    assert_eq!(
        sums,
        [Sum {
            class: PER_IP,
            lines: 12_345,
            left_out: 12_334,
            zone: Some(zone),
            top: Some((key(7), 12_222)),
            seconds: 1
        }]
    );
    assert_eq!(
        sums[0].text(),
        "12345 refusals in 1 s: per_ip, top client 203.0.113.7 with 12222"
    );
    assert!(
        sampler.passes(PER_IP, None, None, Some(rate(10, 1))),
        "the next second begins anew"
    );
    assert_eq!(sampler.sums(t0 + second(2)), []);
}

#[test]
fn the_first_line_of_each_client_in_a_second_is_written_even_after_many_other_lines() {
    let t0 = Instant::now();
    let sampler = Sampler::new(t0, 4);
    for n in 0..3 {
        for _ in 0..2000 {
            sampler.passes(PER_IP, Some(key(7)), None, Some(rate(10, 1)));
        }
        let honest: Vec<bool> = (0..3)
            .map(|_| sampler.passes(PER_IP, Some(key(1)), None, Some(rate(10, 1))))
            .collect();
        assert_eq!(honest, [true, false, false], "second {n}");
        sampler.sums(t0 + second(n + 1));
    }
}

#[test]
fn a_flood_from_many_addresses_is_written_up_to_twice_the_rate() {
    let sampler = Sampler::new(Instant::now(), 4);
    let addresses = (0..100_000_u32).map(|n| ClientKey::of(IpAddr::V4(n.into()), Prefixes::default()));
    let passed = addresses.filter(|key| sampler.passes(PER_IP, Some(*key), None, Some(rate(100, 1))));
    assert_eq!(passed.count(), 200);
}

#[test]
fn lines_of_all_reasons_share_one_rate_and_each_reason_gets_a_line() {
    let t0 = Instant::now();
    let sampler = Sampler::new(t0, 4);
    let classes: Vec<Class> = RejectReason::ALL
        .into_iter()
        .flat_map(|reason| [Class::Rejected(reason), Class::Failed(reason), Class::Observed(reason)])
        .chain(CloseReason::ALL.into_iter().map(Class::Closed))
        .collect();
    let mut heard = std::collections::BTreeSet::new();
    let mut written = 0;
    for _ in 0..1000 {
        for class in &classes {
            if sampler.passes(*class, Some(key(7)), None, Some(rate(10, 1))) {
                written += 1;
                heard.insert(*class);
            }
        }
    }
    assert_eq!(heard.len(), classes.len());
    assert!(written <= 10 + classes.len(), "{written}");
    let sums = sampler.sums(t0 + second(1));
    let left_out: u64 = sums.iter().map(|sum| sum.left_out).sum();
    assert_eq!(
        left_out + u64::try_from(written).expect("few"),
        1000 * classes.len() as u64
    );
}

#[test]
fn below_the_rate_no_line_is_left_out_even_if_one_client_causes_all() {
    let t0 = Instant::now();
    let sampler = Sampler::new(t0, 4);
    assert!((0..100).all(|_| sampler.passes(PER_IP, Some(key(7)), None, Some(rate(100, 1)))));
    assert_eq!(sampler.sums(t0 + second(1)), []);
    let slow = (0..20).filter(|_| sampler.passes(PER_IP, Some(key(7)), None, Some(rate(300, 60))));
    assert_eq!(slow.count(), 5, "300 a minute are five a second");
    assert!((0..1000).all(|_| sampler.passes(PER_IP, Some(key(7)), None, None)));
}

#[test]
fn a_sum_of_several_zones_names_none() {
    let t0 = Instant::now();
    let sampler = Sampler::new(t0, 4);
    let [one, other]: [Arc<str>; 2] = ["one".into(), "other".into()];
    for zone in [&one, &other, &one] {
        sampler.passes(PER_IP, Some(key(7)), Some(zone), Some(rate(1, 1)));
    }
    assert_eq!(sampler.sums(t0 + second(1))[0].zone, None);
}

#[test]
fn threads_that_log_at_once_share_one_rate_and_no_line_is_lost() {
    let t0 = Instant::now();
    let sampler = Sampler::new(t0, 4);
    let zone: Arc<str> = "games".into();
    let passed: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let lines = (0..100).flat_map(|_| (0..50).map(key));
                    let passes = |key: &ClientKey| sampler.passes(PER_IP, Some(*key), Some(&zone), Some(rate(10, 1)));
                    lines.filter(passes).count()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    assert_eq!(passed, 20, "up to the rate, and as many first lines of clients");
    let sums = sampler.sums(t0 + second(1));
    assert_eq!((sums[0].lines, sums[0].left_out), (20_000, 20_000 - 20));
    assert_eq!(sums[0].zone, Some(zone));
    assert_eq!(sampler.sums(t0 + second(2)), []);
}

#[test]
fn the_busiest_client_is_found_by_its_lines_on_all_threads() {
    let t0 = Instant::now();
    let sampler = Sampler::new(t0, 4);
    for n in 1..=4 {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..30 {
                    sampler.passes(PER_IP, Some(key(n)), None, Some(rate(1, 1)));
                }
                for _ in 0..20 {
                    sampler.passes(PER_IP, Some(key(9)), None, Some(rate(1, 1)));
                }
            });
        });
    }
    assert_eq!(sampler.sums(t0 + second(1))[0].top, Some((key(9), 80)));
}
