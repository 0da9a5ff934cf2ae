use super::*;
use crate::limit::client_stats::ClientStats;
use crate::limit::key::Prefixes;
use crate::limit::rules::Rate;
use proptest::prelude::*;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

mod model;

const EPOCH_TO_START: Duration = Duration::from_secs(60);

/// A guard of two zones, the second exempt, and everything off.
struct Rig {
    admission: Arc<Admission>,
    zones: [Arc<ZoneCounts>; 2],
    rules: ZoneRules,
    client: ClientRules,
    start: Instant,
}

impl Rig {
    fn new() -> Self {
        let epoch = Instant::now();
        let admission = Admission::new(1_000_000, epoch);
        Self {
            zones: [0, 1].map(|id| admission.zone(id, None)),
            admission,
            rules: ZoneRules::default(),
            client: ClientRules::default(),
            start: epoch + EPOCH_TO_START,
        }
    }

    fn process(&self) -> &Budget {
        self.admission.process()
    }

    fn request(&self, zone: usize, client: u8) -> Request<'_> {
        Request {
            zone: &self.zones[zone],
            rules: self.rules,
            is_exempt: zone == 1,
            key: key(client),
            client: self.client,
            shares: false,
        }
    }

    fn admit(&self, client: u8) -> Result<Granted, Full> {
        self.admission.admit(self.request(0, client), self.start)
    }

    fn admit_after(&self, client: u8, ms: u64) -> Result<Granted, Full> {
        self.admission
            .admit(self.request(0, client), self.start + Duration::from_millis(ms))
    }

    /// Open by zones, by the process ceiling and by the table.
    fn open(&self) -> (u32, u32, u64) {
        let zones = self.zones.iter().map(|zone| zone.budget.used()).sum();
        (zones, self.process().used(), self.admission.open_in_table())
    }

    fn assert_empty(&self) {
        assert_eq!(self.open(), (0, 0, 0));
        self.admission.sweep(self.start + Duration::from_secs(1_000_000));
        assert_eq!(self.admission.remembered(), 0);
    }
}

fn key(last: u8) -> ClientKey {
    ClientKey::of([192, 0, 2, last].into(), Prefixes::default())
}

fn rate(tokens: u32, ms: u64, burst: u32) -> Rate {
    let per = Duration::from_millis(ms);
    Rate {
        tokens: tokens.try_into().unwrap(),
        per,
        burst: burst.try_into().unwrap(),
    }
}

fn full(limit: Limit, open: u32, of: u32) -> Full {
    Full { limit, open, of }
}

#[test]
fn a_refusal_by_rate_says_exactly_when_the_next_token_is_there() {
    let mut rig = Rig::new();
    let slow = rate(2, 10_000, 3);
    rig.client.rate = Some(slow);
    for _ in 0..3 {
        drop(rig.admit(1));
    }
    let at = |ms| rig.start + Duration::from_millis(ms);
    let lack = |limit, ms| rig.admission.lack(&rig.request(0, 1), limit, at(ms));
    for ms in [0, 1000, 4999] {
        let wait = Duration::from_millis(5000 - ms);
        assert_eq!(
            lack(Limit::PerIpRate, ms),
            Some(Lack { rate: slow, wait }),
            "after {ms} ms"
        );
        assert_eq!(rig.admit_after(1, ms).map(drop).unwrap_err().limit, Limit::PerIpRate);
    }
    assert_eq!(lack(Limit::PerIpRate, 5000).unwrap().wait, Duration::ZERO);
    for limit in [Limit::PerIp, Limit::ZoneFull, Limit::ProcessFull, Limit::ZoneRate] {
        assert_eq!(lack(limit, 0), None, "{limit:?}");
    }
    assert!(rig.admit_after(1, 5000).is_ok(), "asking takes no token");
    rig.rules.rate = Some(slow);
    rig.client.rate = None;
    for n in 0..3 {
        drop(rig.admit(n));
    }
    let wait = Duration::from_secs(5);
    let lack = rig.admission.lack(&rig.request(0, 9), Limit::ZoneRate, rig.start);
    assert_eq!(lack, Some(Lack { rate: slow, wait }));
}

