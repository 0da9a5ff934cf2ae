//! The sockets of one listener that are not admitted yet: their number is bounded, and the one that has waited longest
//! gives way to a newcomer.

mod shard;

use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

pub use self::shard::{Ended, PerIpFull};

use self::shard::{Oldest, Seat, Shard, Total};
use super::key::ClientKey;
use super::sync::{AtomicU64, Ordering, RandomState};

/// The rules of a room. A change holds for newcomers; no seat is ended for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingRules {
    /// Seats that may wait, at least 1: 0 counts as 1.
    pub max: u32,
    /// Seats of one key; `None` is off.
    pub max_per_ip: Option<u32>,
    /// How long a seat may wait.
    pub timeout: Duration,
}

/// The pending sockets of one listener.
///
/// At most `max` wait at once. An ended seat does not wait any more, but is counted until it is dropped, so that the count
/// is that of descriptors.
///
/// When a newcomer needs a seat, silent ones give way first. A seat that was not looked at yet is not silent: a request may
/// be there unread. And where the silent ones are few among many ([`FEW`]), one that has begun a head and is slow
/// ([`DAWDLES`]) gives way before one that has only just come ([`GRACE`]). Otherwise, in a room full of half heads, every
/// newcomer would give way to the next.
///
/// Seats are in shards, each with a lock of its own, by the hash of their key. No two shards are locked at once. A newcomer
/// takes its seat and is counted by an atomic; only where all seats are taken it looks at every shard, one after the other,
/// for the seat that gives way.
pub struct PendingRoom {
    rules: Rules,
    /// The first arrival; times are nanoseconds since.
    epoch: OnceLock<Instant>,
    hasher: RandomState,
    shards: Box<[Shard]>,
    counts: Counts,
}

/// The rules, each for itself: a newcomer during a change may see some new ones and some old ones.
struct Rules {
    max: AtomicU64,
    /// More than fits a `u32` is off.
    max_per_ip: AtomicU64,
    /// Nanoseconds.
    timeout: AtomicU64,
}

/// What every newcomer writes.
#[repr(align(128))] // Apart from what every newcomer reads.
struct Counts {
    /// The number of the last arrival.
    arrivals: AtomicU64,
    /// Waiting seats, less those of newcomers that are not counted yet: never above `max`. A seat is counted after it is
    /// there, and counted off under the lock under which it goes. So it is below 0, as a signed number, for the moment in
    /// which the deadline of a seat passes before the seat is counted.
    waiting: AtomicU64,
    /// Seats that are not dropped yet.
    taken: AtomicU64,
}

impl PendingRoom {
    /// An empty room.
    pub fn new(rules: PendingRules) -> Arc<Self> {
        let room = Self {
            rules: Rules {
                max: AtomicU64::new(0),
                max_per_ip: AtomicU64::new(0),
                timeout: AtomicU64::new(0),
            },
            epoch: OnceLock::new(),
            hasher: RandomState::default(),
            shards: std::iter::repeat_with(Shard::default).take(SHARDS.into()).collect(),
            counts: Counts {
                arrivals: AtomicU64::new(0),
                waiting: AtomicU64::new(0),
                taken: AtomicU64::new(0),
            },
        };
        room.set_rules(rules);
        Arc::new(room)
    }

    /// Changes the rules for newcomers.
    pub fn set_rules(&self, rules: PendingRules) {
        let timeout = u64::try_from(rules.timeout.as_nanos()).unwrap_or(u64::MAX);
        self.rules.max.store(rules.max.into(), Ordering::Relaxed);
        self.rules
            .max_per_ip
            .store(rules.max_per_ip.map_or(u64::MAX, u64::from), Ordering::Relaxed);
        self.rules.timeout.store(timeout, Ordering::Relaxed);
    }

    /// Takes a seat. Where all are taken, the one that has waited longest gives way, silent ones first (see
    /// [`PendingRoom`]). A socket without a key (`None`, a trusted peer) has no cap per key.
    ///
    /// # Errors
    /// The key has its cap; then no seat gives way.
    pub fn enter(self: &Arc<Self>, key: Option<ClientKey>, now: Instant) -> Result<Pending, PerIpFull> {
        let now = nanos_since(*self.epoch.get_or_init(|| now), now);
        let number = self.counts.arrivals.fetch_add(1, Ordering::Relaxed) + 1;
        let hash = key.map_or(number << 32, |key| self.hash(&key));
        let deadline = now.saturating_add(self.rules.timeout.load(Ordering::Relaxed));
        let mut seats = self.shard(hash).lock();
        if let Some(key) = key {
            seats.count_key(key, hash, self.max_per_ip(), |key| self.hash(key))?;
        }
        seats.add(number, key, now, deadline);
        drop(seats);
        self.counts.taken.fetch_add(1, Ordering::Relaxed);
        let seat = Pending {
            room: Arc::clone(self),
            number,
            home: shard_of(hash),
            is_silent: AtomicBool::new(false),
        };
        self.make_room(now);
        Ok(seat)
    }

