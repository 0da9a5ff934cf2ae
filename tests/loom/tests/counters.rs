//! The counters never go above their limit and never leak, and a thread that loses a race gives back what it took. The
//! tests run every order in which two or three threads can come, as far as loom distinguishes them.

#![cfg(loom)]

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use loom::sync::atomic::{AtomicU32, Ordering};
use wsguard_loom::limit::admission::{Admission, Full, Granted, Limit, Permit, Request, ZoneCounts};
use wsguard_loom::limit::bucket::{Meter, Moment, SharedBucket};
use wsguard_loom::limit::budget::Budget;
use wsguard_loom::limit::key::{ClientKey, Prefixes};
use wsguard_loom::limit::rules::{ClientRules, Rate, ZoneRules};
use wsguard_loom::{model, of_all};

mod budget {
    use super::*;

    #[test]
    fn two_threads_are_never_above_one() {
        comes_and_goes(None, 2, 1);
    }

    #[test]
    fn three_threads_are_never_above_one_or_two() {
        comes_and_goes(Some(3), 3, 1);
        comes_and_goes(Some(3), 3, 2);
    }

    /// No thread is refused because of a place that no other thread got.
    #[test]
    fn as_many_are_admitted_as_there_are_places() {
        for (threads, limit) in [(2, 1), (3, 1), (3, 2)] {
            model(Some(3), move || {
                let budget = Arc::new(Budget::new(Some(limit)));
                let taken = of_all(threads, &budget, |_, budget| u32::from(budget.try_take()));
                assert_eq!((taken.iter().sum::<u32>(), budget.used()), (limit, limit));
            });
        }
    }

    #[test]
    fn a_place_taken_above_the_limit_is_counted_and_keeps_others_out() {
        model(None, || {
            let budget = Arc::new(Budget::new(Some(1)));
            let taken = of_all(2, &budget, |thread, budget| {
                if thread == 0 {
                    budget.take_anyway();
                    return true;
                }
                budget.try_take_below(9)
            });
            let count = taken.iter().filter(|taken| **taken).count();
            assert_eq!(budget.used() as usize, count);
            taken.iter().filter(|taken| **taken).for_each(|_| budget.release());
            assert_eq!(budget.used(), 0);
        });
    }

    #[test]
    fn lowering_the_limit_during_a_race_ends_no_connection_and_loses_no_place() {
        model(None, || {
            let budget = Arc::new(Budget::new(Some(2)));
            assert!(budget.try_take());
            let taken = of_all(2, &budget, |thread, budget| {
                if thread == 0 {
                    budget.set_limit(Some(1));
                    return false;
                }
                budget.try_take()
            });
            assert_eq!(budget.used(), 1 + u32::from(taken[1]));
            assert!(!budget.try_take());
            budget.release();
            if taken[1] {
                assert!(!budget.try_take());
                budget.release();
            }
            assert_eq!(budget.used(), 0);
        });
    }

    fn comes_and_goes(preemptions: Option<usize>, threads: usize, limit: u32) {
        model(preemptions, move || {
            let shared = Arc::new((Budget::new(Some(limit)), AtomicU32::new(0)));
            of_all(threads, &shared, move |_, shared| {
                let (budget, inside) = &**shared;
                if budget.try_take_below(7) {
                    assert!(inside.fetch_add(1, Ordering::Relaxed) < limit, "above the limit");
                    inside.fetch_sub(1, Ordering::Relaxed);
                    budget.release();
                }
            });
            assert_eq!(shared.0.used(), 0);
        });
    }
}

mod bucket {
    use super::*;

    #[test]
    fn never_are_more_tokens_taken_than_the_bucket_has() {
        for (threads, burst) in [(2, 1), (3, 1), (3, 2)] {
            tokens_are_taken(threads, burst, false);
        }
    }

    #[test]
    fn looking_before_taking_makes_no_tokens() {
        for (threads, burst) in [(2, 1), (3, 2)] {
            tokens_are_taken(threads, burst, true);
        }
    }

    /// The debt of a slower rate is forgiven once. Then the bucket is empty, and not full.
    #[test]
    fn a_debt_forgiven_by_two_threads_at_once_gives_no_token_early() {
        model(None, || {
            let bucket = Arc::new(SharedBucket::default());
            let epoch = Instant::now();
            assert!(bucket.take(Meter::from(rate(1, 3600, 1)), at(epoch, 0)));
            let meter = Meter::from(rate(1, 10, 1));
            let taken = of_all(2, &bucket, move |_, bucket| {
                bucket.has_token(meter, at(epoch, 1)) && bucket.take(meter, at(epoch, 1))
            });
            assert_eq!(taken, [false, false]);
            assert!(!bucket.has_token(meter, at(epoch, 10)));
            assert!(bucket.has_token(meter, at(epoch, 11)));
        });
    }

