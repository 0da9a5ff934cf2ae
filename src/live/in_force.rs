//! The policy in force, and the state that it is applied to. A reload builds another [`InForce`] and swaps the pointer. The
//! state of zones, pending rooms and servers is carried over by name, so their counts outlive the policy.

use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;

use crate::config::policy::Policy;
use crate::config::routes::Route;
use crate::limit::pending::PendingRoom;
use crate::net::address::Target;
use crate::telemetry::log::Log;
use crate::upstream::group::Upstream;
use crate::upstream::server::Server;

use super::capacity::Capacity;
use super::destination::Destination;
use super::listener::Listener;
use super::process::ProcessState;
use super::zone::{Zone, ZoneState};

/// The pointer to the [`InForce`] of the newest policy. The code below `control` reads it.
#[derive(Debug)]
pub struct Live(ArcSwap<InForce>);

/// A policy in force and the state that it is applied to.
#[derive(Debug)]
pub struct InForce {
    /// The policy.
    pub policy: Policy,
    /// The zones, in the order of `policy.zones`.
    pub zones: Vec<Arc<Zone>>,
    /// The upstreams, in the order of `policy.upstreams`.
    pub upstreams: Vec<Arc<Upstream>>,
    /// The destinations, in the order of `policy.routes`.
    destinations: Vec<Arc<Destination>>,
    /// The listeners, in the order of `policy.listeners`.
    pub listeners: Vec<Arc<Listener>>,
    /// State that belongs to the process.
    pub process: Arc<ProcessState>,
    removed: Removed,
}

/// Zones, listeners and servers that a reload has removed and that may still be in use.
#[derive(Debug, Default)]
struct Removed {
    /// The zones that the last reload removed, and zones that earlier reloads removed, until they are empty.
    zones: Vec<Arc<Zone>>,
    /// The listeners that the last reload removed, and listeners that earlier reloads removed, until they have no pending
    /// sockets.
    listeners: Vec<Arc<Listener>>,
    /// The removed servers. A server is gone when no connection uses it and no previous policy can dial it.
    servers: Vec<Weak<Server>>,
}

impl Live {
    /// Begins with the first policy of a process.
    pub fn new(first: InForce) -> Self {
        Self(ArcSwap::from_pointee(first))
    }

    /// The policy in force now, and its state.
    pub fn in_force(&self) -> Arc<InForce> {
        self.0.load_full()
    }

    /// Puts another policy in force.
    pub fn put_in_force(&self, next: Arc<InForce>) {
        self.0.store(next);
    }

    /// State that belongs to the process.
    pub fn process(&self) -> Arc<ProcessState> {
        Arc::clone(&self.0.load().process)
    }

    /// The log.
    pub fn log(&self) -> Log {
        self.0.load().process.log.clone()
    }
}

impl InForce {
    /// Applies `policy` to the state that is carried over from `before`. `before` is `None` for the first policy of a
    /// process.
    pub fn build(policy: Policy, process: Arc<ProcessState>, capacity: &Capacity, before: Option<&Self>) -> Self {
        let states = zone_states(&policy, &process, capacity, before);
        let zones: Vec<Arc<Zone>> = policy
            .zones
            .iter()
            .zip(&capacity.zone_connections)
            .zip(states)
            .map(|((zone, connections), state)| Arc::new(Zone::build(zone, *connections, state, &process)))
            .collect();
        let listeners: Vec<Arc<Listener>> = policy
            .listeners
            .iter()
            .zip(&capacity.max_pending)
            .map(|(listener, max_pending)| {
                let known = before.and_then(|before| before.listener_named(&listener.name));
                Arc::new(Listener::build(listener, *max_pending, &process, known))
            })
            .collect();
        let mut servers: Vec<Arc<Server>> = before.into_iter().flat_map(Self::servers).collect();
        let upstreams: Vec<Arc<Upstream>> = policy
            .upstreams
            .iter()
            .map(|upstream| Arc::new(Upstream::new(&upstream.rules, |target| server(&mut servers, target))))
            .collect();
        servers.retain(|server| {
            let is_used_by = |upstream: &Arc<Upstream>| upstream.servers().iter().any(|new| Arc::ptr_eq(new, server));
            !upstreams.iter().any(is_used_by)
        });
        let destinations = policy
            .routes
            .iter()
            .map(|route| {
                Arc::new(Destination {
                    route: Arc::clone(&route.name),
                    zone: Arc::clone(&zones[route.zone]),
                    upstream: Arc::clone(&upstreams[route.upstream]),
                    relay: policy.upstreams[route.upstream].relay,
                })
            })
            .collect();
        let removed = Removed {
            // A connection may be decided under the previous policy at this moment. So the zones of that policy stay, even
            // if they look empty.
            zones: before
                .into_iter()
                .flat_map(|before| {
                    let earlier = before.removed.zones.iter().filter(|old| !old.is_empty());
                    before.zones.iter().chain(earlier)
                })
                .filter(|old| !zones.iter().any(|zone| zone.is(old)))
                .cloned()
                .collect(),
            // The same holds for listeners: a connection that is queued on a closing socket may be accepted after this.
            listeners: before
                .into_iter()
                .flat_map(|before| {
                    let earlier = before.removed.listeners.iter().filter(|old| !old.is_empty());
                    before.listeners.iter().chain(earlier)
                })
                .filter(|old| !listeners.iter().any(|new| new.is(old)))
                .cloned()
                .collect(),
            servers: servers.iter().map(Arc::downgrade).collect(),
        };
        Self {
            policy,
            zones,
            upstreams,
            destinations,
            listeners,
            process,
            removed,
        }
    }

