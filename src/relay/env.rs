//! The limits, buckets and counters that a relay works with.

use std::sync::Arc;

use crate::limit::bucket::Moment;
use crate::limit::shares::Shares;

use super::conn_limits::ConnLimits;
use super::counters::RelayCounters;

/// The limits, buckets and counters that both directions of a connection work with. Most of them are shared with other
/// connections.
#[derive(Debug)]
pub(super) struct RelayEnv {
    /// The limits of the connection, with its clock and its source of random numbers.
    pub(super) limits: Arc<ConnLimits>,
    /// The buckets that all connections of the client key share, if its limits have any.
    pub(super) shares: Option<Arc<Shares>>,
    /// The counters that the relay adds to.
    pub(super) counters: Arc<RelayCounters>,
}

impl RelayEnv {
    /// The current time in the form that buckets use.
    pub(super) fn moment(&self) -> Moment {
        self.limits.moment(self.limits.clock.monotonic_now())
    }
}
