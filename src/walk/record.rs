//! The one entry a connection leaves: made when it arrives, written when it is dropped, whatever ended it. While it waits in
//! the lobby there is none; one is made anew whenever it goes on.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::config::notation::units::show_rate;
use crate::config::policy::LogLevel;
use crate::limit::admission::{Granted, Lack, Limit, Permit};
use crate::limit::key::ClientKey;
use crate::relay::totals::Totals;
use crate::upstream::server::Server;

use crate::live::listener::Listener;
use crate::live::phase::Phase;
use crate::live::process::ProcessState;
use crate::live::zone::ZoneState;
use crate::telemetry::advice::{Hint, Identified};
use crate::telemetry::class::Class;
use crate::telemetry::log::Line;
use crate::telemetry::metrics::seconds;
use crate::telemetry::reason::{CloseReason, Reason};
use crate::walk::decide::Passage;
use crate::walk::identify::{Client, Forwarded, Hop};
use crate::walk::stop::{Asked, Cause, Numbers, Place, Stop};

/// A connection's entry. While it holds a permit the connection counts as alive.
#[derive(Debug)]
pub struct Entry {
    standing: Standing,
    listener: Arc<Listener>,
    arrived: Instant,
    /// When the tunnel opened: milliseconds after the arrival. It takes seconds at most.
    opened: Option<u32>,
    who: Who,
    place: Option<Named>,
    /// The server that was dialled last.
    server: Option<Arc<Server>>,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum Who {
    /// All that is known is the near end.
    Hop(Hop),
    Client {
        /// Its key follows from it.
        address: Option<IpAddr>,
        /// It came by a proxy of our own network, by all appearance, whose word does not count.
        seems_forwarded: bool,
    },
}

#[derive(Debug)]
struct Named {
    route: Arc<str>,
    zone: Arc<ZoneState>,
}

#[derive(Debug)]
enum State {
    /// On its way, perhaps past a limit that was only observed. An entry that is dropped so was cut off: by a panic, or
    /// because the process ends.
    Walking(Option<Box<Observed>>),
    /// Parked until more comes: another entry is made for it then.
    Parked,
    /// Boxed, so that the many that are open do not pay for it.
    Stopped(Box<Stopped>),
    /// Answered a health check: no line, no count.
    Health,
    /// Said nothing: a count, and no line.
    Silent(Reason),
    /// Open, and perhaps the limit that was only observed.
    Open(Option<Box<Observed>>),
    /// Boxed for the same reason.
    Over(Box<Totals>),
}

#[derive(Debug)]
struct Stopped {
    reason: Reason,
    status: Option<u16>,
    numbers: Option<Numbers>,
    asked: Option<Asked>,
    note: Option<String>,
}

/// A limit that was only observed.
#[derive(Debug)]
struct Observed {
    limit: Limit,
    numbers: Numbers,
}

/// Where a connection counts, and its permit once it has one, counted once more by the walk itself: the drift metric compares
/// the two.
#[derive(Debug)]
struct Standing {
    process: Arc<ProcessState>,
    permit: Option<Permit>,
}

impl Entry {
    /// Begins the entry of a socket that `arrived` from `hop`.
    pub fn begin(process: &Arc<ProcessState>, listener: &Arc<Listener>, hop: Hop, arrived: Instant) -> Self {
        Self {
            standing: Standing {
                process: Arc::clone(process),
                permit: None,
            },
            listener: Arc::clone(listener),
            arrived,
            opened: None,
            who: Who::Hop(hop),
            place: None,
            server: None,
            state: State::Walking(None),
        }
    }

    /// The near end that the connection's greeting has told of; a PROXY header puts another in the peer's place.
    pub fn came_from(&mut self, hop: Hop) {
        self.who = Who::Hop(hop);
    }

    /// The client was admitted: from here on its permit is the entry's to give back.
    pub fn admitted(&mut self, passage: &Passage, granted: Granted) {
        self.identified(passage.client, true);
        self.placed(&passage.place);
        let observed = granted.observed.map(|full| Observed {
            limit: full.limit,
            numbers: Numbers::of(full, passage.lack.as_deref().copied()),
        });
        self.state = State::Walking(observed.map(Box::new));
        self.standing.take(granted.permit);
    }

    /// The server that was dialled last.
    pub fn dialled(&mut self, server: &Arc<Server>) {
        self.server = Some(Arc::clone(server));
    }

    /// It answered the dial.
    pub fn reached(&self) {
        if let Some(server) = &self.server {
            self.standing
                .process
                .advice
                .dial_succeeded(server.label(), Instant::now());
        }
    }

    /// It did not.
    pub fn not_reached(&self, reason: Reason, why: String) {
        let Some(server) = &self.server else { return };
        let process = &self.standing.process;
        let Some(count) = process.advice.dial_failed(server.label(), Instant::now()) else {
            return;
        };
        let line = Line {
            server: Some(Arc::clone(server.label())),
            reason: Some(reason.word()),
            count: Some(count.into()),
            message: Some(why),
            ..Line::default()
        };
        process.log.event(LogLevel::Warn, "dial_failed", line);
    }

