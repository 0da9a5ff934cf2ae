//! What a configuration says about an upstream.

use std::sync::Arc;

use crate::net::address::Target;

/// How a server is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Balance {
    /// The server with the fewest open connections.
    #[default]
    LeastConn,
    /// Each in turn.
    RoundRobin,
    /// By the client key: always the same server while the set of servers is the same.
    HashIp,
}

/// A named group of servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamRules {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Its servers, in the order written; never empty, no two alike.
    pub servers: Vec<Target>,
    /// How a server is chosen for a connection.
    pub balance: Balance,
}
