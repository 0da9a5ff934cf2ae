//! The record of a connection: it begins when the connection arrives, and is written when it is dropped, whatever ended
//! the connection. A parked pending connection has none; each time it continues, a new record begins.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::config::policy::LogLevel;
use crate::limit::admission::{Granted, Limit};
use crate::limit::bucket::Moment;
use crate::limit::key::ClientKey;
use crate::live::destination::Destination;
use crate::live::listener::Listener;
use crate::live::phase::Phase;
use crate::live::process::ProcessState;
use crate::live::zone::ZoneState;
use crate::reason::close::CloseReason;
use crate::reason::reject::RejectReason;
use crate::relay::counters::MessageLimit;
use crate::relay::totals::Totals;
use crate::telemetry::advice::{Forwarded, Hint, Identified};
use crate::telemetry::class::Class;
use crate::telemetry::connection_line::{ConnectionFacts, Exceeded, RequestTarget};
use crate::telemetry::log::Line;
use crate::telemetry::metrics::seconds;
use crate::upstream::server::Server;
use crate::walk::counted_permit::CountedPermit;
use crate::walk::decide::Handshake;
use crate::walk::dials::Dials;
use crate::walk::identify::{Client, Hop};
use crate::walk::stop::{Cause, Stop};

/// A connection's record. While it holds a permit the connection counts as alive.
#[derive(Debug)]
pub struct Record {
    counted: CountedPermit,
    known: Known,
}

/// What is known about a connection, and its stage.
#[derive(Debug)]
struct Known {
    /// Counted from the epoch of admission: that takes half as much room as an `Instant`.
    arrived: Moment,
    /// The time from the arrival to the tunnel in milliseconds, plus one, so that `None` takes no extra room: every
    /// open connection stores this. It is seconds at most.
    opened_after: Option<NonZeroU32>,
    peer: Peer,
    destination: Option<Arc<Destination>>,
    /// The server that was dialled last.
    server: Option<Arc<Server>>,
    state: State,
}

/// What is known about the peer.
#[derive(Clone, Copy, Debug)]
enum Peer {
    Hop(Hop),
    Client {
        /// The client's address. The client key follows from it.
        address: Option<IpAddr>,
        /// It seems to come through an untrusted proxy in a private network.
        seems_forwarded: bool,
    },
}

/// The stage of a connection. Large parts are boxed, so that the many open ones do not pay for them.
#[derive(Debug)]
enum State {
    /// Before its tunnel, perhaps past a limit that is only observed. A record that is dropped at this stage was cut
    /// off: by a panic, or because the process ends.
    Walking(Option<Box<Observed>>),
    /// Parked until more bytes come.
    Parked,
    Stopped(Box<Stopped>),
    /// A health check was answered: no log line, no count.
    Health,
    /// The client sent nothing: a count, but no log line.
    Silent(RejectReason),
    /// Open, perhaps past a limit that is only observed.
    Open(Option<Box<Observed>>),
    Closed(Box<Totals>),
}

#[derive(Debug)]
struct Stopped {
    reason: RejectReason,
    status: Option<u16>,
    exceeded: Option<Exceeded>,
    target: Option<RequestTarget>,
    message: Option<String>,
}

/// A limit that was exceeded but is only observed.
#[derive(Debug)]
struct Observed {
    limit: Limit,
    exceeded: Exceeded,
}

impl Record {
    /// Begins the record of a connection that `arrived` from `hop`.
    pub fn begin(listener: &Arc<Listener>, hop: Hop, arrived: Instant) -> Self {
        Self {
            counted: CountedPermit::none(listener),
            known: Known {
                arrived: Moment::since(listener.process.admission.epoch(), arrived),
                opened_after: None,
                peer: Peer::Hop(hop),
                destination: None,
                server: None,
                state: State::Walking(None),
            },
        }
    }

    /// Sets the hop: a PROXY header may have named another one than the peer.
    pub fn set_hop(&mut self, hop: Hop) {
        self.known.peer = Peer::Hop(hop);
    }

    /// The client was admitted. The record gives its permit back.
    pub fn admitted(&mut self, handshake: &Handshake, granted: Granted) {
        self.identified(handshake.client, true);
        self.known.destination = Some(Arc::clone(&handshake.destination));
        let observed = granted.observed.map(|full| Observed {
            limit: full.limit,
            exceeded: Exceeded::new(full, handshake.lack.as_deref().copied()),
        });
        self.known.state = State::Walking(observed.map(Box::new));
        self.counted.take(granted.permit);
    }

