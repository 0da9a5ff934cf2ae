//! One server: its address and its counts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use enum_map::EnumMap;

use super::outcome::Outcome;
use crate::net::address::Target;

/// A server. It outlives reloads as long as an upstream names it.
#[derive(Debug)]
pub struct Server {
    target: Target,
    label: Arc<str>,
    /// Empty while a name has no address: the server is down then.
    addresses: ArcSwap<Vec<SocketAddr>>,
    pub(super) open: AtomicU32,
    outcomes: EnumMap<Outcome, AtomicU64>,
}

impl Server {
    /// A server. One with a name has no address until the name is resolved.
    pub fn new(target: Target) -> Self {
        let known = match &target {
            Target::Tcp(address) => vec![*address],
            Target::Name { .. } | Target::Unix(_) => Vec::new(),
        };
        let label = target.to_string().into();
        let addresses = ArcSwap::from_pointee(known);
        Self {
            target,
            label,
            addresses,
            open: AtomicU32::new(0),
            outcomes: EnumMap::default(),
        }
    }

    /// Where it is, as written.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Its name in logs and metrics.
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// The addresses it has now, in the order to try them; empty for a Unix socket.
    pub fn addresses(&self) -> Arc<Vec<SocketAddr>> {
        self.addresses.load_full()
    }

    /// Sets the addresses that its name resolved to. Returns whether they changed.
    pub fn resolved(&self, addresses: Vec<SocketAddr>) -> bool {
        let is_new = **self.addresses.load() != addresses;
        if is_new {
            self.addresses.store(Arc::new(addresses));
        }
        is_new
    }

    /// Whether it has an address to dial.
    pub fn is_up(&self) -> bool {
        matches!(self.target, Target::Unix(_)) || !self.addresses.load().is_empty()
    }

    /// Counts what came of an attempt.
    pub(super) fn record(&self, outcome: Outcome) {
        self.outcomes[outcome].fetch_add(1, Relaxed);
    }

    /// Connections that hold a lease on it, including dials under way.
    pub fn open(&self) -> u32 {
        self.open.load(Relaxed)
    }

    /// Attempts with this outcome since the start.
    pub(crate) fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome].load(Relaxed)
    }

    /// Dials that failed since the start.
    pub fn dial_failures(&self) -> u64 {
        self.count(Outcome::DialFailed)
    }
}
