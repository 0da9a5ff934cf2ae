//! Where a route leads.

use std::sync::Arc;

use crate::relay::mode::RelayMode;
use crate::upstream::group::Upstream;

use super::zone::Zone;

/// The destination of a request, made once for all requests of a route. It holds handles, not positions in lists: a
/// reload may put another policy with other lists in force at any time.
#[derive(Debug)]
pub struct Destination {
    /// Its route's name.
    pub route: Arc<str>,
    /// Its zone, under the policy that routed it.
    pub zone: Arc<Zone>,
    /// Its upstream.
    pub upstream: Arc<Upstream>,
    /// How connections to that upstream are relayed.
    pub relay: RelayMode,
}
