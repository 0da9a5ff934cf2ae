//! Collects facts, and returns the hints that follow from them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::hint::Hint;
use super::identified::{Forwarded, Identified};
use super::recent::Recent;

/// Collects the facts from which hints follow.
#[derive(Debug)]
pub struct Advice {
    recent: Mutex<Recent>,
    /// Whether a dial failed lately. If none did, successful dials take no lock.
    dials_fail: AtomicBool,
}

impl Advice {
    /// Begins to collect at `now`. The clock must never jump: if it were set back, hints would stay silent.
    pub fn begin(now: Instant) -> Self {
        Self {
            recent: Mutex::new(Recent::begin(now)),
            dials_fail: AtomicBool::new(false),
        }
    }

    /// Counts a client that was identified. Returns the hint to log now, if one is due.
    pub fn identified(&self, client: Identified, now: Instant) -> Option<Hint> {
        let mut recent = self.recent.lock();
        let span = recent.at(now);
        match client.forwarded {
            Forwarded::Read => span.from_trusted += 1,
            Forwarded::Missing => {
                span.from_trusted += 1;
                span.without_header += 1;
            }
            Forwarded::Ignored | Forwarded::None => {}
        }
        if client.is_admitted {
            span.admitted += 1;
            span.admitted_forwarded += u32::from(client.forwarded == Forwarded::Ignored && client.is_local);
            span.vote((client.forwarded == Forwarded::None && client.is_local).then_some(client.key));
        }
        [Hint::NoForwarding, Hint::OneAddress]
            .into_iter()
            .find(|hint| recent.is_due(*hint, now))
    }

    /// Counts a client that was refused by its key while no proxy is trusted. Returns whether to log
    /// [`Hint::UntrustedProxy`] now.
    pub fn refused(&self, seems_forwarded: bool, now: Instant) -> bool {
        let mut recent = self.recent.lock();
        let span = recent.at(now);
        span.refused += 1;
        span.refused_forwarded += u32::from(seems_forwarded);
        seems_forwarded && recent.is_due(Hint::UntrustedProxy, now)
    }

    /// Counts a tunnel that ended. Returns whether to log [`Hint::MessageLimits`] now.
    pub fn closed(&self, hit_a_limit: bool, now: Instant) -> bool {
        let mut recent = self.recent.lock();
        let span = recent.at(now);
        span.closed += 1;
        span.closed_limited += u32::from(hit_a_limit);
        hit_a_limit && recent.is_due(Hint::MessageLimits, now)
    }

    /// Counts a dial that failed. At most once a second, returns how many dials of this server failed since the last log
    /// line, including this one.
    pub fn dial_failed(&self, server: &Arc<str>, now: Instant) -> Option<u32> {
        self.dials_fail.store(true, Relaxed);
        let mut recent = self.recent.lock();
        let dials = &mut recent.at(now).dials;
        if dials.len() >= MOST_SERVERS && !dials.contains_key(server) {
            return None;
        }
        let dials = dials.entry(Arc::clone(server)).or_default();
        dials.failed += 1;
        dials.unlogged += 1;
        let is_due = dials
            .logged_at
            .is_none_or(|at| now.saturating_duration_since(at) >= LOG_A_DIAL);
        is_due.then(|| {
            dials.logged_at = Some(now);
            std::mem::take(&mut dials.unlogged)
        })
    }

    /// Counts a dial that succeeded.
    pub fn dial_succeeded(&self, server: &Arc<str>, now: Instant) {
        if !self.dials_fail.load(Relaxed) {
            return;
        }
        let mut recent = self.recent.lock();
        recent.at(now);
        let mut fails = false;
        for span in &mut recent.spans {
            fails |= !span.dials.is_empty();
        }
        let is_known = recent.spans.iter().any(|span| span.dials.contains_key(server));
        if is_known {
            recent.spans[0].dials.entry(Arc::clone(server)).or_default().succeeded += 1;
        }
        self.dials_fail.store(fails, Relaxed);
    }

    /// Every hint that holds now, as `word: text`. `trusts_nobody` says whether no proxy is trusted now.
    pub fn given(&self, trusts_nobody: bool, now: Instant) -> Vec<String> {
        let mut recent = self.recent.lock();
        recent.at(now);
        let mut given: Vec<String> = recent
            .shown()
            .filter(|hint| *hint != Hint::ServerFails && (*hint != Hint::UntrustedProxy || trusts_nobody))
            .map(|hint| format!("{}: {}", hint.word(), hint.text()))
            .collect();
        let failing = recent.failing().into_iter().take(MOST_TOLD);
        given.extend(failing.map(|(server, dials)| {
            format!(
                "{}: {} of {} dials of {server} failed of late: start it, or take it out of `servers`",
                Hint::ServerFails.word(),
                dials.failed,
                dials.failed + dials.succeeded
            )
        }));
        given
    }
}

/// The most zones or servers that one hint names.
pub const MOST_TOLD: usize = 3;
/// The most failing servers that are counted.
const MOST_SERVERS: usize = 64;
const LOG_A_DIAL: Duration = Duration::from_secs(1);
