//! The JSON of /stats, for people and scripts: the same state as in /metrics, and the keys of the busiest clients.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use serde::Serialize;

use crate::config::policy::ShowClients;
use crate::limit::key::{ClientKey, Prefixes};

use crate::admin::scrape::{client_stats, hits_by_action, open_in_zones, silent, stamp, sum};
use crate::live::in_force::InForce;
use crate::telemetry::advice::{MOST_TOLD, few_descriptors, silent_zone};

/// The whole of /stats.
#[derive(Debug, Serialize)]
pub struct Stats {
    connections: i64,
    connections_limit: u32,
    zones: BTreeMap<String, ZoneStats>,
    upstreams: BTreeMap<String, Vec<ServerStats>>,
    top: Vec<TopClient>,
    rejected: BTreeMap<&'static str, u64>,
    generation: u64,
    last_reload: LastReload,
    advice: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ZoneStats {
    connections: u32,
    limit: Option<u32>,
    clients: u64,
    client_connections_max: u32,
    silent: u64,
    /// How often limits on messages were hit, by what was done.
    limit_hits: BTreeMap<&'static str, u64>,
    suspected_heartbeats: u64,
    ghosts: Ghosts,
}

#[derive(Debug, Serialize)]
struct Ghosts {
    reaped: u64,
    replaced: u64,
}

#[derive(Debug, Serialize)]
struct ServerStats {
    server: String,
    up: bool,
    connections: u32,
    dial_failures: u64,
}

#[derive(Debug, Serialize)]
struct TopClient {
    zone: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    open: u32,
}

#[derive(Debug, Serialize)]
struct LastReload {
    successful: bool,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Stats {
    /// The state as it is now.
    pub fn of(in_force: &InForce) -> Self {
        let last = in_force.process.reloads.last();
        Self {
            connections: open_in_zones(in_force),
            connections_limit: in_force.process.connections_limit.load(Relaxed),
            zones: in_force
                .all_zones()
                .zip(client_stats(in_force))
                .filter(|(zone, _)| !in_force.is_gone(zone))
                .map(|(zone, client_stats)| {
                    let stats = ZoneStats {
                        connections: zone.state.counts.budget.used(),
                        limit: zone.rules.connections,
                        clients: client_stats.clients,
                        client_connections_max: client_stats.most,
                        silent: silent(&zone.state.relay_counters),
                        limit_hits: hits_by_action(&zone.state.relay_counters),
                        suspected_heartbeats: sum(&zone.state.relay_counters, |counters| &counters.heartbeats),
                        ghosts: Ghosts {
                            reaped: zone.state.metrics.reaped.get(),
                            replaced: zone.state.metrics.replaced.get(),
                        },
                    };
                    (zone.state.name.to_string(), stats)
                })
                .collect(),
            upstreams: in_force
                .upstreams
                .iter()
                .map(|upstream| {
                    let servers = upstream.servers().iter().map(|server| ServerStats {
                        server: server.label().to_string(),
                        up: server.is_up(),
                        connections: server.open(),
                        dial_failures: server.dial_failures(),
                    });
                    (upstream.name().to_string(), servers.collect())
                })
                .collect(),
            top: top(in_force),
            rejected: {
                let zones = in_force.all_zones().map(|zone| &zone.state.metrics);
                in_force.process.metrics.rejected(zones)
            },
            generation: in_force.process.reloads.generation(),
            last_reload: LastReload {
                successful: last.error.is_none(),
                time: stamp(last.at),
                error: last.error.clone(),
            },
            advice: advice(in_force, last.error),
        }
    }
}

fn advice(in_force: &InForce, refused: Option<String>) -> Vec<String> {
    let refused = refused.map(|error| {
        format!("reload_refused: the configuration file is refused, and the one before is in force: {error}")
    });
    let process = &in_force.process;
    let silent = in_force.zones.iter().filter_map(|zone| {
        let messages = &zone.policy.messages;
        silent_zone(
            &zone.state.name,
            zone.state.counts.budget.used(),
            zone.rules.connections,
            silent(&zone.state.relay_counters),
            messages.first_message.is_some(),
            messages.ping.is_some(),
        )
    });
    // A ceiling that is set in the file does not depend on the descriptors.
    let wanted = match in_force.policy.server.max_connections {
        None => in_force
            .zones
            .iter()
            .map(|zone| u64::from(zone.rules.connections.unwrap_or(0)))
            .sum(),
        Some(_) => 0,
    };
    let open = u32::try_from(open_in_zones(in_force)).unwrap_or(0);
    let ceiling = few_descriptors(
        open,
        process.connections_limit.load(Relaxed),
        wanted,
        process.descriptors,
    );
    let trusts_nobody = process.trusts_nobody.load(Relaxed);
    process
        .advice
        .given(trusts_nobody, Instant::now())
        .into_iter()
        .chain(silent.take(MOST_TOLD))
        .chain(ceiling)
        .chain(refused)
        .collect()
}

fn top(in_force: &InForce) -> Vec<TopClient> {
    let named = |id| {
        in_force
            .all_zones()
            .find(|zone| zone.state.counts.id() == id)
            .map(|zone| zone.state.name.to_string())
    };
    in_force
        .process
        .admission
        .top(TOP)
        .into_iter()
        .map(|(zone, key, open)| TopClient {
            zone: named(zone).unwrap_or_default(),
            key: shown(key, in_force.policy.admin.clients),
            open,
        })
        .collect()
}

/// A client key in the form that `admin.clients` allows; `None` if it is hidden.
fn shown(key: ClientKey, clients: ShowClients) -> Option<String> {
    match clients {
        ShowClients::Show => Some(key.to_string()),
        ShowClients::Hide => None,
        ShowClients::Prefix => Some(key.cut(Prefixes { v4: 24, v6: 48 }).to_string()),
    }
}

const TOP: usize = 20;