#[test]
fn each_limit_refuses_by_its_name_and_a_drop_makes_room() {
    type Set = fn(&mut Rig);
    let cases: [(Set, Full); 3] = [
        (|rig| rig.client.per_ip = Some(2), full(Limit::PerIp, 2, 2)),
        (|rig| rig.rules.connections = Some(2), full(Limit::ZoneFull, 2, 2)),
        (|rig| rig.process().set_limit(Some(2)), full(Limit::ProcessFull, 2, 2)),
    ];
    for (set, expected) in cases {
        let mut rig = Rig::new();
        set(&mut rig);
        let first = rig.admit(1).unwrap();
        let _second = rig.admit(1).unwrap();
        assert_eq!(rig.admit(1).unwrap_err(), expected);
        assert_eq!(rig.open(), (2, 2, 2), "the refused one took nothing");
        drop(first);
        assert!(rig.admit(1).is_ok());
    }
}

#[test]
fn the_first_limit_in_order_is_the_one_reported() {
    let mut rig = Rig::new();
    rig.client = ClientRules {
        per_ip: Some(1),
        rate: Some(rate(1, 1000, 1)),
    };
    rig.rules = ZoneRules {
        observe: false,
        connections: Some(1),
        rate: Some(rate(1, 1000, 1)),
    };
    rig.process().set_limit(Some(1));
    let permit = rig.admit(1).unwrap().permit;
    let mut heard = Vec::new();
    let mut hear = |rig: &Rig| heard.push(rig.admit(1).unwrap_err());
    hear(&rig);
    rig.client.per_ip = None;
    hear(&rig);
    rig.rules.connections = None;
    hear(&rig);
    drop(permit);
    hear(&rig);
    rig.client.rate = None;
    hear(&rig);
    let limits = [
        Limit::PerIp,
        Limit::ZoneFull,
        Limit::ProcessFull,
        Limit::PerIpRate,
        Limit::ZoneRate,
    ];
    assert_eq!(heard.iter().map(|full| full.limit).collect::<Vec<_>>(), limits);
    assert!(limits.is_sorted());
    rig.rules.rate = None;
    assert!(rig.admit(1).is_ok());
}

#[test]
fn a_refused_attempt_takes_no_token_and_an_admitted_one_spends_it() {
    let mut rig = Rig::new();
    rig.client.rate = Some(rate(10, 1000, 2));
    rig.rules.rate = Some(rate(10, 1000, 5));
    for _ in 0..2 {
        drop(rig.admit(1).unwrap());
    }
    for _ in 0..100 {
        assert_eq!(rig.admit(1).unwrap_err().limit, Limit::PerIpRate);
    }
    assert!(rig.admit_after(1, 99).is_err());
    drop(rig.admit_after(1, 100).unwrap());
    assert!(rig.admit_after(1, 199).is_err());
    // The zone has lost three tokens, not a hundred, and one is back.
    let (others, last) = (2..=4, 5);
    for other in others {
        drop(rig.admit_after(other, 100).unwrap());
    }
    assert_eq!(rig.admit_after(last, 100).unwrap_err().limit, Limit::ZoneRate);
    assert!(rig.admit_after(last, 200).is_ok());
    assert!(
        rig.admit_after(last, 300).is_ok(),
        "what the zone refused has cost the client nothing"
    );
    rig.assert_empty();
}

#[test]
fn an_entry_is_made_at_admission_only() {
    let mut rig = Rig::new();
    rig.client = ClientRules {
        per_ip: Some(0),
        rate: Some(rate(1, 1000, 1)),
    };
    assert!(rig.admit(1).is_err());
    assert_eq!(rig.admission.remembered(), 0);
    rig.client.per_ip = None;
    drop(rig.admit(1).unwrap());
    assert_eq!(rig.admission.remembered(), 1);
    rig.admission.sweep(rig.start + Duration::from_millis(999));
    assert_eq!(rig.admission.remembered(), 1, "or its token would be back too early");
    rig.admission.sweep(rig.start + Duration::from_secs(1));
    assert_eq!(rig.admission.remembered(), 0);
}

