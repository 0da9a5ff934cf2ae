//! The room where sockets wait that are not admitted yet: bounded, and who waited longest gives way.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::key::ClientKey;
use super::sync::Mutex;

/// The rules of a room. What they are changed to holds for newcomers; nobody is sent out for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingRules {
    /// Seats in all, at least 1: 0 counts as 1.
    pub max: u32,
    /// Seats of one key; `None` is off.
    pub max_per_ip: Option<u32>,
    /// How long one may stay.
    pub timeout: Duration,
}

/// The pending sockets of one listener.
///
/// At most `max` wait at once. A seat that was ended waits no longer but is counted until it is dropped, so that the
/// count is that of descriptors.
///
/// When a newcomer needs a seat, silent ones give way first. Who was not looked at yet is not silent: a request may lie
/// there unread. And where the silent ones are few among many ([`FEW`]), one that has begun a head and dawdles
/// ([`DAWDLES`]) gives way before one that has only just come ([`GRACE`]): else a room full of half heads would have every
/// newcomer give way to the next.
pub struct PendingRoom {
    // Wakers are woken and dropped only after it is unlocked: both may run code that comes back here.
    state: Mutex<State>,
}

impl PendingRoom {
    /// An empty room.
    pub fn new(rules: PendingRules) -> Arc<Self> {
        let state = State {
            rules,
            epoch: None,
            arrivals: 0,
            silent: BTreeMap::new(),
            others: BTreeMap::new(),
            ended: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            by_key: HashMap::new(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
        })
    }

    /// Changes the rules for newcomers.
    pub fn set_rules(&self, rules: PendingRules) {
        self.state.lock().rules = rules;
    }

    /// Takes a seat. Where all are taken, the one that waited longest gives way, silent ones first (see
    /// [`PendingRoom`]). `None` has no cap of its own: a trusted peer.
    ///
    /// # Errors
    /// The key has its cap; then nobody gives way.
    pub fn enter(self: &Arc<Self>, key: Option<ClientKey>, now: Instant) -> Result<Pending, PerIpFull> {
        let mut state = self.state.lock();
        state.count_key(key)?;
        let waker = if state.waiting() >= usize::try_from(state.rules.max.max(1)).unwrap_or(usize::MAX) {
            state.end_longest_waiting(now)
        } else {
            None
        };
        let arrival = state.seat(key, now);
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        Ok(Pending {
            room: Arc::clone(self),
            arrival,
        })
    }

    /// Ends everyone whose deadline has passed; tells when the next one is due, `None` when nobody waits.
    pub fn expire(&self, now: Instant) -> Option<Instant> {
        let mut wakers = Vec::new();
        let mut state = self.state.lock();
        let next = loop {
            let Some((deadline, arrival)) = state.deadlines.first().copied() else {
                break None;
            };
            if deadline > state.nanos(now) {
                break state
                    .epoch
                    .and_then(|epoch| epoch.checked_add(Duration::from_nanos(deadline)));
            }
            wakers.extend(state.end(arrival, Ended::Late));
        };
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        next
    }

    /// The rules for newcomers.
    pub fn rules(&self) -> PendingRules {
        self.state.lock().rules
    }

    /// Seats taken, those included that were ended and not yet dropped.
    pub fn taken(&self) -> u32 {
        u32::try_from(self.state.lock().taken()).unwrap_or(u32::MAX)
    }

    /// Whether half of the seats or more are taken.
    pub fn is_half_taken(&self) -> bool {
        let state = self.state.lock();
        state.taken().saturating_mul(2) >= usize::try_from(state.rules.max).unwrap_or(usize::MAX)
    }
}

impl fmt::Debug for PendingRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingRoom")
            .field("taken", &self.taken())
            .finish_non_exhaustive()
    }
}

/// A seat in a [`PendingRoom`]; drop frees it.
#[must_use = "dropping it frees the seat"]
pub struct Pending {
    room: Arc<PendingRoom>,
    /// Its number, by arrival.
    arrival: u64,
}

impl Pending {
    /// It was looked at and has sent nothing so far: from here on it gives way before those that have. Not to be called
    /// of one that was heard.
    pub fn is_silent(&self) {
        let mut state = self.room.state.lock();
        if let Some(seat) = state.others.remove(&self.arrival) {
            state.silent.insert(self.arrival, seat);
        }
    }

    /// It was answered, and is only kept from coming back at once: from here on it gives way before those that are still to
    /// be decided on.
    pub fn is_answered(&self) {
        self.is_silent();
    }

    /// It has sent a byte: from here on it gives way after the silent ones.
    pub fn heard(&self) {
        let mut state = self.room.state.lock();
        if let Some(seat) = state.silent.remove(&self.arrival) {
            state.others.insert(self.arrival, seat);
        }
    }

    /// Counts it under another key from here on, as a PROXY header asks. An ended seat is moved too.
    ///
    /// # Errors
    /// The other key has its cap; the seat stays counted as it was.
    pub fn rekey(&mut self, key: Option<ClientKey>) -> Result<(), PerIpFull> {
        let mut state = self.room.state.lock();
        let Some(before) = state.key_of(self.arrival).copied() else {
            return Ok(());
        };
        if before == key {
            return Ok(());
        }
        state.count_key(key)?;
        state.uncount_key(before);
        if let Some(counted) = state.key_of(self.arrival) {
            *counted = key;
        }
        Ok(())
    }

