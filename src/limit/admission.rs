//! Admission: one decision under all limits, and the permit that it gives.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bucket::{Meter, Moment, SharedBucket};
use super::budget::{Budget, Slot};
use super::client_table::{Place, Table};
use super::key::ClientKey;
use super::rules::{ClientRules, Rate, ZoneRules};
use super::shares::Shares;

/// The counts of every client in every zone. They outlive each change of the rules, which come with the [`Request`].
pub struct Admission {
    pub(super) table: Table,
    /// Apart from what every admission reads, since every admission changes it.
    process: Box<Budget>,
    epoch: Instant,
}

impl Admission {
    /// An admission that remembers this many client keys. `epoch` must not be after the first `now`; a `now` before it
    /// counts as `epoch`.
    pub fn new(table_size: u32, epoch: Instant) -> Arc<Self> {
        Arc::new(Self {
            table: Table::new(table_size),
            process: Box::new(Budget::new(None)),
            epoch,
        })
    }

    /// The process ceiling, less the part that is set aside for exempt zones, which do not count in it. It is off at
    /// first.
    pub fn process(&self) -> &Budget {
        &self.process
    }

    /// The counts of a zone without open connections. `id` identifies it in the client table. It must differ from the id
    /// of every other zone, including those that a reload removed.
    pub fn zone(self: &Arc<Self>, id: u32, connections: Option<u32>) -> Arc<ZoneCounts> {
        Arc::new(ZoneCounts {
            budget: Budget::new(connections),
            rate: SharedBucket::default(),
            id,
            admission: Arc::clone(self),
        })
    }

    /// Admits or refuses a request, as one decision under the lock of the client's shard.
    ///
    /// First it looks at all limits, in the order of [`Limit`], and reports the first that refuses. If none does, it
    /// takes from all of them. Counts that the shards share are taken by compare-and-swap; a request that loses a race
    /// for one of them gives everything back and is refused by that limit. A refused request takes no slot and no
    /// token. An admitted one has spent its tokens.
    ///
    /// # Errors
    /// The limit that refuses. Under `observe` only the process ceiling refuses (in an exempt zone: its own ceiling).
    pub fn admit(&self, request: Request<'_>, now: Instant) -> Result<Granted, Full> {
        debug_assert!(
            std::ptr::eq(self, &raw const *request.zone.admission),
            "the zone is of another admission"
        );
        let mut place = self.table.place(request.zone.id, request.key);
        let mut attempt = Attempt {
            client_meter: request.client.rate.map(Meter::from),
            zone_meter: request.rules.rate.map(Meter::from),
            now: Moment::since(self.epoch, now),
            observed: None,
            request,
        };
        attempt.look(&mut place)?;
        let shares = attempt.take(place)?;
        let Attempt { request, observed, .. } = attempt;
        let permit = Permit {
            zone: Arc::clone(request.zone),
            key: request.key,
            is_exempt: request.is_exempt,
        };
        self.table.evict_excess();
        Ok(Granted {
            permit,
            observed,
            shares,
        })
    }

    /// What a request that this limit refused at `now` lacks; `None` if the limit is not a rate.
    pub fn lack(&self, request: &Request<'_>, limit: Limit, now: Instant) -> Option<Lack> {
        let rate = match limit {
            Limit::PerIpRate => request.client.rate?,
            Limit::ZoneRate => request.rules.rate?,
            Limit::PerIp | Limit::ZoneFull | Limit::ProcessFull => return None,
        };
        let bucket = match limit {
            Limit::PerIpRate => self.table.place(request.zone.id, request.key).bucket(),
            _ => request.zone.rate.bucket(),
        };
        let (token, now) = (Meter::from(rate).one(), Moment::since(self.epoch, now));
        Some(Lack {
            rate,
            wait: bucket.lacks(token, now).unwrap_or_default(),
        })
    }

