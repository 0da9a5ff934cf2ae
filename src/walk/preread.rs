//! What a socket has to say before anything is decided on it: perhaps a PROXY header, then a request head.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::limit::pending::Pending;
use crate::net::fault;
use crate::net::read_ahead::ReadAhead;
use crate::wire::Step;
use crate::wire::http::head::{HeadCaps, HeadFault, HeadScan};
use crate::wire::proxy::{Announces, MAX_PROXY_HEADER, Source, announces, parse_proxy};

use crate::engine::ghosts::may_wait;
use crate::live::in_force::{InForce, Live};
use crate::live::listener::Listener;
use crate::telemetry::reason::Reason;
use crate::walk::decide::{Admitted, Peer, decide};
use crate::walk::identify::Hop;
use crate::walk::stop::Stop;

/// How far a greeting has come.
#[derive(Debug)]
pub struct Greeting {
    /// The socket's peer; `None` for a Unix peer.
    peer: Option<IpAddr>,
    /// The near end of the connection; `None` while a PROXY header is awaited that names it.
    hop: Option<Hop>,
    /// A PROXY header has named who it is.
    is_named: bool,
    scan: HeadScan,
}

impl Greeting {
    /// One of which nothing was heard yet. Where the listener asks for a PROXY header every connection begins with one.
    pub fn begin(peer: Option<IpAddr>, listener: &Listener) -> Self {
        let is_awaited = listener.policy.accept_proxy_protocol;
        fault::point(if is_awaited { "proxy_header" } else { "head" });
        Self {
            peer,
            hop: (!is_awaited).then_some(Hop {
                address: peer,
                may_forward: true,
            }),
            is_named: false,
            scan: HeadScan::default(),
        }
    }

    /// The near end of the connection, as far as it is known: the peer, until a PROXY header names another.
    pub fn hop(&self) -> Hop {
        self.hop.unwrap_or(Hop {
            address: self.peer,
            may_forward: true,
        })
    }

    /// Takes from what was read; once the head is whole, decides on it. `None`: there must come more.
    ///
    /// `running` is what was in force when the socket came in. Once it has sent its head, it is what decided on it: a slow
    /// one must not be let in by limits, or into a zone, that a reload has removed meanwhile.
    pub fn hear(
        &mut self,
        ahead: &mut ReadAhead,
        seat: &mut Pending,
        listener: &Listener,
        live: &Live,
        in_force: &mut Arc<InForce>,
    ) -> Option<Result<Admitted, Stop>> {
        let hop = match self.hop {
            Some(hop) => hop,
            None => match proxy_header(ahead, self.peer, seat, in_force)? {
                Ok(hop) => {
                    fault::point("head");
                    self.is_named = hop.may_forward;
                    *self.hop.insert(hop)
                }
                Err(stop) => return Some(Err(stop)),
            },
        };
        self.head(ahead, Peer { hop, listener }, live, in_force)
    }

    /// How many bytes may be ahead while it is listened to.
    pub fn limit(&self, listener: &Listener) -> usize {
        match self.hop {
            None => MAX_PROXY_HEADER,
            Some(_) => listener.policy.max_head_size + 1,
        }
    }

    /// Decides once more on a head that [`Greeting::hear`] has stopped, by what is in force now; `None`: it kept none. A
    /// stop that comes of it keeps the head in turn.
    pub fn decide_again(
        &self,
        stop: &mut Stop,
        listener: &Listener,
        live: &Live,
        in_force: &mut Arc<InForce>,
    ) -> Option<Result<Admitted, Stop>> {
        let peer = Peer {
            hop: self.hop?,
            listener,
        };
        let bytes = stop.take_head()?;
        let Ok(Step::Done { value: head, .. }) = HeadScan::default().parse(&bytes, caps(listener)) else {
            return None;
        };
        *in_force = live.in_force();
        let decided = decide(&head, peer, in_force, Instant::now());
        Some(decided.map_err(|stop| stop.keeping(bytes)))
    }

