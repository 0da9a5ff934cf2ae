//! The log line of a connection, and the facts that the line and the counters are made from.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::notation::units::show_rate;
use crate::limit::admission::{Full, Lack};
use crate::limit::key::ClientKey;
use crate::relay::totals::Totals;
use crate::telemetry::advice::Hint;
use crate::telemetry::class::Class;
use crate::telemetry::log::{Line, Log};
use crate::telemetry::metrics::{Metrics, ZoneMetrics};

/// The facts about a connection that ended, or that was admitted although it exceeded a limit.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionFacts<'a> {
    /// The connection's outcome.
    pub class: Class,
    /// The listener that accepted it.
    pub listener: &'a Arc<str>,
    /// The client's address, as far as it is known; `None` for a Unix peer without an address.
    pub client: Option<IpAddr>,
    /// The client key, once it is known.
    pub key: Option<ClientKey>,
    /// The connection's route, once it is known.
    pub route: Option<&'a Arc<str>>,
    /// The name and the metrics of the zone, once the route is known.
    pub zone: Option<(&'a Arc<str>, &'a ZoneMetrics)>,
    /// The server that was dialled last.
    pub server: Option<&'a Arc<str>>,
    /// The status that the client got.
    pub status: Option<u16>,
    /// The limit that the connection exceeded.
    pub exceeded: Option<Exceeded>,
    /// The target of the request, if the log line shows it.
    pub target: Option<&'a RequestTarget>,
    /// The traffic of the tunnel.
    pub totals: Option<&'a Totals>,
    /// Further details for the log.
    pub message: Option<&'a str>,
    /// When the connection was accepted.
    pub arrived: Instant,
    /// The time from accept to tunnel.
    pub opened_after: Option<Duration>,
}

/// The limit that a connection exceeded.
#[derive(Clone, Copy, Debug)]
pub enum Exceeded {
    /// Too many connections were open.
    Count {
        /// How many were open.
        open: u32,
        /// How many may be open; `u32::MAX` is off.
        limit: u32,
    },
    /// Connections came too fast. This is the rate, and the time until it allows the next one.
    Rate(Lack),
}

/// The target of a request, as the log shows it.
#[derive(Clone, Debug)]
pub struct RequestTarget {
    /// The Host of the request, without the port.
    pub host: String,
    /// The path of the request, without the query.
    pub path: String,
}

impl Exceeded {
    /// Makes this from the limit that is full. `lack` is the rate and the wait, if the limit is a rate.
    pub fn new(full: Full, lack: Option<Lack>) -> Self {
        match lack {
            Some(lack) => Self::Rate(lack),
            None => Self::Count {
                open: full.open,
                limit: full.of,
            },
        }
    }
}

impl ConnectionFacts<'_> {
    /// Counts the connection.
    pub fn count(&self, metrics: &Metrics) {
        let zone = self.zone.map(|(_, metrics)| metrics);
        match (self.class, zone, self.opened_after) {
            (Class::Closed(reason), Some(zone), Some(opened_after)) => {
                zone.closed(reason, self.totals, self.arrived.elapsed().saturating_sub(opened_after));
            }
            (Class::Closed(_), ..) => {}
            (Class::Rejected(_) | Class::Failed(_) | Class::Observed(_), zone, _) => {
                metrics.count_handshake(self.class, zone);
            }
        }
    }

    /// Writes the connection's line. A line with a `hint` is always written, even if lines like it are summed or switched
    /// off. The hint replaces the message.
    pub fn log(&self, log: &Log, hint: Option<Hint>) {
        match hint {
            Some(hint) => log.event(self.class.level(), self.class.event(), self.line(Some(hint))),
            None => log.access(self.class, self.key, self.zone.map(|(name, _)| name), || {
                self.line(None)
            }),
        }
    }

    fn line(&self, hint: Option<Hint>) -> Line {
        let mut line = Line {
            client: Some(
                self.client
                    .map_or_else(|| "unix".to_owned(), |address| address.to_string()),
            ),
            key: self.key.map(|key| key.to_string()),
            listener: Some(Arc::clone(self.listener)),
            route: self.route.cloned(),
            zone: self.zone.map(|(name, _)| Arc::clone(name)),
            server: self.server.cloned(),
            reason: Some(self.class.reason()),
            status: self.status,
            host: self.target.map(|target| target.host.clone()),
            path: self.target.map(|target| target.path.clone()),
            duration_ms: u64::try_from(self.arrived.elapsed().as_millis()).ok(),
            message: self.message.map(str::to_owned),
            ..Line::default()
        };
        match self.exceeded {
            Some(Exceeded::Count { open, limit }) => {
                line.open = Some(open);
                line.limit = Some(limit).filter(|limit| *limit != u32::MAX);
            }
            Some(Exceeded::Rate(Lack { rate, wait })) => {
                line.rate = Some(show_rate(rate));
                line.burst = Some(rate.burst.get());
                line.wait_ms = u64::try_from(wait.as_micros().div_ceil(1000)).ok();
            }
            None => {}
        }
        if let Some(totals) = self.totals {
            line.bytes_in = Some(totals.bytes_in);
            line.bytes_out = Some(totals.bytes_out);
            line.messages_in = Some(totals.messages_in);
            line.messages_out = Some(totals.messages_out);
            line.limit_hits = Some(totals.limit_hits).filter(|hits| *hits > 0);
            line.heartbeats = Some(totals.heartbeats).filter(|heartbeats| *heartbeats > 0);
        }
        if let Some(hint) = hint {
            line.message = Some(hint.text().to_owned());
        }
        line
    }
}
