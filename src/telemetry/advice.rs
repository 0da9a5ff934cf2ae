//! What operators should look at: found while serving, told in /stats for as long as it lasts and, once a minute, in the
//! log.
//!
//! A hint goes by shares of what came in the last minute or two, so that a single odd client gives none, and it ends with
//! what it is about.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::limit::key::ClientKey;

/// Something that surely isn't meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Clients are refused by the address of a proxy that nobody told us to trust.
    UntrustedProxy,
    /// A trusted proxy does not say who its client is.
    NoForwarding,
    /// All clients have one private address, and no forwarding header.
    OneAddress,
    /// Most connections that end have hit a limit on messages.
    MessageLimits,
    /// Most dials of a server fail.
    ServerFails,
}

/// What became of forwarding headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// They were read.
    Read,
    /// A trusted hop sent none.
    Missing,
    /// Sent by a hop that is not trusted, and ignored.
    Ignored,
    /// None were sent, and none expected.
    None,
}

/// A client as it was identified.
#[derive(Clone, Copy, Debug)]
pub struct Identified {
    /// What its forwarding headers were worth.
    pub forwarded: Forwarded,
    /// The near end is on this machine or in a private network.
    pub is_local: bool,
    /// What it counts as.
    pub key: ClientKey,
    /// It was admitted.
    pub is_admitted: bool,
}

/// What was seen of late.
#[derive(Debug)]
pub struct Advice {
    recent: Mutex<Recent>,
    /// A dial has failed of late; otherwise nobody asks which succeed.
    dials_fail: AtomicBool,
}

#[derive(Debug)]
struct Recent {
    /// When the first of the two began.
    began: Instant,
    /// This span, and the one before it.
    spans: [Span; 2],
    /// When each was last logged.
    told: [Option<Instant>; Hint::ALL.len()],
}

#[derive(Debug, Default)]
struct Span {
    admitted: u32,
    /// Of these, those that came by a proxy of our own network, by all appearance, whose word did not count.
    admitted_forwarded: u32,
    /// Requests of trusted hops, and how many of them had no forwarding header.
    from_trusted: u32,
    without_header: u32,
    /// The local client key that most of those admitted had, by majority vote: its votes less all others.
    plain: Option<(ClientKey, u32)>,
    /// Refused by client key, and how many of them came as above.
    refused: u32,
    refused_forwarded: u32,
    /// Tunnels that ended, and how many of them had hit a limit on messages.
    closed: u32,
    closed_limited: u32,
    /// By server: dials that failed and that did not, once one has failed.
    dials: BTreeMap<Arc<str>, Dials>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Dials {
    failed: u32,
    succeeded: u32,
    unlogged: u32,
    logged_at: Option<Instant>,
}

impl Hint {
    const ALL: [Self; 5] = [
        Self::UntrustedProxy,
        Self::NoForwarding,
        Self::OneAddress,
        Self::MessageLimits,
        Self::ServerFails,
    ];

    /// Its word, which stays the same.
    pub fn word(self) -> &'static str {
        match self {
            Self::UntrustedProxy => "untrusted_proxy",
            Self::NoForwarding => "no_forwarding_header",
            Self::OneAddress => "one_address",
            Self::MessageLimits => "message_limits",
            Self::ServerFails => "server_fails",
        }
    }

    /// The hint in words.
    pub fn text(self) -> &'static str {
        match self {
            Self::UntrustedProxy => "every client looks like 127.0.0.1: set [client_ip] trusted_proxies",
            Self::NoForwarding => {
                "a trusted proxy sends no forwarding header, so its clients share its address: \
                 have it set X-Forwarded-For, or take it out of [client_ip] trusted_proxies"
            }
            Self::OneAddress => {
                "nearly every client has the same private address, and none sends a forwarding header: \
                 if a proxy stands before wsguard, have it set X-Forwarded-For or send the PROXY protocol, and name it in \
                 [client_ip] trusted_proxies"
            }
            Self::MessageLimits => {
                "most connections that end have hit a limit on messages: see wsguard_message_limit_hits_total, and raise \
                 the limit if they are honest clients"
            }
            Self::ServerFails => "most dials of a server fail: start it, or take it out of `servers`",
        }
    }
}

