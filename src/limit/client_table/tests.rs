use super::*;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use crate::limit::key::Prefixes;
use crate::limit::rules::Rate;

fn key(number: u32) -> ClientKey {
    ClientKey::of(Ipv4Addr::from_bits(number).into(), Prefixes::default())
}

/// One token a second.
fn meter() -> Meter {
    Rate {
        tokens: NonZeroU32::MIN,
        per: Duration::from_secs(1),
        burst: NonZeroU32::MIN,
    }
    .into()
}

fn at(seconds: u64) -> Moment {
    let epoch = Instant::now();
    Moment::since(epoch, epoch + Duration::from_secs(seconds))
}

fn open(table: &Table, number: u32) {
    table.place(0, key(number)).open_one(Some((meter(), at(1))), false);
    table.evict_excess();
}

fn remembered(table: &Table) -> Vec<ClientKey> {
    let mut keys = Vec::new();
    table.visit(|entry| keys.push(entry.key));
    keys.sort_unstable();
    assert_eq!(keys.len(), table.entries.load(Ordering::Relaxed));
    for shard in &table.shards {
        let kept = shard.kept.lock();
        assert_eq!(
            kept.idle.len(),
            kept.entries.iter().filter(|entry| entry.idle != 0).count()
        );
        assert_eq!(
            shard.oldest.load(Ordering::Relaxed),
            kept.idle.keys().next().copied().unwrap_or(u64::MAX)
        );
        assert!(kept.entries.iter().all(|entry| (entry.idle == 0) == (entry.open > 0)));
    }
    keys
}

#[test]
fn an_entry_is_small() {
    assert!(size_of::<Entry>() <= 48, "{}", size_of::<Entry>());
}

#[test]
fn an_entry_is_removed_at_once_if_never_charged_and_otherwise_when_its_bucket_is_full() {
    let table = Table::new(10);
    table.place(0, key(1)).open_one(None, false);
    open(&table, 2);
    table.close_one(0, key(1));
    table.close_one(0, key(2));
    assert_eq!(remembered(&table), [key(2)]);
    table.sweep(at(1));
    assert_eq!(remembered(&table), [key(2)]);
    table.sweep(at(2));
    assert_eq!(remembered(&table), []);
    assert_eq!(table.evictions(), 0);
}

#[test]
fn a_client_that_reconnects_gets_its_message_buckets_as_it_left_them() {
    let table = Table::new(10);
    let connect = |number| table.place(0, key(number)).open_one(None, true).unwrap();
    let spends = connect(1);
    assert!(Arc::ptr_eq(&spends, &connect(1)));
    assert!(!Arc::ptr_eq(&spends, &connect(2)));
    spends.inbound.charge(meter().one(), at(1)).unwrap();
    drop(spends);
    for number in [1, 1, 2] {
        table.close_one(0, key(number));
    }
    assert_eq!(remembered(&table), [key(1)]);
    table.sweep(at(1));
    assert!(connect(1).inbound.charge(meter().one(), at(1)).is_err());
    table.close_one(0, key(1));
    table.sweep(at(2));
    assert_eq!(remembered(&table), []);
    assert!(table.shards.iter().all(|shard| shard.kept.lock().shares.is_empty()));
}

#[test]
fn the_entry_that_was_idle_longest_is_evicted_and_an_open_one_never() {
    let table = Table::new(4);
    (1..=4).for_each(|number| open(&table, number));
    for number in [3, 1, 4] {
        table.close_one(0, key(number));
    }
    // It was idle longest, but opens and closes again, so now it was idle for the shortest time.
    open(&table, 3);
    assert_eq!(remembered(&table).len(), 4);
    table.close_one(0, key(3));
    for (new_one, evicted) in [(5, 1), (6, 4), (7, 3)] {
        assert!(remembered(&table).contains(&key(evicted)));
        open(&table, new_one);
        assert!(!remembered(&table).contains(&key(evicted)));
    }
    assert_eq!(remembered(&table), [2, 5, 6, 7].map(key));
    assert_eq!(table.evictions(), 3);
}

#[test]
fn the_table_exceeds_its_size_only_while_all_entries_are_open() {
    let table = Table::new(2);
    (1..=5).for_each(|number| open(&table, number));
    assert_eq!((remembered(&table).len(), table.evictions()), (5, 0));
    (1..=4).for_each(|number| table.close_one(0, key(number)));
    open(&table, 6);
    assert_eq!(remembered(&table), [5, 6].map(key));
    assert_eq!(table.evictions(), 4);
}

#[test]
fn eviction_goes_by_age_over_all_shards() {
    let table = Table::new(500);
    (0..500).for_each(|number| open(&table, number));
    (0..500).for_each(|number| table.close_one(0, key(number)));
    for new_one in 500..900 {
        open(&table, new_one);
    }
    assert_eq!(remembered(&table), (400..900).map(key).collect::<Vec<_>>());
}

#[test]
fn a_sweep_looks_at_some_entries_and_the_next_one_continues_after_them() {
    let (table, clients) = (Table::new(u32::MAX), 40_000);
    (0..clients).for_each(|number| open(&table, number));
    (0..clients).for_each(|number| table.close_one(0, key(number)));
    let mut calls = 0;
    while !remembered(&table).is_empty() {
        assert!(table.sweep(at(9)) <= SHARDS * SWEPT_A_SHARD);
        calls += 1;
    }
    // There are 625 in a shard, and a few more in the fullest.
    assert!((3..=4).contains(&calls), "{calls}");
    assert!(
        table
            .shards
            .iter()
            .all(|shard| shard.kept.lock().entries.capacity() <= SPARE)
    );
}

#[test]
fn entries_that_stay_do_not_stop_a_sweep_from_reaching_later_ones() {
    let (table, clients) = (Table::new(u32::MAX), 40_000);
    (0..clients).for_each(|number| {
        let now = at(if number < 30_000 { 1000 } else { 1 });
        table.place(0, key(number)).open_one(Some((meter(), now)), false);
    });
    (0..clients).for_each(|number| table.close_one(0, key(number)));
    (0..4).for_each(|_| {
        table.sweep(at(500));
    });
    assert_eq!(remembered(&table).len(), 30_000);
}

#[test]
fn threads_that_evict_together_evict_no_more_than_the_excess() {
    let table = Table::new(100);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let table = &table;
            scope.spawn(move || {
                for number in (thread * 10_000..).take(1000) {
                    open(table, number);
                    table.close_one(0, key(number));
                }
            });
        }
    });
    assert_eq!(remembered(&table).len(), 100);
    assert_eq!(table.evictions(), 8 * 1000 - 100);
}
