//! One part of a pending room: its seats and the counts of its keys, under one lock.

use std::collections::{BTreeMap, BTreeSet};
use std::task::{Context, Waker};

use hashbrown::HashTable;

use crate::limit::key::ClientKey;
use crate::limit::sync::{Mutex, MutexGuard};

/// A part of a room.
#[derive(Default)]
#[repr(align(128))] // So that neighbours do not slow each other.
pub(super) struct Shard {
    seats: Mutex<Seats>,
}

/// The silent seats of a shard, or all others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Class {
    pub(super) count: usize,
    /// The seat that has waited longest.
    pub(super) oldest: Option<Oldest>,
}

/// A seat's number and time of arrival.
#[derive(Clone, Copy, Debug)]
pub(super) struct Oldest {
    pub(super) number: u64,
    pub(super) arrived: u64,
}

/// The silent seats of all shards, or all others.
#[derive(Default)]
pub(super) struct Total<'a> {
    pub(super) count: usize,
    pub(super) oldest: Option<(Oldest, &'a Shard)>,
}

impl<'a> Total<'a> {
    pub(super) fn add(&mut self, here: Class, shard: &'a Shard) {
        self.count += here.count;
        let oldest = here.oldest.map(|oldest| (oldest, shard));
        self.oldest = self
            .oldest
            .into_iter()
            .chain(oldest)
            .min_by_key(|(oldest, _)| oldest.number);
    }
}

/// Why a seat was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It had waited longest when the room was full.
    GaveWay,
    /// Its deadline has passed.
    Late,
}

/// A key has all the seats that it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerIpFull {
    /// Seats of the key.
    pub open: u32,
    /// Seats that it may have.
    pub of: u32,
}

impl Shard {
    pub(super) fn lock(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock()
    }
}

/// A seat is in exactly one of `silent`, `others` and `ended`, under its number, and its deadline in `deadlines` exactly
/// while it is in one of the first two.
#[derive(Default)]
pub(super) struct Seats {
    silent: BTreeMap<u64, Seat>,
    /// Seats that have sent something, and seats whose socket was not read yet.
    others: BTreeMap<u64, Seat>,
    ended: BTreeMap<u64, (Ended, Option<ClientKey>)>,
    /// Each with the number of its seat.
    deadlines: BTreeSet<(u64, u64)>,
    /// The number of seats, above 0, of each key whose hash belongs to this shard. The seats themselves may be in other
    /// shards.
    by_key: HashTable<(ClientKey, u32)>,
}

/// Times are in nanoseconds since the room's epoch, which takes half the space of an `Instant`.
pub(super) struct Seat {
    waker: Option<Waker>,
    /// The key that it is counted under.
    key: Option<ClientKey>,
    arrived: u64,
    deadline: u64,
}

impl Seat {
    /// The key that it was counted under.
    pub(super) fn key(&self) -> Option<ClientKey> {
        self.key
    }

    /// The waker of its holder, if that waits for the seat's end.
    pub(super) fn into_waker(self) -> Option<Waker> {
        self.waker
    }
}

impl Seats {
    /// Adds a new seat, whose socket was not read yet. It is counted under `key`.
    pub(super) fn add(&mut self, number: u64, key: Option<ClientKey>, arrived: u64, deadline: u64) {
        self.deadlines.insert((deadline, number));
        self.others.insert(
            number,
            Seat {
                waker: None,
                key,
                arrived,
                deadline,
            },
        );
    }

    pub(super) fn fall_silent(&mut self, number: u64) {
        if let Some(seat) = self.others.remove(&number) {
            self.silent.insert(number, seat);
        }
    }

    pub(super) fn hear(&mut self, number: u64) {
        if let Some(seat) = self.silent.remove(&number) {
            self.others.insert(number, seat);
        }
    }

    /// Ends a seat and returns it; `None` if it does not wait.
    pub(super) fn end(&mut self, number: u64, how: Ended) -> Option<Seat> {
        let seat = self.leave(number)?;
        self.ended.insert(number, (how, seat.key));
        Some(seat)
    }

