//! Whom a PROXY header names.

use std::net::SocketAddr;

/// Whom a PROXY header names as the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// This address. An IPv4-mapped IPv6 address stays as it is.
    Address(SocketAddr),
    /// Whoever holds the other end of the socket: UNKNOWN, LOCAL, UNSPEC or `AF_UNIX`.
    Socket,
}