impl Advice {
    /// Nothing is to be said yet. By a clock that never jumps: one that is set back must not silence a hint.
    pub fn begin(now: Instant) -> Self {
        Self {
            recent: Mutex::new(Recent {
                began: now,
                spans: Default::default(),
                told: Default::default(),
            }),
            dials_fail: AtomicBool::new(false),
        }
    }

    /// A client was identified; what is to be logged now.
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

    /// A client was refused by its key, while nobody is trusted; whether to log [`Hint::UntrustedProxy`] now.
    pub fn refused(&self, seems_forwarded: bool, now: Instant) -> bool {
        let mut recent = self.recent.lock();
        let span = recent.at(now);
        span.refused += 1;
        span.refused_forwarded += u32::from(seems_forwarded);
        seems_forwarded && recent.is_due(Hint::UntrustedProxy, now)
    }

    /// A tunnel ended; whether to log [`Hint::MessageLimits`] now.
    pub fn closed(&self, hit_a_limit: bool, now: Instant) -> bool {
        let mut recent = self.recent.lock();
        let span = recent.at(now);
        span.closed += 1;
        span.closed_limited += u32::from(hit_a_limit);
        hit_a_limit && recent.is_due(Hint::MessageLimits, now)
    }

    /// A dial failed; how many did since the last one that was logged, if it is time to log one again: once a second.
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

    /// A dial succeeded.
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

