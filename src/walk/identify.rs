//! Finds the client behind a request: which hop is trusted to name it, and by which header (`X-Forwarded-For`, ...).

use std::net::IpAddr;

use crate::config::policy::IdentityPolicy;
use crate::limit::key::ClientKey;
use crate::telemetry::advice::Forwarded;
use crate::wire::hops::{ForwardHeader, client_from};
use crate::wire::http::head::Head;

/// The near end of the connection, before any forwarding header is read: the socket's peer, or the address that a PROXY
/// header has named instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Its address; `None` for a Unix peer without one.
    pub address: Option<IpAddr>,
    /// Whether its forwarding headers may be read. Behind a PROXY header without an address (LOCAL, UNKNOWN) they may
    /// not.
    pub may_forward: bool,
}

/// The client, as limits, routes and the server know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address; `None` for a Unix peer without one.
    pub address: Option<IpAddr>,
    /// The key that per-client limits count by.
    pub key: ClientKey,
    /// The hop that the connection came from.
    pub hop: Option<IpAddr>,
    /// Whether the hop's forwarding headers are believed.
    pub hop_is_trusted: bool,
    /// How the hop's forwarding headers were read.
    pub forwarded: Forwarded,
}

impl IdentityPolicy {
    /// Whether the forwarding headers of `hop` are believed.
    pub fn trusts(&self, hop: Option<IpAddr>) -> bool {
        hop.map_or(self.trust_unix, |address| self.trusted.contains(address))
    }

    /// The client key of an address.
    pub fn key(&self, address: Option<IpAddr>) -> ClientKey {
        address.map_or(ClientKey::UNIX, |address| {
            ClientKey::of(self.translations.undone(address), self.prefixes)
        })
    }
}

/// The client behind `hop`: the hop itself, unless it is trusted and names another address.
pub fn identify(head: &Head<'_>, hop: Hop, policy: &IdentityPolicy) -> Client {
    let hop_is_trusted = hop.may_forward && policy.trusts(hop.address);
    let (address, forwarded) = if hop_is_trusted {
        match policy.headers.iter().copied().find(|header| is_present(head, *header)) {
            Some(header) => (client_named(head, header, hop, policy), Forwarded::Read),
            None => (hop.address, Forwarded::Missing),
        }
    } else if ForwardHeader::ALL.into_iter().any(|header| is_present(head, header)) {
        (hop.address, Forwarded::Ignored)
    } else {
        (hop.address, Forwarded::None)
    };
    Client {
        address,
        key: policy.key(address),
        hop: hop.address,
        hop_is_trusted,
        forwarded,
    }
}

fn is_present(head: &Head<'_>, header: ForwardHeader) -> bool {
    head.values(header.name()).next().is_some()
}

fn client_named(head: &Head<'_>, header: ForwardHeader, hop: Hop, policy: &IdentityPolicy) -> Option<IpAddr> {
    let lines: Vec<&[u8]> = head.values(header.name()).collect();
    let trusts = |address| policy.trusted.contains(address);
    // A Unix hop has no address to fall back on. The unspecified address takes its place: it can't come from anywhere else.
    let unspecified = IpAddr::from([0; 4]);
    let named = client_from(header, &lines, hop.address.unwrap_or(unspecified), trusts);
    if hop.address.is_none() && named == unspecified {
        None
    } else {
        Some(named.to_canonical())
    }
}
