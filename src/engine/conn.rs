//! An open connection: the registry's row of it, and its public view.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::live::destination::Destination;
use crate::net::fault;
use crate::relay::handle::{Command, ConnHandle};
use crate::upstream::server::Server;

use crate::engine::tick::Tick;
use crate::engine::timeouts::{ConnTimers, Observation, Parking, Suspicion};

/// The number of a connection, unique within the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(u64);

/// What the registry has to know about a connection that opens.
#[derive(Debug)]
pub struct NewConn {
    /// Its relay's handle.
    pub handle: Arc<ConnHandle>,
    /// Its client's address; `None` for a Unix peer without one.
    pub address: Option<IpAddr>,
    /// Where it was routed to.
    pub destination: Arc<Destination>,
    /// The server that it is connected to.
    pub server: Arc<Server>,
}

/// The public view of an open connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conn {
    /// Its number.
    pub id: ConnId,
    /// Its client's address; `None` for a Unix peer without one.
    pub address: Option<IpAddr>,
    /// The name of its zone.
    pub zone: Arc<str>,
    /// The name of its upstream.
    pub upstream: Arc<str>,
    /// The server that it is connected to, as the log and the metrics name it.
    pub server: Arc<str>,
    /// How long it has been open, to 50 ms.
    pub open_for: Duration,
    /// How long no byte has moved on it, to a quarter of a second.
    pub silent_for: Duration,
    /// Bytes from the client so far.
    pub bytes_in: u64,
    /// Bytes to the client so far.
    pub bytes_out: u64,
    /// Messages from the client so far.
    pub messages_in: u64,
    /// Messages to the client so far.
    pub messages_out: u64,
}

/// A row of the registry.
#[derive(Debug)]
pub(crate) struct Row {
    handle: Arc<ConnHandle>,
    id: ConnId,
    destination: Arc<Destination>,
    server: Arc<Server>,
    timers: ConnTimers,
    address: Option<IpAddr>,
}

impl ConnId {
    pub(super) const MIN: Self = Self(0);
    pub(super) const MAX: Self = Self(u64::MAX);

    /// The id of the `nth` connection of a worker, counted from 0. Ids of different workers differ without any
    /// coordination.
    pub(super) fn of(nth: u64, worker: usize, workers: usize) -> Self {
        Self(nth * workers as u64 + worker as u64)
    }

    /// The smallest id above this one.
    pub(super) fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The worker that the connection runs on.
    pub(super) fn worker(self, workers: usize) -> usize {
        // The remainder is less than `workers`.
        usize::try_from(self.0 % workers as u64).unwrap_or_default()
    }
}

impl Row {
    /// A connection that opens `now`, see [`ConnTimers::new`].
    pub(super) fn new(conn: NewConn, id: ConnId, lifetime_jitter: u16, now: Tick) -> Self {
        let NewConn {
            handle,
            address,
            destination,
            server,
        } = conn;
        Self {
            handle,
            id,
            destination,
            server,
            timers: ConnTimers::new(lifetime_jitter, now),
            address,
        }
    }

    pub(super) fn id(&self) -> ConnId {
        self.id
    }

    /// Its client's address; `None` for a Unix peer without one.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The id of its zone.
    pub(super) fn zone(&self) -> u32 {
        self.destination.zone.state.counts.id()
    }

    pub(crate) fn handle(&self) -> &Arc<ConnHandle> {
        &self.handle
    }

    pub(super) fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// How long no byte has moved, as of the last sweep.
    pub(crate) fn silence(&self, now: Tick) -> Duration {
        self.timers.silence(now)
    }

    /// The public view of the connection.
    pub(crate) fn conn(&self, now: Tick) -> Conn {
        let traffic = &self.handle.traffic;
        Conn {
            id: self.id,
            address: self.address,
            zone: Arc::clone(&self.destination.zone.state.name),
            upstream: Arc::clone(self.destination.upstream.name()),
            server: Arc::clone(self.server.label()),
            open_for: now.since(self.timers.opened_at()),
            silent_for: self.silence(now),
            bytes_in: traffic.bytes_in(),
            bytes_out: traffic.bytes_out(),
            messages_in: traffic.messages_in(),
            messages_out: traffic.messages_out(),
        }
    }

    /// Makes its relay do what is due.
    pub(super) fn sweep(&mut self, parking: &mut Parking, now: Tick) {
        fault::point("sweep");
        let handle = &self.handle;
        if handle.is_closed() {
            return;
        }
        let seen = Observation {
            has_moved: handle.take_moved(),
            is_client_unread: handle.is_client_unread(),
            is_server_delayed: handle.is_server_delayed(),
            is_blocked: handle.is_blocked(),
            has_unacked: handle.has_unacked(),
            acked: handle.client_acked(),
            activity: handle.client_activity(),
            delivery: handle.ping_delivery(),
        };
        let limits = &self.destination.zone.limits;
        let actions = self
            .timers
            .step(&seen, &limits.timeouts, limits.liveness(), parking, now);
        if actions.ping {
            handle.ping();
        }
        if actions.probe {
            handle.probe();
        }
        if actions.park {
            handle.park();
        }
        if let Some(reason) = actions.close {
            handle.send(Command::Close(reason));
        }
    }

    /// Whether it may be dead. If so, it has been pinged when this returns.
    pub(super) fn suspect(&mut self, now: Tick) -> Suspicion {
        let handle = &self.handle;
        let suspicion = self.timers.suspect(
            handle.client_activity(),
            handle.is_client_unread(),
            self.destination.zone.limits.liveness(),
            now,
        );
        if suspicion == Suspicion::ToPing {
            handle.ping();
        }
        suspicion
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_small() {
        assert!(size_of::<Row>() <= 88, "{}", size_of::<Row>());
    }

    #[test]
    fn numbers_of_connections_are_unique_and_name_their_worker() {
        let mut seen = std::collections::BTreeSet::new();
        for worker in 0..3 {
            for nth in 0..100 {
                let id = ConnId::of(nth, worker, 3);
                assert!(seen.insert(id), "{id:?} twice");
                assert_eq!(id.worker(3), worker);
            }
        }
    }
}