    /// Reports its dials.
    pub fn dials(&mut self) -> Dials<'_> {
        Dials::new(self.counted.process(), &mut self.known.server)
    }

    /// Notes that it was stopped before its tunnel, and that the client gets this status.
    pub fn stopped(&mut self, stop: &Stop, status: Option<u16>) {
        let details = stop.details();
        if let Some(client) = details.client
            && matches!(self.known.peer, Peer::Hop(_))
        {
            self.identified(client, false);
        }
        if let Some(destination) = &details.destination {
            self.known.destination = Some(Arc::clone(destination));
        }
        let Some(reason) = stop.reason() else {
            self.known.state = State::Health;
            return;
        };
        let status = match &stop.cause {
            Cause::Silent(reason) => {
                self.known.state = State::Silent(*reason);
                return;
            }
            Cause::Server { status, .. } => Some(*status),
            Cause::Health { .. } | Cause::Refused(_) | Cause::Wordless(_) => status,
        };
        self.known.state = State::Stopped(Box::new(Stopped {
            reason,
            status,
            exceeded: details.exceeded,
            target: details.target.clone(),
            message: stop.message(),
        }));
    }

    /// Notes that it is parked until more bytes come. The record ends here and writes nothing.
    pub fn parked(mut self) {
        self.known.state = State::Parked;
    }

    /// Notes that its tunnel is open.
    pub fn opened(&mut self, now: Instant) {
        let epoch = self.counted.process().admission.epoch();
        let took = now.saturating_duration_since(self.known.arrived.after(epoch));
        let millis = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
        self.known.opened_after = Some(NonZeroU32::MIN.saturating_add(millis));
        let observed = match &mut self.known.state {
            State::Walking(observed) => observed.take(),
            _ => None,
        };
        let limit = observed.as_ref().map(|observed| observed.limit);
        self.known.state = State::Open(observed);
        let Some(destination) = &self.known.destination else {
            return;
        };
        let metrics = &destination.zone.state.metrics;
        metrics.handshake_duration.observe(seconds(took));
        let Some(limit) = limit else {
            metrics.admitted.inc();
            return;
        };
        let facts = self.known.facts(Class::Observed(limit.into()), self.counted.listener());
        facts.count(&self.counted.process().metrics);
        facts.log(&self.counted.process().log, None);
    }

    /// Notes that its tunnel ended.
    pub fn closed(&mut self, totals: Totals) {
        self.known.state = State::Closed(Box::new(totals));
    }

    fn identified(&mut self, client: Client, is_admitted: bool) {
        let is_local = client.hop.is_none_or(is_local);
        self.known.peer = Peer::Client {
            address: client.address,
            seems_forwarded: client.forwarded == Forwarded::Ignored && is_local,
        };
        if client.forwarded == Forwarded::Ignored {
            self.counted.listener().untrusted_forwarded.inc();
        }
        let identified = Identified {
            forwarded: client.forwarded,
            is_local,
            key: client.key,
            is_admitted,
        };
        let hint = self.counted.process().advice.identified(identified, Instant::now());
        self.log_hint(hint);
    }

    /// The outcome of the connection; `None` if it leaves no log line.
    fn class(&self) -> Option<Class> {
        let is_panic = std::thread::panicking();
        // Without a panic, only the end of the process may drop a record without an outcome. Anything else is a fault
        // of wsguard, and counts as a panic.
        let is_cut = !is_panic && self.counted.process().phase.is(Phase::Draining);
        let before_the_tunnel = |reason| {
            if self.counted.is_held() {
                Class::Failed(reason)
            } else {
                Class::Rejected(reason)
            }
        };
        Some(match &self.known.state {
            State::Closed(totals) => Class::Closed(totals.reason),
            State::Open(_) if is_cut => Class::Closed(CloseReason::Drain),
            State::Open(_) => Class::Closed(CloseReason::Panic),
            // The client may not have got its answer.
            _ if is_panic => before_the_tunnel(RejectReason::Panic),
            State::Stopped(stopped) => before_the_tunnel(stopped.reason),
            State::Walking(_) if is_cut => before_the_tunnel(RejectReason::Draining),
            State::Walking(_) => before_the_tunnel(RejectReason::Panic),
            State::Silent(_) | State::Health | State::Parked => return None,
        })
    }

    /// Counts and writes the outcome of the connection.
    fn end(&mut self) {
        let Some(class) = self.class() else {
            return self.end_without_a_line();
        };
        let listener = Arc::clone(self.counted.listener());
        let facts = self.known.facts(class, &listener);
        facts.count(&listener.process.metrics);
        if let Some(totals) = facts.totals {
            let is_due = self
                .counted
                .process()
                .advice
                .closed(totals.limit_hits > 0, Instant::now());
            self.log_hint(is_due.then_some(Hint::MessageLimits));
        }
        // The permit is given back before the line is written, so that the slot is free by the time the line can be
        // read.
        self.counted.give_back();
        facts.log(&self.counted.process().log, self.hint(class));
    }

    fn end_without_a_line(&self) {
        if let State::Silent(reason) = self.known.state {
            self.counted.listener().silent_closes.inc();
            // A client that left by itself was not refused.
            if reason != RejectReason::ClientGone {
                let zone = self.known.zone().map(|zone| &zone.metrics);
                let metrics = &self.counted.process().metrics;
                metrics.count_handshake(Class::Rejected(reason), zone);
            }
        }
    }

    /// The hint that a proxy is missing from `trusted_proxies`. It is due if no proxy is trusted, the peer seems to be
    /// one, and the reason of the refusal depends on the client key.
    fn hint(&self, class: Class) -> Option<Hint> {
        let (Class::Rejected(reason), Peer::Client { seems_forwarded, .. }) = (class, self.known.peer) else {
            return None;
        };
        let process = self.counted.process();
        (reason.is_by_client()
            && process.trusts_nobody.load(Relaxed)
            && process.advice.refused(seems_forwarded, Instant::now()))
        .then_some(Hint::UntrustedProxy)
    }

    fn log_hint(&self, hint: Option<Hint>) {
        let Some(hint) = hint else { return };
        let line = Line {
            reason: Some(hint.word()),
            message: Some(hint.text().to_owned()),
            ..Line::default()
        };
        self.counted.process().log.event(LogLevel::Warn, "advice", line);
    }
}