#[test]
fn a_limit_that_is_switched_on_counts_what_is_open_and_ends_no_connection() {
    let mut rig = Rig::new();
    let mut permits: Vec<Granted> = (0..5).map(|_| rig.admit(1).unwrap()).collect();
    rig.client.per_ip = Some(3);
    rig.rules.connections = Some(3);
    assert_eq!(rig.admit(1).unwrap_err(), full(Limit::PerIp, 5, 3));
    assert_eq!(rig.admit(2).unwrap_err(), full(Limit::ZoneFull, 5, 3));
    assert_eq!(rig.open(), (5, 5, 5));
    permits.truncate(3);
    assert!(rig.admit(1).is_err());
    permits.truncate(2);
    assert!(rig.admit(1).is_ok());
    rig.client.per_ip = None;
    rig.zones[0].budget.set_limit(Some(2));
    assert_eq!(rig.admit(1).unwrap_err(), full(Limit::ZoneFull, 2, 2));
}

#[test]
fn observe_admits_what_it_notes_but_never_above_the_process_ceiling() {
    let mut rig = Rig::new();
    rig.client = ClientRules {
        per_ip: Some(1),
        rate: Some(rate(1, 1000, 2)),
    };
    rig.rules = ZoneRules {
        observe: true,
        connections: Some(2),
        rate: Some(rate(1, 1000, 3)),
    };
    rig.process().set_limit(Some(6));
    let mut permits = Vec::new();
    for (client, expected) in [
        (1, None),
        (1, Some(full(Limit::PerIp, 1, 1))),
        (2, Some(full(Limit::ZoneFull, 2, 2))),
        (3, Some(full(Limit::ZoneFull, 3, 2))),
    ] {
        let granted = rig.admit(client).unwrap();
        assert_eq!(granted.observed, expected);
        permits.push(granted.permit);
    }
    rig.rules.connections = None;
    rig.client.per_ip = None;
    // The zone's third token went to client 2, client 1 has had its two.
    for (client, expected) in [
        (1, full(Limit::PerIpRate, 2, u32::MAX)),
        (4, full(Limit::ZoneRate, 5, u32::MAX)),
    ] {
        let granted = rig.admit(client).unwrap();
        assert_eq!(granted.observed, Some(expected));
        permits.push(granted.permit);
    }
    assert_eq!(rig.admit(6).unwrap_err(), full(Limit::ProcessFull, 6, 6));
    assert_eq!(rig.open(), (6, 6, 6));
    permits.clear();
    rig.assert_empty();
}

#[test]
fn an_exempt_zone_stays_below_its_own_ceiling_even_under_observe() {
    let mut rig = Rig::new();
    rig.process().set_limit(Some(0));
    rig.rules = ZoneRules {
        observe: true,
        connections: Some(1),
        rate: None,
    };
    rig.zones[1].budget.set_limit(Some(2));
    let admit = || rig.admission.admit(rig.request(1, 1), rig.start);
    let first = admit().unwrap();
    let second = admit().unwrap();
    assert_eq!(
        (first.observed, second.observed),
        (None, Some(full(Limit::ZoneFull, 1, 1)))
    );
    assert_eq!(admit().unwrap_err(), full(Limit::ZoneFull, 2, 1));
    assert_eq!(
        rig.admit(1).unwrap_err().limit,
        Limit::ProcessFull,
        "the two do not share"
    );
    assert_eq!(rig.open(), (2, 0, 2));
}

