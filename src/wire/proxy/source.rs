//! The client that a PROXY header names.

use std::net::SocketAddr;

/// The client that a PROXY header names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// This address. An IPv4-mapped IPv6 address stays as it is.
    Address(SocketAddr),
    /// None: it says UNKNOWN, LOCAL, UNSPEC or `AF_UNIX`, so the client is the peer of the socket.
    Socket,
}
