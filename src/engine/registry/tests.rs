#![allow(clippy::default_trait_access)] // The default of a floor that the engine does not name.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Wake, Waker};

use super::*;
use crate::engine::rows::CHUNK;
use crate::limit::key::Prefixes;
use crate::live::in_force::InForce;
use crate::relay::params::{EarlyBytes, RelayParams};
use crate::relay::relay::Relay;
use crate::relay::rules::RelayMode;

/// A registry under a false clock, which a sweep moves on by a quarter of a second.
struct Fixture {
    registry: Registry,
    in_force: InForce,
    now: Instant,
    random: Random,
}

const WORKERS: usize = 3;
const SWEEP: Duration = Duration::from_millis(250);

impl Fixture {
    fn new() -> Self {
        Self::limiting("[limits.messages]\nping = \"10s\"\n")
    }

    /// A fixture with these tables of limits.
    fn limiting(limits: &str) -> Self {
        let in_force = InForce::with_limits(limits, WORKERS);
        let now = Instant::now();
        Self {
            registry: Registry::new(Arc::clone(&in_force.process), now),
            in_force,
            now,
            random: Random::seeded([7; 16]),
        }
    }

    /// Opens a connection of a client. It stays open until the returned value is dropped.
    fn open(&self, client: u8, worker: usize) -> Open {
        let route = self.in_force.policy.routes.iter().next().expect("a route");
        let destination = Arc::clone(self.in_force.destination(route));
        let zone = &destination.zone;
        let handle = Arc::<ConnHandle>::default();
        let early = EarlyBytes {
            from_client: Vec::new(),
            from_server: Vec::new(),
            reply_size: 0,
            extensions: Default::default(),
        };
        let params = RelayParams {
            mode: RelayMode::Auto,
            limits: Arc::clone(&zone.limits),
            shares: None,
            handle: Arc::clone(&handle),
            counters: Arc::clone(&zone.state.relay_counters[worker]),
        };
        let relay = Relay::new(early, params);
        let conn = NewConn {
            handle: Arc::clone(&handle),
            address: Some(address(client)),
            server: Arc::clone(&destination.upstream.servers()[0]),
            destination,
        };
        let zone_client = self.registry.insert(conn, worker, self.now, &self.random);
        assert_eq!(zone_client, self.client(client));
        Open { handle, relay }
    }

    fn client(&self, client: u8) -> ZoneClient {
        let zone = self.in_force.zones[0].state.counts.id();
        self.registry.zone_client(zone, key(client))
    }

    fn sweep(&mut self) {
        self.now += SWEEP;
        for worker in 0..WORKERS {
            let parking = Parking {
                after: Duration::MAX,
                left: 0,
            };
            self.registry.sweep(worker, self.now, self.now, SWEEP, parking);
        }
    }

    fn suspects(&self, client: u8) -> Suspects {
        self.registry.suspects(self.client(client), self.now)
    }

    fn listed(&self) -> Vec<ConnId> {
        let connections = self.registry.connections(self.now);
        connections.iter().map(|conn| conn.id).collect()
    }

    fn rows(&self) -> usize {
        self.sum(Rows::len)
    }

    fn room(&self) -> usize {
        self.sum(Rows::room)
    }

    fn sum(&self, of: impl Fn(&Rows) -> usize) -> usize {
        let shards = self.registry.shards.iter();
        shards.map(|shard| of(&shard.open.lock().rows)).sum()
    }
}

/// Whether a connection was woken: its relay is to do something.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

struct Open {
    handle: Arc<ConnHandle>,
    relay: Relay,
}

fn address(client: u8) -> IpAddr {
    [203, 0, 113, client].into()
}

fn key(client: u8) -> ClientKey {
    ClientKey::of(address(client), Prefixes::default())
}

#[test]
fn an_open_connection_is_listed_with_all_that_is_known_of_it() {
    let mut fixture = Fixture::new();
    let _first = fixture.open(1, 0);
    for _ in 0..8 {
        fixture.sweep();
    }
    let _second = fixture.open(2, 2);
    fixture.sweep();
    let connections = fixture.registry.connections(fixture.now);
    let [first, second] = &connections[..] else {
        panic!("{connections:?}");
    };
    assert_eq!((first.address, second.address), (Some(address(1)), Some(address(2))));
    assert_ne!(first.id, second.id);
    assert_eq!(
        (&*first.zone, &*first.upstream, &*first.server),
        ("default", "chat", "127.0.0.1:2")
    );
    // The time counts from the next tick of 50 ms.
    let tick = Duration::from_millis(50);
    assert_eq!(first.open_for, (SWEEP * 9).saturating_sub(tick));
    assert_eq!(second.open_for, SWEEP.saturating_sub(tick));
}

#[test]
fn a_connection_that_has_closed_is_not_listed_and_is_taken_out_by_the_next_sweep() {
    let mut fixture = Fixture::new();
    let (stays, closes) = (fixture.open(1, 0), fixture.open(1, 0));
    let listed = fixture.listed();
    drop(closes);
    assert_eq!((fixture.listed(), fixture.rows()), (vec![listed[0]], 2));
    fixture.sweep();
    assert_eq!((fixture.listed(), fixture.rows()), (vec![listed[0]], 1));
    assert_eq!(fixture.registry.clients.of(fixture.client(1)), [listed[0]]);
    drop(stays);
    fixture.sweep();
    assert_eq!(
        (fixture.rows(), fixture.registry.clients.of(fixture.client(1))),
        (0, vec![])
    );
}