    /// Everything that is to be looked at now, each with its word. `trusts_nobody` is how things are, not how they were.
    pub fn given(&self, trusts_nobody: bool, now: Instant) -> Vec<String> {
        let mut recent = self.recent.lock();
        recent.at(now);
        let mut given: Vec<String> = Hint::ALL
            .into_iter()
            .filter(|hint| *hint != Hint::ServerFails && (*hint != Hint::UntrustedProxy || trusts_nobody))
            .filter(|hint| recent.shows(*hint))
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

impl Recent {
    /// The span of this moment; what is older than the one before it is forgotten.
    fn at(&mut self, now: Instant) -> &mut Span {
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

    fn shows(&self, hint: Hint) -> bool {
        let is_most = |part: u32, of: u32| part > of / 2;
        match hint {
            Hint::UntrustedProxy => {
                let (refused, forwarded) = (self.sum(|span| span.refused), self.sum(|span| span.refused_forwarded));
                let admitted = self.sum(|span| span.admitted);
                // One that hammers is refused often, and is still one client: who is let in says who comes.
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

    fn failing(&self) -> Vec<(Arc<str>, Dials)> {
        let mut servers: BTreeMap<Arc<str>, Dials> = BTreeMap::new();
        for (server, dials) in self.spans.iter().flat_map(|span| &span.dials) {
            let sum = servers.entry(Arc::clone(server)).or_default();
            sum.failed += dials.failed;
            sum.succeeded += dials.succeeded;
        }
        let fails = |dials: &Dials| dials.failed >= FEW_DIALS && dials.failed > dials.succeeded;
        servers.into_iter().filter(|(_, dials)| fails(dials)).collect()
    }

    /// Whether a hint shows and was not logged for a minute; then it counts as logged.
    fn is_due(&mut self, hint: Hint, now: Instant) -> bool {
        let told = self.told[hint as usize];
        let is_due = told.is_none_or(|at| now.saturating_duration_since(at) >= EVERY) && self.shows(hint);
        if is_due {
            self.told[hint as usize] = Some(now);
        }
        is_due
    }
}

impl Span {
    /// Majority vote (Boyer and Moore): a key that has most votes is left with what it has more than all others.
    fn vote(&mut self, key: Option<ClientKey>) {
        match (&mut self.plain, key) {
            (Some((plain, votes)), Some(key)) if *plain == key => *votes += 1,
            (Some((_, votes)), _) if *votes > 0 => *votes -= 1,
            (plain, Some(key)) => *plain = Some((key, 1)),
            (_, None) => {}
        }
    }
}

/// A zone that is as good as full, of clients that have sent nothing: what ends them, where it is not set. `None` is no
/// limit.
pub fn silent_zone(
    name: &str,
    open: u32,
    limit: Option<u32>,
    silent: u64,
    first_message: bool,
    ping: bool,
) -> Option<String> {
    let limit = limit.filter(|limit| *limit > 0)?;
    let missing = match (first_message, ping) {
        (true, true) => return None,
        (false, false) => "`first_message` and `ping`",
        (false, true) => "`first_message`",
        (true, false) => "`ping`",
    };
    let is_full = u64::from(open) * 5 >= u64::from(limit) * 4;
    let is_silent = silent * 2 > u64::from(open);
    (is_full && is_silent).then(|| {
        format!(
            "silent_clients: {open} of {limit} are open in zone {name}, and {silent} of them have sent nothing: set {missing} for it"
        )
    })
}

/// The process ceiling is as good as reached, and it is the descriptor limit that made it.
pub fn few_descriptors(open: u32, ceiling: u32, wanted: u64, descriptors: u64) -> Option<String> {
    (u64::from(ceiling) < wanted && u64::from(open) * 5 >= u64::from(ceiling) * 4).then(|| {
        format!(
            "few_descriptors: {open} of {ceiling} connections are open, and the descriptor limit of {descriptors} allows no more: \
             raise LimitNOFILE or `ulimit -n`, and restart"
        )
    })
}

/// Zones or servers of which the same is said.
pub const MOST_TOLD: usize = 3;
/// A hint is logged so often.
const EVERY: Duration = Duration::from_secs(60);
/// Of two such spans, the one that runs and the one before it, the shares are taken.
const SPAN: Duration = Duration::from_secs(60);
/// Fewer than so many say nothing of all.
const FEW: u32 = 10;
const FEW_DIALS: u32 = 3;
/// Failing servers that are watched.
const MOST_SERVERS: usize = 64;
const LOG_A_DIAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::limit::key::Prefixes;

    fn key(last: u8) -> ClientKey {
        ClientKey::of(IpAddr::from([10, 0, 0, last]), Prefixes::default())
    }

    fn client(forwarded: Forwarded, last: u8, is_admitted: bool) -> Identified {
        Identified {
            forwarded,
            is_local: true,
            key: key(last),
            is_admitted,
        }
    }

    fn words(advice: &Advice, now: Instant) -> Vec<String> {
        let given = advice.given(true, now);
        given
            .iter()
            .map(|text| text.split(':').next().unwrap_or_default().to_owned())
            .collect()
    }

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_proxy_that_nobody_trusts_is_told_once_a_minute_while_most_come_by_it() {
        let t0 = Instant::now();
        let advice = Advice::begin(t0);
        for _ in 0..50 {
            advice.identified(client(Forwarded::Ignored, 1, true), t0);
        }
        assert!(words(&advice, t0).is_empty(), "nobody is refused for it");
        let due = [0, 1, 59, 60, 61].map(|s| advice.refused(true, t0 + s * S));
        assert_eq!(due, [true, false, false, true, false]);
        assert_eq!(words(&advice, t0 + 62 * S), ["untrusted_proxy"]);
        assert_eq!(advice.given(false, t0 + 62 * S), [""; 0], "it is trusted now");
        assert_eq!(words(&advice, t0 + 181 * S), [""; 0], "it has ended");
    }

    #[test]
    fn one_local_client_that_sends_the_header_and_hammers_is_no_proxy() {
        let t0 = Instant::now();
        let advice = Advice::begin(t0);
        for n in 0..20 {
            advice.identified(client(Forwarded::None, n, true), t0);
        }
        advice.identified(client(Forwarded::Ignored, 99, true), t0);
        assert!((0..1000).all(|_| !advice.refused(true, t0)));
        assert!(words(&advice, t0).is_empty());
    }

    #[test]
    fn where_nobody_is_let_in_any_more_refusals_say_who_comes() {
        let t0 = Instant::now();
        let advice = Advice::begin(t0);
        assert!(advice.refused(true, t0));
        assert!(!advice.refused(false, t0));
        assert!(words(&advice, t0).is_empty(), "one of two is not most");
        advice.refused(true, t0);
        assert_eq!(words(&advice, t0), ["untrusted_proxy"]);
    }

    #[test]
    fn a_trusted_hop_without_a_header_counts_by_its_share() {
        let t0 = Instant::now();
        let advice = Advice::begin(t0);
        assert_eq!(
            advice.identified(client(Forwarded::Missing, 1, true), t0),
            Some(Hint::NoForwarding)
        );
        assert_eq!(words(&advice, t0), ["no_forwarding_header"]);
        for n in 2..5 {
            assert_eq!(advice.identified(client(Forwarded::Read, n, true), t0 + S), None);
        }
        assert!(words(&advice, t0 + S).is_empty(), "a check of one's own among clients");
    }

    #[test]
    fn clients_that_all_have_one_private_address_are_told_and_others_are_not() {
        let t0 = Instant::now();
        let advice = Advice::begin(t0);
        let due: Vec<bool> = (0..12)
            .map(|_| advice.identified(client(Forwarded::None, 1, true), t0).is_some())
            .collect();
        assert_eq!(due.iter().position(|due| *due), Some(9), "nine say nothing of all");
        assert_eq!(due.iter().filter(|due| **due).count(), 1);
        assert_eq!(words(&advice, t0), ["one_address"]);
        let advice = Advice::begin(t0);
        for n in 0..100 {
            advice.identified(client(Forwarded::None, n % 4, true), t0);
        }
        assert!(words(&advice, t0).is_empty());
    }

    #[test]
    fn limits_on_messages_that_most_have_hit_are_told() {
        let t0 = Instant::now();
        let advice = Advice::begin(t0);
        assert!((0..9).all(|_| !advice.closed(true, t0)));
        assert!(advice.closed(true, t0));
        assert_eq!(words(&advice, t0), ["message_limits"]);
        for _ in 0..10 {
            advice.closed(false, t0);
        }
        assert!(words(&advice, t0).is_empty(), "half is not most");
    }

    #[test]
    fn a_server_whose_dials_fail_is_named_until_they_succeed_or_nobody_dials_it() {
        let t0 = Instant::now();
        let advice = Advice::begin(t0);
        let [bad, good]: [Arc<str>; 2] = ["127.0.0.1:1".into(), "127.0.0.1:2".into()];
        let logged: Vec<Option<u32>> = [0, 100, 200, 1000, 1100]
            .into_iter()
            .map(|ms| {
                advice.dial_succeeded(&good, t0);
                advice.dial_failed(&bad, t0 + Duration::from_millis(ms))
            })
            .collect();
        assert_eq!(
            logged,
            [Some(1), None, None, Some(3), None],
            "one a second, and none is lost"
        );
        assert_eq!(
            advice.given(true, t0 + 2 * S),
            ["server_fails: 5 of 5 dials of 127.0.0.1:1 failed of late: start it, or take it out of `servers`"]
        );
        for _ in 0..5 {
            advice.dial_succeeded(&bad, t0 + 2 * S);
        }
        assert!(words(&advice, t0 + 2 * S).is_empty(), "half of them get through");
        advice.dial_failed(&bad, t0 + 3 * S);
        assert_eq!(words(&advice, t0 + 3 * S), ["server_fails"]);
        assert!(words(&advice, t0 + 200 * S).is_empty());
    }

    #[test]
    fn more_servers_than_can_be_told_are_bounded() {
        let t0 = Instant::now();
        let advice = Advice::begin(t0);
        for n in 0..1000 {
            for _ in 0..3 {
                advice.dial_failed(&format!("127.0.0.1:{n}").into(), t0);
            }
        }
        assert_eq!(words(&advice, t0).len(), MOST_TOLD);
    }

    #[test]
    fn a_zone_full_of_silent_clients_is_told_with_what_is_not_set() {
        let told = |open, limit, silent, first_message, ping| {
            silent_zone("games", open, limit, silent, first_message, ping).unwrap_or_default()
        };
        assert_eq!(
            told(40, Some(40), 40, false, false),
            "silent_clients: 40 of 40 are open in zone games, and 40 of them have sent nothing: \
             set `first_message` and `ping` for it"
        );
        assert!(told(32, Some(40), 17, true, false).ends_with("set `ping` for it"));
        for nothing in [
            told(31, Some(40), 31, false, false),
            told(40, Some(40), 20, false, false),
            told(40, Some(40), 40, true, true),
            told(40, None, 40, false, false),
            told(0, Some(0), 0, false, false),
        ] {
            assert_eq!(nothing, "");
        }
    }

    #[test]
    fn a_ceiling_that_the_descriptor_limit_made_is_told_when_it_is_near() {
        assert!(few_descriptors(80, 100, 10_000, 300).is_some());
        assert!(few_descriptors(79, 100, 10_000, 300).is_none(), "there is room");
        assert!(few_descriptors(100, 100, 100, 300).is_none(), "no more is wanted");
    }
}
