//! The open connections of the process: a shard for each worker, which its sweep visits, and an index by client.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::limit::key::ClientKey;
use crate::live::process::ProcessState;
use crate::net::clock::Clock;
use crate::net::random::Random;
use crate::relay::handle::ConnHandle;
use crate::telemetry::survive::survive;

use crate::engine::client_index::ClientIndex;
use crate::engine::conn::{Conn, ConnId, NewConn, Row};
use crate::engine::rows::Rows;
use crate::engine::tick::Tick;
use crate::engine::timeouts::{Parking, Suspicion};
use crate::engine::zone_client::ZoneClient;

/// The open connections of all workers.
///
/// A connection is in it from its opening until up to a quarter of a second after its end. A sweep removes it, so that
/// closing costs nothing here.
#[derive(Debug)]
pub struct Registry {
    shards: Vec<Shard>,
    clients: ClientIndex,
    /// Makes client keys of addresses.
    process: Arc<ProcessState>,
    hasher: RandomState,
}

/// The open connections of one worker.
#[derive(Debug)]
struct Shard {
    open: Mutex<Open>,
    started: Instant,
    /// The clock for all times of connections. It does not advance while the process is stopped.
    clock: Clock,
}

#[derive(Debug, Default)]
struct Open {
    rows: Rows,
    /// Connections so far.
    opened: u64,
}

/// The connections of one client, in search of dead ones.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    /// Those that may be dead. Each has been pinged; the number is its [`ConnHandle::client_activity`] before the ping.
    pub(super) pinged: Vec<(Arc<ConnHandle>, u16)>,
    /// For this long none of the others can be dead.
    pub(super) others_alive_for: Duration,
}

impl Registry {
    /// An empty registry for the workers of `process`.
    pub fn new(process: Arc<ProcessState>, now: Instant) -> Self {
        let shard = || Shard {
            open: Mutex::default(),
            started: now,
            clock: Clock::begin(now),
        };
        Self {
            shards: (0..process.workers).map(|_| shard()).collect(),
            clients: ClientIndex::default(),
            process,
            hasher: RandomState::new(),
        }
    }

    /// A client in a zone, as the registry knows it.
    pub fn zone_client(&self, zone: u32, key: ClientKey) -> ZoneClient {
        ZoneClient::of_hash(self.hasher.hash_one((zone, key)))
    }

    /// Adds a connection that opens `now` on a worker, until its relay is dropped. Its client in its zone is returned.
    /// `random` spreads the ends of connections that opened together.
    pub fn insert(&self, conn: NewConn, worker: usize, now: Instant, random: &Random) -> ZoneClient {
        let client = self.zone_client(conn.destination.zone.state.counts.id(), self.process.key(conn.address));
        let lifetime_jitter = u16::from_le_bytes(random.bytes());
        let shard = &self.shards[worker];
        let tick = shard.tick(now).next();
        let mut open = shard.open.lock();
        let id = ConnId::of(open.opened, worker, self.shards.len());
        open.opened += 1;
        open.rows.push(Row::new(conn, id, lifetime_jitter, tick));
        drop(open);
        self.clients.insert(client, id);
        client
    }

    /// Visits every connection of a worker, for a tick that was `due` and happens `now`. Beyond `late` it counts as
    /// late.
    pub(crate) fn sweep(&self, worker: usize, due: Instant, now: Instant, late: Duration, mut parking: Parking) {
        let shard = &self.shards[worker];
        let judged = shard.clock.read(now);
        // The tick's own time, unless that is long ago: by the clock, a limit would be missed by a hair and cost another
        // tick.
        let is_late = now.saturating_duration_since(due) >= late;
        let tick = Tick::at(if is_late { judged } else { shard.clock.at(due) }, shard.started);
        let mut has_closed = false;
        // A chunk under each lock, so that a search for ghosts does not wait for the whole sweep. Only this takes rows
        // out, so the chunks stay where they are.
        for nth in 0.. {
            let mut open = shard.open.lock();
            let Some(rows) = open.rows.chunk_mut(nth) else { break };
            for row in rows {
                // Each by itself: a panic over one connection must not prevent visits to those behind it.
                survive(|| row.sweep(&mut parking, tick));
                has_closed |= row.is_closed();
            }
        }
        if has_closed {
            self.remove_closed(shard);
        }
    }

    /// What `view` returns for each open connection; `None` leaves it out. It is called under a lock that is released
    /// from time to time, so connections that open or close in the meantime may be missing or not.
    pub(crate) fn view<T>(&self, now: Instant, mut view: impl FnMut(&Row, Tick) -> Option<T>) -> Vec<T> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let tick = shard.tick(now);
            let mut next = ConnId::MIN;
            loop {
                let open = shard.open.lock();
                let Some(rows) = open.rows.chunk_from(next) else { break };
                let open = rows.iter().filter(|row| !row.is_closed());
                found.extend(open.filter_map(|row| view(row, tick)));
                next = rows.last().map_or(next, |last| last.id().next());
            }
        }
        found
    }

    /// The public view of the open connections.
    pub fn connections(&self, now: Instant) -> Vec<Conn> {
        self.view(now, |row, tick| Some(row.conn(tick)))
    }

    /// Finds the connections of a client that may be dead, and pings them.
    pub(super) fn suspects(&self, client: ZoneClient, now: Instant) -> Suspects {
        let mut suspects = Suspects {
            pinged: Vec::new(),
            others_alive_for: Duration::MAX,
        };
        for id in self.clients.of(client) {
            let shard = &self.shards[id.worker(self.shards.len())];
            let tick = shard.tick(now);
            let mut open = shard.open.lock();
            let Some(row) = open.rows.find(id).filter(|row| !row.is_closed()) else {
                continue;
            };
            let activity = row.handle().client_activity();
            match row.suspect(tick) {
                Suspicion::AliveFor(time) => suspects.others_alive_for = suspects.others_alive_for.min(time),
                Suspicion::Pinged | Suspicion::ToPing => suspects.pinged.push((Arc::clone(row.handle()), activity)),
            }
        }
        suspects
    }

    fn remove_closed(&self, shard: &Shard) {
        let closed = shard.open.lock().rows.take_closed();
        for row in closed {
            let client = self.zone_client(row.zone(), self.process.key(row.address()));
            self.clients.remove(client, row.id());
        }
    }
}

impl Shard {
    fn tick(&self, now: Instant) -> Tick {
        Tick::at(self.clock.at(now), self.started)
    }
}

#[cfg(test)]
mod tests;