#[test]
fn of_many_each_is_listed_once_and_none_is_lost_while_others_close() {
    let mut fixture = Fixture::new();
    let mut open: Vec<Open> = (0..3000).map(|nth| fixture.open(1, nth % 2)).collect();
    let listed = fixture.listed();
    assert_eq!(listed.len(), 3000);
    let mut nth = 0;
    open.retain(|_| {
        nth += 1;
        nth % 3 > 0
    });
    fixture.sweep();
    open.extend((0..500).map(|_| fixture.open(1, 0)));
    let mut left = fixture.listed();
    assert_eq!((left.len(), fixture.rows()), (2500, 2500));
    left.sort_unstable();
    left.dedup();
    assert_eq!(left.len(), 2500, "no number is given twice");
    let mut indexed = fixture.registry.clients.of(fixture.client(1));
    indexed.sort_unstable();
    assert_eq!(indexed, left);
}

#[test]
fn memory_follows_the_number_of_connections_up_and_down() {
    let mut fixture = Fixture::new();
    let most = |rows: usize| rows + rows / 8 + CHUNK;
    let mut open = Vec::new();
    for nth in 0..5000 {
        open.push(fixture.open(1, 0));
        assert!(fixture.room() <= most(nth + 1), "{} for {nth}", fixture.room());
    }
    // Only the last of many connections stay, then only the first, then a few from everywhere, then none.
    for keep in [
        |nth: usize| nth >= 1000,
        |nth| nth < 3000,
        |nth| nth % 20 == 0,
        |_| false,
    ] {
        let mut nth = 0..;
        open.retain(|_| nth.next().is_some_and(keep));
        fixture.sweep();
        assert_eq!(fixture.listed().len(), open.len());
        assert!(
            fixture.room() <= most(open.len()),
            "{} for {}",
            fixture.room(),
            open.len()
        );
    }
    assert_eq!(fixture.room(), 0);
}

#[test]
fn only_the_connections_of_that_client_are_suspected_on_whatever_worker_they_are() {
    let mut fixture = Fixture::new();
    let ours = [fixture.open(1, 0), fixture.open(1, 1), fixture.open(1, 2)];
    let _others = [fixture.open(2, 0), fixture.open(3, 1)];
    for _ in 0..40 {
        fixture.sweep();
    }
    let alive_for = fixture.suspects(1).others_alive_for;
    assert_eq!(alive_for, Duration::from_millis(50), "they opened within a tick");
    assert!(fixture.suspects(1).pinged.is_empty());
    fixture.sweep();
    let young = fixture.open(1, 1);
    let suspects = fixture.suspects(1);
    let is_one = |open: &Open| {
        suspects
            .pinged
            .iter()
            .any(|(handle, _)| Arc::ptr_eq(handle, &open.handle))
    };
    assert!(suspects.pinged.len() == 3 && ours.iter().all(is_one) && !is_one(&young));
    assert_eq!(suspects.others_alive_for, Duration::from_secs(10), "the young one");
    drop(ours);
    assert!(
        fixture.suspects(1).pinged.is_empty(),
        "none that has closed is a suspect"
    );
    assert_eq!(
        fixture.suspects(4).others_alive_for,
        Duration::MAX,
        "a client without connections"
    );
}

#[test]
fn connections_that_open_together_end_spread_over_the_last_tenth_of_their_lifetime() {
    let mut fixture = Fixture::limiting("[limits.timeouts]\nlifetime = \"100s\"\n");
    let mut open: Vec<(Open, Arc<Woken>)> = (0..400).map(|_| (fixture.open(1, 0), Arc::default())).collect();
    // In the first second each connection is probed once.
    for _ in 0..8 {
        fixture.sweep();
    }
    for (open, woken) in &mut open {
        open.relay.set_parked_waker(&Waker::from(Arc::clone(woken)));
    }
    // The first end can come at the sweep after 90 s, and the last at the one after 100 s.
    let mut ends_by_second = [0; 11];
    for sweep in 9..=403 {
        fixture.sweep();
        let before = open.len();
        open.retain(|(_, woken)| !woken.0.load(Relaxed));
        match (sweep / 4_usize).checked_sub(90) {
            Some(second) => ends_by_second[second] += before - open.len(),
            None => assert_eq!(before, open.len(), "none ends at sweep {sweep}"),
        }
    }
    assert_eq!(ends_by_second.iter().sum::<usize>(), 400);
    assert!(
        ends_by_second[..10].iter().all(|ends| (20..=60).contains(ends)),
        "{ends_by_second:?}"
    );
}

#[test]
fn connections_may_open_close_and_be_listed_while_workers_sweep() {
    let fixture = Fixture::new();
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let fixture = &fixture;
            scope.spawn(move || {
                for _ in 0..20 {
                    let open: Vec<Open> = (0..100).map(|_| fixture.open(1, worker)).collect();
                    let connections = fixture.registry.connections(fixture.now);
                    assert!((100..=300).contains(&connections.len()), "{}", connections.len());
                    assert!(fixture.registry.clients.of(fixture.client(1)).len() >= 100);
                    drop(open);
                    let parking = Parking {
                        after: Duration::MAX,
                        left: 0,
                    };
                    fixture.registry.sweep(worker, fixture.now, fixture.now, SWEEP, parking);
                }
            });
        }
    });
    assert_eq!(
        (fixture.rows(), fixture.registry.clients.of(fixture.client(1))),
        (0, vec![])
    );
}
