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

use crate::relay::pulse::{Asked, Order, Pulse};

use crate::control::Guard;
use crate::live::running::{Shared, Zone};
use crate::telemetry::reason::Reason;
use crate::walk::stop::Stop;

/// Whose connection one is: a hash of zone and client key, the same for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Whose(pub(crate) u64);

/// An old connection that is asked whether its client is there.
#[derive(Debug)]
pub(crate) struct Suspect {
    pulse: Arc<Pulse>,
    /// What `Pulse::heard` was before it was asked.
    heard: u16,
    /// Its relay was told to look.
    looks: bool,
    /// What its host had taken at the first look behind the question. A server that talks all the time leaves always
    /// something on its way, the question included.
    took: Option<u32>,
    /// Looks in a row that found its host silent.
    silent: u32,
}

/// The search for a slot on behalf of one newcomer.
#[derive(Debug)]
pub struct Search {
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

impl Search {
    /// Begins one for a newcomer that `stop` has refused, if that was for its client's cap, and any of the client's
    /// connections has been silent for long.
    pub fn begin(stop: &Stop, shared: &Arc<Shared>, guard: &Guard, now: Instant) -> Option<Self> {
        let (zone, whose) = wants_slot(stop, shared)?;
        let claim = Claim::of(shared, zone, whose, now)?;
        let suspects = guard.suspects(whose, now);
        (!suspects.is_empty()).then(|| Self {
            suspects,
            is_over: false,
            looks_left: PATIENCE,
            claim,
        })
    }

    /// Whether what it searches for is what a newcomer needs that was stopped once more, perhaps by another policy.
    pub fn is_for(&self, stop: &Stop) -> bool {
        wants_slot(stop, &self.claim.shared).is_some_and(|(_, whose)| whose == self.claim.whose)
    }

    /// Looks how it stands; to be called every [`Search::PAUSE`].
    pub fn look(&mut self) -> Found {
        self.looks_left = self.looks_left.saturating_sub(1);
        if self.suspects.iter().any(|suspect| suspect.pulse.is_over()) {
            self.is_over = true;
            self.suspects.retain(|suspect| !suspect.pulse.is_over());
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
            ghost.pulse.order(Order::Replace);
        }
        Found::NotYet
    }

    /// How often it is looked at.
    pub const PAUSE: Duration = Duration::from_millis(50);
}

impl Suspect {
    /// One that is asked by now, and of which this was `heard` before.
    pub(crate) fn new(pulse: Arc<Pulse>, heard: u16) -> Self {
        Self {
            pulse,
            heard,
            looks: false,
            took: None,
            silent: 0,
        }
    }

    /// Whether it has shown any life since it was asked; has its relay look for the next time.
    fn is_there(&mut self) -> bool {
        let asked = self.pulse.asked();
        if self.pulse.heard() != self.heard || self.pulse.is_unread() || asked == Asked::Arrived {
            return true;
        }
        // Nothing is seen until the question is written, nor as long as the relay has not looked.
        if self.looks && self.pulse.has_looked() {
            let took = self.pulse.client_took();
            if *self.took.get_or_insert(took) != took {
                return true;
            }
            self.silent = if self.pulse.host_is_silent() {
                self.silent + 1
            } else {
                0
            };
        }
        if asked == Asked::OnItsWay {
            self.looks = true;
            self.pulse.look();
        }
        false
    }
}

/// Whether a newcomer that was stopped so may wait for a slot, if one is found.
pub fn may_wait(stop: &Stop) -> bool {
    zone_of(stop).is_some()
}

/// The zone in which a newcomer that was stopped so needs a slot, and whose.
fn wants_slot(stop: &Stop, shared: &Shared) -> Option<(u32, Whose)> {
    let zone = zone_of(stop)?.state.counts.id();
    Some((zone, shared.whose(zone, stop.known().client?.key)))
}

fn zone_of(stop: &Stop) -> Option<&Zone> {
    let zone = &stop.known().place.as_ref()?.zone;
    let messages = &zone.policy.messages;
    let is_meant = stop.reason() == Some(Reason::PerIp) && messages.replace_ghosts && messages.ping.is_some();
    is_meant.then_some(zone)
}

/// Who is searched for at this moment, and who was a moment ago.
#[derive(Debug, Default)]
pub struct Claims(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// `None`: under way; else when the next search for it may begin.
    by_client: HashMap<Whose, Option<Instant>>,
    by_zone: HashMap<u32, u32>,
}

/// The right to search on behalf of a client; drop gives it back.
#[derive(Debug)]
struct Claim {
    shared: Arc<Shared>,
    zone: u32,
    whose: Whose,
}

impl Claim {
    fn of(shared: &Arc<Shared>, zone: u32, whose: Whose, now: Instant) -> Option<Self> {
        let mut state = shared.claims.0.lock();
        let waiting = state.by_zone.get(&zone).copied().unwrap_or(0);
        let is_free = match state.by_client.get(&whose) {
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
        state.by_client.insert(whose, None);
        state.by_zone.insert(zone, waiting + 1);
        Some(Self {
            shared: Arc::clone(shared),
            zone,
            whose,
        })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = self.shared.claims.0.lock();
        state.by_client.insert(self.whose, Some(Instant::now() + AGAIN));
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
