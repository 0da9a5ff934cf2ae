//! What a relay works with, beside its own state.

use std::sync::Arc;

use crate::limit::bucket::Moment;
use crate::limit::shares::Shares;

use super::conn_limits::ConnLimits;
use super::counters::RelayCounters;

/// What both directions of a connection work with; most of it is common to many connections.
#[derive(Debug)]
pub(super) struct RelayEnv {
    /// The limits of the connection, with the clock and the random numbers that go with them.
    pub(super) limits: Arc<ConnLimits>,
    /// The buckets that all connections of its client key share, if it has any.
    pub(super) shares: Option<Arc<Shares>>,
    /// The counters that it adds to.
    pub(super) counters: Arc<RelayCounters>,
}

impl RelayEnv {
    /// The time, as buckets count it.
    pub(super) fn moment(&self) -> Moment {
        self.limits.moment(self.limits.clock.monotonic_now())
    }
}