#[test]
fn a_panic_gives_everything_back() {
    let rig = Rig::new();
    let granted = rig.admit(1).unwrap();
    assert_eq!(granted.permit.key, key(1));
    assert!(Arc::ptr_eq(&granted.permit.zone, &rig.zones[0]));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _permit = granted.permit;
        std::panic::resume_unwind(Box::new(()));
    }));
    assert!(panicked.is_err());
    rig.assert_empty();
}

#[test]
fn the_stats_count_keys_and_the_top_names_the_busiest() {
    let rig = Rig::new();
    let mut permits = Vec::new();
    for (client, count) in [(1, 1), (2, 4), (3, 4), (4, 120)] {
        permits.extend((0..count).map(|_| rig.admit(client).unwrap().permit));
    }
    permits.push(rig.admission.admit(rig.request(1, 1), rig.start).unwrap().permit);
    let client_stats = rig.admission.client_stats(&[1, 0, 7]);
    let by_connections = [1, 1, 1, 3, 3, 3, 3, 3, 4];
    assert_eq!(
        client_stats[0],
        ClientStats {
            zone: 1,
            clients: 1,
            most: 1,
            by_connections: [1; 9]
        }
    );
    assert_eq!(
        client_stats[1],
        ClientStats {
            zone: 0,
            clients: 4,
            most: 120,
            by_connections
        }
    );
    assert_eq!(
        client_stats[2],
        ClientStats {
            zone: 7,
            ..ClientStats::default()
        }
    );
    assert_eq!(rig.admission.top(3), [(0, key(4), 120), (0, key(2), 4), (0, key(3), 4)]);
    assert_eq!(rig.admission.top(99).len(), 5);
    assert_eq!(rig.admission.top(0), []);
}

/// Between the look and the take another request takes the last of a count that the shards share.
#[test]
fn a_request_that_loses_a_race_gives_everything_back_and_names_that_limit() {
    type Snatch = fn(&Rig, Meter);
    let cases: [(Snatch, Limit); 3] = [
        (|rig, _| rig.zones[0].budget.take_anyway(), Limit::ZoneFull),
        (|rig, _| rig.process().take_anyway(), Limit::ProcessFull),
        (
            |rig, meter| {
                let now = Moment::since(rig.admission.epoch, rig.start);
                assert!(rig.zones[0].rate.take(meter, now));
            },
            Limit::ZoneRate,
        ),
    ];
    for ((snatch, limit), observe) in cases.into_iter().flat_map(|case| [(case, false), (case, true)]) {
        let mut rig = Rig::new();
        rig.rules = ZoneRules {
            observe,
            connections: Some(1),
            rate: Some(rate(1, 1000, 1)),
        };
        rig.process().set_limit(Some(1));
        let mut attempt = Attempt {
            request: rig.request(0, 1),
            client_meter: Some(rate(1, 1000, 1).into()),
            zone_meter: rig.rules.rate.map(Meter::from),
            now: Moment::since(rig.admission.epoch, rig.start),
            observed: None,
        };
        let mut place = rig.admission.table.place(0, key(1));
        attempt.look(&mut place).unwrap();
        snatch(&rig, rate(1, 1000, 1).into());
        let (zone, process) = (rig.zones[0].budget.used(), rig.process().used());
        let taken = attempt.take(place);
        if observe && limit != Limit::ProcessFull {
            assert!(taken.is_ok());
            assert_eq!(attempt.observed.map(|full| full.limit), Some(limit));
            assert_eq!(rig.open(), (zone + 1, process + 1, 1));
        } else {
            assert_eq!(taken.unwrap_err().limit, limit);
            assert_eq!(rig.open(), (zone, process, 0), "{limit:?}");
            assert_eq!(rig.admission.remembered(), 0);
        }
    }
}