    /// Why it stops where the greeting is broken off; `has_begun` says whether a byte of what is awaited has come.
    pub fn broken_off(&self, why: Unheard, has_begun: bool) -> Stop {
        let is_silent = !has_begun && !self.is_named;
        match (why, self.hop) {
            (Unheard::GaveWay, _) => Stop::new(Reason::PendingFull),
            (Unheard::Gone, _) if is_silent => Stop::silent(Reason::ClientGone),
            (Unheard::Gone, _) => Stop::new(Reason::ClientGone),
            (Unheard::Late, None) if is_silent => Stop::silent(Reason::ProxyHeader),
            // Nothing of it is part of a head: no answer is owed.
            (Unheard::Late, None) => Stop::seen(Reason::ProxyHeader, b"unfinished at the deadline"),
            (Unheard::Late, Some(_)) if is_silent => Stop::silent(Reason::HeadTimeout),
            (Unheard::Late, Some(_)) if has_begun => Stop::new(Reason::HeadTimeout),
            (Unheard::Late, Some(_)) => Stop::wordless(Reason::HeadTimeout),
        }
    }

    fn head(
        &mut self,
        ahead: &mut ReadAhead,
        peer: Peer<'_>,
        live: &Live,
        in_force: &mut Arc<InForce>,
    ) -> Option<Result<Admitted, Stop>> {
        let policy = &peer.listener.policy;
        if policy.accept_proxy_protocol {
            match announces(ahead.bytes()) {
                // A second header.
                Announces::Yes => {
                    return Some(Err(Stop::seen(
                        Reason::ProxyHeader,
                        b"a PROXY header where none may be",
                    )));
                }
                Announces::Maybe => return None,
                Announces::No => {}
            }
        }
        match self.scan.parse(ahead.bytes(), caps(peer.listener)) {
            Ok(Step::Done { value: head, used }) => {
                *in_force = live.in_force();
                let decided = decide(&head, peer, in_force, Instant::now()).map_err(|stop| {
                    if may_wait(&stop) {
                        stop.keeping(ahead.bytes()[..used].into())
                    } else {
                        stop
                    }
                });
                let has_body = head.announces_body();
                ahead.consume(used);
                if has_body {
                    ahead.expect_more();
                }
                Some(decided)
            }
            Ok(Step::More) => None,
            Err(fault) => Some(Err(faulty(fault))),
        }
    }
}

/// Why no more of a greeting is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unheard {
    /// The deadline came first.
    Late,
    /// Its seat was wanted.
    GaveWay,
    /// The socket ended.
    Gone,
}

/// The near end of the connection, as a PROXY header of a trusted peer names it.
fn proxy_header(
    ahead: &mut ReadAhead,
    peer: Option<IpAddr>,
    seat: &mut Pending,
    in_force: &InForce,
) -> Option<Result<Hop, Stop>> {
    let source = match parse_proxy(ahead.bytes()) {
        Ok(Step::Done { value, used }) => {
            ahead.consume(used);
            value
        }
        Ok(Step::More) => return None,
        Err(fault) => return Some(Err(Stop::because(Reason::ProxyHeader, fault.to_string()))),
    };
    let Source::Address(address) = source else {
        return Some(Ok(Hop {
            address: peer,
            may_forward: false,
        }));
    };
    let hop = Hop {
        address: Some(address.ip().to_canonical()),
        may_forward: true,
    };
    let identity = &in_force.policy.identity;
    let charged = (!identity.trusts(hop.address)).then(|| identity.key(hop.address));
    Some(seat.rekey(charged).map(|()| hop).map_err(Stop::pending_per_ip))
}

fn caps(listener: &Listener) -> HeadCaps {
    HeadCaps {
        max_size: listener.policy.max_head_size,
        max_headers: listener.policy.max_headers,
    }
}

fn faulty(fault: HeadFault) -> Stop {
    let reason = match fault {
        HeadFault::TooLarge | HeadFault::TooManyHeaders => Reason::HeadTooLarge,
        HeadFault::Bad(_) => Reason::BadRequest,
    };
    Stop::rule(reason, fault.to_string())
}
