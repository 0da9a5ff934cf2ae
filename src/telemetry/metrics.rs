//! What is counted, by the names that dashboards hold on to. No label ever comes from traffic.
//!
//! Events are counted here as they happen; gauges and running totals are read off the state when somebody asks
//! (`scrape`).

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use enum_map::EnumMap;
use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::proto::{LabelPair, MetricFamily};
use prometheus::{
    Counter, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use crate::relay::relay::Totals;

use crate::telemetry::reason::{CloseReason, Reason};

/// Every metric of the process.
#[derive(Debug)]
pub struct Metrics {
    pub(crate) registry: Registry,
    /// `wsguard_accepted_total`.
    pub accepted: IntCounterVec,
    /// `wsguard_silent_closes_total`.
    pub silent_closes: IntCounterVec,
    /// `wsguard_untrusted_forwarded_total`.
    pub untrusted_forwarded: IntCounterVec,
    /// `wsguard_panics_total`.
    pub panics: IntCounter,
    /// `wsguard_accept_errors_total`.
    pub accept_errors: IntCounter,
    handshakes: IntCounterVec,
    handshake_duration: HistogramVec,
    closes: IntCounterVec,
    ghosts: IntCounterVec,
    connection_duration: HistogramVec,
    pub(crate) gauges: Gauges,
    /// Series of what is gone, which one scrape has shown since.
    shown: Mutex<HashSet<Series>>,
}

/// One series of a metric with labels: the metric's name, and the labels.
type Series = (String, Vec<(String, String)>);

fn series(metric: &str, labels: &[LabelPair]) -> Series {
    let labels = labels
        .iter()
        .map(|pair| (pair.name().to_owned(), pair.value().to_owned()));
    (metric.to_owned(), labels.collect())
}

/// What is set when somebody asks.
#[derive(Debug)]
pub(crate) struct Gauges {
    pub(crate) connections: IntGaugeVec,
    pub(crate) connections_limit: IntGaugeVec,
    pub(crate) process_connections: IntGauge,
    pub(crate) process_connections_limit: IntGauge,
    pub(crate) pending: IntGaugeVec,
    pub(crate) traffic: TrafficCounters,
    pub(crate) clients: IntGaugeVec,
    pub(crate) client_connections_max: IntGaugeVec,
    pub(crate) clients_by_connections: IntGaugeVec,
    pub(crate) silent_connections: IntGaugeVec,
    pub(crate) client_evictions: IntCounter,
    pub(crate) counter_drift: IntGauge,
    pub(crate) upstream_up: IntGaugeVec,
    pub(crate) upstream_connections: IntGaugeVec,
    pub(crate) upstream_dial_failures: IntCounterVec,
    pub(crate) config_generation: IntGauge,
    pub(crate) config_last_reload_successful: IntGauge,
    pub(crate) config_last_reload_success_timestamp: Gauge,
    pub(crate) config_reloads: IntCounterVec,
    pub(crate) log_lines_dropped: IntCounter,
    pub(crate) start_time: Gauge,
    pub(crate) build_info: IntGaugeVec,
    pub(crate) process: ProcessGauges,
}

/// What open connections move.
#[derive(Debug)]
pub(crate) struct TrafficCounters {
    pub(crate) bytes: IntCounterVec,
    pub(crate) messages: IntCounterVec,
    pub(crate) limit_hits: IntCounterVec,
    pub(crate) heartbeats: IntCounterVec,
}

/// The `process_*` values that every Prometheus client library exports.
#[derive(Debug)]
pub(crate) struct ProcessGauges {
    pub(crate) cpu_seconds: Counter,
    pub(crate) resident_memory: IntGauge,
    pub(crate) virtual_memory: IntGauge,
    pub(crate) open_fds: IntGauge,
    pub(crate) max_fds: IntGauge,
    pub(crate) threads: IntGauge,
    pub(crate) start_time: Gauge,
}

/// One zone's handles, so that counting an admission or a close looks nothing up.
#[derive(Debug)]
pub struct ZoneMetrics {
    /// Admissions that led to a tunnel.
    pub admitted: IntCounter,
    /// From accept to the tunnel.
    pub handshake_duration: Histogram,
    /// From the tunnel to its end.
    pub connection_duration: Histogram,
    closes: EnumMap<CloseReason, IntCounter>,
    /// Ghosts that were reaped.
    pub reaped: IntCounter,
    /// Ghosts that were replaced by another connection of the same client.
    pub replaced: IntCounter,
}

/// How a handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A tunnel.
    Admitted,
    /// No permit was given.
    Rejected,
    /// A tunnel, though a limit said no.
    Observed,
    /// A permit, but no tunnel.
    Failed,
}