    /// Where a route of the policy leads. Of a route that refuses, it means nothing.
    pub fn destination(&self, route: &Route) -> &Arc<Destination> {
        &self.destinations[route.nth]
    }

    /// The zones of the policy, then the removed zones that are not empty yet.
    pub fn all_zones(&self) -> impl Iterator<Item = &Arc<Zone>> {
        self.zones.iter().chain(&self.removed.zones)
    }

    /// The listeners of the policy, then the removed listeners.
    pub fn all_listeners(&self) -> impl Iterator<Item = &Arc<Listener>> {
        self.listeners.iter().chain(&self.removed.listeners)
    }

    /// The listeners of the policy, then the removed listeners with pending sockets.
    pub fn listeners_in_use(&self) -> impl Iterator<Item = &Arc<Listener>> {
        let removed = self.removed.listeners.iter().filter(|old| !old.is_empty());
        self.listeners.iter().chain(removed)
    }

    /// Every pending room that may have sockets.
    pub fn rooms(&self) -> impl Iterator<Item = &Arc<PendingRoom>> {
        self.all_listeners().map(|listener| &listener.room)
    }

    /// Servers that a reload has removed and that are still in use.
    pub fn removed_servers(&self) -> impl Iterator<Item = Arc<Server>> {
        self.removed.servers.iter().filter_map(Weak::upgrade)
    }

    /// Whether a zone is empty, and no longer in the policy.
    pub fn is_gone(&self, zone: &Zone) -> bool {
        zone.is_empty() && !self.zones.iter().any(|new| new.is(zone))
    }

    /// The zone of this name, removed or not.
    fn zone_named(&self, name: &str) -> Option<&Arc<Zone>> {
        self.all_zones().find(|zone| *zone.policy.name == *name)
    }

    /// The zone of this name, unless it was removed.
    fn living_zone(&self, name: &str) -> Option<&Arc<Zone>> {
        self.zone_named(name).filter(|zone| !self.is_gone(zone))
    }

    fn listener_named(&self, name: &str) -> Option<&Listener> {
        let mut all = self.all_listeners();
        all.find(|listener| *listener.policy.name == *name)
            .map(|found| &**found)
    }

    fn servers(&self) -> impl Iterator<Item = Arc<Server>> {
        self.upstreams
            .iter()
            .flat_map(|upstream| upstream.servers())
            .cloned()
            .chain(self.removed_servers())
    }
}

/// The counts of each zone of a policy: existing ones, or new ones.
fn zone_states(
    policy: &Policy,
    process: &ProcessState,
    capacity: &Capacity,
    before: Option<&InForce>,
) -> Vec<Arc<ZoneState>> {
    let states: Vec<Option<Arc<ZoneState>>> = policy
        .zones
        .iter()
        .map(|zone| Some(Arc::clone(&before?.living_zone(&zone.name)?.state)))
        .collect();
    let news = policy.zones.iter().zip(&states).filter(|(_, state)| state.is_none());
    if before.is_some() {
        process
            .metrics
            .forget_zones(&news.map(|(zone, _)| &*zone.name).collect());
    }
    let zones = policy.zones.iter().zip(&capacity.zone_connections).zip(states);
    zones
        .map(|((zone, connections), state)| {
            state.unwrap_or_else(|| {
                // A removed zone that comes back keeps its rates. Its metrics begin at 0.
                let gone = before.and_then(|before| before.zone_named(&zone.name));
                let counts = gone.map(|zone| Arc::clone(&zone.state.counts));
                Arc::new(ZoneState::begin(&zone.name, counts, *connections, process))
            })
        })
        .collect()
}

/// The server of a target, which is made if it is not `known`. Upstreams with the same target share one server, so the load
/// of the server is one number.
fn server(known: &mut Vec<Arc<Server>>, target: &Target) -> Arc<Server> {
    if let Some(server) = known.iter().find(|server| server.target() == target) {
        return Arc::clone(server);
    }
    known.push(Arc::new(Server::new(target.clone())));
    Arc::clone(&known[known.len() - 1])
}

#[cfg(test)]
impl InForce {
    /// A policy with one listener, one upstream and these tables of limits, in a process with this many workers.
    pub(crate) fn with_limits(limits: &str, workers: usize) -> Self {
        let text =
            format!("[[listener]]\nbind = [\"127.0.0.1:1\"]\n[upstream.chat]\nservers = [\"127.0.0.1:2\"]\n{limits}\n");
        let policy = crate::config::compile(&text, "test").expect("it compiles").policy;
        let capacity = Capacity {
            process_connections: 1000,
            common_connections: 1000,
            zone_connections: vec![None; policy.zones.len()],
            max_pending: vec![100; policy.listeners.len()],
        };
        let log = Log::start(policy.log.clone()).expect("a thread");
        let random = crate::net::random::Random::seeded([7; 16]);
        let process = Arc::new(ProcessState::begin(&policy, &capacity, workers, 1000, log, random));
        Self::build(policy, process, &capacity, None)
    }
}
