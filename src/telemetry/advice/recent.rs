//! The counts of the last minute or two, and the hints that follow from them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use enum_map::EnumMap;

use crate::limit::key::ClientKey;

use super::hint::Hint;

/// The counts of the last minute or two.
#[derive(Debug)]
pub(super) struct Recent {
    /// When the current span began.
    began: Instant,
    /// The current span, and the one before it.
    pub(super) spans: [Span; 2],
    /// When each hint was last logged.
    logged_at: EnumMap<Hint, Option<Instant>>,
}

/// The counts of one span.
#[derive(Debug, Default)]
pub(super) struct Span {
    pub(super) admitted: u32,
    /// How many of these seem to come through an untrusted proxy in a private network.
    pub(super) admitted_forwarded: u32,
    /// Requests from trusted hops, and how many of them had no forwarding header.
    pub(super) from_trusted: u32,
    pub(super) without_header: u32,
    /// The local client key that most admitted clients had, by majority vote, and its lead: its votes minus all other votes.
    pub(super) plain: Option<(ClientKey, u32)>,
    /// Clients that were refused by client key, and how many of them seem to come through such a proxy.
    pub(super) refused: u32,
    pub(super) refused_forwarded: u32,
    /// Tunnels that ended, and how many of them hit a limit on messages.
    pub(super) closed: u32,
    pub(super) closed_limited: u32,
    /// The dials by server. A server is added when a dial of it fails.
    pub(super) dials: BTreeMap<Arc<str>, Dials>,
}

/// The dials of one server.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Dials {
    pub(super) failed: u32,
    pub(super) succeeded: u32,
    pub(super) unlogged: u32,
    pub(super) logged_at: Option<Instant>,
}

impl Recent {
    /// Begins to count at `now`.
    pub(super) fn begin(now: Instant) -> Self {
        Self {
            began: now,
            spans: Default::default(),
            logged_at: EnumMap::default(),
        }
    }

    /// The span that contains `now`. The span before it is kept; older spans are forgotten.
    pub(super) fn at(&mut self, now: Instant) -> &mut Span {
        let age = now.saturating_duration_since(self.began);
        if age >= SPAN {
            let last = std::mem::take(&mut self.spans[0]);
            self.spans[1] = if age < 2 * SPAN { last } else { Span::default() };
            self.began = now;
        }
        &mut self.spans[0]
    }

    fn sum(&self, count: impl Fn(&Span) -> u32) -> u32 {
        self.spans.iter().map(count).sum()
    }

    /// Whether the hint holds now.
    fn shows(&self, hint: Hint) -> bool {
        let is_most = |part: u32, of: u32| part > of / 2;
        match hint {
            Hint::UntrustedProxy => {
                let (refused, forwarded) = (self.sum(|span| span.refused), self.sum(|span| span.refused_forwarded));
                let admitted = self.sum(|span| span.admitted);
                // One client that tries again and again has many refusals. So admitted clients are counted, if there are
                // any.
                forwarded > 0
                    && match admitted {
                        0 => is_most(forwarded, refused),
                        _ => is_most(self.sum(|span| span.admitted_forwarded), admitted),
                    }
            }
            Hint::NoForwarding => is_most(self.sum(|span| span.without_header), self.sum(|span| span.from_trusted)),
            Hint::OneAddress => {
                let admitted = self.sum(|span| span.admitted);
                let key = self.spans.iter().find_map(|span| span.plain).map(|(key, _)| key);
                let votes = self.sum(|span| match span.plain {
                    Some((plain, votes)) if Some(plain) == key => votes,
                    _ => 0,
                });
                admitted >= FEW && votes >= admitted - admitted / 5
            }
            Hint::MessageLimits => {
                let limited = self.sum(|span| span.closed_limited);
                limited >= FEW && is_most(limited, self.sum(|span| span.closed))
            }
            Hint::ServerFails => !self.failing().is_empty(),
        }
    }

    /// The servers of which most dials fail.
    pub(super) fn failing(&self) -> Vec<(Arc<str>, Dials)> {
        let mut servers: BTreeMap<Arc<str>, Dials> = BTreeMap::new();
        for (server, dials) in self.spans.iter().flat_map(|span| &span.dials) {
            let sum = servers.entry(Arc::clone(server)).or_default();
            sum.failed += dials.failed;
            sum.succeeded += dials.succeeded;
        }
        let fails = |dials: &Dials| dials.failed >= FEW_DIALS && dials.failed > dials.succeeded;
        servers.into_iter().filter(|(_, dials)| fails(dials)).collect()
    }

    /// Whether a hint holds and was not logged within the last minute; if so, it counts as logged now.
    pub(super) fn is_due(&mut self, hint: Hint, now: Instant) -> bool {
        let is_due =
            self.logged_at[hint].is_none_or(|at| now.saturating_duration_since(at) >= EVERY) && self.shows(hint);
        if is_due {
            self.logged_at[hint] = Some(now);
        }
        is_due
    }

    /// The hints that hold, in their order.
    pub(super) fn shown(&self) -> impl Iterator<Item = Hint> {
        let hints = self.logged_at.iter().map(|(hint, _)| hint);
        hints.filter(|hint| self.shows(*hint))
    }
}

impl Span {
    /// Counts a vote in a majority vote (Boyer and Moore): a key with more than half of the votes remains.
    pub(super) fn vote(&mut self, key: Option<ClientKey>) {
        match (&mut self.plain, key) {
            (Some((plain, votes)), Some(key)) if *plain == key => *votes += 1,
            (Some((_, votes)), _) if *votes > 0 => *votes -= 1,
            (plain, Some(key)) => *plain = Some((key, 1)),
            (_, None) => {}
        }
    }
}

/// The least time between two log lines of the same hint.
const EVERY: Duration = Duration::from_secs(60);
/// The length of a span. Shares are computed over two of them, the current one and the one before.
const SPAN: Duration = Duration::from_secs(60);
/// Fewer clients or tunnels than this prove nothing.
const FEW: u32 = 10;
const FEW_DIALS: u32 = 3;