impl Metrics {
    /// All metrics, at 0.
    #[allow(clippy::new_without_default)] // A registry is no value that one expects to get by default.
    pub fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        Self {
            accepted: counters(r, "wsguard_accepted_total", "Sockets accepted", &["listener"]),
            silent_closes: counters(
                r,
                "wsguard_silent_closes_total",
                "Connections that ended without a byte from the client: checks that only connect, scans, spare connections",
                &["listener"],
            ),
            untrusted_forwarded: counters(
                r,
                "wsguard_untrusted_forwarded_total",
                "Requests with forwarding headers from a hop that is not trusted",
                &["listener"],
            ),
            panics: counter(
                r,
                "wsguard_panics_total",
                "Faults of wsguard's own; each ends one connection at most",
            ),
            accept_errors: counter(r, "wsguard_accept_errors_total", "Failed accepts"),
            handshakes: counters(
                r,
                "wsguard_handshakes_total",
                "Handshakes by how they ended and why",
                &["zone", "outcome", "reason"],
            ),
            handshake_duration: histogram(
                r,
                "wsguard_handshake_duration_seconds",
                "From accept to an open tunnel",
                &[
                    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
                ],
            ),
            closes: counters(
                r,
                "wsguard_closes_total",
                "Tunnels that ended, by why",
                &["zone", "reason"],
            ),
            ghosts: counters(
                r,
                "wsguard_ghosts_total",
                "Connections whose client did not answer a ping: reaped, or replaced by another one of the same client",
                &["zone", "outcome"],
            ),
            connection_duration: histogram(
                r,
                "wsguard_connection_duration_seconds",
                "From an open tunnel to its end",
                &[0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0],
            ),
            gauges: Gauges::new(r),
            shown: Mutex::default(),
            registry,
        }
    }

    /// The handles of one zone; its series exist from now on.
    pub fn zone(&self, zone: &str) -> ZoneMetrics {
        for reason in [
            Reason::PerIp,
            Reason::PerIpRate,
            Reason::ZoneFull,
            Reason::ZoneRate,
            Reason::ProcessFull,
        ] {
            self.handshake(zone, Outcome::Rejected, Some(reason));
        }
        ZoneMetrics {
            admitted: self.handshake(zone, Outcome::Admitted, None),
            handshake_duration: self.handshake_duration.with_label_values(&[zone]),
            connection_duration: self.connection_duration.with_label_values(&[zone]),
            closes: EnumMap::from_fn(|reason: CloseReason| self.closes.with_label_values(&[zone, reason.word()])),
            reaped: self.ghosts.with_label_values(&[zone, "reaped"]),
            replaced: self.ghosts.with_label_values(&[zone, "replaced"]),
        }
    }

    /// The counter of one kind of handshake; before a route is known, zone is "-".
    pub fn handshake(&self, zone: &str, outcome: Outcome, reason: Option<Reason>) -> IntCounter {
        self.handshakes
            .with_label_values(&[zone, outcome.word(), reason.map_or("-", Reason::word)])
    }

    /// Removes the series of what is gone that the last scrape has shown, then reads everything. `is_gone` is asked of a
    /// metric's labels, each a name and a value.
    pub fn gather(&self, is_gone: impl Fn(&[LabelPair]) -> bool) -> Vec<MetricFamily> {
        let mut shown = self.shown.lock();
        let mut families = self.registry.gather();
        let mut gone = HashSet::new();
        for family in &mut families {
            let (name, metrics) = (family.name().to_owned(), family.mut_metric());
            metrics.retain(|metric| {
                let labels = metric.get_label();
                if labels.is_empty() || !is_gone(labels) {
                    return true;
                }
                let series = series(&name, labels);
                let is_due = shown.contains(&series);
                if is_due {
                    self.remove(&series);
                } else {
                    gone.insert(series);
                }
                !is_due
            });
        }
        families.retain(|family| !family.get_metric().is_empty());
        *shown = gone;
        families
    }

    /// Removes whatever zones of these names have left: a reload brings new ones. All at once, as it reads everything.
    pub fn forget_zones(&self, names: &HashSet<&str>) {
        if names.is_empty() {
            return;
        }
        for family in self.registry.gather() {
            for metric in family.get_metric() {
                let labels = metric.get_label();
                if labels
                    .iter()
                    .any(|pair| pair.name() == "zone" && names.contains(pair.value()))
                {
                    self.remove(&series(family.name(), labels));
                }
            }
        }
    }

    fn remove(&self, (name, labels): &Series) {
        let labels: HashMap<&str, &str> = labels.iter().map(|(name, value)| (&**name, &**value)).collect();
        let traffic = &self.gauges.traffic;
        let counters = [
            &self.accepted,
            &self.silent_closes,
            &self.untrusted_forwarded,
            &self.handshakes,
            &self.closes,
            &self.ghosts,
            &traffic.bytes,
            &traffic.messages,
            &traffic.limit_hits,
            &traffic.heartbeats,
            &self.gauges.upstream_dial_failures,
        ];
        let is_it = |vec: &dyn Collector| vec.desc().iter().any(|desc| desc.fq_name == *name);
        // One that is not there any more is no loss.
        for counters in counters.into_iter().filter(|vec| is_it(*vec)) {
            let _gone = counters.remove(&labels);
        }
        for histograms in [&self.handshake_duration, &self.connection_duration] {
            if is_it(histograms) {
                let _gone = histograms.remove(&labels);
            }
        }
    }

    /// Handshakes that were rejected or failed so far, by reason.
    pub fn rejected(&self) -> std::collections::BTreeMap<&'static str, u64> {
        let mut sums = std::collections::BTreeMap::new();
        for family in self.handshakes.collect() {
            for metric in family.get_metric() {
                let label = |name| {
                    metric
                        .get_label()
                        .iter()
                        .find(|pair| pair.name() == name)
                        .map(LabelPair::value)
                };
                if label("outcome") == Some(Outcome::Rejected.word())
                    && let Some(reason) = Reason::ALL
                        .into_iter()
                        .find(|reason| label("reason") == Some(reason.word()))
                {
                    *sums.entry(reason.word()).or_default() += whole(metric.get_counter().get_value());
                }
            }
        }
        sums
    }
}

