//! The client table: the open connections and the bucket of every (zone, client key), in shards with one lock each.
//!
//! An entry is made when a connection is admitted. When the last connection of its key ends, the entry is removed at
//! once if its buckets were never charged. Otherwise it becomes idle, and [`Table::sweep`] removes it once its buckets
//! are full. The end of a connection can't find that out, because it does not know the time.
//!
//! Above its size the table evicts the entry that has been idle longest, whichever shard it is in. An entry with open
//! connections is never evicted. No two shards are ever locked at once.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::ops::Bound;
use std::sync::Arc;

use hashbrown::HashTable;

use super::bucket::{Bucket, Meter, Moment};
use super::key::ClientKey;
use super::shares::Shares;
use super::sync::{AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, RandomState};

/// The table. Its size bounds the idle entries: entries with open connections stay even above it, because a lost count
/// would be a leak. The configuration makes the size at least the ceiling on open connections. So the table exceeds its
/// size only for a moment, since a new entry is made before another is evicted.
pub(super) struct Table {
    shards: Box<[Shard]>,
    hasher: RandomState,
    size: usize,
    /// The entries in all shards, without those that a thread is about to evict.
    entries: AtomicUsize,
    evictions: AtomicU64,
    /// The next stamp. Eviction needs only the order of the stamps, not times.
    stamps: AtomicU64,
}

/// One (zone, client key).
pub(super) struct Entry {
    bucket: Bucket,
    /// When it became idle, as a stamp that no other entry has; 0 while it has open connections.
    idle: u64,
    pub(super) zone: u32,
    pub(super) open: u32,
    pub(super) key: ClientKey,
}

#[repr(align(64))] // Each on its own cache line, so that neighbours do not slow each other.
struct Shard {
    /// The lowest stamp of an idle entry of this shard; `u64::MAX` if there is none. Written under the lock, read
    /// without it.
    oldest: AtomicU64,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    entries: HashTable<Entry>,
    /// The hashes of the idle entries, by stamp. There are no stale ones, so it needs no bound of its own.
    idle: BTreeMap<u64, u64>,
    /// The buckets that the connections of an entry share. They are kept outside of the entries, so that entries
    /// without them stay small.
    shares: AllShares,
    /// The last stamp that a sweep looked at.
    swept: u64,
}

type AllShares = HashMap<(u32, ClientKey), Arc<Shares>, RandomState>;

impl Table {
    pub(super) fn new(size: u32) -> Self {
        let shard = || Shard {
            oldest: AtomicU64::new(u64::MAX),
            kept: Mutex::default(),
        };
        Self {
            shards: std::iter::repeat_with(shard).take(SHARDS).collect(),
            hasher: RandomState::new(),
            size: usize::try_from(size).unwrap_or(usize::MAX),
            entries: AtomicUsize::new(0),
            evictions: AtomicU64::new(0),
            stamps: AtomicU64::new(1),
        }
    }

