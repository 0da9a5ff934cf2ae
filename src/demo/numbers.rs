//! What the page shows, picked from what the guard says of itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The page's numbers. Everything but `connections`, `silent`, `pending` and `mine` is a total since the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Numbers {
    /// Zone `default`.
    pub connections: Share,
    /// Those of the client key that asks, in all zones.
    pub mine: Share,
    /// Of those in zone `default`, whose client has not said anything yet.
    pub silent: u64,
    /// Sockets that are not let in yet.
    pub pending: u64,
    /// Handshakes that were.
    pub admitted: u64,
    /// Handshakes that were given no permit.
    pub refused: u64,
    /// The same by reason; only those that occurred.
    pub reasons: BTreeMap<String, u64>,
    /// Connections that the guard ended, by reason; only those that occurred.
    pub ended: BTreeMap<String, u64>,
    /// Messages beyond a limit, by what was done about it.
    pub limit_hits: BTreeMap<String, u64>,
    /// Connections whose client did not even answer a ping.
    pub ghosts: Ghosts,
    /// Messages of one size at a steady interval.
    pub heartbeats: u64,
    /// Messages from and to clients.
    pub messages: Traffic,
    /// Bytes from and to clients.
    pub bytes: Traffic,
    /// By how much the guard's counts of open connections disagree: 0.
    pub drift: u64,
}

/// Ghosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Ghosts {
    /// Those whose place is free again.
    pub reaped: u64,
    /// Those whose place another connection of the same client got.
    pub replaced: u64,
}

/// How much of a limit is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Share {
    /// Open now.
    pub open: u64,
    /// At most.
    pub limit: u64,
}

/// Both directions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// From clients.
    #[serde(rename = "in")]
    pub inwards: u64,
    /// To clients.
    #[serde(rename = "out")]
    pub outwards: u64,
}

impl Numbers {
    /// Picks from the guard's `/metrics` and `/stats`; `key` is the client key that asks, and `per_ip` what it may
    /// have. What isn't there is 0.
    pub fn pick(metrics: &str, stats: &str, key: &str, per_ip: u64) -> Self {
        let in_default = |name| total(metrics, name, &[("zone", "default")]);
        let by_direction = |name| Traffic {
            inwards: total(metrics, name, &[("direction", "in")]),
            outwards: total(metrics, name, &[("direction", "out")]),
        };
        let reasons = by_reason(metrics, "wsguard_handshakes_total", |labels| {
            label(labels, "outcome") == Some("rejected")
        });
        let ended = by_reason(metrics, "wsguard_closes_total", |labels| {
            label(labels, "reason").is_some_and(|reason| !OF_THE_PEERS.contains(&reason))
        });
        let mut stats: Stats = serde_json::from_str(stats).unwrap_or_default();
        let zone = stats.zones.remove("default").unwrap_or_default();
        Self {
            connections: Share {
                open: in_default("wsguard_connections"),
                limit: in_default("wsguard_connections_limit"),
            },
            mine: Share {
                open: stats
                    .top
                    .iter()
                    .filter(|busy| busy.key == key)
                    .map(|busy| busy.open)
                    .sum(),
                limit: per_ip,
            },
            silent: zone.silent,
            pending: total(metrics, "wsguard_pending", &[]),
            admitted: total(metrics, "wsguard_handshakes_total", &[("outcome", "admitted")]),
            refused: reasons.values().sum(),
            reasons,
            ended,
            limit_hits: zone.limit_hits,
            ghosts: zone.ghosts,
            heartbeats: zone.suspected_heartbeats,
            messages: by_direction("wsguard_messages_total"),
            bytes: by_direction("wsguard_bytes_total"),
            drift: total(metrics, "wsguard_counter_drift", &[]),
        }
    }
}

/// The part of `/stats` that is read here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Stats {
    top: Vec<Busy>,
    zones: BTreeMap<String, Zone>,
}

#[derive(Deserialize)]
struct Busy {
    key: String,
    open: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Zone {
    silent: u64,
    limit_hits: BTreeMap<String, u64>,
    suspected_heartbeats: u64,
    ghosts: Ghosts,
}

fn by_reason(metrics: &str, name: &str, is_meant: impl Fn(&str) -> bool) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (labels, count) in samples(metrics, name) {
        if count > 0 && is_meant(labels) {
            let reason = label(labels, "reason").unwrap_or_default().to_owned();
            *sums.entry(reason).or_default() += count;
        }
    }
    sums
}