    fn tokens_are_taken(threads: usize, burst: u32, looks: bool) {
        model(Some(3), move || {
            let bucket = Arc::new(SharedBucket::default());
            let (meter, epoch) = (Meter::from(rate(1, 3600, burst)), Instant::now());
            let taken = of_all(threads, &bucket, move |_, bucket| {
                // The clocks of the three threads are a little apart.
                (!looks || bucket.has_token(meter, at(epoch, 5))) && bucket.take(meter, at(epoch, 5))
            });
            let count = taken.iter().filter(|taken| **taken).count();
            assert_eq!(count, burst as usize, "a token too many, or a lost one");
            assert!(!bucket.take(meter, at(epoch, 5)));
        });
    }
}

mod admission {
    use super::*;

    #[test]
    fn a_zone_of_one_or_two_never_holds_more() {
        for (threads, limit, preemptions) in [(2, 1, 3), (3, 1, 2), (3, 2, 2)] {
            stay(preemptions, threads, limit, OPEN.zone(limit), Limit::ZoneFull);
        }
    }

    /// Both threads take a place in the zone, and one finds the process full.
    #[test]
    fn a_client_that_finds_the_process_full_gives_back_its_place_in_the_zone() {
        for (threads, limit, preemptions) in [(2, 1, 3), (3, 2, 2)] {
            stay(
                preemptions,
                threads,
                limit,
                Plan {
                    process: Some(limit),
                    ..OPEN
                },
                Limit::ProcessFull,
            );
        }
    }

    /// All threads take a place in the zone and in the process, and find too few tokens.
    #[test]
    fn a_client_without_a_token_gives_back_both_places() {
        for (threads, burst, preemptions) in [(2, 1, 3), (3, 2, 2)] {
            let mut plan = OPEN;
            plan.rules.rate = Some(rate(1, 3600, burst));
            stay(preemptions, threads, burst, plan, Limit::ZoneRate);
        }
    }

    #[test]
    fn one_client_never_has_more_than_it_may() {
        for (threads, limit, preemptions) in [(2, 1, 3), (3, 2, 2)] {
            let mut plan = OPEN;
            plan.client.per_ip = Some(limit);
            stay(preemptions, threads, limit, plan, Limit::PerIp);
        }
    }

    #[test]
    fn an_observed_excess_is_admitted_and_counted() {
        model(Some(3), || {
            let mut plan = OPEN.zone(1);
            plan.rules.observe = true;
            let rig = Rig::of(plan);
            let granted = of_all(2, &rig, |thread, rig| rig.admit(thread));
            let granted: Vec<Granted> = granted.into_iter().map(|granted| granted.expect("observed")).collect();
            let full = granted
                .iter()
                .filter_map(|granted| granted.observed)
                .map(|full| full.limit);
            assert_eq!(full.collect::<Vec<_>>(), [Limit::ZoneFull]);
            rig.holds(2);
            drop(granted);
            rig.holds(0);
        });
    }

    #[test]
    fn admissions_and_ends_leave_no_counts_behind() {
        for (threads, preemptions) in [(2, 3), (3, 2)] {
            model(Some(preemptions), move || {
                let plan = Plan {
                    process: Some(2),
                    ..OPEN
                };
                let shared = Arc::new((Rig::of(plan.zone(1)), AtomicU32::new(0)));
                let rig = &shared.0;
                of_all(threads, &shared, |thread, shared| match shared.0.admit(thread) {
                    Ok(granted) => {
                        assert_eq!(shared.1.fetch_add(1, Ordering::Relaxed), 0, "above the limit");
                        shared.1.fetch_sub(1, Ordering::Relaxed);
                        drop(granted);
                    }
                    Err(full) => assert_eq!((full.limit, full.of), (Limit::ZoneFull, 1)),
                });
                rig.holds(0);
                assert_eq!(rig.admission.remembered(), 0);
                assert!(rig.admit(0).is_ok(), "the place is free again");
            });
        }
    }

    /// A newcomer asks while the holder of the only place gives it back.
    #[test]
    fn a_place_that_becomes_free_goes_to_one_newcomer_at_most() {
        model(Some(3), || {
            let rig = Rig::of(OPEN.zone(1));
            let leaves = std::sync::Mutex::new(Some(rig.admit(0).expect("it is empty").permit));
            let shared = Arc::new((Arc::clone(&rig), leaves));
            let came: Vec<Option<Permit>> = of_all(2, &shared, |thread, shared| {
                if thread == 0 {
                    drop(shared.1.lock().expect("no holder has panicked").take());
                    return None;
                }
                shared.0.admit(0).ok().map(|granted| granted.permit)
            });
            rig.holds(u32::from(came[1].is_some()));
            drop(came);
            rig.holds(0);
        });
    }