    /// Ends a seat whose deadline has passed.
    pub(super) fn end_late(&mut self, now: u64) -> Option<Seat> {
        let (deadline, number) = self.deadlines.first().copied()?;
        if deadline > now {
            return None;
        }
        self.end(number, Ended::Late)
    }

    /// Removes a waiting seat.
    pub(super) fn leave(&mut self, number: u64) -> Option<Seat> {
        let seat = self.others.remove(&number).or_else(|| self.silent.remove(&number))?;
        self.deadlines.remove(&(seat.deadline, number));
        Some(seat)
    }

    /// Forgets a seat that was ended, and returns its key.
    pub(super) fn forget_ended(&mut self, number: u64) -> Option<ClientKey> {
        self.ended.remove(&number).and_then(|(_, key)| key)
    }

    pub(super) fn ended(&self, number: u64) -> Option<Ended> {
        self.ended.get(&number).map(|(how, _)| *how)
    }

    /// The key that a seat is counted under, whether it waits or was ended.
    pub(super) fn key_mut(&mut self, number: u64) -> Option<&mut Option<ClientKey>> {
        let waiting = self.others.get_mut(&number).or_else(|| self.silent.get_mut(&number));
        match waiting {
            Some(seat) => Some(&mut seat.key),
            None => self.ended.get_mut(&number).map(|(_, key)| key),
        }
    }

    /// The silent seats, then all others.
    pub(super) fn classes(&self) -> [Class; 2] {
        [&self.silent, &self.others].map(|seats| Class {
            count: seats.len(),
            oldest: seats.first_key_value().map(|(number, seat)| Oldest {
                number: *number,
                arrived: seat.arrived,
            }),
        })
    }

    /// The first deadline.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Sets the waker for the end of the seat, and returns the one before.
    pub(super) fn set_waker(&mut self, number: u64, cx: &Context<'_>) -> Option<Waker> {
        let seat = match self.silent.get_mut(&number) {
            Some(seat) => seat,
            None => self.others.get_mut(&number)?,
        };
        let knows_it = seat.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if knows_it {
            return None;
        }
        seat.waker.replace(cx.waker().clone())
    }

    /// Counts a seat of `key`, whose hash is `hash`. `hash_of` returns the hash of any key.
    pub(super) fn count_key(
        &mut self,
        key: ClientKey,
        hash: u64,
        max: Option<u32>,
        hash_of: impl Fn(&ClientKey) -> u64,
    ) -> Result<(), PerIpFull> {
        let counted = self.by_key.find_mut(hash, |(other, _)| *other == key);
        let open = counted.as_ref().map_or(0, |(_, open)| *open);
        if let Some(of) = max.filter(|of| open >= *of) {
            return Err(PerIpFull { open, of });
        }
        match counted {
            Some((_, open)) => *open += 1,
            None => {
                self.by_key.insert_unique(hash, (key, 1), |(other, _)| hash_of(other));
            }
        }
        Ok(())
    }

    pub(super) fn uncount_key(&mut self, key: ClientKey, hash: u64, hash_of: impl Fn(&ClientKey) -> u64) {
        let Ok(mut counted) = self.by_key.find_entry(hash, |(other, _)| *other == key) else {
            debug_assert!(false, "the key of a seat is counted");
            return;
        };
        let (_, open) = counted.get_mut();
        *open -= 1;
        if *open == 0 {
            counted.remove();
            // The memory that a flood needed is not kept.
            if self.by_key.capacity() > self.by_key.len().saturating_mul(8).max(KEYS_KEPT) {
                self.by_key
                    .shrink_to(self.by_key.len() * 2, |(other, _)| hash_of(other));
            }
        }
    }

    #[cfg(test)]
    pub(super) fn most_of_a_key(&self) -> u32 {
        self.by_key.iter().map(|(_, open)| *open).max().unwrap_or(0)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.silent.is_empty()
            && self.others.is_empty()
            && self.ended.is_empty()
            && self.deadlines.is_empty()
            && self.by_key.is_empty()
    }
}

/// Room for this many keys is kept.
const KEYS_KEPT: usize = 64;
