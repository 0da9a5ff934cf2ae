//! What is in force: one policy, and the state it is applied to. A reload builds another and swaps the pointer; zones,
//! listeners' rooms and servers are carried over by name, so that their counts outlive it.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Instant, SystemTime};

use prometheus::IntCounter;

use crate::config::policy::{ListenerPolicy, Policy, ZonePolicy};
use crate::limit::admission::{Admission, ZoneCounts};
use crate::limit::budget::Budget;
use crate::limit::key::{ClientKey, Prefixes, TranslationPrefixes};
use crate::limit::pending::{PendingRoom, PendingRules};
use crate::limit::rules::ZoneRules;
use crate::net::address::Target;
use crate::relay::clock::Clock;
use crate::relay::tally::Tally;
use crate::relay::terms::Terms;
use crate::upstream::group::Upstream;
use crate::upstream::server::Server;

use crate::control::descriptors::Room;
use crate::control::reload::Reloads;
use crate::engine::ghosts::{Claims, Whose};
use crate::live::phase;
use crate::telemetry::advice::Advice;
use crate::telemetry::log::Log;
use crate::telemetry::metrics::{Metrics, ZoneMetrics};

/// A policy in force and the state it is applied to.
#[derive(Debug)]
pub struct Running {
    /// The policy.
    pub policy: Policy,
    /// As `policy.zones`.
    pub zones: Vec<Arc<Zone>>,
    /// Zones that a reload has removed: the last one, and those before it while they are not empty.
    pub removed_zones: Vec<Arc<Zone>>,
    /// As `policy.upstreams`.
    pub upstreams: Vec<Arc<Upstream>>,
    /// Servers that a reload has removed, for as long as anybody is connected there, or may still be taken there by a policy
    /// before.
    pub removed_servers: Vec<Weak<Server>>,
    /// As `policy.listeners`.
    pub listeners: Vec<Arc<Listener>>,
    /// Listeners that a reload has removed: the last one, and those before it while somebody is pending there.
    pub removed_listeners: Vec<Arc<Listener>>,
    /// What every policy shares.
    pub shared: Arc<Shared>,
}

/// State that belongs to the process and not to a policy.
#[derive(Debug)]
pub struct Shared {
    /// The client table.
    pub admission: Arc<Admission>,
    /// What client keys are cut to.
    pub prefixes: Prefixes,
    /// What is undone before they are cut.
    pub translations: TranslationPrefixes,
    /// The process ceiling, less what is set aside for exempt zones.
    pub process: Arc<Budget>,
    /// The whole process ceiling.
    pub process_limit: AtomicU32,
    /// Connections that the walk knows to hold a permit: what the drift metric compares the counts with.
    pub alive: AtomicI64,
    /// Worker threads.
    pub workers: usize,
    /// The descriptor limit.
    pub descriptors: u64,
    /// What is counted.
    pub metrics: Metrics,
    /// Where lines go.
    pub log: Log,
    /// No proxy is trusted, so forwarding headers are ignored.
    pub trusts_nobody: AtomicBool,
    /// What operators should look at.
    pub advice: Advice,
    /// What became of reloads.
    pub reloads: Reloads,
    /// Whether the process serves, or is about to end.
    pub phase: phase::Current,
    /// When the process began to serve.
    pub started: SystemTime,
    /// What peers are judged by.
    pub clock: Arc<Clock>,
    /// On whose behalf a slot is searched for.
    pub claims: Claims,
    /// Makes [`Whose`] of zone and key.
    hasher: RandomState,
    /// Ids for zones: none is ever used twice.
    next_zone: AtomicU32,
}

/// A zone in force.
#[derive(Debug)]
pub struct Zone {
    /// Its policy.
    pub policy: Arc<ZonePolicy>,
    /// Its limits; an exempt zone's budget is cut to what is set aside for it.
    pub rules: ZoneRules,
    /// What its open connections are held to, shared by all of them.
    pub terms: Arc<Terms>,
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
    /// Connections that ended without a byte, or behind a PROXY header that names nobody.
    pub silent_closes: IntCounter,
    /// Requests with forwarding headers from a hop that is not trusted.
    pub untrusted_forwarded: IntCounter,
}

