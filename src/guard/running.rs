//! What is in force: one policy, and the state it is applied to. A reload builds another and swaps the pointer; zones
//! and servers are carried over by name, so that their counts outlive it.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Instant, SystemTime};

use prometheus::IntCounter;

use crate::config::policy::{ListenerPolicy, Policy, ZonePolicy};
use crate::limit::admission::{Admission, ZoneCounts};
use crate::limit::budget::Budget;
use crate::limit::pending::{PendingRoom, PendingRules};
use crate::limit::rules::ZoneRules;
use crate::net::address::Target;
use crate::relay::tally::Tally;
use crate::upstream::group::Upstream;
use crate::upstream::server::Server;

use super::advice::Advice;
use super::descriptors::Room;
use super::log::Log;
use super::metrics::{Metrics, ZoneMetrics};

/// A policy in force and the state it is applied to.
#[derive(Debug)]
pub struct Running {
    /// The policy.
    pub policy: Policy,
    /// As `policy.zones`.
    pub zones: Vec<Zone>,
    /// As `policy.upstreams`.
    pub upstreams: Vec<Arc<Upstream>>,
    /// As `policy.listeners`.
    pub listeners: Vec<Arc<Listener>>,
    /// What every policy shares.
    pub shared: Arc<Shared>,
}

/// State that belongs to the process and not to a policy.
#[derive(Debug)]
pub struct Shared {
    /// The client table.
    pub admission: Arc<Admission>,
    /// The process ceiling, less what is set aside for exempt zones.
    pub process: Arc<Budget>,
    /// The whole process ceiling.
    pub process_limit: u32,
    /// Connections that the walk knows to hold a permit: what the drift metric compares the counts with.
    pub alive: AtomicI64,
    /// Worker threads.
    pub workers: usize,
    /// What is counted.
    pub metrics: Metrics,
    /// Where lines go.
    pub log: Log,
    /// No proxy is trusted, so forwarding headers are ignored.
    pub trusts_nobody: bool,
    /// What operators should look at.
    pub advice: Advice,
    /// When the process began to serve.
    pub started: SystemTime,
}

/// A zone in force.
#[derive(Debug)]
pub struct Zone {
    /// Its policy.
    pub policy: Arc<ZonePolicy>,
    /// Its limits; an exempt zone's budget is cut to what is set aside for it.
    pub rules: ZoneRules,
    /// Its counts.
    pub state: Arc<ZoneState>,
}

/// A zone's counts, which outlive its policy.
#[derive(Debug)]
pub struct ZoneState {
    /// Its name.
    pub name: Arc<str>,
    /// Its budget and rate.
    pub counts: Arc<ZoneCounts>,
    /// What its connections move, by worker.
    pub tallies: Vec<Arc<Tally>>,
    /// What is counted of it.
    pub metrics: ZoneMetrics,
}

/// A listener in force.
#[derive(Debug)]
pub struct Listener {
    /// Its policy.
    pub policy: Arc<ListenerPolicy>,
    /// Its pending sockets.
    pub room: Arc<PendingRoom>,
    /// Sockets accepted.
    pub accepted: IntCounter,
    /// Requests with forwarding headers from a hop that is not trusted.
    pub untrusted_forwarded: IntCounter,
}

impl Running {
    /// The first policy of a process.
    pub fn begin(policy: Policy, shared: Arc<Shared>, room: &Room) -> Self {
        let zones: Vec<Zone> = policy
            .zones
            .iter()
            .zip(&room.zone_connections)
            .zip(0..)
            .map(|((zone, connections), id)| Zone::begin(zone, *connections, id, &shared))
            .collect();
        let mut servers: Vec<Arc<Server>> = Vec::new();
        let upstreams = policy
            .upstreams
            .iter()
            .map(|rules| Arc::new(Upstream::new(rules, |target| server(&mut servers, target))))
            .collect();
        let listeners = policy
            .listeners
            .iter()
            .zip(&room.max_pending)
            .map(|(listener, max_pending)| Arc::new(Listener::begin(listener, *max_pending, &shared.metrics)))
            .collect();
        Self {
            policy,
            zones,
            upstreams,
            listeners,
            shared,
        }
    }
}

impl Zone {
    fn begin(policy: &Arc<ZonePolicy>, connections: Option<u32>, id: u32, shared: &Shared) -> Self {
        let rules = ZoneRules {
            connections,
            ..policy.rules
        };
        let state = ZoneState {
            name: Arc::clone(&policy.name),
            counts: ZoneCounts::new(id, connections),
            tallies: (0..shared.workers).map(|_| Arc::default()).collect(),
            metrics: shared.metrics.zone(&policy.name),
        };
        Self {
            policy: Arc::clone(policy),
            rules,
            state: Arc::new(state),
        }
    }
}

impl Listener {
    fn begin(policy: &Arc<ListenerPolicy>, max_pending: u32, metrics: &Metrics) -> Self {
        let rules = PendingRules {
            max: max_pending,
            max_per_ip: policy.max_pending_per_ip,
            timeout: policy.handshake_timeout,
        };
        Self {
            policy: Arc::clone(policy),
            room: PendingRoom::new(rules),
            accepted: metrics.accepted.with_label_values(&[&*policy.name]),
            untrusted_forwarded: metrics.untrusted_forwarded.with_label_values(&[&*policy.name]),
        }
    }
}

impl Shared {
    /// State for a process that begins now.
    pub fn begin(policy: &Policy, room: &Room, workers: usize, log: Log) -> Self {
        Self {
            admission: Admission::new(policy.server.table_size, Instant::now()),
            process: Arc::new(Budget::new(Some(room.common_connections))),
            process_limit: room.process_connections,
            alive: AtomicI64::new(0),
            workers,
            metrics: Metrics::new(),
            log,
            trusts_nobody: policy.identity.trusted.is_empty() && !policy.identity.trust_unix,
            advice: Advice::default(),
            started: SystemTime::now(),
        }
    }
}

/// Upstreams that name the same target share its server: it has one load, whoever dials it.
fn server(known: &mut Vec<Arc<Server>>, target: &Target) -> Arc<Server> {
    if let Some(server) = known.iter().find(|server| server.target() == target) {
        return Arc::clone(server);
    }
    known.push(Arc::new(Server::new(target.clone())));
    Arc::clone(&known[known.len() - 1])
}