    /// Ready once the seat was ended; else the task is woken when it is. One task at a time: the last to ask is woken.
    pub fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<Ended> {
        let mut state = self.room.state.lock();
        if let Some((ended, _)) = state.ended.get(&self.arrival) {
            return Poll::Ready(*ended);
        }
        let before = match state.waiting_seat(self.arrival) {
            Some(seat) if seat.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) => {
                seat.waker.replace(cx.waker().clone())
            }
            _ => None,
        };
        drop(state);
        drop(before);
        Poll::Pending
    }

    /// How the seat was ended, if it was.
    pub fn ended(&self) -> Option<Ended> {
        self.room.state.lock().ended.get(&self.arrival).map(|(ended, _)| *ended)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut state = self.room.state.lock();
        let seat = state.remove_waiting(self.arrival);
        let ended = state.ended.remove(&self.arrival);
        let key = seat
            .as_ref()
            .map_or_else(|| ended.and_then(|(_, key)| key), |seat| seat.key);
        state.uncount_key(key);
        drop(state);
        drop(seat);
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending")
            .field("arrival", &self.arrival)
            .finish_non_exhaustive()
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

/// A seat is in exactly one of `silent`, `others` and `ended`, under its arrival number, and its deadline in `deadlines`
/// exactly while it is in one of the first two.
struct State {
    rules: PendingRules,
    /// The first arrival: deadlines are kept as nanoseconds since, in half the space of an `Instant`.
    epoch: Option<Instant>,
    /// The last arrival's number.
    arrivals: u64,
    silent: BTreeMap<u64, Seat>,
    /// Those that were heard, and those that were not looked at yet.
    others: BTreeMap<u64, Seat>,
    ended: BTreeMap<u64, (Ended, Option<ClientKey>)>,
    deadlines: BTreeSet<(u64, u64)>,
    /// Seats of each key that has any.
    by_key: HashMap<ClientKey, u32>,
}

struct Seat {
    waker: Option<Waker>,
    arrived: u64,
    deadline: u64,
    key: Option<ClientKey>,
}

impl State {
    fn waiting(&self) -> usize {
        self.silent.len() + self.others.len()
    }

    fn taken(&self) -> usize {
        self.waiting() + self.ended.len()
    }

    fn seat(&mut self, key: Option<ClientKey>, now: Instant) -> u64 {
        self.epoch.get_or_insert(now);
        self.arrivals += 1;
        let timeout = u64::try_from(self.rules.timeout.as_nanos()).unwrap_or(u64::MAX);
        let arrived = self.nanos(now);
        let deadline = arrived.saturating_add(timeout);
        self.deadlines.insert((deadline, self.arrivals));
        self.others.insert(
            self.arrivals,
            Seat {
                waker: None,
                arrived,
                deadline,
                key,
            },
        );
        self.arrivals
    }

    fn end_longest_waiting(&mut self, now: Instant) -> Option<Waker> {
        let now = self.nanos(now);
        let waited = |seat: &Seat, span: Duration| u128::from(now.saturating_sub(seat.arrived)) >= span.as_nanos();
        let few = self.silent.len().saturating_mul(FEW) < self.others.len();
        let arrival = match (self.silent.first_key_value(), self.others.first_key_value()) {
            (Some((_, silent)), Some((other, begun))) if few && !waited(silent, GRACE) && waited(begun, DAWDLES) => {
                *other
            }
            (Some((silent, _)), _) => *silent,
            (None, Some((other, _))) => *other,
            (None, None) => return None,
        };
        self.end(arrival, Ended::GaveWay)
    }

    fn end(&mut self, arrival: u64, how: Ended) -> Option<Waker> {
        let seat = self.remove_waiting(arrival)?;
        self.ended.insert(arrival, (how, seat.key));
        seat.waker
    }

    fn remove_waiting(&mut self, arrival: u64) -> Option<Seat> {
        let seat = self.silent.remove(&arrival).or_else(|| self.others.remove(&arrival))?;
        self.deadlines.remove(&(seat.deadline, arrival));
        Some(seat)
    }

    fn waiting_seat(&mut self, arrival: u64) -> Option<&mut Seat> {
        self.silent.get_mut(&arrival).or_else(|| self.others.get_mut(&arrival))
    }

    fn key_of(&mut self, arrival: u64) -> Option<&mut Option<ClientKey>> {
        if self.ended.contains_key(&arrival) {
            return self.ended.get_mut(&arrival).map(|(_, key)| key);
        }
        self.waiting_seat(arrival).map(|seat| &mut seat.key)
    }

    fn count_key(&mut self, key: Option<ClientKey>) -> Result<(), PerIpFull> {
        let Some(key) = key else { return Ok(()) };
        let open = self.by_key.get(&key).copied().unwrap_or(0);
        if let Some(of) = self.rules.max_per_ip.filter(|of| open >= *of) {
            return Err(PerIpFull { open, of });
        }
        self.by_key.insert(key, open + 1);
        Ok(())
    }

    fn uncount_key(&mut self, key: Option<ClientKey>) {
        let Some(key) = key else { return };
        match self.by_key.get_mut(&key) {
            Some(open) if *open > 1 => *open -= 1,
            _ => {
                self.by_key.remove(&key);
            }
        }
        // A flood's worth of room is not kept for ever.
        if self.by_key.capacity() > self.by_key.len().saturating_mul(8).max(1024) {
            self.by_key.shrink_to(self.by_key.len() * 2);
        }
    }

    fn nanos(&self, now: Instant) -> u64 {
        let since = self
            .epoch
            .map_or(Duration::ZERO, |epoch| now.saturating_duration_since(epoch));
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Silent ones are few where there are less than one for so many others.
pub const FEW: usize = 8;

/// How long an honest client's first bytes may be on their way behind its connection.
pub const GRACE: Duration = Duration::from_millis(100);

/// How soon a head that has begun should have come to its end.
pub const DAWDLES: Duration = Duration::from_millis(100);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
