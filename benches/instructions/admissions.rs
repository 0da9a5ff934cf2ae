//! Admission, and with it the client table.
//!
//! The table hashes by a seed that differs in every process. So the places of the clients, and their costs, differ too,
//! and many clients are counted as one. [`CLIENTS`] bring each of its 64 shards to 320 entries, give or take 18. That
//! is far from the 224 and the 448 at which it grows: under nearly every seed it grows equally often. Twenty runs lay
//! within 0.1 % of one another, and those into a full table within 1 %.

use std::hint::black_box;
use std::time::Duration;

use gungraun::prelude::*;
use wsguard::limit::admission::{Granted, Limit};
use wsguard::limit::rules::ClientRules;

use crate::inputs::door::{BY_DEFAULT, Door};

const CLIENTS: u32 = 20_480;

// Each client asks once, is admitted and leaves.
#[library_benchmark]
#[bench::new_clients(Door::new(CLIENTS, BY_DEFAULT))]
#[bench::new_clients_without_rate(Door::new(CLIENTS, WITHOUT_RATE))]
#[bench::known_clients(known(CLIENTS))]
fn admit_and_close(door: Door) -> Door {
    for number in 0..CLIENTS {
        drop(black_box(door.ask(number, LATER).expect("a token is there")));
    }
    door
}

// Each client makes the table forget another one.
#[library_benchmark]
#[bench::new_clients(known(CLIENTS))]
fn admit_into_full_table(door: Door) -> Door {
    for number in CLIENTS..2 * CLIENTS {
        drop(black_box(door.ask(number, LATER).expect("a token is there")));
    }
    door
}

#[library_benchmark]
#[bench::at_per_ip(all_in())]
fn refuse((door, granted): (Door, Vec<Granted>)) -> (Door, Vec<Granted>) {
    for number in 0..CLIENTS {
        let refused = black_box(door.ask(number, LATER));
        assert!(refused.is_err_and(|full| full.limit == Limit::PerIp));
    }
    (door, granted)
}

fn known(count: u32) -> Door {
    let door = Door::new(count, BY_DEFAULT);
    door.know(count);
    door
}

fn all_in() -> (Door, Vec<Granted>) {
    let client = ClientRules {
        per_ip: Some(1),
        ..BY_DEFAULT
    };
    let door = Door::new(CLIENTS, client);
    let granted = (0..CLIENTS)
        .map(|number| door.ask(number, Duration::ZERO).expect("the first of its key"))
        .collect();
    (door, granted)
}

const WITHOUT_RATE: ClientRules = ClientRules {
    rate: None,
    ..BY_DEFAULT
};
const LATER: Duration = Duration::from_secs(1);

library_benchmark_group!(
    name = admission,
    benchmarks = [admit_and_close, admit_into_full_table, refuse]
);
