//! Admission, and with it the client table: each measure is one admission and the end of its connection.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use wsguard::limit::rules::{ClientRules, Rate};

use crate::dice::Dice;
use crate::inputs::door::Door;
use crate::threads::both_at_once;

/// Measures tables of each size in turn.
pub fn measure(criterion: &mut Criterion, sizes: &[u32]) {
    let mut group = criterion.benchmark_group("admission");
    for &size in sizes {
        let door = Door::new(size, TIRELESS);
        door.know(size);
        let mut dice = [1, 2].map(Dice::new);
        group.bench_function(BenchmarkId::new("known client", size), |bencher| {
            let [dice, _] = &mut dice;
            bencher.iter(|| visit(&door, pick(dice, size)));
        });
        // The time that each thread takes for one visit while the other thread makes visits too.
        group.bench_function(BenchmarkId::new("known client, two threads", size), |bencher| {
            bencher.iter_custom(|rounds| both_at_once(&mut dice, rounds, |dice| visit(&door, pick(dice, size))));
        });
        let mut newcomer = size;
        group.bench_function(BenchmarkId::new("new client, full table", size), |bencher| {
            bencher.iter(|| {
                visit(&door, newcomer);
                newcomer += 1;
            });
        });
    }

    let refusing = ClientRules {
        per_ip: Some(1),
        ..TIRELESS
    };
    let door = Door::new(1, refusing);
    let _open = door.ask(0, Duration::ZERO).expect("the first of its key");
    group.bench_function("refused at per_ip", |bencher| {
        bencher.iter(|| black_box(door.ask(0, Duration::ZERO)).is_err());
    });
}

fn visit(door: &Door, number: u32) {
    drop(black_box(door.ask(number, Duration::ZERO).expect("tokens are plenty")));
}

fn pick(dice: &mut Dice, of: u32) -> u32 {
    dice.between(0, of - 1)
}

/// Entries stay, as under the defaults. No client runs out of tokens, although the time stands still.
const TIRELESS: ClientRules = ClientRules {
    per_ip: Some(50),
    rate: Some(Rate {
        tokens: NonZeroU32::MAX,
        per: Duration::from_secs(4),
        burst: NonZeroU32::MAX,
    }),
};
