//! The search for a dead connection. A phone that changes networks leaves dead connections behind, which fill its cap
//! until they are closed. Its next connection is not refused because of them: wsguard pings the old ones, and the new
//! connection gets the slot of an old one whose host does not answer. A connection keeps its slot if its host
//! acknowledges the ping or anything else, or if its client sends anything. So no client is closed while its machine is
//! reachable, whether the client reads or not.
//!
//! Each search looks at the connections anew; results of earlier searches do not count. Looks are counted, not timed,
//! so that a pause of this process is not taken for a dead client.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::limit::key::ClientKey;
use crate::live::zone::ZoneState;
use crate::relay::handle::{Command, ConnHandle};

use crate::engine::ghosts::search_permits::{SearchPermit, SearchPermits};
use crate::engine::ghosts::suspects::{Found, Signs, Suspect, SuspectList};
use crate::engine::registry::Registry;

/// The search for a slot on behalf of one new connection.
#[derive(Debug)]
pub struct GhostSearch {
    registry: Arc<Registry>,
    suspects: SuspectList<Arc<ConnHandle>>,
    permit: SearchPermit,
}

impl GhostSearch {
    /// Begins a search on behalf of a client at its cap in a zone. `None` if no search is due yet, or if none of the
    /// client's connections there has been silent for long.
    pub fn begin(
        zone: &ZoneState,
        key: ClientKey,
        registry: &Arc<Registry>,
        permits: &Arc<SearchPermits>,
        now: Instant,
    ) -> Option<Self> {
        let client = registry.zone_client(zone.counts.id(), key);
        let mut permit = permits.acquire(client, &zone.ghost_searches, now)?;
        let suspects = registry.suspects(client, now);
        if suspects.pinged.is_empty() {
            permit.hold_off(suspects.others_alive_for, now);
            return None;
        }
        Some(Self {
            registry: Arc::clone(registry),
            suspects: SuspectList::new(suspects.pinged),
            permit,
        })
    }

    /// Whether it searches for a slot of this client in this zone.
    pub fn is_for(&self, zone: &ZoneState, key: ClientKey) -> bool {
        self.registry.zone_client(zone.counts.id(), key) == self.permit.client()
    }

    /// Looks at the suspects; call it every [`GhostSearch::PAUSE`].
    pub fn look(&mut self, now: Instant) -> Found {
        self.permit.renew(now);
        self.suspects.look()
    }

    /// The time between two looks.
    pub const PAUSE: Duration = Duration::from_millis(50);
}

impl Suspect for Arc<ConnHandle> {
    fn signs(&self) -> Signs {
        Signs {
            is_closed: self.is_closed(),
            activity: self.client_activity(),
            is_unread: self.is_client_unread(),
            delivery: self.ping_delivery(),
            has_probed: self.has_probed(),
            acked: self.client_acked(),
            is_host_silent: self.is_host_silent(),
        }
    }

    fn probe(&self) {
        ConnHandle::probe(self);
    }

    fn replace(&self) {
        self.send(Command::Replace);
    }
}
