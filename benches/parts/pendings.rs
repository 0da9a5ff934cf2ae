//! The pending room. Each measure is one newcomer that takes a seat, and the end of a seat.

use std::collections::VecDeque;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::Criterion;
use wsguard::limit::key::{ClientKey, Prefixes};
use wsguard::limit::pending::{Pending, PendingRoom, PendingRules};

use crate::dice::Dice;
use crate::threads::both_at_once;

pub fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pending");
    let now = Instant::now();

    // The seat of a newcomer ends when it is admitted or refused.
    let mut half_full = Waiting::new(SEATS, SEATS / 2, now);
    group.bench_function("half full", |bencher| bencher.iter(|| half_full.admit_newcomer()));
    let mut of_each = half_full.shared_by_two();
    group.bench_function("half full, two threads", |bencher| {
        bencher.iter_custom(|rounds| both_at_once(&mut of_each, rounds, Waiting::admit_newcomer));
    });

    // Silent sockets hold all seats: the one that has waited longest gives way.
    let mut full = Waiting::new(SEATS, SEATS, now);
    group.bench_function("full", |bencher| bencher.iter(|| full.give_way_to_newcomer()));
    let mut of_each = full.shared_by_two();
    group.bench_function("full, two threads", |bencher| {
        bencher.iter_custom(|rounds| both_at_once(&mut of_each, rounds, Waiting::give_way_to_newcomer));
    });
}

/// The seats that one thread holds in a room. The one that has waited longest is first.
struct Waiting {
    room: Arc<PendingRoom>,
    seats: VecDeque<Pending>,
    dice: Dice,
    now: Instant,
}

impl Waiting {
    /// A room of `max` seats, `held` of which silent clients hold.
    fn new(max: u32, held: u32, now: Instant) -> Self {
        let rules = PendingRules {
            max,
            max_per_ip: Some(u32::MAX),
            timeout: Duration::from_secs(10),
        };
        let mut waiting = Self {
            room: PendingRoom::new(rules),
            seats: VecDeque::new(),
            dice: Dice::new(1),
            now,
        };
        for _ in 0..held {
            let seat = waiting.newcomer();
            waiting.seats.push_back(seat);
        }
        waiting
    }

    /// Splits the seats of the room between two threads: each holds every other one.
    fn shared_by_two(self) -> [Self; 2] {
        let mut halves = [1, 2].map(|seed| Self {
            room: Arc::clone(&self.room),
            seats: VecDeque::new(),
            dice: Dice::new(seed),
            now: self.now,
        });
        for (nth, seat) in self.seats.into_iter().enumerate() {
            halves[nth % 2].seats.push_back(seat);
        }
        halves
    }

    fn admit_newcomer(&mut self) {
        drop(black_box(self.newcomer()));
    }

    fn give_way_to_newcomer(&mut self) {
        let newcomer = self.newcomer();
        self.seats.push_back(newcomer);
        // If two threads come at once, the seat that has ended may be the other thread's.
        while self.seats.front().is_some_and(|seat| seat.ended().is_some()) {
            self.seats.pop_front();
        }
    }

    fn newcomer(&mut self) -> Pending {
        let address = Ipv4Addr::from_bits(self.dice.between(1, CLIENTS));
        let key = ClientKey::of(address.into(), Prefixes::default());
        let seat = self.room.enter(Some(key), self.now).expect("there is no cap per key");
        seat.is_silent();
        seat
    }
}

/// The default of `max_pending`.
const SEATS: u32 = 10_000;

/// Most clients have one seat, as in a flood from many addresses.
const CLIENTS: u32 = 1_000_000;
