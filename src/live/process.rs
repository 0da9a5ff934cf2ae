//! State of the process that outlives every reload.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering::Relaxed};
use std::time::{Instant, SystemTime};

use crate::config::policy::Policy;
use crate::limit::admission::Admission;
use crate::limit::key::{ClientKey, Prefixes, TranslationPrefixes};
use crate::net::clock::Clock;
use crate::net::random::Random;
use crate::telemetry::advice::Advice;
use crate::telemetry::log::Log;
use crate::telemetry::metrics::Metrics;

use super::capacity::Capacity;
use super::phase::CurrentPhase;
use super::reloads::Reloads;

/// State that belongs to the process and not to a policy.
#[derive(Debug)]
pub struct ProcessState {
    /// The client table.
    pub admission: Arc<Admission>,
    /// The prefix lengths that client keys are cut to.
    prefixes: Prefixes,
    /// The address translations (NAT64 and the like) that are undone before an address is cut to a key.
    translations: TranslationPrefixes,
    /// The whole process ceiling, in connections.
    pub connections_limit: AtomicU32,
    /// The number of connections that hold a permit. The zones count them too; the drift metric compares the counts.
    pub alive: AtomicI64,
    /// The number of worker threads.
    pub workers: usize,
    /// The descriptor limit.
    pub descriptors: u64,
    /// The metrics.
    pub metrics: Metrics,
    /// The log.
    pub log: Log,
    /// Whether no proxy is trusted, so that forwarding headers are ignored.
    pub trusts_nobody: AtomicBool,
    /// Hints for operators.
    pub advice: Advice,
    /// The outcomes of reloads.
    pub reloads: Reloads,
    /// The phase of the process: it serves, or is about to end.
    pub phase: CurrentPhase,
    /// When the process began to serve.
    pub started: SystemTime,
    /// The clock for all timeouts of peers.
    pub clock: Arc<Clock>,
    /// The source of all random numbers.
    pub random: Arc<Random>,
    next_zone: AtomicU32,
}

impl ProcessState {
    /// Makes the state for a process that begins now, with this many worker threads and descriptors.
    pub fn begin(
        policy: &Policy,
        capacity: &Capacity,
        workers: usize,
        descriptors: u64,
        log: Log,
        random: Random,
    ) -> Self {
        let state = Self {
            admission: Admission::new(policy.server.table_size, Instant::now()),
            prefixes: policy.identity.prefixes,
            translations: policy.identity.translations.clone(),
            connections_limit: AtomicU32::new(0),
            alive: AtomicI64::new(0),
            workers,
            descriptors,
            metrics: Metrics::new(),
            log,
            trusts_nobody: AtomicBool::new(false),
            advice: Advice::begin(Instant::now()),
            reloads: Reloads::begin(SystemTime::now()),
            phase: CurrentPhase::default(),
            started: SystemTime::now(),
            clock: Arc::new(Clock::begin(Instant::now())),
            random: Arc::new(random),
            next_zone: AtomicU32::new(0),
        };
        state.adopt(policy, capacity);
        state
    }

    /// The key of a client with this address; `None` is a Unix peer without one. It is the same all the life of the process.
    pub fn key(&self, address: Option<IpAddr>) -> ClientKey {
        address.map_or(ClientKey::UNIX, |address| {
            ClientKey::of(self.translations.undone(address), self.prefixes)
        })
    }

    /// Takes over those settings of a policy that concern the whole process.
    pub fn adopt(&self, policy: &Policy, capacity: &Capacity) {
        self.admission.process().set_limit(Some(capacity.common_connections));
        self.connections_limit.store(capacity.process_connections, Relaxed);
        let trusts_nobody = policy.identity.trusted.is_empty() && !policy.identity.trust_unix;
        self.trusts_nobody.store(trusts_nobody, Relaxed);
        self.log.set_policy(policy.log.clone());
    }

    /// A new id for a zone; no id is used twice.
    pub(super) fn next_zone_id(&self) -> u32 {
        self.next_zone.fetch_add(1, Relaxed)
    }
}