impl Running {
    /// Applies `policy` to what is carried over from `before`: nothing, for the first policy of a process.
    pub fn build(policy: Policy, shared: Arc<Shared>, room: &Room, before: Option<&Self>) -> Self {
        let states = zone_states(&policy, &shared, room, before);
        let zones: Vec<Arc<Zone>> = policy
            .zones
            .iter()
            .zip(&room.zone_connections)
            .zip(states)
            .map(|((zone, connections), state)| Arc::new(Zone::build(zone, *connections, state, &shared)))
            .collect();
        let listeners: Vec<Arc<Listener>> = policy
            .listeners
            .iter()
            .zip(&room.max_pending)
            .map(|(listener, max_pending)| Arc::new(Listener::build(listener, *max_pending, &shared.metrics, before)))
            .collect();
        let mut servers: Vec<Arc<Server>> = before.into_iter().flat_map(Self::servers).collect();
        let upstreams: Vec<Arc<Upstream>> = policy
            .upstreams
            .iter()
            .map(|upstream| Arc::new(Upstream::new(&upstream.rules, |target| server(&mut servers, target))))
            .collect();
        servers.retain(|server| {
            let is_asked_for = |upstream: &Arc<Upstream>| upstream.servers().iter().any(|new| Arc::ptr_eq(new, server));
            !upstreams.iter().any(is_asked_for)
        });
        let is_removed = |old: &&Arc<Zone>| !zones.iter().any(|zone| zone.is(old));
        // Somebody may be deciding by the policy before at this very moment, so its zones stay although they look empty.
        let removed_zones = before
            .into_iter()
            .flat_map(|before| {
                let earlier = before.removed_zones.iter().filter(|old| !old.is_empty());
                before.zones.iter().chain(earlier)
            })
            .filter(is_removed)
            .cloned()
            .collect();
        // Likewise whoever is queued on a socket that closes comes in after this.
        let removed_listeners = before
            .into_iter()
            .flat_map(|before| {
                let earlier = before.removed_listeners.iter().filter(|old| old.room.taken() > 0);
                before.listeners.iter().chain(earlier)
            })
            .filter(|old| !listeners.iter().any(|new| Arc::ptr_eq(&new.room, &old.room)))
            .cloned()
            .collect();
        Self {
            policy,
            zones,
            removed_zones,
            upstreams,
            removed_servers: servers.iter().map(Arc::downgrade).collect(),
            listeners,
            removed_listeners,
            shared,
        }
    }

    /// The zones of the policy, then those that live on until they are empty.
    pub fn all_zones(&self) -> impl Iterator<Item = &Arc<Zone>> {
        self.zones.iter().chain(&self.removed_zones)
    }

    /// The zone of this name, be it gone or not.
    fn named(&self, name: &str) -> Option<&Arc<Zone>> {
        self.all_zones().find(|zone| *zone.policy.name == *name)
    }

    /// The zone of this name, where it is not gone.
    fn living(&self, name: &str) -> Option<&Arc<Zone>> {
        self.named(name).filter(|zone| !self.is_gone(zone))
    }

    /// Whether nobody is in a zone, and nobody can come in any more.
    pub fn is_gone(&self, zone: &Zone) -> bool {
        zone.is_empty() && !self.zones.iter().any(|new| new.is(zone))
    }

    /// Everywhere somebody may be pending.
    pub fn rooms(&self) -> impl Iterator<Item = &Arc<PendingRoom>> {
        self.listeners
            .iter()
            .chain(&self.removed_listeners)
            .map(|listener| &listener.room)
    }

    fn servers(&self) -> impl Iterator<Item = Arc<Server>> {
        self.upstreams
            .iter()
            .flat_map(|upstream| upstream.servers())
            .cloned()
            .chain(self.removed_servers())
    }

    /// Servers that a reload has removed and that are still somebody's.
    pub fn removed_servers(&self) -> impl Iterator<Item = Arc<Server>> {
        self.removed_servers.iter().filter_map(Weak::upgrade)
    }
}

impl Zone {
    fn build(policy: &Arc<ZonePolicy>, connections: Option<u32>, state: Arc<ZoneState>, shared: &Shared) -> Self {
        Self {
            policy: Arc::clone(policy),
            terms: Arc::new(Terms::new(
                policy.pace,
                &policy.messages,
                policy.rules.observe,
                shared.admission.epoch(),
                Arc::clone(&shared.clock),
            )),
            rules: ZoneRules {
                connections,
                ..policy.rules
            },
            state,
        }
    }

    /// Whether two zones, under whatever policies, are the same one.
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state.counts, &other.state.counts)
    }

    /// Whether nothing is open in it.
    pub fn is_empty(&self) -> bool {
        self.state.counts.budget.used() == 0
    }
}