    /// The walk stopped before a tunnel.
    pub fn stopped(&mut self, stop: &Stop, status: Option<u16>) {
        let known = stop.known();
        if let Some(client) = known.client
            && matches!(self.who, Who::Hop(_))
        {
            self.identified(client, false);
        }
        if let Some(place) = &known.place {
            self.placed(place);
        }
        let Some(reason) = stop.reason() else {
            self.state = State::Health;
            return;
        };
        let status = match &stop.cause {
            Cause::Silent(reason) => {
                self.state = State::Silent(*reason);
                return;
            }
            Cause::Server { status, .. } => Some(*status),
            Cause::Health { .. } | Cause::Refused(_) | Cause::Wordless(_) => status,
        };
        let note = known
            .note
            .as_ref()
            .or(known.rule.as_ref())
            .cloned()
            .or_else(|| known.seen.as_ref().map(|seen| what_was_seen(reason, seen)));
        self.state = State::Stopped(Box::new(Stopped {
            reason,
            status,
            numbers: known.numbers,
            asked: known.asked.clone(),
            note,
        }));
    }

    /// More must come: the entry ends here and leaves nothing.
    pub fn parked(mut self) {
        self.state = State::Parked;
    }

    /// The tunnel is open.
    pub fn opened(&mut self, now: Instant) {
        let took = now - self.arrived;
        self.opened = Some(u32::try_from(took.as_millis()).unwrap_or(u32::MAX));
        let observed = match &mut self.state {
            State::Walking(observed) => observed.take(),
            _ => None,
        };
        let limit = observed.as_ref().map(|observed| observed.limit);
        self.state = State::Open(observed);
        if let Some(Named { zone, .. }) = &self.place {
            zone.metrics.handshake_duration.observe(seconds(took));
            match limit {
                Some(limit) => {
                    let class = Class::Observed(limit.into());
                    self.standing
                        .process
                        .metrics
                        .count_handshake(class, Some(&zone.metrics));
                    self.write(class);
                }
                None => zone.metrics.admitted.inc(),
            }
        }
    }

    /// The tunnel is over.
    pub fn over(&mut self, totals: Totals) {
        self.state = State::Over(Box::new(totals));
    }

    fn identified(&mut self, client: Client, is_admitted: bool) {
        self.who = Who::Client {
            address: client.address,
            seems_forwarded: client.forwarded == Forwarded::Ignored && client.hop.is_none_or(is_local),
        };
        if client.forwarded == Forwarded::Ignored {
            self.listener.untrusted_forwarded.inc();
        }
        let identified = Identified {
            forwarded: client.forwarded,
            is_local: client.hop.is_none_or(is_local),
            key: client.key,
            is_admitted,
        };
        if let Some(hint) = self.standing.process.advice.identified(identified, Instant::now()) {
            self.advise(hint);
        }
    }

    fn advise(&self, hint: Hint) {
        let line = Line {
            reason: Some(hint.word()),
            message: Some(hint.text().to_owned()),
            ..Line::default()
        };
        self.standing.process.log.event(LogLevel::Warn, "advice", line);
    }

    fn placed(&mut self, place: &Place) {
        self.place = Some(Named {
            route: Arc::clone(&place.route),
            zone: Arc::clone(&place.zone.state),
        });
    }

    /// Counts and writes what became of the connection.
    fn close(&mut self) {
        let had_permit = self.standing.permit.is_some();
        let is_panic = std::thread::panicking();
        // Without a panic only the end of the process may drop an entry that has no outcome yet. All else is a fault of
        // ours, and is counted as a panic is.
        let is_cut = !is_panic && self.standing.process.phase.is(Phase::Draining);
        let class = match &self.state {
            State::Over(totals) => Class::Closed(totals.reason),
            State::Open(_) if is_cut => Class::Closed(CloseReason::Drain),
            State::Open(_) => Class::Closed(CloseReason::Panic),
            // Whatever else it was to hear: nobody knows whether it did.
            _ if is_panic && had_permit => Class::Failed(Reason::Panic),
            _ if is_panic => Class::Rejected(Reason::Panic),
            State::Stopped(stopped) if had_permit => Class::Failed(stopped.reason),
            State::Stopped(stopped) => Class::Rejected(stopped.reason),
            State::Walking(_) => {
                let reason = if is_cut { Reason::Draining } else { Reason::Panic };
                if had_permit {
                    Class::Failed(reason)
                } else {
                    Class::Rejected(reason)
                }
            }
            State::Silent(reason) => {
                self.listener.silent_closes.inc();
                // Who went by itself was not refused.
                if *reason != Reason::ClientGone {
                    self.count(Class::Rejected(*reason));
                }
                return;
            }
            // A health check leaves nothing; nor does one that has more to say.
            State::Health | State::Parked => return,
        };
        self.count(class);
        if let State::Over(totals) = &self.state
            && self
                .standing
                .process
                .advice
                .closed(totals.limit_hits > 0, Instant::now())
        {
            self.advise(Hint::MessageLimits);
        }
        // Given back before the line is written, so that whoever reads the line may use the slot.
        self.standing.give_back();
        self.write(class);
    }

