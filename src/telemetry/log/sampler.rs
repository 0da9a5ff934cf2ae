//! Under a flood, many lines of one class become one line. It says how many lines there were, and which client caused most
//! of them.
//!
//! Each second starts anew. Up to the rate, lines of every class are written. Above the rate, two kinds of lines are still
//! written: the first line of each client, up to the rate once more, and the first line of each class. All other lines are
//! summed by class.
//!
//! The counts are in shards, one for each thread, so that two workers that refuse clients do not wait for each other. The
//! shards share an atomic, which is only read once the rate is used up. They also share a set, which is locked only for the
//! first lines of clients, at most twice the rate in each second.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use enum_map::EnumMap;
use parking_lot::{Mutex, MutexGuard};

use crate::limit::key::ClientKey;
use crate::limit::rules::Rate;
use crate::telemetry::class::Class;

/// Decides which lines are written, and sums the others.
#[derive(Debug)]
pub(super) struct Sampler {
    shards: Box<[Shard]>,
    second: Second,
}

/// The sum of the lines of one class in one second.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) class: Class,
    /// All lines, including those that were written.
    pub(super) lines: u64,
    /// The lines that were not written.
    pub(super) left_out: u64,
    /// The zone of the lines, if all have the same one.
    pub(super) zone: Option<Arc<str>>,
    pub(super) top: Option<(ClientKey, u64)>,
    seconds: u64,
}

/// The part of the counts that all threads share. It changes only while a shard is locked, and is reset while all shards are
/// locked.
#[derive(Debug)]
struct Second {
    begun: Mutex<Instant>,
    /// The number of lines that were written within the rate.
    written: AtomicU64,
    /// The number of lines that were written above the rate, each as the first of its client. Changes only while `known` is
    /// locked.
    firsts: AtomicU64,
    /// The clients of which a line was written.
    known: Mutex<HashSet<ClientKey>>,
    /// The classes that had a line.
    seen: EnumMap<Class, AtomicBool>,
}

#[derive(Debug)]
#[repr(align(128))] // A cache line of its own.
struct Shard(Mutex<Counted>);

/// What one shard has counted since the last sums.
#[derive(Debug, Default)]
struct Counted {
    windows: BTreeMap<Class, Window>,
    /// Clients that are known to be in `Second::known`, so that it need not be locked for them.
    known: HashSet<ClientKey>,
}

#[derive(Debug)]
struct Window {
    lines: u64,
    left_out: u64,
    /// The zone of all lines so far; `None` once lines have different zones.
    zone: Option<Arc<str>>,
    /// The busiest keys, by the space-saving algorithm: a new key replaces the key with the smallest count and inherits that
    /// count.
    top: Vec<(ClientKey, u64)>,
}

impl Sampler {
    /// Makes one shard for each of this many threads. Further threads share shards.
    pub(super) fn new(now: Instant, threads: usize) -> Self {
        Self {
            shards: (0..threads.max(1)).map(|_| Shard(Mutex::default())).collect(),
            second: Second {
                begun: Mutex::new(now),
                written: AtomicU64::new(0),
                firsts: AtomicU64::new(0),
                known: Mutex::default(),
                seen: EnumMap::default(),
            },
        }
    }

    /// Counts a line. Returns whether it is written if `rate` limits lines.
    pub(super) fn passes(
        &self,
        class: Class,
        key: Option<ClientKey>,
        zone: Option<&Arc<str>>,
        rate: Option<Rate>,
    ) -> bool {
        let Some(rate) = rate.map(a_second) else { return true };
        let mut counted = self.shards[thread_number() % self.shards.len()].0.lock();
        let window = counted.windows.entry(class).or_insert_with(|| Window::begin(zone));
        window.record(key, zone);
        let is_first_of_class = self.second.is_first_of(class);
        let is_within = self.second.takes_one(rate);
        let is_first_of_client =
            key.is_some_and(|key| self.second.is_first_of_client(key, &mut counted, is_within, rate));
        let passes = is_within || is_first_of_client || is_first_of_class;
        if !passes && let Some(window) = counted.windows.get_mut(&class) {
            window.left_out += 1;
        }
        passes
    }

