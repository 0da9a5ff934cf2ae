//! The numbers that the page shows, read from the counters of the guard.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;

use crate::admin::scrape::{drift, hits_by_action, silent, sum};
use crate::limit::key::ClientKey;
use crate::live::in_force::InForce;
use crate::reason::close::CloseReason;

/// The page's numbers. Everything but `connections`, `silent`, `pending` and `mine` is a total since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Numbers {
    /// The connections of zone `default`.
    pub connections: Share,
    /// The connections of the client key that asks, in all zones.
    pub mine: Share,
    /// The connections of zone `default` whose client has not sent anything yet.
    pub silent: u64,
    /// Sockets without a decision yet.
    pub pending: u64,
    /// Handshakes that got a tunnel.
    pub admitted: u64,
    /// Handshakes that got no permit.
    pub refused: u64,
    /// The same handshakes by reason. Only reasons that occurred are listed.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Connections that the guard ended, by reason. Only reasons that occurred are listed.
    pub ended: BTreeMap<&'static str, u64>,
    /// Messages beyond a limit, by what was done about it.
    pub limit_hits: BTreeMap<&'static str, u64>,
    /// Connections whose client did not even answer a ping.
    pub ghosts: Ghosts,
    /// Messages of one size at a steady interval.
    pub heartbeats: u64,
    /// Messages from and to clients.
    pub messages: Traffic,
    /// Bytes from and to clients.
    pub bytes: Traffic,
    /// By how much the guard's counts of open connections differ. It should be 0.
    pub drift: u64,
}

/// Ghosts: connections whose client did not answer a ping.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Ghosts {
    /// Ghosts that were closed.
    pub reaped: u64,
    /// Ghosts that were closed to let a new connection of the same client in.
    pub replaced: u64,
}

/// How much of a limit is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Share {
    /// How many connections are open now.
    pub open: u64,
    /// How many connections may be open at most.
    pub limit: u64,
}

/// A count in both directions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Traffic {
    /// From clients.
    #[serde(rename = "in")]
    pub inwards: u64,
    /// To clients.
    #[serde(rename = "out")]
    pub outwards: u64,
}

impl Numbers {
    /// The numbers now. `asker` is the client key whose share is shown, and `per_ip` its limit.
    pub(crate) fn of(in_force: &InForce, asker: ClientKey, per_ip: u32) -> Self {
        let process = &in_force.process;
        let zones = || in_force.all_zones();
        let default = zones().find(|zone| &*zone.state.name == "default");
        let counters = default.map_or(&[][..], |zone| &zone.state.relay_counters);
        let reasons: BTreeMap<_, _> = process
            .metrics
            .rejected(zones().map(|zone| &zone.state.metrics))
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .collect();
        let mut ended = BTreeMap::new();
        for (reason, count) in zones().flat_map(|zone| zone.state.metrics.closes()) {
            if count > 0 && !OF_THE_PEERS.contains(&reason) {
                *ended.entry(reason.word()).or_default() += count;
            }
        }
        let busiest = process.admission.top(BUSIEST).into_iter();
        Self {
            connections: Share {
                open: default.map_or(0, |zone| zone.state.counts.budget.used().into()),
                limit: default
                    .and_then(|zone| zone.rules.connections)
                    .unwrap_or(process.connections_limit.load(Relaxed))
                    .into(),
            },
            mine: Share {
                open: busiest
                    .filter(|(_, key, _)| *key == asker)
                    .map(|(_, _, open)| u64::from(open))
                    .sum(),
                limit: per_ip.into(),
            },
            silent: silent(counters),
            pending: in_force
                .listeners_in_use()
                .map(|listener| u64::from(listener.room.taken()))
                .sum(),
            admitted: zones().map(|zone| zone.state.metrics.admitted.get()).sum(),
            refused: reasons.values().sum(),
            reasons,
            ended,
            limit_hits: hits_by_action(counters),
            ghosts: default.map_or_else(Ghosts::default, |zone| Ghosts {
                reaped: zone.state.metrics.reaped.get(),
                replaced: zone.state.metrics.replaced.get(),
            }),
            heartbeats: sum(counters, |counters| &counters.heartbeats),
            messages: Traffic {
                inwards: sum(counters, |counters| &counters.messages_in),
                outwards: sum(counters, |counters| &counters.messages_out),
            },
            bytes: Traffic {
                inwards: sum(counters, |counters| &counters.bytes_in),
                outwards: sum(counters, |counters| &counters.bytes_out),
            },
            drift: drift(in_force).unsigned_abs(),
        }
    }
}

/// Reasons of closes that the guard did not cause.
const OF_THE_PEERS: [CloseReason; 4] = [
    CloseReason::Client,
    CloseReason::HalfClose,
    CloseReason::Io,
    CloseReason::Upstream,
];
/// The number of busiest clients among which the asker is searched: more than the demo's guard admits.
const BUSIEST: usize = 200;
