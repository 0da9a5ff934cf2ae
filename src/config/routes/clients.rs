//! Sets of clients, made from lists of networks.

use std::net::IpAddr;

use crate::limit::network::NetworkSet;

/// A set of clients, by address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientSet {
    /// The clients with an address.
    pub networks: NetworkSet,
    /// Whether clients without an address are in the set: peers on a Unix socket.
    pub unix: bool,
}

impl ClientSet {
    /// Whether this client is in the set; `None` is a Unix peer without an address.
    pub fn contains(&self, client: Option<IpAddr>) -> bool {
        client.map_or(self.unix, |ip| self.networks.contains(ip))
    }
}