    /// Locks the client's shard and looks the client up. The lock is held until the place is dropped, so everything
    /// done with it is one decision.
    pub(super) fn place(&self, zone: u32, key: ClientKey) -> Place<'_> {
        let hash = self.hasher.hash_one((zone, key));
        let shard = self.shard(hash);
        let kept = shard.kept.lock();
        let known = kept.entries.find(hash, |entry| entry.is(zone, key));
        let (open, bucket) = known.map_or_else(Default::default, |entry| (entry.open, entry.bucket));
        Place {
            table: self,
            shard,
            kept,
            hash,
            zone,
            key,
            open,
            bucket,
        }
    }

    /// One connection of this key has ended.
    pub(super) fn close_one(&self, zone: u32, key: ClientKey) {
        let hash = self.hasher.hash_one((zone, key));
        let shard = self.shard(hash);
        let mut kept = shard.kept.lock();
        let Kept {
            entries, idle, shares, ..
        } = &mut *kept;
        let Ok(mut found) = entries.find_entry(hash, |entry| entry.is(zone, key)) else {
            debug_assert!(false, "an open entry is never removed");
            return;
        };
        let entry = found.get_mut();
        entry.open -= 1;
        if entry.open > 0 {
            return;
        }
        let buckets = shares.get(&(zone, key));
        if entry.bucket.is_untouched() && buckets.is_none_or(|buckets| buckets.is_untouched()) {
            forget_shares(shares, (zone, key));
            found.remove();
            self.entries.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let stamp = self.stamps.fetch_add(1, Ordering::Relaxed);
        entry.idle = stamp;
        idle.insert(stamp, hash);
        shard.publish_oldest(idle);
    }

    /// Evicts entries until the table is within its size again or no entry is idle. Not to be called while a [`Place`]
    /// is held.
    pub(super) fn evict_excess(&self) {
        let above = |entries| (entries > self.size).then(|| entries - 1);
        // Counting down before evicting claims the eviction, so several threads at once evict no more than the excess.
        while self
            .entries
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, above)
            .is_ok()
        {
            if !self.evict_longest_idle() {
                self.entries.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }

    /// Forgets idle entries whose buckets are full. Each call looks at up to [`SWEPT_A_SHARD`] entries of each shard,
    /// and the next call continues after them. Returns how many it looked at.
    pub(super) fn sweep(&self, now: Moment) -> usize {
        let mut looked = 0;
        for shard in &self.shards {
            if shard.oldest.load(Ordering::Acquire) == u64::MAX {
                continue;
            }
            let mut kept = shard.kept.lock();
            let (visited, forgotten) = kept.sweep(now);
            looked += visited;
            self.entries.fetch_sub(forgotten, Ordering::Relaxed);
            shard.publish_oldest(&kept.idle);
            if kept.entries.capacity() > kept.entries.len().saturating_mul(8).max(SPARE) {
                let room = kept.entries.len() * 2;
                kept.entries.shrink_to(room, |entry| self.hash_of(entry));
            }
        }
        looked
    }

    /// How many entries were evicted since the start.
    pub(super) fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// Calls `visitor` with every entry. It locks one shard at a time, so together they are not a snapshot.
    pub(super) fn visit(&self, mut visitor: impl FnMut(&Entry)) {
        for shard in &self.shards {
            shard.kept.lock().entries.iter().for_each(&mut visitor);
        }
    }

    fn evict_longest_idle(&self) -> bool {
        loop {
            let oldest = self
                .shards
                .iter()
                .map(|shard| (shard.oldest.load(Ordering::Acquire), shard));
            let Some((stamp, shard)) = oldest
                .min_by_key(|(stamp, _)| *stamp)
                .filter(|(stamp, _)| *stamp != u64::MAX)
            else {
                return false;
            };
            let mut kept = shard.kept.lock();
            // Before the lock was taken, the entry may have been opened again or removed. Then another one is the
            // oldest.
            let was_there = kept.forget(stamp);
            shard.publish_oldest(&kept.idle);
            if was_there {
                self.evictions.fetch_add(1, Ordering::Relaxed);
                return true;
            }
        }
    }

    fn shard(&self, hash: u64) -> &Shard {
        // The hash table uses the lowest and the highest bits.
        &self.shards[(hash >> 32) as usize % SHARDS]
    }

    fn hash_of(&self, entry: &Entry) -> u64 {
        self.hasher.hash_one((entry.zone, entry.key))
    }
}

/// A client's place in the table, under its shard's lock.
pub(super) struct Place<'a> {
    table: &'a Table,
    shard: &'a Shard,
    kept: MutexGuard<'a, Kept>,
    hash: u64,
    zone: u32,
    key: ClientKey,
    open: u32,
    bucket: Bucket,
}