/// Calls `attempt` in 8 threads at once. Returns how many permits they hold in the end, and the most that were open at
/// any time.
fn race(rig: &Rig, attempt: impl Fn(u8) -> Option<Granted> + Sync, open: impl Fn() -> u32 + Sync) -> (usize, u32) {
    let (barrier, most) = (Barrier::new(8), AtomicU32::new(0));
    let (attempt, open, barrier, most) = (&attempt, &open, &barrier, &most);
    let held: Vec<Granted> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                scope.spawn(move || {
                    let mut held = Vec::new();
                    barrier.wait();
                    for round in 0..1500 {
                        held.extend(attempt(thread));
                        most.fetch_max(open(), Ordering::Relaxed);
                        if round % 3 == 0 && round < 1200 {
                            held.pop();
                        }
                    }
                    held
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let count = held.len();
    drop(held);
    rig.assert_empty();
    (count, most.load(Ordering::Relaxed))
}

#[test]
fn eight_threads_of_one_client_hold_exactly_its_limit() {
    let mut rig = Rig::new();
    rig.client.per_ip = Some(10);
    let used = || rig.zones[0].budget.used();
    assert_eq!(
        race(
            &rig,
            |_| rig.admit(1).ok(),
            || rig.admission.top(1).first().map_or(0, |top| top.2)
        )
        .0,
        10
    );
    // A drop frees the zone before it frees the key, so the zone is never above either.
    assert_eq!(race(&rig, |_| rig.admit(1).ok(), used), (10, 10));
}

#[test]
fn eight_threads_of_many_clients_hold_exactly_the_budget() {
    let mut rig = Rig::new();
    rig.rules.connections = Some(10);
    assert_eq!(
        race(&rig, |thread| rig.admit(thread).ok(), || rig.zones[0].budget.used()),
        (10, 10)
    );
    rig.rules.connections = None;
    rig.process().set_limit(Some(10));
    assert_eq!(
        race(&rig, |thread| rig.admit(thread).ok(), || rig.process().used()),
        (10, 10)
    );
}

#[test]
fn eight_threads_get_exactly_the_tokens_there_are() {
    let mut rig = Rig::new();
    rig.rules.rate = Some(rate(1, 1_000_000, 10));
    let admitted = AtomicU32::new(0);
    let admit = |client| {
        let granted = rig.admit(client).ok();
        admitted.fetch_add(u32::from(granted.is_some()), Ordering::Relaxed);
        granted
    };
    race(&rig, admit, || 0);
    assert_eq!(admitted.swap(0, Ordering::Relaxed), 10);
    let mut rig = Rig::new();
    rig.client.rate = Some(rate(1, 1_000_000, 10));
    let admit = |_| {
        let granted = rig.admit(1).ok();
        admitted.fetch_add(u32::from(granted.is_some()), Ordering::Relaxed);
        granted
    };
    race(&rig, admit, || 0);
    assert_eq!(admitted.load(Ordering::Relaxed), 10);
}

#[test]
fn a_storm_under_every_limit_and_a_tiny_table_ends_at_zero() {
    let mut rig = Rig::new();
    rig.admission = Admission::new(20, rig.start);
    rig.zones = [0, 1].map(|id| rig.admission.zone(id, None));
    rig.client = ClientRules {
        per_ip: Some(3),
        rate: Some(rate(1, 100_000, 500)),
    };
    rig.rules = ZoneRules {
        observe: false,
        connections: Some(15),
        rate: Some(rate(1, 1, 2000)),
    };
    rig.process().set_limit(Some(12));
    let turn = AtomicU32::new(0);
    let (held, most) = race(
        &rig,
        |_| {
            let turn = turn.fetch_add(1, Ordering::Relaxed);
            let mut request = rig.request(0, u8::try_from(turn % 60).unwrap());
            request.rules.observe = turn.is_multiple_of(5);
            if turn.is_multiple_of(64) {
                rig.admission.sweep(rig.start + Duration::from_millis(u64::from(turn)));
            }
            rig.admission
                .admit(request, rig.start + Duration::from_millis(u64::from(turn)))
                .ok()
        },
        || rig.process().used(),
    );
    assert!((1..=12).contains(&held) && most <= 12, "{held} {most}");
    assert!(rig.admission.evictions() > 0);
}
