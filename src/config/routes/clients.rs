//! Who is meant by a list of networks: addresses, and the one client that every Unix peer is.

use std::net::IpAddr;

use crate::limit::network::NetworkSet;

/// Clients by their address; a Unix peer has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientSet {
    /// By address.
    pub networks: NetworkSet,
    /// Peers of a Unix socket without an address.
    pub unix: bool,
}

impl ClientSet {
    /// Whether this client is in it; `None` is a Unix peer without an address.
    pub fn has(&self, client: Option<IpAddr>) -> bool {
        client.map_or(self.unix, |ip| self.networks.contains(ip))
    }
}
