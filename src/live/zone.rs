//! A zone in force.

use std::sync::Arc;

use crate::config::policy::ZonePolicy;
use crate::limit::admission::ZoneCounts;
use crate::limit::budget::Budget;
use crate::limit::rules::ZoneRules;
use crate::relay::conn_limits::ConnLimits;
use crate::relay::counters::RelayCounters;
use crate::telemetry::metrics::ZoneMetrics;

use super::process::ProcessState;

/// A zone in force.
#[derive(Debug)]
pub struct Zone {
    /// The zone's policy.
    pub policy: Arc<ZonePolicy>,
    /// The zone's limits. The budget of an exempt zone is lowered to the number of connections that is reserved for it.
    pub rules: ZoneRules,
    /// The limits and timeouts that all open connections of the zone share.
    pub limits: Arc<ConnLimits>,
    /// The zone's counts.
    pub state: Arc<ZoneState>,
}

/// A zone's counts, which outlive its policy.
#[derive(Debug)]
pub struct ZoneState {
    /// The zone's name.
    pub name: Arc<str>,
    /// The zone's budget and rate.
    pub counts: Arc<ZoneCounts>,
    /// The traffic of the zone's connections, by worker.
    pub relay_counters: Vec<Arc<RelayCounters>>,
    /// The zone's metrics.
    pub metrics: ZoneMetrics,
    /// Limits the searches for ghosts. A new connection of a client at its cap searches for a ghost of the same client, to
    /// take its slot.
    pub ghost_searches: Arc<Budget>,
}

impl Zone {
    /// Makes a zone under `policy`, with a budget of this many `connections`; `None` is off.
    pub(super) fn build(
        policy: &Arc<ZonePolicy>,
        connections: Option<u32>,
        state: Arc<ZoneState>,
        process: &ProcessState,
    ) -> Self {
        Self {
            policy: Arc::clone(policy),
            limits: Arc::new(ConnLimits::new(
                policy.timeouts,
                &policy.messages,
                policy.rules.observe,
                process.admission.epoch(),
                Arc::clone(&process.clock),
                Arc::clone(&process.random),
            )),
            rules: ZoneRules {
                connections,
                ..policy.rules
            },
            state,
        }
    }

    /// Whether two zones are the same one, even under different policies.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state.counts, &other.state.counts)
    }

    /// Whether the zone has no open connections.
    pub fn is_empty(&self) -> bool {
        self.state.counts.budget.used() == 0
    }
}

impl ZoneState {
    /// Makes counts that begin at 0. A zone that comes back under its old name keeps its `counts`, so that its rates go on.
    pub(super) fn begin(
        name: &Arc<str>,
        counts: Option<Arc<ZoneCounts>>,
        connections: Option<u32>,
        process: &ProcessState,
    ) -> Self {
        Self {
            name: Arc::clone(name),
            counts: counts.unwrap_or_else(|| process.admission.zone(process.next_zone_id(), connections)),
            relay_counters: (0..process.workers).map(|_| Arc::default()).collect(),
            metrics: process.metrics.zone(name),
            ghost_searches: Arc::new(Budget::new(Some(MOST_GHOST_SEARCHES))),
        }
    }
}

/// The most searches for ghosts in a zone at once. Each search holds a pending seat for up to 1.5 s.
const MOST_GHOST_SEARCHES: u32 = 100;
