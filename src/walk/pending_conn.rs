//! A connection whose request has not been decided yet.

use std::sync::Arc;
use std::time::Instant;

use crate::limit::pending::{Ended, Pending};
use crate::live::in_force::InForce;
use crate::live::listener::Listener;
use crate::net::accepted::AcceptedSocket;
use crate::net::transport::Unregistered;
use crate::reason::reject::RejectReason;
use crate::wire::http::head::HeadCaps;
use crate::wire::proxy::Source;

use crate::telemetry::connection_line::Exceeded;
use crate::walk::identify::Hop;
use crate::walk::preread::Preread;
use crate::walk::stop::Stop;

/// An accepted socket that has a pending seat and no decision yet. Its fields are dropped in this order: the seat is
/// free once the socket is closed.
#[derive(Debug)]
pub struct PendingConn {
    /// The socket, with the bytes that were read from it and not consumed.
    pub socket: AcceptedSocket<Unregistered>,
    /// Its pending seat.
    pub seat: Pending,
    /// How far its bytes have been read.
    pub(super) preread: Preread,
    /// The near end of the connection: the peer, until a PROXY header names another.
    pub(super) hop: Hop,
    /// The listener that it came in at.
    pub listener: Arc<Listener>,
    /// What was in force when it arrived. Its request is decided by what is in force once the head is complete: a slow
    /// request must not be admitted by limits, or into a zone, that a reload has removed in the meantime.
    pub in_force: Arc<InForce>,
    /// When it came in.
    pub arrived: Instant,
}

/// Why a connection need not wait any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokenOff {
    /// The deadline came first.
    Late,
    /// Its seat was needed.
    GaveWay,
    /// The socket ended.
    Gone,
}

impl PendingConn {
    /// The limits on the size of its head.
    pub(super) fn caps(&self) -> HeadCaps {
        HeadCaps {
            max_size: self.listener.policy.max_head_size,
            max_headers: self.listener.policy.max_headers,
        }
    }

    /// Takes over the near end that a PROXY header names, and counts the seat under its key.
    pub(super) fn named_by_proxy_header(&mut self, source: Source) -> Result<(), Stop> {
        let Source::Address(address) = source else {
            self.hop.may_forward = false;
            return Ok(());
        };
        let hop = Hop {
            address: Some(address.ip().to_canonical()),
            may_forward: true,
        };
        let identity = &self.in_force.policy.identity;
        let charged = (!identity.trusts(hop.address)).then(|| identity.key(hop.address));
        self.seat.rekey(charged).map_err(Stop::pending_per_ip)?;
        self.hop = hop;
        Ok(())
    }

    /// Why the connection need not wait any longer, whatever it waits for. `None` if it may go on waiting.
    pub fn is_broken_off(&self) -> Option<BrokenOff> {
        match self.seat.ended() {
            Some(Ended::Late) => Some(BrokenOff::Late),
            Some(Ended::GaveWay) => Some(BrokenOff::GaveWay),
            None => self.socket.transport().has_ended().then_some(BrokenOff::Gone),
        }
    }

    /// The stop for a connection whose wait has ended because of `why`.
    pub fn broken_off(&mut self, why: BrokenOff) -> Stop {
        let has_begun = !self.socket.read_ahead().bytes().is_empty();
        let is_named = self.preread.has_proxy_header() && self.hop.may_forward;
        let is_silent = !has_begun && !is_named;
        match why {
            BrokenOff::GaveWay => Stop::new(RejectReason::PendingFull).exceeding(Exceeded::Count {
                open: self.listener.room.taken(),
                limit: self.listener.room.rules().max,
            }),
            BrokenOff::Gone if is_silent => Stop::silent(RejectReason::ClientGone),
            BrokenOff::Gone => Stop::new(RejectReason::ClientGone),
            BrokenOff::Late if self.preread.expects_proxy_header() => {
                if is_silent {
                    Stop::silent(RejectReason::ProxyHeader)
                } else {
                    // No part of a head has come, so no answer is due.
                    Stop::seen(RejectReason::ProxyHeader, b"unfinished at the deadline")
                }
            }
            BrokenOff::Late if is_silent => Stop::silent(RejectReason::HeadTimeout),
            BrokenOff::Late if has_begun => Stop::new(RejectReason::HeadTimeout),
            BrokenOff::Late => Stop::wordless(RejectReason::HeadTimeout),
        }
    }
}