    /// Begins a new second, and returns the sums of the last one.
    pub(super) fn sums(&self, now: Instant) -> Vec<Sum> {
        let mut shards: Vec<MutexGuard<'_, Counted>> = self.shards.iter().map(|shard| shard.0.lock()).collect();
        let begun = self.second.begin_anew(now);
        let counted: Vec<Counted> = shards.iter_mut().map(|shard| std::mem::take(&mut **shard)).collect();
        drop(shards);
        let mut windows: BTreeMap<Class, Window> = BTreeMap::new();
        for (class, window) in counted.into_iter().flat_map(|counted| counted.windows) {
            match windows.get_mut(&class) {
                Some(sum) => sum.add(window),
                None => drop(windows.insert(class, window)),
            }
        }
        let seconds = now.saturating_duration_since(begun).as_secs().max(1);
        windows
            .into_iter()
            .filter(|(_, window)| window.left_out > 0)
            .map(|(class, window)| Sum {
                class,
                lines: window.lines,
                left_out: window.left_out,
                zone: window.zone,
                top: window.top.into_iter().max_by_key(|(_, count)| *count),
                seconds,
            })
            .collect()
    }
}

impl Second {
    /// Begins a new second at `now`. Returns when the last one began.
    fn begin_anew(&self, now: Instant) -> Instant {
        self.written.store(0, Relaxed);
        self.firsts.store(0, Relaxed);
        self.known.lock().clear();
        for seen in self.seen.values() {
            seen.store(false, Relaxed);
        }
        std::mem::replace(&mut self.begun.lock(), now)
    }

    /// Whether this is the first line of its class in this second.
    fn is_first_of(&self, class: Class) -> bool {
        let seen = &self.seen[class];
        !seen.load(Relaxed) && !seen.swap(true, Relaxed)
    }

    /// Takes one of the lines that `rate` allows, if one is left.
    fn takes_one(&self, rate: u64) -> bool {
        let take = |written| (written < rate).then_some(written + 1);
        self.written.load(Relaxed) < rate && self.written.fetch_update(Relaxed, Relaxed, take).is_ok()
    }

    /// Whether this line is written as the first of its client. `is_within` says that it is within the rate; else it takes
    /// one of the places above the rate.
    fn is_first_of_client(&self, key: ClientKey, counted: &mut Counted, is_within: bool, rate: u64) -> bool {
        let has_room = || is_within || self.firsts.load(Relaxed) < rate.min(MOST_FIRSTS);
        if !has_room() || counted.known.contains(&key) {
            return false;
        }
        let mut known = self.known.lock();
        let is_first = has_room() && known.len() < MOST_KNOWN && known.insert(key);
        if is_first && !is_within {
            self.firsts.fetch_add(1, Relaxed);
        }
        if known.contains(&key) {
            counted.known.insert(key);
        }
        is_first
    }
}

impl Window {
    fn begin(zone: Option<&Arc<str>>) -> Self {
        Self {
            lines: 0,
            left_out: 0,
            zone: zone.cloned(),
            top: Vec::new(),
        }
    }

    /// Adds the counts of another shard.
    fn add(&mut self, other: Self) {
        self.lines += other.lines;
        self.left_out += other.left_out;
        if self.zone != other.zone {
            self.zone = None;
        }
        for (key, count) in other.top {
            match self.top.iter_mut().find(|(known, _)| *known == key) {
                Some((_, sum)) => *sum += count,
                None => self.top.push((key, count)),
            }
        }
    }

    fn record(&mut self, key: Option<ClientKey>, zone: Option<&Arc<str>>) {
        self.lines += 1;
        if self.zone.as_ref() != zone {
            self.zone = None;
        }
        let Some(key) = key else { return };
        if let Some((_, count)) = self.top.iter_mut().find(|(known, _)| *known == key) {
            *count += 1;
        } else if self.top.len() < TOP {
            self.top.push((key, 1));
        } else if let Some(least) = self.top.iter_mut().min_by_key(|(_, count)| *count) {
            *least = (key, least.1 + 1);
        }
    }
}

impl Sum {
    /// The sum as a message: `12345 refusals in 1 s: per_ip, top client 203.0.113.7 with 12300`.
    pub(super) fn text(&self) -> String {
        let what = format!(
            "{} {} in {} s: {}",
            self.lines,
            self.class.plural(),
            self.seconds,
            self.class.reason()
        );
        match self.top {
            Some((key, count)) => format!("{what}, top client {key} with {count}"),
            None => what,
        }
    }
}

/// A number for this thread: the first thread that asks gets 0, the next one 1.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Relaxed);
    }
    OWN.with(|own| *own)
}

fn a_second(rate: Rate) -> u64 {
    let per = rate.per.as_millis().max(1);
    u64::try_from(u128::from(rate.tokens.get()) * 1000 / per)
        .unwrap_or(u64::MAX)
        .max(1)
}

/// The number of keys that are counted to find the busiest one. A key with more than a sixteenth of the lines is always
/// among them.
const TOP: usize = 16;
/// The most clients whose first line is written above the rate, however high the rate is.
const MOST_FIRSTS: u64 = 1024;
/// The most clients in `Second::known`.
const MOST_KNOWN: usize = 4096;

#[cfg(test)]
mod tests;
