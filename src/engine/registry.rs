//! The open connections of the process: one shard a worker, which its sweep visits, and which a search for ghosts reads
//! from any thread.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::limit::key::ClientKey;
use crate::relay::clock::Clock;
use crate::relay::conn_limits::ConnLimits;
use crate::relay::handle::ConnHandle;

use crate::engine::liveness::{Moment, Watched, ZoneClient};
use crate::engine::suspect::Suspect;
use crate::telemetry::survive::survive;

/// The open connections of all workers.
#[derive(Debug)]
pub struct Registry {
    shards: Vec<Shard>,
    hasher: RandomState,
}

/// The open connections of one worker.
#[derive(Debug)]
pub struct Shard {
    watched: Mutex<Vec<Watched>>,
    started: Instant,
    /// The clock that the connections are timed by: it stands while the process is stopped.
    clock: Clock,
    jitter: RandomState,
}

impl Registry {
    /// An empty one for so many workers.
    pub fn new(workers: usize, now: Instant) -> Self {
        let shard = || Shard {
            watched: Mutex::default(),
            started: now,
            clock: Clock::begin(now),
            jitter: RandomState::new(),
        };
        Self {
            shards: (0..workers).map(|_| shard()).collect(),
            hasher: RandomState::new(),
        }
    }

    /// The shard of worker number `index`.
    pub fn shard(&self, index: usize) -> &Shard {
        &self.shards[index]
    }

    /// A client in a zone, as the registry knows it.
    pub fn zone_client(&self, zone: u32, key: ClientKey) -> ZoneClient {
        ZoneClient(self.hasher.hash_one((zone, key)))
    }

    /// The open connections, and for how long nothing has moved on each.
    pub fn open(&self, now: Instant) -> Vec<(Duration, Arc<ConnHandle>)> {
        self.shards.iter().flat_map(|shard| shard.open(now)).collect()
    }

    /// The connections of this client that have been silent for long. Each is asked, before this returns, whether it is
    /// still there.
    pub(crate) fn suspects(&self, client: ZoneClient, now: Instant) -> Vec<Suspect> {
        self.shards
            .iter()
            .flat_map(|shard| shard.suspects(client, now))
            .collect()
    }
}

impl Shard {
    /// Has the sweep watch a connection that opens `now`, until its relay is dropped.
    pub fn watch(&self, handle: Arc<ConnHandle>, client: ZoneClient, limits: Arc<ConnLimits>, now: Instant) {
        let share =
            f64::from(u16::try_from(self.jitter.hash_one(now) & 0xffff).unwrap_or_default()) / f64::from(u16::MAX);
        let now = self.moment(now).next();
        self.watched
            .lock()
            .push(Watched::new(handle, client, limits, share, now));
    }

    /// Visits every connection, for a tick that was `due` and comes `now`; at most so many are told to rest.
    pub fn sweep(&self, due: Instant, now: Instant, late: Duration, mut rests: u32) {
        let judged = self.clock.look(now);
        // The tick's own time, where it is not long ago: measured by the clock, a limit would be missed by a hair and cost
        // another tick.
        let is_late = now.saturating_duration_since(due) >= late;
        let moment = Moment::at(if is_late { judged } else { self.clock.at(due) }, self.started);
        // Each by itself: a fault over one connection must not keep those behind it from being looked at.
        self.watched
            .lock()
            .retain_mut(|watched| survive(|| watched.look(moment, &mut rests)).unwrap_or(true));
    }

    fn open(&self, now: Instant) -> Vec<(Duration, Arc<ConnHandle>)> {
        let now = self.moment(now);
        let mut watched = self.watched.lock();
        watched.retain_mut(Watched::is_open);
        watched.iter().map(|watched| watched.silence(now)).collect()
    }

    fn suspects(&self, client: ZoneClient, now: Instant) -> Vec<Suspect> {
        let now = self.moment(now);
        let mut watched = self.watched.lock();
        watched
            .iter_mut()
            .filter_map(|watched| watched.suspect(client, now))
            .collect()
    }

    fn moment(&self, now: Instant) -> Moment {
        Moment::at(self.clock.at(now), self.started)
    }
}
