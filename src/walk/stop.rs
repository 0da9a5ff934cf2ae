//! A verdict: this client goes no further. What it hears of that is decided in `refuse`, what is counted in `ledger`.

use std::sync::Arc;

use crate::config::routes::Missed;
use crate::limit::admission::{Full, Lack};
use crate::limit::pending::PerIpFull;
use crate::relay::mode::RelayMode;
use crate::upstream::group::Upstream;
use crate::wire::http::head::Head;

use crate::live::zone::Zone;
use crate::reason::reject::RejectReason;
use crate::telemetry::connection::{Exceeded, RequestTarget};
use crate::telemetry::log::shown;
use crate::walk::identify::Client;

/// Where a request was routed to. It holds the things themselves and not their positions: a reload may put another policy,
/// with other lists, in force at any time.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its route's name.
    pub route: Arc<str>,
    /// Its zone, under the policy that routed it.
    pub zone: Arc<Zone>,
    /// Its upstream.
    pub upstream: Arc<Upstream>,
    /// How connections to that upstream are relayed.
    pub relay: RelayMode,
}

/// What the client's upgrade offered, as far as an answer by close frame needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// `Sec-WebSocket-Key`.
    pub key: Vec<u8>,
    /// The first offered subprotocol.
    pub protocol: Option<Vec<u8>>,
    /// It is a Socket.IO client's.
    pub is_engine_io: bool,
}

/// Why a client stops here, and what is known of it so far.
#[derive(Debug)]
pub struct Stop {
    /// What it is about.
    pub cause: Cause,
    known: Box<Known>,
}

/// What a stop is about.
#[derive(Debug)]
pub enum Cause {
    /// No stop at all: a load balancer asked whether to send clients here, and is answered.
    Health {
        /// Whether it should.
        is_serving: bool,
    },
    /// The server's own answer, passed on.
    Server {
        /// Its status.
        status: u16,
        /// Its bytes.
        answer: Vec<u8>,
    },
    /// We refuse.
    Refused(RejectReason),
    /// We refuse, and it is not owed a word.
    Wordless(RejectReason),
    /// It has not said a word, and perhaps only connected to see whether it can: it is counted, and leaves no line.
    Silent(RejectReason),
}

/// What was known of the client when it stopped.
#[derive(Debug, Default)]
pub struct Known {
    /// Who it is.
    pub client: Option<Client>,
    /// Where it was routed.
    pub place: Option<Place>,
    /// The limit that it exceeded.
    pub exceeded: Option<Exceeded>,
    /// What it requested.
    pub target: Option<RequestTarget>,
    /// What the log says of it.
    pub note: Option<String>,
    /// The rule that was broken, as the client hears it.
    pub rule: Option<String>,
    /// What was seen in its place, for the log.
    pub seen: Option<String>,
    /// What an answer by close frame needs.
    pub offer: Option<Offer>,
    /// It asked by HEAD, and reads no body.
    pub by_head: bool,
}

impl Stop {
    /// Stops for `reason`.
    pub fn new(reason: RejectReason) -> Self {
        Self::of(Cause::Refused(reason))
    }

    /// Stops for `reason` without a byte.
    pub fn wordless(reason: RejectReason) -> Self {
        Self::of(Cause::Wordless(reason))
    }

    /// Stops for `reason` one that has not said a word.
    pub fn silent(reason: RejectReason) -> Self {
        Self::of(Cause::Silent(reason))
    }

    /// Answers a load balancer.
    pub fn health(is_serving: bool) -> Self {
        Self::of(Cause::Health { is_serving })
    }

    /// Passes on what the server said; `cut` says, for the log alone, why that is not the whole of it.
    pub fn server(status: u16, answer: Vec<u8>, cut: Option<&str>) -> Self {
        let mut stop = Self::of(Cause::Server { status, answer });
        stop.known.seen = cut.map(str::to_owned);
        stop
    }

