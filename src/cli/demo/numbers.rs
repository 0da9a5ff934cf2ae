//! What the page shows, picked from what the guard says of itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The page's numbers. Everything but `connections` and `mine` is a total since the start.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Numbers {
    /// Zone `default`.
    pub connections: Share,
    /// Those of the client key that asks, in all zones.
    pub mine: Share,
    /// Handshakes that were.
    pub admitted: u64,
    /// Handshakes that were given no permit.
    pub refused: u64,
    /// The same by reason; only those that occurred.
    pub reasons: BTreeMap<String, u64>,
    /// Messages from and to clients.
    pub messages: Traffic,
    /// Bytes from and to clients.
    pub bytes: Traffic,
    /// By how much the guard's counts of open connections disagree: 0.
    pub drift: u64,
}

/// How much of a limit is used.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Share {
    /// Open now.
    pub open: u64,
    /// At most.
    pub limit: u64,
}

/// Both directions.
#[derive(Debug, PartialEq, Eq, Serialize)]
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
        let mut reasons = BTreeMap::new();
        for (labels, count) in samples(metrics, "wsguard_handshakes_total") {
            if count > 0 && label(labels, "outcome") == Some("rejected") {
                *reasons
                    .entry(label(labels, "reason").unwrap_or_default().to_owned())
                    .or_default() += count;
            }
        }
        Self {
            connections: Share {
                open: in_default("wsguard_connections"),
                limit: in_default("wsguard_connections_limit"),
            },
            mine: Share {
                open: open_of(stats, key),
                limit: per_ip,
            },
            admitted: total(metrics, "wsguard_handshakes_total", &[("outcome", "admitted")]),
            refused: reasons.values().sum(),
            reasons,
            messages: by_direction("wsguard_messages_total"),
            bytes: by_direction("wsguard_bytes_total"),
            drift: total(metrics, "wsguard_counter_drift", &[]),
        }
    }
}

/// The part of `/stats` that is read here.
#[derive(Deserialize)]
struct Stats {
    #[serde(default)]
    top: Vec<Busy>,
}

#[derive(Deserialize)]
struct Busy {
    key: String,
    open: u64,
}

fn open_of(stats: &str, key: &str) -> u64 {
    let Ok(stats) = serde_json::from_str::<Stats>(stats) else {
        return 0;
    };
    stats
        .top
        .iter()
        .filter(|busy| busy.key == key)
        .map(|busy| busy.open)
        .sum()
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
            "top":[{"zone":"default","key":"127.0.0.1","open":3},{"zone":"x","key":"127.0.0.2","open":1}]}"#;
        let numbers = Numbers::pick(METRICS, stats, "127.0.0.1", 5);
        assert_eq!(
            numbers,
            Numbers {
                connections: Share { open: 3, limit: 100 },
                mine: Share { open: 3, limit: 5 },
                admitted: 12,
                refused: 9,
                reasons: BTreeMap::from([("not_upgrade".to_owned(), 2), ("per_ip".to_owned(), 7)]),
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
