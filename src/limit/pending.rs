//! Counts the sockets of one listener that are not admitted yet, and bounds their number, in all and by client. When the
//! room is full, the socket that has waited longest gives its seat to the new one.

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

/// The rules of a room. A change applies to sockets that arrive later; it ends no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingRules {
    /// The most seats that may wait; 0 counts as 1.
    pub max: u32,
    /// The most seats of one key; `None` is off.
    pub max_per_ip: Option<u32>,
    /// How long a seat may wait.
    pub timeout: Duration,
}

/// The pending sockets of one listener.
///
/// At most `max` seats wait at once. An ended seat no longer waits, but [`PendingRoom::taken`] counts it until it is
/// dropped and its descriptor is free.
///
/// In a full room a silent seat gives way first. A seat whose socket was not read yet is not silent, since a request
/// may already be there. There is one exception: if only few of the seats are silent ([`FEW`]), a seat whose head is
/// slow ([`SLOW_HEAD`]) gives way before a silent one that has only just arrived ([`GRACE`]). Otherwise, in a room full
/// of incomplete heads, every new socket would lose its seat to the next one.
///
/// Seats are in shards by the hash of their key. Each shard has its own lock, and no two are locked at once. A new
/// socket locks only its own shard and is counted by an atomic. Only if all seats are taken, every shard is looked at,
/// one after the other, for the seat that gives way.
pub struct PendingRoom {
    rules: Rules,
    /// The first arrival. Times are nanoseconds since then.
    epoch: OnceLock<Instant>,
    hasher: RandomState,
    shards: Box<[Shard]>,
    counts: Counts,
}

/// The rules, each an atomic of its own: a socket that arrives during a change may see some old and some new ones.
struct Rules {
    max: AtomicU64,
    /// A value that does not fit a `u32` means off.
    max_per_ip: AtomicU64,
    /// Nanoseconds.
    timeout: AtomicU64,
}

/// The counts that every new socket writes.
#[repr(align(128))] // On other cache lines than the fields that every new socket reads.
struct Counts {
    /// The number of the last arrival.
    arrivals: AtomicU64,
    /// The number of waiting seats, without new ones that are not counted yet; never above `max`. A seat is first added
    /// and then counted, but it is removed and uncounted under the same lock. So the number is below 0 (read as signed)
    /// for a moment if the deadline of a seat passes before the seat is counted.
    waiting: AtomicU64,
    /// The number of seats that are not dropped yet.
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

    /// Changes the rules for sockets that arrive from now on.
    pub fn set_rules(&self, rules: PendingRules) {
        let timeout = u64::try_from(rules.timeout.as_nanos()).unwrap_or(u64::MAX);
        self.rules.max.store(rules.max.into(), Ordering::Relaxed);
        self.rules
            .max_per_ip
            .store(rules.max_per_ip.map_or(u64::MAX, u64::from), Ordering::Relaxed);
        self.rules.timeout.store(timeout, Ordering::Relaxed);
    }

    /// Takes a seat. If all are taken, the seat that has waited longest gives way, silent ones first (see
    /// [`PendingRoom`]). A socket without a key (`None`, a trusted peer) has no cap per key.
    ///
    /// # Errors
    /// The key is at its cap. Then no seat gives way.
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

    /// Ends every seat whose deadline has passed. Returns the next deadline; `None` if no seat waits.
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

    /// The rules for sockets that arrive now.
    pub fn rules(&self) -> PendingRules {
        PendingRules {
            max: u32::try_from(self.rules.max.load(Ordering::Relaxed)).unwrap_or(u32::MAX),
            max_per_ip: self.max_per_ip(),
            timeout: Duration::from_nanos(self.rules.timeout.load(Ordering::Relaxed)),
        }
    }

    /// The number of seats taken, including those that were ended but not dropped yet.
    pub fn taken(&self) -> u32 {
        u32::try_from(self.counts.taken.load(Ordering::Relaxed)).unwrap_or(u32::MAX)
    }

