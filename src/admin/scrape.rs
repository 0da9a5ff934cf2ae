//! Reads the state for /metrics and /stats.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::proto::LabelPair;
use prometheus::{Encoder, IntCounter, TextEncoder};

use crate::limit::client_stats::{CONNECTION_BOUNDS, ClientStats};
use crate::relay::counters::{Counter, LimitAction, MessageLimit, RelayCounters};
use crate::upstream::server::Server;

use crate::live::in_force::InForce;
use crate::live::process::ProcessState;
use crate::live::zone::Zone;
use crate::telemetry::metrics::{Gauges, seconds};
use crate::telemetry::process::ProcessUse;

/// The text of /metrics. If `may_forget` is true, the series of removed parts are shown once more and then removed.
pub fn metrics_text(in_force: &InForce, may_forget: bool) -> String {
    let metrics = &in_force.process.metrics;
    let gauges = &Gauges::new();
    for (zone, client_stats) in in_force.all_zones().zip(client_stats(in_force)) {
        if !in_force.is_gone(zone) {
            set_zone(zone, &client_stats, in_force, gauges);
        }
    }
    for listener in in_force.listeners_in_use() {
        gauges
            .pending
            .with_label_values(&[&*listener.policy.name])
            .set(listener.room.taken().into());
    }
    gauges.process_connections.set(open_in_zones(in_force));
    gauges
        .process_connections_limit
        .set(in_force.process.connections_limit.load(Relaxed).into());
    gauges.client_evictions.inc_by(in_force.process.admission.evictions());
    gauges.counter_drift.set(drift(in_force));
    for upstream in &in_force.upstreams {
        for server in upstream.servers() {
            let labels: &[&str] = &[upstream.name(), server.label()];
            gauges.upstream_up.with_label_values(labels).set(server.is_up().into());
            gauges
                .upstream_connections
                .with_label_values(labels)
                .set(server.open().into());
            catch_up(
                &metrics.totals.upstream_dial_failures.with_label_values(labels),
                server.dial_failures(),
            );
        }
    }
    set_process(&in_force.process, gauges);
    let mut text = Vec::new();
    let there = may_forget.then(|| There::in_force(in_force));
    let mut families = metrics.gather(|labels| there.as_ref().is_some_and(|there| there.has_lost(labels)));
    families.extend(gauges.gather());
    families.sort_by(|one, other| one.name().cmp(other.name()));
    match TextEncoder::new().encode(&families, &mut text) {
        Ok(()) => String::from_utf8_lossy(&text).replace(TYPED, ""),
        Err(error) => format!("# {error}\n"),
    }
}

/// The names that are still in use: in the policy, or by an open or pending connection. They are in sets, because with
/// hundreds of zones a metric has thousands of series to look up.
struct There {
    zones: HashSet<Arc<str>>,
    listeners: HashSet<Arc<str>>,
    /// Pairs of an upstream and one of its servers.
    servers: HashSet<(Arc<str>, Arc<str>)>,
    removed_servers: HashSet<Arc<str>>,
}

impl There {
    fn in_force(in_force: &InForce) -> Self {
        let zones = in_force.all_zones().filter(|zone| !in_force.is_gone(zone));
        let listeners = in_force.listeners_in_use();
        let servers = in_force.upstreams.iter().flat_map(|upstream| {
            let of = |server: &Arc<Server>| (Arc::clone(upstream.name()), Arc::clone(server.label()));
            upstream.servers().iter().map(of)
        });
        let removed_servers = in_force.removed_servers().filter(|old| old.open() > 0);
        Self {
            zones: zones.map(|zone| Arc::clone(&zone.state.name)).collect(),
            listeners: listeners.map(|listener| Arc::clone(&listener.policy.name)).collect(),
            servers: servers.collect(),
            removed_servers: removed_servers.map(|old| Arc::clone(old.label())).collect(),
        }
    }

    /// Whether one of these labels names a part that a reload has removed and that has no connections any more.
    fn has_lost(&self, labels: &[LabelPair]) -> bool {
        let value = |name| {
            let pair = labels.iter().find(|pair| pair.name() == name);
            pair.map(LabelPair::value)
        };
        let has_lost_server = || {
            let (Some(upstream), Some(server)) = (value("upstream"), value("server")) else {
                return false;
            };
            !self.servers.contains(&(upstream.into(), server.into())) && !self.removed_servers.contains(server)
        };
        value("zone").is_some_and(|name| name != "-" && !self.zones.contains(name))
            || value("listener").is_some_and(|name| !self.listeners.contains(name))
            || has_lost_server()
    }
}

/// The number of connections that hold a permit, by the zones' own counts.
pub fn open_in_zones(in_force: &InForce) -> i64 {
    in_force
        .all_zones()
        .map(|zone| i64::from(zone.state.counts.budget.used()))
        .sum()
}

/// Statistics of the connections that clients hold: one item for each zone, in the order of the zones.
pub fn client_stats(in_force: &InForce) -> Vec<ClientStats> {
    let zones: Vec<u32> = in_force.all_zones().map(|zone| zone.state.counts.id()).collect();
    in_force.process.admission.client_stats(&zones)
}