    /// Stops for `reason`, and tells the client which `rule` was broken.
    pub fn rule(reason: RejectReason, rule: String) -> Self {
        let mut stop = Self::new(reason);
        stop.known.rule = Some(rule);
        stop
    }

    /// Stops for `reason`; `seen` is for the log alone.
    pub fn seen(reason: RejectReason, seen: &[u8]) -> Self {
        let mut stop = Self::new(reason);
        stop.known.seen = Some(shown(seen));
        stop
    }

    /// The same in words of our own, which are written as they are.
    pub fn because(reason: RejectReason, words: String) -> Self {
        let mut stop = Self::new(reason);
        stop.known.seen = Some(words);
        stop
    }

    /// Stops because no route takes it, and says in the log what the closest one asks for.
    pub fn missed(missed: Missed<'_>, head: &Head<'_>) -> Self {
        let mut stop = Self::new(RejectReason::NoRoute).asking(head);
        let Some(RequestTarget { host, path }) = &stop.known.target else {
            return stop;
        };
        stop.known.note = Some(match missed {
            Missed::Host => format!("no route for host {host}, path {path}"),
            Missed::Path => format!("no route has the path {path}, host {host}"),
            Missed::Network => format!("a route has this path, but for other networks: path {path}, host {host}"),
            Missed::Spelling => {
                format!("a route has this path, but takes only its plain spelling: path {path}, host {host}")
            }
            Missed::Refused(route) => format!("route {} refuses: path {path}, host {host}", route.name),
        });
        stop
    }

    /// Stops at a limit; a rate has a lack.
    pub fn full(full: Full, lack: Option<Lack>) -> Self {
        Self::new(full.limit.into()).exceeding(Exceeded::new(full, lack))
    }

    /// Stops as its key has too many pending.
    pub fn pending_per_ip(full: PerIpFull) -> Self {
        Self::new(RejectReason::PendingPerIp).exceeding(Exceeded::Count {
            open: full.open,
            limit: full.of,
        })
    }

    /// Names the limit that was exceeded.
    #[must_use]
    pub fn exceeding(mut self, exceeded: Exceeded) -> Self {
        self.known.exceeded = Some(exceeded);
        self
    }

    /// Says what it asked for.
    #[must_use]
    pub fn asking(mut self, head: &Head<'_>) -> Self {
        self.known.target = Some(RequestTarget {
            host: shown(head.authority.map(|authority| authority.host).unwrap_or_default()),
            path: shown(head.path()),
        });
        self
    }

    /// Says whether it asked by HEAD.
    #[must_use]
    pub fn asked_by(mut self, method: &[u8]) -> Self {
        self.known.by_head = method == b"HEAD";
        self
    }

    /// Says who it is that stops.
    #[must_use]
    pub fn by(mut self, client: Client) -> Self {
        self.known.client = Some(client);
        self
    }

    /// Says where it was routed.
    #[must_use]
    pub fn at(mut self, place: &Place) -> Self {
        self.known.place = Some(place.clone());
        self
    }

    /// Says what its upgrade offered.
    #[must_use]
    pub fn offering(mut self, offer: Option<&Offer>) -> Self {
        self.known.offer = offer.cloned();
        self
    }

    /// What was known of the client when it stopped.
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// The reason; `None` for a health check.
    pub fn reason(&self) -> Option<RejectReason> {
        match self.cause {
            Cause::Health { .. } => None,
            Cause::Server { .. } => Some(RejectReason::UpstreamStatus),
            Cause::Refused(reason) | Cause::Wordless(reason) | Cause::Silent(reason) => Some(reason),
        }
    }

    /// What the log says of it beyond its reason.
    pub fn message(&self) -> Option<String> {
        let known = &self.known;
        let seen = || {
            known.seen.as_ref().map(|seen| match self.reason() {
                Some(RejectReason::Origin) => format!("origin {seen}"),
                _ => seen.clone(),
            })
        };
        known.note.clone().or_else(|| known.rule.clone()).or_else(seen)
    }

    fn of(cause: Cause) -> Self {
        Self {
            cause,
            known: Box::default(),
        }
    }
}