    /// Whether at least half of the seats are taken.
    pub fn is_half_taken(&self) -> bool {
        u64::from(self.taken()) * 2 >= self.rules.max.load(Ordering::Relaxed)
    }

    /// Counts a new seat, which the caller has already added. If the room is full, a seat gives way and is ended.
    fn make_room(&self, now: u64) {
        let max = self.rules.max.load(Ordering::Relaxed).max(1);
        let counted = |waiting: u64| (waiting.cast_signed() < max.cast_signed()).then(|| waiting.wrapping_add(1));
        while self
            .counts
            .waiting
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, counted)
            .is_err()
        {
            // The count does not change: the new seat replaces the ended one. So several new seats at once end no more
            // than are too many.
            if let Some(seat) = self.end_longest_waiting(max, now) {
                // Outside of every lock: it may run code that comes back here.
                seat.into_waker().into_iter().for_each(Waker::wake);
                return;
            }
        }
    }

    /// Ends the seat that has waited longest. `None` if no more than `max` wait, because others have left in the
    /// meantime.
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
            // The others include the new seat, which is not compared.
            let few = silent.count.saturating_mul(FEW) < others.count.saturating_sub(1);
            let (seat, shard) = match (silent.oldest, others.oldest) {
                (Some((silent, _)), Some((other, shard)))
                    if few && !waited(silent, GRACE) && waited(other, SLOW_HEAD) =>
                {
                    (other, shard)
                }
                (Some(oldest), _) | (None, Some(oldest)) => oldest,
                (None, None) => return None,
            };
            // It may have left in the meantime. Then another has waited longest.
            let ended = shard.lock().end(seat.number, Ended::GaveWay);
            if ended.is_some() {
                return ended;
            }
        }
    }

    fn max_per_ip(&self) -> Option<u32> {
        // The value for off does not fit.
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

/// A seat in a [`PendingRoom`]. Dropping it frees it.
#[must_use = "dropping it frees the seat"]
pub struct Pending {
    room: Arc<PendingRoom>,
    /// The number of its arrival.
    number: u64,
    /// The position of the shard that it is in.
    home: u8,
    /// Whether it was last reported silent, so that a report without a change takes no lock.
    is_silent: AtomicBool,
}

impl Pending {
    /// Reports that its socket was read and nothing has arrived: from now on it gives way before seats that have sent
    /// something. Not to be called after [`Pending::heard`].
    pub fn is_silent(&self) {
        if !self.is_silent.swap(true, Ordering::Relaxed) {
            self.shard().lock().fall_silent(self.number);
        }
    }

    /// Reports that its refusal is decided and only delayed, so that the client does not return at once. From now on it
    /// gives way before seats that are not decided yet.
    pub fn is_answered(&self) {
        self.is_silent();
    }

    /// Reports that its socket has sent a byte: from now on it gives way after the silent seats.
    pub fn heard(&self) {
        if self.is_silent.swap(false, Ordering::Relaxed) {
            self.shard().lock().hear(self.number);
        }
    }

    /// Counts it under another key from now on, because a PROXY header names another client. An ended seat is moved
    /// too.
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

    /// Ready once the seat was ended; otherwise the task is woken when that happens. Only the task that polled last is
    /// woken.
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
        // Most keys are counted in the shard of their seat. Then one lock is enough.
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
        // Its waker is dropped outside of the lock: it may run code that comes back here.
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

/// Enough for all cores that accept; a power of two.
const SHARDS: u8 = if cfg!(loom) { 2 } else { 8 };

/// Silent seats are few if there is less than one for this many others.
pub const FEW: usize = 8;

/// How long the first bytes of an honest client may take after its connection.
pub const GRACE: Duration = Duration::from_millis(100);

/// A head that is incomplete after this long is slow.
pub const SLOW_HEAD: Duration = Duration::from_millis(100);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
