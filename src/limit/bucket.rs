//! The token bucket, implemented as GCRA: it is one number instead of a level and a time.

use std::time::{Duration, Instant};

use super::rules::Rate;
use super::sync::{AtomicU64, Ordering};

/// Nanoseconds since an epoch that the caller keeps, from 0 to 146 years. A moment outside counts as the nearer end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// `now`, counted from `epoch`.
    pub fn since(epoch: Instant, now: Instant) -> Self {
        Self(nanos(now.saturating_duration_since(epoch)))
    }

    /// The time that is this moment after `epoch`.
    pub fn after(self, epoch: Instant) -> Instant {
        epoch + Duration::from_nanos(self.0)
    }

    /// Nanoseconds since `earlier`; 0 for a later one.
    pub fn nanos_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A [`Rate`] in the form that a bucket needs.
///
/// The interval is rounded up to a whole nanosecond, so the rate is never exceeded. A bucket that would take more than
/// 146 years to fill holds the tokens of 146 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meter {
    /// Nanoseconds from one token to the next, at least 1.
    interval: u64,
    /// Nanoseconds in which an empty bucket fills; a multiple of `interval`.
    capacity: u64,
}

impl From<Rate> for Meter {
    fn from(rate: Rate) -> Self {
        let interval = nanos(rate.per).div_ceil(u64::from(rate.tokens.get())).max(1);
        let burst = u64::from(rate.burst.get()).min(MOST / interval);
        Self {
            interval,
            capacity: interval * burst,
        }
    }
}

impl Meter {
    /// One token.
    pub fn one(self) -> Charge {
        Charge {
            cost: self.interval,
            capacity: self.capacity,
        }
    }
}

/// A [`Rate`] whose tokens are bytes, of which many are taken at once.
///
/// The cost of each [`Charge`] is rounded down to a whole nanosecond, so a burst of exactly the configured size gets
/// through, however it is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteMeter {
    per: u64,
    tokens: u64,
    capacity: u64,
    portion: u64,
}

impl From<Rate> for ByteMeter {
    fn from(rate: Rate) -> Self {
        let burst = u64::from(rate.burst.get());
        let mut meter = Self {
            per: nanos(rate.per).max(1),
            tokens: rate.tokens.get().into(),
            capacity: 0,
            portion: 0,
        };
        meter.capacity = meter.cost(burst);
        meter.portion = meter.count(PORTION_TIME).clamp(1, burst.min(PORTION));
        meter
    }
}

impl ByteMeter {
    /// The charge for this many bytes.
    pub fn bytes(self, count: u64) -> Charge {
        Charge {
            cost: self.cost(count),
            capacity: self.capacity,
        }
    }

    /// The number of bytes that a connection without tokens waits for, so that it does not continue byte by byte: those
    /// of a quarter of a second, but at most 16 KiB and at most the burst.
    pub fn portion(self) -> u64 {
        self.portion
    }

    /// The most bytes that cost no more than this.
    fn count(self, cost: u64) -> u64 {
        if let Some(product) = (cost + 1).checked_mul(self.tokens) {
            return (product - 1) / self.per;
        }
        let product = u128::from(cost + 1) * u128::from(self.tokens);
        u64::try_from((product - 1) / u128::from(self.per)).unwrap_or(u64::MAX)
    }

    fn cost(self, count: u64) -> u64 {
        // 64 bits are nearly always enough, and a division of 128 bits takes several times as long.
        if let Some(product) = count.checked_mul(self.per) {
            return (product / self.tokens).min(MOST);
        }
        let cost = u128::from(count) * u128::from(self.per) / u128::from(self.tokens);
        u64::try_from(cost).unwrap_or(MOST).min(MOST)
    }
}

/// Tokens to be taken at once from a bucket with this rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Nanoseconds until these tokens are back.
    cost: u64,
    /// Nanoseconds in which an empty bucket fills.
    capacity: u64,
}

/// A token bucket: the moment at which it is full again (the theoretical arrival time). The default one is full.
///
/// It keeps no rate. When the rate changes, the time until the bucket is full stays the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket(u64);

impl Bucket {
    /// Whether there is a token. Takes none.
    pub fn has_token(self, meter: Meter, now: Moment) -> bool {
        self.0 <= now.0 + (meter.capacity - meter.interval)
    }

    /// Takes a token if there is one, and returns whether there was.
    pub fn take(&mut self, meter: Meter, now: Moment) -> bool {
        let has = self.has_token(meter, now);
        if has {
            self.0 = self.0.max(now.0) + meter.interval;
        }
        has
    }