    /// Ends every seat whose deadline has passed; returns when the next one is due, `None` when no seat waits.
    pub fn expire(&self, now: Instant) -> Option<Instant> {
        let epoch = *self.epoch.get()?;
        let now = nanos_since(epoch, now);
        let mut wakers = Vec::new();
        let mut next: Option<u64> = None;
        for shard in &self.shards {
            let mut seats = shard.lock();
            while let Some(seat) = seats.end_late(now) {
                self.counts.waiting.fetch_sub(1, Ordering::AcqRel);
                wakers.extend(seat.into_waker());
            }
            next = next.into_iter().chain(seats.deadline()).min();
        }
        // Outside of every lock: they may run code that comes back here.
        wakers.into_iter().for_each(Waker::wake);
        next.and_then(|next| epoch.checked_add(Duration::from_nanos(next)))
    }

    /// The rules for newcomers.
    pub fn rules(&self) -> PendingRules {
        PendingRules {
            max: u32::try_from(self.rules.max.load(Ordering::Relaxed)).unwrap_or(u32::MAX),
            max_per_ip: self.max_per_ip(),
            timeout: Duration::from_nanos(self.rules.timeout.load(Ordering::Relaxed)),
        }
    }

    /// Seats taken, including those that were ended but not yet dropped.
    pub fn taken(&self) -> u32 {
        u32::try_from(self.counts.taken.load(Ordering::Relaxed)).unwrap_or(u32::MAX)
    }

    /// Whether half of the seats or more are taken.
    pub fn is_half_taken(&self) -> bool {
        u64::from(self.taken()) * 2 >= self.rules.max.load(Ordering::Relaxed)
    }

    /// Counts a newcomer whose seat is there, and ends the seat that gives way to it, if one has to.
    fn make_room(&self, now: u64) {
        let max = self.rules.max.load(Ordering::Relaxed).max(1);
        let counted = |waiting: u64| (waiting.cast_signed() < max.cast_signed()).then(|| waiting.wrapping_add(1));
        while self
            .counts
            .waiting
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, counted)
            .is_err()
        {
            // The count stays, and with it one seat is owed: several newcomers at once end no more than are too many.
            if let Some(seat) = self.end_longest_waiting(max, now) {
                // Outside of every lock: it may run code that comes back here.
                seat.into_waker().into_iter().for_each(Waker::wake);
                return;
            }
        }
    }

    /// Ends the seat that has waited longest; `None` where no more wait than may: others have left meanwhile.
    fn end_longest_waiting(&self, max: u64, now: u64) -> Option<Seat> {
        loop {
            let (mut silent, mut others) = (Total::default(), Total::default());
            for shard in &self.shards {
                let [silent_here, others_here] = shard.lock().classes();
                silent.add(silent_here, shard);
                others.add(others_here, shard);
            }
            if (silent.count + others.count) as u64 <= max {
                return None;
            }
            let waited = |seat: Oldest, span: Duration| u128::from(now.saturating_sub(seat.arrived)) >= span.as_nanos();
            // The newcomer is among the others.
            let few = silent.count.saturating_mul(FEW) < others.count.saturating_sub(1);
            let (seat, shard) = match (silent.oldest, others.oldest) {
                (Some((silent, _)), Some((other, shard)))
                    if few && !waited(silent, GRACE) && waited(other, DAWDLES) =>
                {
                    (other, shard)
                }
                (Some(oldest), _) | (None, Some(oldest)) => oldest,
                (None, None) => return None,
            };
            // Gone meanwhile? Then there is another that has waited longest.
            let ended = shard.lock().end(seat.number, Ended::GaveWay);
            if ended.is_some() {
                return ended;
            }
        }
    }

    fn max_per_ip(&self) -> Option<u32> {
        // What says that it is off does not fit.
        u32::try_from(self.rules.max_per_ip.load(Ordering::Relaxed)).ok()
    }

    fn hash(&self, key: &ClientKey) -> u64 {
        self.hasher.hash_one(key)
    }

    fn shard(&self, hash: u64) -> &Shard {
        &self.shards[usize::from(shard_of(hash))]
    }

    fn uncount_key(&self, key: ClientKey) {
        let hash = self.hash(&key);
        self.shard(hash).lock().uncount_key(key, hash, |key| self.hash(key));
    }
}

