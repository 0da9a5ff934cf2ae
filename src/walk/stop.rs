//! A verdict: this client gets no tunnel. `refuse` says what it gets instead, and the record what is counted.

use std::sync::Arc;

use crate::config::routes::Missed;
use crate::limit::admission::{Full, Lack};
use crate::limit::pending::PerIpFull;
use crate::wire::http::head::Head;

use crate::live::destination::Destination;
use crate::reason::reject::RejectReason;
use crate::telemetry::connection_line::{Exceeded, RequestTarget};
use crate::telemetry::log::escaped;
use crate::walk::identify::Client;

/// What the client's upgrade offered, as far as an answer by close frame needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// `Sec-WebSocket-Key`.
    pub key: Vec<u8>,
    /// The first offered subprotocol.
    pub protocol: Option<Vec<u8>>,
    /// Whether the upgrade is a Socket.IO client's.
    pub is_engine_io: bool,
}

/// Why a client gets no tunnel, and what is known of it so far.
#[derive(Debug)]
pub struct Stop {
    /// The kind of verdict.
    pub cause: Cause,
    details: Box<Details>,
}

/// The kind of a verdict.
#[derive(Debug)]
pub enum Cause {
    /// Not a refusal: a health check is answered.
    Health {
        /// Whether the process takes connections.
        is_serving: bool,
    },
    /// The server's own answer is passed on.
    Server {
        /// Its status.
        status: u16,
        /// Its bytes.
        answer: Vec<u8>,
    },
    /// Refused with an answer.
    Refused(RejectReason),
    /// Refused without an answer.
    Wordless(RejectReason),
    /// The client has sent nothing. Perhaps it only connected to see whether it can. It is counted but leaves no log
    /// line.
    Silent(RejectReason),
}

/// What is known of the client.
#[derive(Debug, Default)]
pub struct Details {
    /// The client.
    pub client: Option<Client>,
    /// Where it was routed to.
    pub destination: Option<Arc<Destination>>,
    /// The limit that it exceeded.
    pub exceeded: Option<Exceeded>,
    /// What it requested.
    pub target: Option<RequestTarget>,
    /// The message of its log line.
    pub note: Option<String>,
    /// The rule that was broken, in the words of the answer.
    pub rule: Option<String>,
    /// What it sent, or what happened instead; only for the log.
    pub seen: Option<String>,
    /// The offer that an answer by close frame needs.
    pub offer: Option<Offer>,
    /// The request is a HEAD, whose answer has no body.
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

    /// Stops for `reason` a client that has sent nothing.
    pub fn silent(reason: RejectReason) -> Self {
        Self::of(Cause::Silent(reason))
    }

    /// Answers a health check.
    pub fn health(is_serving: bool) -> Self {
        Self::of(Cause::Health { is_serving })
    }

    /// Passes on the server's answer. `cut` says why it is not complete; it is only for the log.
    pub fn server(status: u16, answer: Vec<u8>, cut: Option<&str>) -> Self {
        let mut stop = Self::of(Cause::Server { status, answer });
        stop.details.seen = cut.map(str::to_owned);
        stop
    }

    /// Stops for `reason`; the answer names the `rule` that was broken.
    pub fn rule(reason: RejectReason, rule: String) -> Self {
        let mut stop = Self::new(reason);
        stop.details.rule = Some(rule);
        stop
    }

    /// Stops for `reason`; `seen` is only for the log.
    pub fn seen(reason: RejectReason, seen: &[u8]) -> Self {
        let mut stop = Self::new(reason);
        stop.details.seen = Some(escaped(seen));
        stop
    }

    /// Stops for `reason`; `words` are only for the log, which writes them unchanged.
    pub fn because(reason: RejectReason, words: String) -> Self {
        let mut stop = Self::new(reason);
        stop.details.seen = Some(words);
        stop
    }

    /// Stops because no route matches. The log line names what the closest route requires.
    pub fn missed(missed: Missed<'_>, head: &Head<'_>) -> Self {
        let mut stop = Self::new(RejectReason::NoRoute).asking(head);
        let Some(RequestTarget { host, path }) = &stop.details.target else {
            return stop;
        };
        stop.details.note = Some(match missed {
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

    /// Stops at a limit. If the limit is a rate, `lack` has its numbers.
    pub fn full(full: Full, lack: Option<Lack>) -> Self {
        Self::new(full.limit.into()).exceeding(Exceeded::new(full, lack))
    }

    /// Stops because the client key has too many pending sockets.
    pub fn pending_per_ip(full: PerIpFull) -> Self {
        Self::new(RejectReason::PendingPerIp).exceeding(Exceeded::Count {
            open: full.open,
            limit: full.of,
        })
    }

    /// Adds the limit that was exceeded.
    #[must_use]
    pub fn exceeding(mut self, exceeded: Exceeded) -> Self {
        self.details.exceeded = Some(exceeded);
        self
    }

    /// Adds the target of the request.
    #[must_use]
    pub fn asking(mut self, head: &Head<'_>) -> Self {
        self.details.target = Some(RequestTarget {
            host: escaped(head.authority.map(|authority| authority.host).unwrap_or_default()),
            path: escaped(head.path()),
        });
        self
    }

    /// Adds whether the request is a HEAD.
    #[must_use]
    pub fn asked_by(mut self, method: &[u8]) -> Self {
        self.details.by_head = method == b"HEAD";
        self
    }

    /// Adds the client.
    #[must_use]
    pub fn by(mut self, client: Client) -> Self {
        self.details.client = Some(client);
        self
    }

    /// Adds where the request was routed to.
    #[must_use]
    pub fn at(mut self, destination: &Arc<Destination>) -> Self {
        self.details.destination = Some(Arc::clone(destination));
        self
    }

    /// Adds what the upgrade offered.
    #[must_use]
    pub fn offering(mut self, offer: Option<&Offer>) -> Self {
        self.details.offer = offer.cloned();
        self
    }

    /// What is known of the client.
    pub fn details(&self) -> &Details {
        &self.details
    }

    /// The reason; `None` for a health check.
    pub fn reason(&self) -> Option<RejectReason> {
        match self.cause {
            Cause::Health { .. } => None,
            Cause::Server { .. } => Some(RejectReason::UpstreamStatus),
            Cause::Refused(reason) | Cause::Wordless(reason) | Cause::Silent(reason) => Some(reason),
        }
    }

    /// The details for the log, beyond the reason.
    pub fn message(&self) -> Option<String> {
        let details = &self.details;
        let seen = || {
            details.seen.as_ref().map(|seen| match self.reason() {
                Some(RejectReason::Origin) => format!("origin {seen}"),
                _ => seen.clone(),
            })
        };
        details.note.clone().or_else(|| details.rule.clone()).or_else(seen)
    }

    fn of(cause: Cause) -> Self {
        Self {
            cause,
            details: Box::default(),
        }
    }
}
