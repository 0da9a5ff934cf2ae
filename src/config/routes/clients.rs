//! Which clients a list of networks contains.

use std::net::IpAddr;

use crate::limit::network::NetworkSet;

/// A set of clients, by address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientSet {
    /// Clients with an address.
    pub networks: NetworkSet,
    /// Clients without one: peers on a Unix socket.
    pub unix: bool,
}

impl ClientSet {
    /// Whether this client is in the set; `None` is a Unix peer without an address.
    pub fn contains(&self, client: Option<IpAddr>) -> bool {
        client.map_or(self.unix, |ip| self.networks.contains(ip))
    }
}