    /// The epoch of the moments of the buckets in [`Shares`].
    pub fn epoch(&self) -> Instant {
        self.epoch
    }

    /// Forgets idle clients whose buckets are full. To be called about once a second. Each call looks at up to 256 idle
    /// clients of each of the 64 shards, and the next call continues after them. So no lock is held for long, and
    /// looking at every client takes one call for every 256 clients of the fullest shard (some 70 calls for a million).
    pub fn sweep(&self, now: Instant) {
        self.table.sweep(Moment::since(self.epoch, now));
    }

    /// Clients forgotten because the table was full, since the start.
    pub fn evictions(&self) -> u64 {
        self.table.evictions()
    }
}

/// A request to be admitted: the client, the zone, and the rules that apply.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The zone's counts.
    pub zone: &'a Arc<ZoneCounts>,
    /// The zone's limits. Both `connections` and the limit of the zone's budget apply: the smaller one decides.
    pub rules: ZoneRules,
    /// Whether the zone is exempt: the process ceiling does not apply, and its budget has a limit that holds even under
    /// `observe`.
    pub is_exempt: bool,
    /// The client key that it counts for.
    pub key: ClientKey,
    /// The limits of one client in the zone.
    pub client: ClientRules,
    /// Whether the client's connections share the buckets of [`Shares`].
    pub shares: bool,
}

impl<'a> Request<'a> {
    fn process(&self) -> Option<&'a Budget> {
        (!self.is_exempt).then_some(&self.zone.admission.process)
    }

    fn zone_limit(&self) -> u32 {
        let [ruled, own] = [self.rules.connections, self.zone.budget.limit()].map(|limit| limit.unwrap_or(u32::MAX));
        ruled.min(own)
    }

    fn client_full(&self, limit: Limit, place: &Place<'_>) -> Full {
        Full {
            limit,
            open: place.open(),
            of: self.client.per_ip.unwrap_or(u32::MAX),
        }
    }

    fn zone_full(&self, limit: Limit) -> Full {
        Full {
            limit,
            open: self.zone.budget.used(),
            of: self.zone_limit(),
        }
    }
}

/// An admission.
#[derive(Debug)]
pub struct Granted {
    /// The right to be counted as open.
    pub permit: Permit,
    /// The first limit that would have refused it without `observe`.
    pub observed: Option<Full>,
    /// What the client's connections share, if the request wants them to share.
    pub shares: Option<Arc<Shares>>,
}

/// A limit that refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// Which limit.
    pub limit: Limit,
    /// The connections that were open: of the client key for `PerIp` and `PerIpRate`, otherwise of the zone or the
    /// process.
    pub open: u32,
    /// How many may be open. `u32::MAX` is off, which is possible if the limit is a rate.
    pub of: u32,
}

/// The rate that refused, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lack {
    /// The rate.
    pub rate: Rate,
    /// How long until there is a token.
    pub wait: Duration,
}

/// The limits, in the order in which they are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// Connections open at once, per zone and client key.
    PerIp,
    /// The zone's budget.
    ZoneFull,
    /// The process-wide ceiling.
    ProcessFull,
    /// The rate of admissions, per zone and client key.
    PerIpRate,
    /// The rate of admissions of the whole zone.
    ZoneRate,
}

/// The counts of a zone as a whole. Reloads carry them over; they live until the last permit is dropped.
#[derive(Debug)]
pub struct ZoneCounts {
    /// The open connections of the zone. Its limit applies in addition to that of the [`Request`]'s rules; a reload
    /// sets it anew.
    pub budget: Budget,
    rate: SharedBucket,
    id: u32,
    admission: Arc<Admission>,
}

impl ZoneCounts {
    /// Its id.
    pub fn id(&self) -> u32 {
        self.id
    }
}