impl Listener {
    fn build(policy: &Arc<ListenerPolicy>, max_pending: u32, metrics: &Metrics, before: Option<&Running>) -> Self {
        let rules = PendingRules {
            max: max_pending,
            max_per_ip: policy.max_pending_per_ip,
            timeout: policy.handshake_timeout,
        };
        let known = before.and_then(|before| {
            let mut all = before.listeners.iter().chain(&before.removed_listeners);
            all.find(|listener| listener.policy.name == policy.name)
        });
        let room = known.map_or_else(|| PendingRoom::new(rules), |listener| Arc::clone(&listener.room));
        room.set_rules(rules);
        Self {
            policy: Arc::clone(policy),
            room,
            accepted: metrics.accepted.with_label_values(&[&*policy.name]),
            silent_closes: metrics.silent_closes.with_label_values(&[&*policy.name]),
            untrusted_forwarded: metrics.untrusted_forwarded.with_label_values(&[&*policy.name]),
        }
    }
}

impl Shared {
    /// State for a process that begins now, with so many descriptors.
    pub fn begin(policy: &Policy, room: &Room, workers: usize, descriptors: u64, log: Log) -> Self {
        let shared = Self {
            admission: Admission::new(policy.server.table_size, Instant::now()),
            prefixes: policy.identity.prefixes,
            translations: policy.identity.translations.clone(),
            process: Arc::new(Budget::new(None)),
            process_limit: AtomicU32::new(0),
            alive: AtomicI64::new(0),
            workers,
            descriptors,
            metrics: Metrics::new(),
            log,
            trusts_nobody: AtomicBool::new(false),
            advice: Advice::begin(Instant::now()),
            reloads: Reloads::begin(SystemTime::now()),
            phase: phase::Current::default(),
            started: SystemTime::now(),
            clock: Arc::new(Clock::begin(Instant::now())),
            claims: Claims::default(),
            hasher: RandomState::new(),
            next_zone: AtomicU32::new(0),
        };
        shared.adopt(policy, room);
        shared
    }

    /// Whose a connection of this client in this zone is.
    pub fn whose(&self, zone: u32, key: ClientKey) -> Whose {
        Whose(self.hasher.hash_one((zone, key)))
    }

    /// Takes over what a policy says about the process as a whole.
    pub fn adopt(&self, policy: &Policy, room: &Room) {
        self.process.set_limit(Some(room.common_connections));
        self.process_limit.store(room.process_connections, Relaxed);
        let trusts_nobody = policy.identity.trusted.is_empty() && !policy.identity.trust_unix;
        self.trusts_nobody.store(trusts_nobody, Relaxed);
        self.log.set_policy(policy.log.clone());
    }
}

/// The counts of each zone of a policy: those that it has, or new ones.
fn zone_states(policy: &Policy, shared: &Shared, room: &Room, before: Option<&Running>) -> Vec<Arc<ZoneState>> {
    let states: Vec<Option<Arc<ZoneState>>> = policy
        .zones
        .iter()
        .map(|zone| Some(Arc::clone(&before?.living(&zone.name)?.state)))
        .collect();
    let news = policy.zones.iter().zip(&states).filter(|(_, state)| state.is_none());
    if before.is_some() {
        shared
            .metrics
            .forget_zones(&news.map(|(zone, _)| &*zone.name).collect());
    }
    // One that was gone comes back: its rates still count, and what is shown of it begins at 0.
    let begin = |zone: &ZonePolicy, connections| {
        Arc::new(ZoneState {
            name: Arc::clone(&zone.name),
            counts: before.and_then(|before| before.named(&zone.name)).map_or_else(
                || ZoneCounts::new(shared.next_zone.fetch_add(1, Relaxed), connections),
                |zone| Arc::clone(&zone.state.counts),
            ),
            tallies: (0..shared.workers).map(|_| Arc::default()).collect(),
            metrics: shared.metrics.zone(&zone.name),
        })
    };
    let zones = policy.zones.iter().zip(&room.zone_connections).zip(states);
    zones
        .map(|((zone, connections), state)| state.unwrap_or_else(|| begin(zone, *connections)))
        .collect()
}

/// Upstreams that name the same target share its server: it has one load, whoever dials it.
fn server(known: &mut Vec<Arc<Server>>, target: &Target) -> Arc<Server> {
    if let Some(server) = known.iter().find(|server| server.target() == target) {
        return Arc::clone(server);
    }
    known.push(Arc::new(Server::new(target.clone())));
    Arc::clone(&known[known.len() - 1])
}