impl Known {
    fn facts<'a>(&'a self, class: Class, listener: &'a Listener) -> ConnectionFacts<'a> {
        let process = &listener.process;
        let mut facts = ConnectionFacts {
            class,
            listener: &listener.policy.name,
            client: match self.peer {
                Peer::Hop(hop) => hop.address,
                Peer::Client { address, .. } => address,
            },
            key: self.key(process),
            route: self.destination.as_ref().map(|destination| &destination.route),
            zone: self.zone().map(|zone| (&zone.name, &zone.metrics)),
            server: self.server.as_ref().map(|server| server.label()),
            status: None,
            exceeded: None,
            target: None,
            totals: None,
            message: None,
            arrived: self.arrived.after(process.admission.epoch()),
            opened_after: self.opened_after.map(|ms| Duration::from_millis((ms.get() - 1).into())),
        };
        match &self.state {
            State::Stopped(stopped) => {
                facts.status = stopped.status;
                facts.exceeded = stopped.exceeded;
                facts.target = stopped.target.as_ref();
                facts.message = stopped.message.as_deref();
            }
            State::Open(observed) => {
                facts.status = Some(SWITCHING_PROTOCOLS);
                facts.exceeded = observed.as_ref().map(|observed| observed.exceeded);
            }
            State::Closed(totals) => {
                facts.status = Some(SWITCHING_PROTOCOLS);
                facts.totals = Some(&**totals);
                facts.message = totals.last_limit.map(MessageLimit::word);
            }
            State::Walking(_) | State::Parked | State::Health | State::Silent(_) => {}
        }
        facts
    }

    fn zone(&self) -> Option<&ZoneState> {
        self.destination.as_ref().map(|destination| &*destination.zone.state)
    }

    fn key(&self, process: &ProcessState) -> Option<ClientKey> {
        match self.peer {
            Peer::Hop(_) => None,
            Peer::Client { address, .. } => Some(process.key(address)),
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.end();
    }
}

fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

const SWITCHING_PROTOCOLS: u16 = 101;