/// By how much the three counts of connections differ: the larger of |alive - table| and |alive - zones|. The counts are
/// read one after the other while connections come and go. So a result other than 0 is measured again, and the smallest
/// result counts.
pub fn drift(in_force: &InForce) -> i64 {
    let mut least = i64::MAX;
    for _ in 0..READINGS {
        let alive = in_force.process.alive.load(Relaxed);
        let table = i64::try_from(in_force.process.admission.open_in_table()).unwrap_or(i64::MAX);
        let zones = open_in_zones(in_force);
        least = least.min((alive - table).abs().max((alive - zones).abs()));
        if least == 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    least
}

fn set_zone(zone: &Zone, client_stats: &ClientStats, in_force: &InForce, gauges: &Gauges) {
    let name: &str = &zone.state.name;
    let counts = &zone.state.counts;
    gauges
        .connections
        .with_label_values(&[name])
        .set(counts.budget.used().into());
    // If a budget is off, the process ceiling limits the zone.
    let limit = zone
        .rules
        .connections
        .unwrap_or(in_force.process.connections_limit.load(Relaxed));
    gauges.connections_limit.with_label_values(&[name]).set(limit.into());
    let totals = &in_force.process.metrics.totals;
    let sum = |count: fn(&RelayCounters) -> &Counter| sum(&zone.state.relay_counters, count);
    catch_up(
        &totals.bytes.with_label_values(&[name, "in"]),
        sum(|counters| &counters.bytes_in),
    );
    catch_up(
        &totals.bytes.with_label_values(&[name, "out"]),
        sum(|counters| &counters.bytes_out),
    );
    catch_up(
        &totals.messages.with_label_values(&[name, "in"]),
        sum(|counters| &counters.messages_in),
    );
    catch_up(
        &totals.messages.with_label_values(&[name, "out"]),
        sum(|counters| &counters.messages_out),
    );
    gauges
        .silent_connections
        .with_label_values(&[name])
        .set(whole(silent(&zone.state.relay_counters)));
    catch_up(
        &totals.heartbeats.with_label_values(&[name]),
        sum(|counters| &counters.heartbeats),
    );
    for limit in MessageLimit::ALL {
        for action in LimitAction::ALL.into_iter().filter(|action| limit.may_lead_to(*action)) {
            catch_up(
                &totals
                    .limit_hits
                    .with_label_values(&[name, limit.word(), action.word()]),
                limit_hits(&zone.state.relay_counters, limit, action),
            );
        }
    }
    gauges
        .clients
        .with_label_values(&[name])
        .set(whole(client_stats.clients));
    gauges
        .client_connections_max
        .with_label_values(&[name])
        .set(client_stats.most.into());
    let bounds = CONNECTION_BOUNDS
        .iter()
        .map(u32::to_string)
        .chain([String::from("+Inf")]);
    for (le, clients) in bounds.zip(client_stats.by_connections) {
        gauges
            .clients_by_connections
            .with_label_values(&[name, &le])
            .set(whole(clients));
    }
}

fn set_process(state: &ProcessState, gauges: &Gauges) {
    gauges.log_lines_dropped.inc_by(state.log.dropped());
    let started = since_1970(state.started);
    gauges.start_time.set(started);
    let reloads = &state.reloads;
    let (generation, failures) = (reloads.generation(), reloads.failures());
    let last = reloads.last();
    gauges.config_generation.set(whole(generation));
    gauges.config_last_reload_successful.set(last.error.is_none().into());
    gauges
        .config_last_reload_success_timestamp
        .set(since_1970(last.succeeded_at));
    gauges
        .config_reloads
        .with_label_values(&["success"])
        .inc_by(generation - 1);
    gauges.config_reloads.with_label_values(&["failure"]).inc_by(failures);
    let Some(used) = ProcessUse::now() else { return };
    let process = &gauges.process;
    process.cpu_seconds.inc_by(used.cpu_seconds);
    process.resident_memory.set(whole(used.resident_bytes));
    process.virtual_memory.set(whole(used.virtual_bytes));
    process.open_fds.set(whole(used.open_fds));
    process.max_fds.set(whole(used.max_fds));
    process.threads.set(whole(used.threads));
    process.start_time.set(used.started.unwrap_or(started));
}

/// The number of open tunnels whose client has sent nothing since the upgrade.
pub fn silent(all: &[Arc<RelayCounters>]) -> u64 {
    let spoken = sum(all, |counters| &counters.no_longer_silent);
    sum(all, |counters| &counters.opened).saturating_sub(spoken)
}

/// How often this limit was hit, with this outcome.
pub fn limit_hits(all: &[Arc<RelayCounters>], limit: MessageLimit, action: LimitAction) -> u64 {
    all.iter().map(|counters| counters.hits(limit, action).value()).sum()
}

/// How often each outcome occurred, over all limits.
pub fn hits_by_action(all: &[Arc<RelayCounters>]) -> BTreeMap<&'static str, u64> {
    let hits = |action| {
        MessageLimit::ALL
            .into_iter()
            .map(move |limit| limit_hits(all, limit, action))
    };
    LimitAction::ALL
        .into_iter()
        .map(|action| (action.word(), hits(action).sum()))
        .collect()
}

/// The sum of one counter over all workers.
pub fn sum(all: &[Arc<RelayCounters>], count: fn(&RelayCounters) -> &Counter) -> u64 {
    all.iter().map(|counters| count(counters).value()).sum()
}

/// Raises a counter to a total that is counted elsewhere. A total never shrinks. So a total below the counter is that
/// of a new zone or server with the same name, which began at 0.
fn catch_up(counter: &IntCounter, total: u64) {
    if total < counter.get() {
        counter.reset();
    }
    counter.inc_by(total.saturating_sub(counter.get()));
}

fn since_1970(time: SystemTime) -> f64 {
    seconds(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The time as in RFC 3339, in UTC, to the second.
pub fn stamp(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| String::from("-"), |time| format!("{time:.0}"))
}

const READINGS: usize = 20;
/// A line that is removed from the text. `promtool check metrics` takes a gauge with the label `le` for a broken histogram.
/// Without this line, the metric has no type, and promtool does not complain. The series stay the same, and so do queries on
/// them.
const TYPED: &str = "# TYPE wsguard_clients_by_connections gauge\n";