fn total(metrics: &str, name: &str, wanted: &[(&str, &str)]) -> u64 {
    samples(metrics, name)
        .filter(|(labels, _)| wanted.iter().all(|&(name, value)| label(labels, name) == Some(value)))
        .map(|(_, value)| value)
        .sum()
}

/// The samples of one counter or gauge in the Prometheus text format 0.0.4: its labels as written, and its value.
/// Values that aren't whole are left out; these counts are.
fn samples<'a>(metrics: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, u64)> {
    metrics.lines().filter_map(move |line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once('}')?,
            None => ("", rest.strip_prefix(' ')?),
        };
        Some((labels, value.split_ascii_whitespace().next()?.parse().ok()?))
    })
}

/// A label's value. The demo's own names and the guard's closed lists have no quotes and commas in them.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    labels
        .split(',')
        .find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'))
}

/// Reasons of `wsguard_closes_total` that are not the guard's doing.
const OF_THE_PEERS: [&str; 4] = ["client", "half_close", "io", "upstream"];

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = r#"# HELP wsguard_connections Open connections.
# TYPE wsguard_connections gauge
wsguard_connections{zone="default"} 3
wsguard_connections{zone="exempt"} 9
wsguard_connections_limit{zone="default"} 100
wsguard_connections_limit{zone="exempt"} 1000
wsguard_handshakes_total{zone="default",outcome="admitted",reason="-"} 12
wsguard_handshakes_total{zone="default",outcome="rejected",reason="per_ip"} 7
wsguard_handshakes_total{zone="default",outcome="rejected",reason="zone_full"} 0
wsguard_handshakes_total{zone="-",outcome="rejected",reason="not_upgrade"} 2
wsguard_handshakes_total{zone="default",outcome="failed",reason="upstream_refused"} 4
wsguard_closes_total{zone="default",reason="client"} 8
wsguard_closes_total{zone="default",reason="ghost"} 6
wsguard_closes_total{zone="default",reason="idle"} 0
wsguard_closes_total{zone="default",reason="message_rate"} 5
wsguard_pending{listener="127.0.0.1:9181"} 2
wsguard_pending{listener="127.0.0.1:9182"} 1
wsguard_bytes_total{zone="default",direction="in"} 1000
wsguard_bytes_total{zone="default",direction="out"} 2000
wsguard_messages_total{direction="in",zone="default"} 10
wsguard_messages_total{direction="out",zone="default"} 20 1700000000000
wsguard_counter_drift 0
wsguard_start_time_seconds 1700000000.5
"#;

    #[test]
    fn picks_each_number_from_its_sample() {
        let stats = r#"{"connections":12,
            "zones":{"default":{"connections":3,"silent":1,"limit_hits":{"close":5,"delay":0,"observe":0},
                                "suspected_heartbeats":4,"ghosts":{"reaped":6,"replaced":7}},
                     "exempt":{"silent":9}},
            "top":[{"zone":"default","key":"127.0.0.1","open":3},{"zone":"x","key":"127.0.0.2","open":1}]}"#;
        let numbers = Numbers::pick(METRICS, stats, "127.0.0.1", 5);
        assert_eq!(
            numbers,
            Numbers {
                connections: Share { open: 3, limit: 100 },
                mine: Share { open: 3, limit: 5 },
                silent: 1,
                pending: 3,
                admitted: 12,
                refused: 9,
                reasons: BTreeMap::from([("not_upgrade".to_owned(), 2), ("per_ip".to_owned(), 7)]),
                ended: BTreeMap::from([("ghost".to_owned(), 6), ("message_rate".to_owned(), 5)]),
                limit_hits: [("close", 5), ("delay", 0), ("observe", 0)]
                    .map(|(action, n)| (action.to_owned(), n))
                    .into(),
                ghosts: Ghosts { reaped: 6, replaced: 7 },
                heartbeats: 4,
                messages: Traffic {
                    inwards: 10,
                    outwards: 20
                },
                bytes: Traffic {
                    inwards: 1000,
                    outwards: 2000
                },
                drift: 0,
            }
        );
    }

    #[test]
    fn what_is_missing_is_nothing() {
        let numbers = Numbers::pick("", "{}", "127.0.0.1", 5);
        assert_eq!(
            (numbers.connections.limit, numbers.mine.open, numbers.refused),
            (0, 0, 0)
        );
    }
}