/// The permit of one open connection. Dropping it gives everything back, under the key with which it was taken.
#[must_use = "dropping it gives everything back"]
pub struct Permit {
    zone: Arc<ZoneCounts>,
    key: ClientKey,
    is_exempt: bool,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let admission = &self.zone.admission;
        if !self.is_exempt {
            admission.process.release();
        }
        self.zone.budget.release();
        admission.table.close_one(self.zone.id, self.key);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("zone", &self.zone.id)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission")
            .field("evictions", &self.evictions())
            .finish_non_exhaustive()
    }
}

/// A request that is being decided, and the first limit that was only observed.
struct Attempt<'a> {
    request: Request<'a>,
    client_meter: Option<Meter>,
    zone_meter: Option<Meter>,
    now: Moment,
    observed: Option<Full>,
}

impl<'a> Attempt<'a> {
    fn look(&mut self, place: &mut Place<'_>) -> Result<(), Full> {
        let (request, now) = (self.request, self.now);
        if request.client.per_ip.is_some_and(|limit| place.open() >= limit) {
            self.refuse_or_note(request.client_full(Limit::PerIp, place))?;
        }
        if request.zone.budget.used() >= request.zone_limit() {
            self.refuse_or_note(request.zone_full(Limit::ZoneFull))?;
        }
        if let Some(process) = request
            .process()
            .filter(|process| process.used() >= process.limit().unwrap_or(u32::MAX))
        {
            return Err(process_full(process));
        }
        if self.client_meter.is_some_and(|meter| !place.has_token(meter, now)) {
            self.refuse_or_note(request.client_full(Limit::PerIpRate, place))?;
        }
        if self
            .zone_meter
            .is_some_and(|meter| !request.zone.rate.has_token(meter, now))
        {
            self.refuse_or_note(request.zone_full(Limit::ZoneRate))?;
        }
        Ok(())
    }

    /// Takes everything or nothing. The client's own slot and token come last: they are under the lock, so no other
    /// thread can take them in the meantime.
    fn take(&mut self, place: Place<'_>) -> Result<Option<Arc<Shares>>, Full> {
        let (request, now) = (self.request, self.now);
        let zone_slot = self.zone_slot()?;
        let process_slot = match request.process() {
            Some(process) => Some(Slot::below(process, u32::MAX).ok_or_else(|| process_full(process))?),
            None => None,
        };
        if self.zone_meter.is_some_and(|meter| !request.zone.rate.take(meter, now)) {
            self.refuse_or_note(request.zone_full(Limit::ZoneRate))?;
        }
        let shares = place.open_one(self.client_meter.map(|meter| (meter, now)), request.shares);
        zone_slot.keep();
        process_slot.into_iter().for_each(Slot::keep);
        Ok(shares)
    }

    /// Takes a slot within the limits. Under `observe` it also takes one beyond the rule, but not beyond the ceiling of
    /// an exempt zone.
    fn zone_slot(&mut self) -> Result<Slot<'a>, Full> {
        let request = self.request;
        let budget = &request.zone.budget;
        if let Some(slot) = Slot::below(budget, request.rules.connections.unwrap_or(u32::MAX)) {
            return Ok(slot);
        }
        self.refuse_or_note(request.zone_full(Limit::ZoneFull))?;
        if request.is_exempt {
            Slot::below(budget, u32::MAX).ok_or_else(|| request.zone_full(Limit::ZoneFull))
        } else {
            Ok(Slot::anyway(budget))
        }
    }

    /// Handles a limit that refuses: it is returned as an error, or under `observe` noted. The first noted one in the
    /// order of [`Limit`] is kept.
    fn refuse_or_note(&mut self, full: Full) -> Result<(), Full> {
        if !self.request.rules.observe {
            return Err(full);
        }
        if self.observed.is_none_or(|first| full.limit < first.limit) {
            self.observed = Some(full);
        }
        Ok(())
    }
}

fn process_full(process: &Budget) -> Full {
    Full {
        limit: Limit::ProcessFull,
        open: process.used(),
        of: process.limit().unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