impl fmt::Debug for PendingRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingRoom")
            .field("taken", &self.taken())
            .finish_non_exhaustive()
    }
}

/// A seat in a [`PendingRoom`]; dropping it frees it.
#[must_use = "dropping it frees the seat"]
pub struct Pending {
    room: Arc<PendingRoom>,
    /// The number of its arrival.
    number: u64,
    /// The position of the shard that it is in.
    home: u8,
    /// What was said of it last, so that what is no change takes no lock.
    is_silent: AtomicBool,
}

impl Pending {
    /// It was looked at and has sent nothing so far: from here on it gives way before those that have. Not to be called
    /// after [`Pending::heard`].
    pub fn is_silent(&self) {
        if !self.is_silent.swap(true, Ordering::Relaxed) {
            self.shard().lock().fall_silent(self.number);
        }
    }

    /// Its refusal is decided and only held back, so that the client does not return at once. From here on it gives way
    /// before seats that are not decided yet.
    pub fn is_answered(&self) {
        self.is_silent();
    }

    /// It has sent a byte: from here on it gives way after the silent ones.
    pub fn heard(&self) {
        if self.is_silent.swap(false, Ordering::Relaxed) {
            self.shard().lock().hear(self.number);
        }
    }

    /// Counts it under another key from here on, as a PROXY header asks. An ended seat is moved too.
    ///
    /// # Errors
    /// The other key is at its cap; the seat stays counted under the old one.
    pub fn rekey(&mut self, key: Option<ClientKey>) -> Result<(), PerIpFull> {
        let room = &*self.room;
        let before = self.shard().lock().key_mut(self.number).and_then(|key| *key);
        if before == key {
            return Ok(());
        }
        if let Some(key) = key {
            let hash = room.hash(&key);
            room.shard(hash)
                .lock()
                .count_key(key, hash, room.max_per_ip(), |key| room.hash(key))?;
        }
        if let Some(counted_under) = self.shard().lock().key_mut(self.number) {
            *counted_under = key;
        }
        if let Some(before) = before {
            room.uncount_key(before);
        }
        Ok(())
    }

    /// Ready once the seat was ended; else the task is woken when it is. One task at a time: the last to ask is woken.
    pub fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<Ended> {
        let mut seats = self.shard().lock();
        let (ended, before) = (seats.ended(self.number), seats.set_waker(self.number, cx));
        drop(seats);
        // Outside of the lock: it may run code that comes back here.
        drop(before);
        ended.map_or(Poll::Pending, Poll::Ready)
    }

    /// How the seat was ended, if it was.
    pub fn ended(&self) -> Option<Ended> {
        self.shard().lock().ended(self.number)
    }

    fn shard(&self) -> &Shard {
        &self.room.shards[usize::from(self.home)]
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let room = &*self.room;
        let mut seats = self.shard().lock();
        let seat = seats.leave(self.number);
        let mut key = match &seat {
            Some(seat) => {
                room.counts.waiting.fetch_sub(1, Ordering::AcqRel);
                seat.key()
            }
            None => seats.forget_ended(self.number),
        };
        // Most keys are counted where their seats are: then one lock does.
        let hash = key.map(|key| room.hash(&key));
        if let Some((hash, at_home)) = hash.zip(key).filter(|(hash, _)| shard_of(*hash) == self.home) {
            seats.uncount_key(at_home, hash, |key| room.hash(key));
            key = None;
        }
        drop(seats);
        if let Some(elsewhere) = key {
            room.uncount_key(elsewhere);
        }
        room.counts.taken.fetch_sub(1, Ordering::Relaxed);
        // Its waker outside of the lock: it may run code that comes back here.
        drop(seat);
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

fn nanos_since(epoch: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(epoch).as_nanos()).unwrap_or(u64::MAX)
}

fn shard_of(hash: u64) -> u8 {
    u8::try_from((hash >> 32) % u64::from(SHARDS)).unwrap_or_default()
}

/// Enough for the cores that accept; a power of two.
const SHARDS: u8 = if cfg!(loom) { 2 } else { 8 };

/// Silent sockets are few if there is less than one of them for this many others.
pub const FEW: usize = 8;

/// How long an honest client's first bytes may be on their way behind its connection.
pub const GRACE: Duration = Duration::from_millis(100);

/// How soon a head that has begun should have come to its end.
pub const DAWDLES: Duration = Duration::from_millis(100);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