    /// Newcomers evict idle clients beyond the table's size, and in no race do they evict too many or too few.
    #[test]
    fn the_table_counts_its_clients_exactly() {
        model(Some(2), || {
            let mut plan = Plan { table: 1, ..OPEN };
            plan.client.rate = Some(rate(1, 3600, 9));
            let rig = Rig::of(plan);
            of_all(2, &rig, |thread, rig| drop(rig.admit(thread)));
            rig.holds(0);
            let last = rig.admit(2);
            assert_eq!((rig.admission.remembered(), rig.admission.open_in_table()), (1, 1));
            assert_eq!(rig.admission.evictions(), 2);
            drop(last);
        });
    }

    /// Two threads that find one client too many in the table evict one.
    #[test]
    fn two_threads_at_once_evict_only_the_excess() {
        model(Some(2), || {
            let mut plan = Plan { table: 3, ..OPEN };
            plan.client.rate = Some(rate(1, 3600, 9));
            let rig = Rig::of(plan);
            (1..4).for_each(|idle| drop(rig.admit(idle)));
            // One is a newcomer, and the other one is the client with the shortest idle time.
            let granted = of_all(2, &rig, |thread, rig| rig.admit([0, 3][thread]));
            assert_eq!((rig.admission.remembered(), rig.admission.evictions()), (3, 1));
            drop(granted);
            rig.holds(0);
        });
    }

    /// All threads ask at once and keep their places. As many are admitted as there are places, and the others are
    /// refused by `limit`. Then all leave.
    fn stay(preemptions: usize, threads: usize, places: u32, plan: Plan, limit: Limit) {
        model(Some(preemptions), move || {
            let rig = Rig::of(plan);
            let outcomes = of_all(threads, &rig, |thread, rig| rig.admit(thread));
            let (granted, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
            assert_eq!(granted.len(), places as usize, "a place too many, or a lost one");
            for outcome in refused {
                assert_eq!(outcome.map(|_| ()).map_err(|full| full.limit), Err(limit));
            }
            rig.holds(places);
            drop(granted);
            rig.holds(0);
        });
    }

    /// The values that a rig is built from. loom's atomics live in one run only, so every run builds a rig of its own.
    #[derive(Clone, Copy)]
    struct Plan {
        table: u32,
        process: Option<u32>,
        rules: ZoneRules,
        client: ClientRules,
    }

    const OPEN: Plan = Plan {
        table: 9,
        process: None,
        rules: ZoneRules {
            observe: false,
            connections: None,
            rate: None,
        },
        client: ClientRules {
            per_ip: None,
            rate: None,
        },
    };

    impl Plan {
        fn zone(mut self, connections: u32) -> Self {
            self.rules.connections = Some(connections);
            self
        }
    }

    struct Rig {
        admission: Arc<Admission>,
        zone: Arc<ZoneCounts>,
        plan: Plan,
        epoch: Instant,
    }

    impl Rig {
        fn of(plan: Plan) -> Arc<Self> {
            let epoch = Instant::now();
            let admission = Admission::new(plan.table, epoch);
            admission.process().set_limit(plan.process);
            Arc::new(Self {
                zone: admission.zone(1, None),
                admission,
                plan,
                epoch,
            })
        }

        /// Asks for this client. If clients are limited one by one, it asks for client 0.
        fn admit(&self, client: usize) -> Result<Granted, Full> {
            let client = if self.plan.client.per_ip.is_some() { 0 } else { client };
            let ip = IpAddr::from([192, 0, 2, u8::try_from(client).expect("a few clients")]);
            let request = Request {
                zone: &self.zone,
                rules: self.plan.rules,
                is_exempt: false,
                key: ClientKey::of(ip, Prefixes::default()),
                client: self.plan.client,
                shares: false,
            };
            self.admission.admit(request, self.epoch + Duration::from_secs(5))
        }

        /// Checks that every count is `open`.
        fn holds(&self, open: u32) {
            let counts = (
                self.zone.budget.used(),
                self.admission.process().used(),
                self.admission.open_in_table(),
            );
            assert_eq!(counts, (open, open, u64::from(open)));
        }
    }
}

fn rate(tokens: u32, per: u64, burst: u32) -> Rate {
    Rate {
        tokens: NonZeroU32::new(tokens).expect("not zero"),
        per: Duration::from_secs(per),
        burst: NonZeroU32::new(burst).expect("not zero"),
    }
}

fn at(epoch: Instant, secs: u64) -> Moment {
    Moment::since(epoch, epoch + Duration::from_secs(secs))
}