impl ZoneMetrics {
    /// The counter of tunnels that ended for `reason`.
    pub fn closes(&self, reason: CloseReason) -> &IntCounter {
        &self.closes[reason]
    }

    /// The counter of ghosts that a tunnel belongs to which ended so.
    pub fn ghosts(&self, totals: &Totals) -> Option<&IntCounter> {
        let counter = if totals.was_replaced {
            &self.replaced
        } else {
            &self.reaped
        };
        (totals.reason == CloseReason::Ghost).then_some(counter)
    }
}

impl Outcome {
    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Rejected => "rejected",
            Self::Observed => "observed",
            Self::Failed => "failed",
        }
    }
}

impl Gauges {
    fn new(r: &Registry) -> Self {
        let zone: &[&str] = &["zone"];
        let server: &[&str] = &["upstream", "server"];
        let gauges = Self {
            connections: gauges(r, "wsguard_connections", "Connections that hold a permit", zone),
            connections_limit: gauges(r, "wsguard_connections_limit", "The zone's budget", zone),
            process_connections: gauge(
                r,
                "wsguard_process_connections",
                "Connections that hold a permit, all zones",
            ),
            process_connections_limit: gauge(r, "wsguard_process_connections_limit", "The process ceiling"),
            pending: gauges(
                r,
                "wsguard_pending",
                "Sockets accepted and not yet admitted",
                &["listener"],
            ),
            traffic: TrafficCounters::new(r),
            clients: gauges(r, "wsguard_clients", "Distinct client keys with a connection", zone),
            client_connections_max: gauges(
                r,
                "wsguard_client_connections_max",
                "The most that one client key holds",
                zone,
            ),
            clients_by_connections: gauges(
                r,
                "wsguard_clients_by_connections",
                "Client keys that hold at most le connections",
                &["zone", "le"],
            ),
            silent_connections: gauges(
                r,
                "wsguard_silent_connections",
                "Open tunnels whose client has sent nothing since the upgrade",
                zone,
            ),
            client_evictions: counter(
                r,
                "wsguard_client_evictions_total",
                "Idle client keys forgotten for want of room",
            ),
            counter_drift: gauge(
                r,
                "wsguard_counter_drift",
                "Connections alive less connections counted; always 0",
            ),
            upstream_up: gauges(r, "wsguard_upstream_up", "Whether the server can be dialled", server),
            upstream_connections: gauges(r, "wsguard_upstream_connections", "Connections to the server", server),
            upstream_dial_failures: counters(r, "wsguard_upstream_dial_failures_total", "Dials that failed", server),
            config_generation: gauge(
                r,
                "wsguard_config_generation",
                "Counts the policies in force since the start",
            ),
            config_last_reload_successful: gauge(
                r,
                "wsguard_config_last_reload_successful",
                "Whether the last attempt to load a configuration succeeded",
            ),
            config_last_reload_success_timestamp: float(
                r,
                "wsguard_config_last_reload_success_timestamp_seconds",
                "When a configuration was last loaded",
            ),
            config_reloads: counters(r, "wsguard_config_reloads_total", "Attempts to reload", &["outcome"]),
            log_lines_dropped: counter(
                r,
                "wsguard_log_lines_dropped_total",
                "Log lines that nobody read in time, or that could not be written",
            ),
            start_time: float(r, "wsguard_start_time_seconds", "When wsguard began to serve"),
            build_info: gauges(r, "wsguard_build_info", "1, labelled with the version", &["version"]),
            process: ProcessGauges::new(r),
        };
        gauges.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        for outcome in ["success", "failure"] {
            gauges.config_reloads.with_label_values(&[outcome]);
        }
        gauges
    }
}