    fn count(&self, class: Class) {
        let zone = self.place.as_ref().map(|place| &place.zone.metrics);
        let Class::Closed(reason) = class else {
            return self.standing.process.metrics.count_handshake(class, zone);
        };
        let totals = match &self.state {
            State::Over(totals) => Some(&**totals),
            _ => None,
        };
        if let (Some(zone), Some(opened)) = (zone, self.opened) {
            let since_arrival = self.arrived.elapsed();
            zone.closed(
                reason,
                totals,
                since_arrival.saturating_sub(Duration::from_millis(opened.into())),
            );
        }
    }

    fn write(&self, class: Class) {
        let hint = self.hint(class);
        let process = &self.standing.process;
        // Once a minute, and worth more than what is summed or switched off.
        if hint.is_some() {
            process.log.event(class.level(), class.event(), self.line(class, hint));
            return;
        }
        let zone = self.place.as_ref().map(|place| &place.zone.name);
        process.log.access(class, self.key(), zone, || self.line(class, None));
    }

    /// As `identify` made it: what it is cut to stays the same for the life of the process.
    fn key(&self) -> Option<ClientKey> {
        match self.who {
            Who::Hop(_) => None,
            Who::Client { address, .. } => Some(address.map_or(ClientKey::UNIX, |address| {
                let process = &self.standing.process;
                ClientKey::of(process.translations.undone(address), process.prefixes)
            })),
        }
    }

    /// A refusal by client key of a peer that is a proxy by all appearance, while nobody is trusted.
    fn hint(&self, class: Class) -> Option<Hint> {
        let (Class::Rejected(reason), Who::Client { seems_forwarded, .. }) = (class, self.who) else {
            return None;
        };
        (reason.is_by_client()
            && self.standing.process.trusts_nobody.load(Relaxed)
            && self.standing.process.advice.refused(seems_forwarded, Instant::now()))
        .then_some(Hint::UntrustedProxy)
    }

    fn line(&self, class: Class, hint: Option<Hint>) -> Line {
        let mut line = Line {
            listener: Some(Arc::clone(&self.listener.policy.name)),
            reason: Some(class.reason()),
            server: self.server.as_ref().map(|server| Arc::clone(server.label())),
            duration_ms: u64::try_from(self.arrived.elapsed().as_millis()).ok(),
            ..Line::default()
        };
        line.client = match self.who {
            Who::Hop(hop) => Some(address(hop.address)),
            Who::Client { address: client, .. } => Some(address(client)),
        };
        line.key = self.key().map(|key| key.to_string());
        if let Some(place) = &self.place {
            line.route = Some(Arc::clone(&place.route));
            line.zone = Some(Arc::clone(&place.zone.name));
        }
        let mut numbers = None;
        match &self.state {
            State::Stopped(stopped) => {
                line.status = stopped.status;
                line.message.clone_from(&stopped.note);
                numbers = stopped.numbers;
                if let Some(asked) = &stopped.asked {
                    line.host = Some(asked.host.clone());
                    line.path = Some(asked.path.clone());
                }
            }
            State::Over(totals) => {
                line.status = Some(101);
                line.bytes_in = Some(totals.bytes_in);
                line.bytes_out = Some(totals.bytes_out);
                line.messages_in = Some(totals.messages_in);
                line.messages_out = Some(totals.messages_out);
                line.limit_hits = Some(totals.limit_hits).filter(|hits| *hits > 0);
                line.heartbeats = Some(totals.heartbeats).filter(|heartbeats| *heartbeats > 0);
                line.message = totals.last_limit.map(|limit| limit.word().to_owned());
            }
            State::Open(observed) => {
                line.status = Some(101);
                numbers = observed.as_ref().map(|observed| observed.numbers);
            }
            State::Walking(_) | State::Parked | State::Health | State::Silent(_) => {}
        }
        match numbers {
            Some(Numbers::Open { open, of }) => {
                line.open = Some(open);
                line.limit = Some(of).filter(|of| *of != u32::MAX);
            }
            Some(Numbers::Rate(Lack { rate, wait })) => {
                line.rate = Some(show_rate(rate));
                line.burst = Some(rate.burst.get());
                line.wait_ms = u64::try_from(wait.as_micros().div_ceil(1000)).ok();
            }
            None => {}
        }
        if let Some(hint) = hint {
            line.message = Some(hint.text().to_owned());
        }
        line
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.close();
    }
}

impl Standing {
    fn take(&mut self, permit: Permit) {
        self.give_back();
        self.process.alive.fetch_add(1, Relaxed);
        self.permit = Some(permit);
    }

    fn give_back(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.process.alive.fetch_sub(1, Relaxed);
            drop(permit);
        }
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.give_back();
    }
}

fn what_was_seen(reason: Reason, seen: &str) -> String {
    match reason {
        Reason::Origin => format!("origin {seen}"),
        _ => seen.to_owned(),
    }
}

fn address(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "unix".to_owned(), |address| address.to_string())
}

fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}