impl Place<'_> {
    /// How many connections the client has open.
    pub(super) fn open(&self) -> u32 {
        self.open
    }

    /// A copy of the client's bucket.
    pub(super) fn bucket(&self) -> Bucket {
        self.bucket
    }

    /// Whether the client's bucket has a token.
    pub(super) fn has_token(&mut self, meter: Meter, now: Moment) -> bool {
        if self.bucket.forgive(meter, now) {
            let (zone, key, bucket) = (self.zone, self.key, self.bucket);
            if let Some(entry) = self.kept.entries.find_mut(self.hash, |entry| entry.is(zone, key)) {
                entry.bucket = bucket;
            }
        }
        self.bucket.has_token(meter, now)
    }

    /// Counts one more open connection, and takes a token if a meter is given and a token is there. Makes the entry if
    /// there is none; then [`Table::evict_excess`] must be called. Returns the buckets that the client's connections
    /// share, if they share any.
    pub(super) fn open_one(mut self, charge: Option<(Meter, Moment)>, shares: bool) -> Option<Arc<Shares>> {
        if let Some((meter, now)) = charge {
            self.bucket.take(meter, now);
        }
        let Self {
            table,
            shard,
            kept,
            hash,
            zone,
            key,
            bucket,
            ..
        } = &mut self;
        let Kept {
            entries,
            idle,
            shares: all_shares,
            ..
        } = &mut **kept;
        if let Some(entry) = entries.find_mut(*hash, |entry| entry.is(*zone, *key)) {
            entry.open += 1;
            entry.bucket = *bucket;
            if entry.idle != 0 {
                idle.remove(&std::mem::take(&mut entry.idle));
                shard.publish_oldest(idle);
            }
        } else {
            let entry = Entry {
                bucket: *bucket,
                idle: 0,
                zone: *zone,
                open: 1,
                key: *key,
            };
            entries.insert_unique(*hash, entry, |entry| table.hash_of(entry));
            table.entries.fetch_add(1, Ordering::Relaxed);
        }
        shares.then(|| Arc::clone(all_shares.entry((*zone, *key)).or_default()))
    }
}

impl Shard {
    /// To be called under the lock, after every change of `idle`.
    fn publish_oldest(&self, idle: &BTreeMap<u64, u64>) {
        let oldest = idle.first_key_value().map_or(u64::MAX, |(stamp, _)| *stamp);
        self.oldest.store(oldest, Ordering::Release);
    }
}

impl Kept {
    /// Returns how many idle entries it looked at, and how many it forgot.
    fn sweep(&mut self, now: Moment) -> (usize, usize) {
        let behind = (Bound::Excluded(self.swept), Bound::Unbounded);
        let due: Vec<(u64, u64)> = self
            .idle
            .range(behind)
            .take(SWEPT_A_SHARD)
            .map(|(stamp, hash)| (*stamp, *hash))
            .collect();
        self.swept = match due.last() {
            Some((stamp, _)) if due.len() == SWEPT_A_SHARD => *stamp,
            _ => 0,
        };
        let mut forgotten = 0;
        for (stamp, hash) in &due {
            let Ok(found) = self.entries.find_entry(*hash, |entry| entry.idle == *stamp) else {
                continue;
            };
            let of = (found.get().zone, found.get().key);
            let is_full = found.get().bucket.is_full(now);
            if is_full && self.shares.get(&of).is_none_or(|shares| shares.is_full(now)) {
                forget_shares(&mut self.shares, of);
                found.remove();
                self.idle.remove(stamp);
                forgotten += 1;
            }
        }
        (due.len(), forgotten)
    }

    /// Removes the idle entry with this stamp, and returns whether it was there.
    fn forget(&mut self, stamp: u64) -> bool {
        let Some(hash) = self.idle.remove(&stamp) else {
            return false;
        };
        let found = self.entries.find_entry(hash, |entry| entry.idle == stamp);
        found.is_ok_and(|found| {
            forget_shares(&mut self.shares, (found.get().zone, found.get().key));
            found.remove();
            true
        })
    }
}

impl Entry {
    fn is(&self, zone: u32, key: ClientKey) -> bool {
        self.zone == zone && self.key == key
    }
}

fn forget_shares(shares: &mut AllShares, of: (u32, ClientKey)) {
    // `remove` hashes the key even if the map is empty.
    if !shares.is_empty() {
        shares.remove(&of);
    }
}

/// Fewer under loom, which has to track each of them.
const SHARDS: usize = if cfg!(loom) { 8 } else { 64 };

/// How many idle entries of a shard one sweep looks at: some tens of microseconds under the lock.
pub(super) const SWEPT_A_SHARD: usize = 256;

/// A shard with room for fewer entries than this is not shrunk.
const SPARE: usize = 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