    /// How long until this many tokens are there; `None` if they are there now. There are never more than the bucket
    /// holds.
    pub fn lacks(self, charge: Charge, now: Moment) -> Option<Duration> {
        let ready = self.0.max(now.0).saturating_add(charge.cost);
        match ready.saturating_sub(now.0.saturating_add(charge.capacity)) {
            0 => None,
            missing => Some(Duration::from_nanos(missing)),
        }
    }

    /// The bytes that may be taken now.
    pub fn holds(self, meter: ByteMeter, now: Moment) -> u64 {
        let debt = self.0.saturating_sub(now.0);
        meter.capacity.checked_sub(debt).map_or(0, |left| meter.count(left))
    }

    /// Takes this many tokens whether they are there or not.
    pub fn charge(&mut self, charge: Charge, now: Moment) {
        self.0 = self.0.max(now.0).saturating_add(charge.cost).min(2 * MOST);
    }

    /// Whether it is full. Then it may be forgotten, since a new bucket is the same.
    pub fn is_full(self, now: Moment) -> bool {
        self.0 <= now.0
    }

    /// Whether no token was ever taken.
    pub fn is_untouched(self) -> bool {
        self.0 == 0
    }

    /// Forgives debt that can only come from a slower rate before a reload: the bucket becomes empty, which is the
    /// worst that this rate can cause. Returns whether there was such debt. Without this, after a change from "3/h" to
    /// "10/s" a client could be refused for the rest of the hour.
    pub fn forgive(&mut self, meter: Meter, now: Moment) -> bool {
        self.forgive_beyond(meter.capacity, now)
    }

    fn forgive_beyond(&mut self, capacity: u64, now: Moment) -> bool {
        let worst = now.0 + capacity;
        // The moments come from several threads and may go back a little, which must not bring a token early.
        let is_foreign = self.0 > worst + SKEW;
        if is_foreign {
            self.0 = worst;
        }
        is_foreign
    }
}

/// A [`Bucket`] that several shards share.
#[derive(Debug, Default)]
pub struct SharedBucket(AtomicU64);

impl SharedBucket {
    /// Whether there is a token. Takes none, but [forgives](Bucket::forgive). To be called before a token is taken.
    pub fn has_token(&self, meter: Meter, now: Moment) -> bool {
        let forgiving = |tat| {
            let mut bucket = Bucket(tat);
            bucket.forgive(meter, now).then_some(bucket.0)
        };
        let _: Result<u64, u64> = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, forgiving);
        Bucket(self.0.load(Ordering::Relaxed)).has_token(meter, now)
    }

    /// Takes a token if there is one, and returns whether there was. Each token goes to only one taker, under any race.
    pub fn take(&self, meter: Meter, now: Moment) -> bool {
        let taking = |tat| {
            let mut bucket = Bucket(tat);
            bucket.take(meter, now).then_some(bucket.0)
        };
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, taking)
            .is_ok()
    }

    /// Takes this many tokens if they are there, after [forgiving](Bucket::forgive). Each token goes to only one taker,
    /// under any race.
    ///
    /// # Errors
    /// How long until they are there.
    pub fn charge(&self, charge: Charge, now: Moment) -> Result<(), Duration> {
        let mut lacks = None;
        let charging = |tat| {
            let mut bucket = Bucket(tat);
            let has_forgiven = bucket.forgive_beyond(charge.capacity, now);
            lacks = bucket.lacks(charge, now);
            if lacks.is_none() {
                bucket.charge(charge, now);
            }
            // Forgiven debt must stay forgiven even if there are too few tokens. Otherwise a connection would wait for
            // the whole debt.
            (has_forgiven || lacks.is_none()).then_some(bucket.0)
        };
        let _: Result<u64, u64> = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, charging);
        lacks.map_or(Ok(()), Err)
    }

    /// Gives back what was [charged](SharedBucket::charge), as if it had never been taken. To be called once. It gives
    /// back less if part of the debt was forgiven in the meantime.
    pub fn refund(&self, charge: Charge) {
        let refunding = |tat: u64| Some(tat.saturating_sub(charge.cost));
        let _: Result<u64, u64> = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, refunding);
    }

    /// A copy of its state at this moment, as a [`Bucket`].
    pub fn bucket(&self) -> Bucket {
        Bucket(self.0.load(Ordering::Relaxed))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(MOST).min(MOST)
}

/// The time whose bytes make a portion, in nanoseconds.
const PORTION_TIME: u64 = 250_000_000;
const PORTION: u64 = 16 * 1024;

/// The largest moment and capacity, so that sums of them can't overflow.
const MOST: u64 = 1 << 62;

/// How far the clocks of two callers may differ, in nanoseconds.
const SKEW: u64 = 1_000_000_000;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
