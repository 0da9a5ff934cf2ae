//! Every metric of the process, and the removal of series.

use std::collections::{BTreeMap, HashMap, HashSet};

use enum_map::EnumMap;
use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::proto::{LabelPair, MetricFamily};
use prometheus::{HistogramVec, IntCounter, IntCounterVec, Registry};

use crate::limit::admission::Limit;
use crate::reason::close::CloseReason;
use crate::telemetry::class::Class;

use super::handshakes::{Handshakes, Refused};
use super::register::{counter, counters, histogram};
use super::totals::Totals;
use super::zone::ZoneMetrics;

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
    /// The handshakes of connections whose route is not known yet.
    unrouted: Handshakes,
    handshake_duration: HistogramVec,
    closes: IntCounterVec,
    ghosts: IntCounterVec,
    connection_duration: HistogramVec,
    pub(crate) totals: Totals,
    /// The series of removed zones, listeners and servers that a scrape has shown since they were removed.
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

impl Metrics {
    /// All metrics, at 0.
    #[allow(clippy::new_without_default)] // `default()` would hide that a whole registry is made.
    pub fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        let handshakes = counters(
            r,
            "wsguard_handshakes_total",
            "Handshakes by how they ended and why",
            &["zone", "outcome", "reason"],
        );
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
            unrouted: Handshakes::new(&handshakes, "-"),
            handshakes,
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
            totals: Totals::new(r),
            shown: Mutex::default(),
            registry,
        }
    }

    /// The handles of one zone. All its series exist from now on, except refusals that are not due to a limit.
    pub fn zone(&self, zone: &str) -> ZoneMetrics {
        let handshakes = Handshakes::new(&self.handshakes, zone);
        for limit in [
            Limit::PerIp,
            Limit::PerIpRate,
            Limit::ZoneFull,
            Limit::ZoneRate,
            Limit::ProcessFull,
        ] {
            handshakes.counter(Refused::Rejected, limit.into());
        }
        ZoneMetrics {
            admitted: handshakes.admitted(),
            handshake_duration: self.handshake_duration.with_label_values(&[zone]),
            connection_duration: self.connection_duration.with_label_values(&[zone]),
            closes: EnumMap::from_fn(|reason: CloseReason| self.closes.with_label_values(&[zone, reason.word()])),
            reaped: self.ghosts.with_label_values(&[zone, "reaped"]),
            replaced: self.ghosts.with_label_values(&[zone, "replaced"]),
            handshakes,
        }
    }

    /// Counts a handshake that led to no tunnel, or that exceeded a limit that is only observed. `zone` is `None` if no
    /// route was known yet. The end of a tunnel is not counted here: see [`ZoneMetrics::closed`].
    pub fn count_handshake(&self, class: Class, zone: Option<&ZoneMetrics>) {
        let handshakes = zone.map_or(&self.unrouted, |zone| &zone.handshakes);
        let (outcome, reason) = match class {
            Class::Rejected(reason) => (Refused::Rejected, reason),
            Class::Observed(reason) => (Refused::Observed, reason),
            Class::Failed(reason) => (Refused::Failed, reason),
            Class::Closed(_) => return,
        };
        handshakes.counter(outcome, reason).inc();
    }

    /// Reads all metrics. A series of a removed part is shown once more, and removed at the next scrape. `is_gone` gets the
    /// labels of a series and says whether they name a removed part.
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

    /// Removes all series of former zones with these names, because a reload brings new zones with the same names. Takes all
    /// names at once, because each call reads every metric.
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
        let counters = [
            &self.accepted,
            &self.silent_closes,
            &self.untrusted_forwarded,
            &self.handshakes,
            &self.closes,
            &self.ghosts,
        ];
        let is_it = |vec: &dyn Collector| vec.desc().iter().any(|desc| desc.fq_name == *name);
        // It does not matter if the series is already gone.
        for counters in counters.into_iter().chain(self.totals.all()).filter(|vec| is_it(*vec)) {
            let _gone = counters.remove(&labels);
        }
        for histograms in [&self.handshake_duration, &self.connection_duration] {
            if is_it(histograms) {
                let _gone = histograms.remove(&labels);
            }
        }
    }

    /// The number of handshakes that were rejected so far, by reason: in `zones`, and without a route.
    pub fn rejected<'a>(&self, zones: impl Iterator<Item = &'a ZoneMetrics>) -> BTreeMap<&'static str, u64> {
        let mut sums = BTreeMap::new();
        let handshakes = zones.map(|zone| &zone.handshakes).chain([&self.unrouted]);
        for (reason, rejected) in handshakes.flat_map(Handshakes::rejected) {
            *sums.entry(reason.word()).or_default() += rejected;
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::reject::RejectReason;

    fn handshakes(metrics: &Metrics) -> Vec<(String, u64)> {
        let families = metrics.registry.gather();
        let family = families
            .iter()
            .find(|family| family.name() == "wsguard_handshakes_total");
        let metrics = family.map(MetricFamily::get_metric).unwrap_or_default().iter();
        let series = metrics.map(|metric| {
            let labels: Vec<&str> = metric.get_label().iter().map(LabelPair::value).collect();
            (labels.join(" "), whole(metric.get_counter().get_value()))
        });
        series.collect()
    }

    /// The value of a counter as a whole number; the library keeps it as a float.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Never negative, and far below 2^53.
    fn whole(value: f64) -> u64 {
        value as u64
    }

    #[test]
    fn a_zone_shows_refusals_by_limits_from_the_start_and_others_once_they_occur() {
        let metrics = Metrics::new();
        assert_eq!(handshakes(&metrics), []);
        let zone = metrics.zone("games");
        let from_the_start = [
            ("admitted - games", 0),
            ("rejected per_ip games", 0),
            ("rejected per_ip_rate games", 0),
            ("rejected process_full games", 0),
            ("rejected zone_full games", 0),
            ("rejected zone_rate games", 0),
        ];
        let from_the_start = from_the_start.map(|(series, count)| (series.to_owned(), count));
        assert_eq!(handshakes(&metrics), from_the_start);
        metrics.count_handshake(Class::Failed(RejectReason::UpstreamRefused), Some(&zone));
        metrics.count_handshake(Class::Observed(RejectReason::PerIp), Some(&zone));
        metrics.count_handshake(Class::Rejected(RejectReason::NoRoute), None);
        let mut expected = from_the_start.to_vec();
        expected.extend([
            ("failed upstream_refused games".to_owned(), 1),
            ("observed per_ip games".to_owned(), 1),
            ("rejected no_route -".to_owned(), 1),
        ]);
        expected.sort();
        let mut shown = handshakes(&metrics);
        shown.sort();
        assert_eq!(shown, expected);
    }

    #[test]
    fn rejections_are_summed_over_all_zones_and_connections_without_a_route() {
        let metrics = Metrics::new();
        let zones = [metrics.zone("games"), metrics.zone("chat")];
        for zone in &zones {
            metrics.count_handshake(Class::Rejected(RejectReason::PerIp), Some(zone));
            metrics.count_handshake(Class::Failed(RejectReason::UpstreamDown), Some(zone));
        }
        metrics.count_handshake(Class::Rejected(RejectReason::BadRequest), None);
        let rejected: Vec<_> = metrics.rejected(zones.iter()).into_iter().collect();
        let expected = [
            ("bad_request", 1),
            ("per_ip", 2),
            ("per_ip_rate", 0),
            ("process_full", 0),
            ("zone_full", 0),
            ("zone_rate", 0),
        ];
        assert_eq!(rejected, expected);
    }
}