impl Gauges {
    /// Forgets what a reload may have removed: who is still there is set anew before anybody reads.
    pub(crate) fn forget_labels(&self) {
        for gauges in [
            &self.connections,
            &self.connections_limit,
            &self.pending,
            &self.clients,
            &self.client_connections_max,
            &self.clients_by_connections,
            &self.silent_connections,
            &self.upstream_up,
            &self.upstream_connections,
        ] {
            gauges.reset();
        }
    }
}

impl TrafficCounters {
    fn new(r: &Registry) -> Self {
        let zone: &[&str] = &["zone"];
        let both: &[&str] = &["zone", "direction"];
        Self {
            bytes: counters(
                r,
                "wsguard_bytes_total",
                "Bytes moved through tunnels, from (in) and to (out) clients",
                both,
            ),
            messages: counters(
                r,
                "wsguard_messages_total",
                "WebSocket messages, counted at their first frame",
                both,
            ),
            limit_hits: counters(
                r,
                "wsguard_message_limit_hits_total",
                "Messages and frames beyond a limit, by what was done about it",
                &["zone", "limit", "action"],
            ),
            heartbeats: counters(
                r,
                "wsguard_suspected_heartbeats_total",
                "Messages of one size at a steady interval, from clients whose messages are looked at",
                zone,
            ),
        }
    }
}

impl ProcessGauges {
    fn new(r: &Registry) -> Self {
        Self {
            cpu_seconds: register(
                r,
                Counter::new("process_cpu_seconds_total", "CPU time, user and system"),
            ),
            resident_memory: gauge(r, "process_resident_memory_bytes", "Resident memory"),
            virtual_memory: gauge(r, "process_virtual_memory_bytes", "Virtual memory"),
            open_fds: gauge(r, "process_open_fds", "Open descriptors"),
            max_fds: gauge(r, "process_max_fds", "The descriptor limit"),
            threads: gauge(r, "process_threads", "Threads"),
            start_time: float(r, "process_start_time_seconds", "When the process began"),
        }
    }
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    register(registry, IntCounter::new(name, help))
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register(registry, IntGauge::new(name, help))
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    register(registry, IntGaugeVec::new(Opts::new(name, help), labels))
}

fn float(registry: &Registry, name: &str, help: &str) -> Gauge {
    register(registry, Gauge::new(name, help))
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> HistogramVec {
    register(
        registry,
        HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), &["zone"]),
    )
}

fn register<T: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<T>) -> T {
    let metric = metric.expect("the name and labels are written here");
    registry
        .register(Box::new(metric.clone()))
        .expect("each name is written once");
    metric
}

/// Seconds as metrics have them.
pub(crate) fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// A counter's value, which prometheus keeps as a float, as the whole number that it is.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Never negative, and exact to 2^53.
fn whole(value: f64) -> u64 {
    value as u64
}
