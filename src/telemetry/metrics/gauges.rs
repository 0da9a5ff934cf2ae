//! The metrics that each scrape reads from the state. They are made anew for each scrape, so a gauge is never shown for a
//! part that is gone.

use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::register::{counter, counters, float, gauge, gauges, register};

/// One reading of the state.
#[derive(Debug)]
pub(crate) struct Gauges {
    registry: Registry,
    pub(crate) connections: IntGaugeVec,
    pub(crate) connections_limit: IntGaugeVec,
    pub(crate) process_connections: IntGauge,
    pub(crate) process_connections_limit: IntGauge,
    pub(crate) pending: IntGaugeVec,
    pub(crate) clients: IntGaugeVec,
    pub(crate) client_connections_max: IntGaugeVec,
    pub(crate) clients_by_connections: IntGaugeVec,
    pub(crate) silent_connections: IntGaugeVec,
    pub(crate) client_evictions: IntCounter,
    pub(crate) counter_drift: IntGauge,
    pub(crate) upstream_up: IntGaugeVec,
    pub(crate) upstream_connections: IntGaugeVec,
    pub(crate) config_generation: IntGauge,
    pub(crate) config_last_reload_successful: IntGauge,
    pub(crate) config_last_reload_success_timestamp: Gauge,
    pub(crate) config_reloads: IntCounterVec,
    pub(crate) log_lines_dropped: IntCounter,
    pub(crate) start_time: Gauge,
    pub(crate) build_info: IntGaugeVec,
    pub(crate) process: ProcessGauges,
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

impl Gauges {
    /// Makes all gauges at 0. Gauges with labels have no series yet.
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
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
            registry,
        };
        gauges.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        for outcome in ["success", "failure"] {
            gauges.config_reloads.with_label_values(&[outcome]);
        }
        gauges
    }
}

impl Gauges {
    /// All gauges that have a series.
    pub(crate) fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
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
