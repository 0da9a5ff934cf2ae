//! Ghost-aware replacement: a phone that changes networks leaves dead connections behind, which fill its cap until they are
//! reaped. Its next connection is not refused for them: the old ones are asked, and the newcomer gets the slot of one whose
//! host does not answer. Whoever's host acknowledges the question, or anything else, or who says anything, keeps its slot; so
//! nobody behind the same address is ever sent out while its machine is there, whether its client reads or not.
//!
//! What is known from before counts for nothing: each search proves a death by looks of its own. They are counted, not timed,
//! so that a pause of our own proves nothing either.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::limit::key::ClientKey;
use crate::relay::handle::Command;

use crate::engine::liveness::ZoneClient;
use crate::engine::registry::Registry;
use crate::engine::suspect::Suspect;

/// The search for a slot on behalf of one newcomer.
#[derive(Debug)]
pub struct GhostSearch {
    registry: Arc<Registry>,
    suspects: Vec<Suspect>,
    /// One of them is ended, and its slot is about to be free.
    is_over: bool,
    looks_left: u32,
    claim: Claim,
}

/// How a search stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing so far.
    NotYet,
    /// There should be a slot now.
    Slot,
    /// Everyone is there, or the time is over.
    Nothing,
}

impl GhostSearch {
    /// Begins a search on behalf of a client at its cap, if any of its connections in the zone has been silent for long.
    pub fn begin(
        zone: u32,
        key: ClientKey,
        registry: &Arc<Registry>,
        claims: &Arc<Claims>,
        now: Instant,
    ) -> Option<Self> {
        let client = registry.zone_client(zone, key);
        let claim = Claim::of(claims, zone, client, now)?;
        let suspects = registry.suspects(client, now);
        (!suspects.is_empty()).then(|| Self {
            registry: Arc::clone(registry),
            suspects,
            is_over: false,
            looks_left: PATIENCE,
            claim,
        })
    }

    /// Whether a slot of this client in this zone is what it searches for.
    pub fn is_for(&self, zone: u32, key: ClientKey) -> bool {
        self.registry.zone_client(zone, key) == self.claim.client
    }

    /// Looks how it stands; to be called every [`GhostSearch::PAUSE`].
    pub fn look(&mut self) -> Found {
        self.looks_left = self.looks_left.saturating_sub(1);
        if self.suspects.iter().any(|suspect| suspect.handle.is_closed()) {
            self.is_over = true;
            self.suspects.retain(|suspect| !suspect.handle.is_closed());
            return Found::Slot;
        }
        if self.looks_left == 0 || self.suspects.is_empty() && !self.is_over {
            return Found::Nothing;
        }
        if self.is_over {
            return Found::Slot;
        }
        self.suspects.retain_mut(|suspect| !suspect.is_there());
        // One is enough, and the longest without an answer is the surest.
        let surest = self.suspects.iter().max_by_key(|suspect| suspect.silent);
        if let Some(ghost) = surest.filter(|suspect| suspect.silent >= UNANSWERED) {
            ghost.handle.send(Command::Replace);
        }
        Found::NotYet
    }

    /// How often it is looked at.
    pub const PAUSE: Duration = Duration::from_millis(50);
}

/// Who is searched for at this moment, and who was a moment ago.
#[derive(Debug, Default)]
pub struct Claims(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// `None`: under way; else when the next search for it may begin.
    by_client: HashMap<ZoneClient, Option<Instant>>,
    by_zone: HashMap<u32, u32>,
}

/// The right to search on behalf of a client; drop gives it back.
#[derive(Debug)]
struct Claim {
    claims: Arc<Claims>,
    zone: u32,
    client: ZoneClient,
}

impl Claim {
    fn of(claims: &Arc<Claims>, zone: u32, client: ZoneClient, now: Instant) -> Option<Self> {
        let mut state = claims.0.lock();
        let waiting = state.by_zone.get(&zone).copied().unwrap_or(0);
        let is_free = match state.by_client.get(&client) {
            None => true,
            Some(None) => false,
            Some(Some(next)) => *next <= now,
        };
        if !is_free || waiting >= MOST_IN_ZONE {
            return None;
        }
        // Whoever was searched for long ago is forgotten now and then.
        if state.by_client.len() >= MANY {
            state.by_client.retain(|_, next| next.is_none_or(|next| next > now));
        }
        state.by_client.insert(client, None);
        state.by_zone.insert(zone, waiting + 1);
        Some(Self {
            claims: Arc::clone(claims),
            zone,
            client,
        })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = self.claims.0.lock();
        state.by_client.insert(self.client, Some(Instant::now() + AGAIN));
        if let Some(waiting) = state.by_zone.get_mut(&self.zone) {
            *waiting -= 1;
            if *waiting == 0 {
                state.by_zone.remove(&self.zone);
            }
        }
    }
}

/// A newcomer waits so many looks at most: 1.5 s.
const PATIENCE: u32 = 30;
/// Looks that a silent host may take, 1.2 s: one that is there acknowledges within a round trip; a lost packet is sent again
/// after 200 ms, and once more after 400.
const UNANSWERED: u32 = 24;
/// Newcomers of one zone that wait at once.
const MOST_IN_ZONE: u32 = 100;
/// A client that hammers at its cap has its connections looked through so often, and not more.
const AGAIN: Duration = Duration::from_secs(1);
const MANY: usize = 1024;
