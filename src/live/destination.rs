//! Where a route leads.

use std::sync::Arc;

use crate::relay::rules::RelayMode;
use crate::upstream::group::Upstream;

use super::zone::Zone;

/// The destination of a request, made once for all requests of a route. It holds handles, not positions in lists: a
/// reload may put another policy with other lists in force at any time.
#[derive(Debug)]
pub struct Destination {
    /// The name of the route.
    pub route: Arc<str>,
    /// The zone, under the policy that routed the request.
    pub zone: Arc<Zone>,
    /// The upstream.
    pub upstream: Arc<Upstream>,
    /// How connections to that upstream are relayed.
    pub relay: RelayMode,
}
