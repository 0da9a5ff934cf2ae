//! The two sockets of a tunnel.

use crate::net::stream::Stream;

/// Both legs of an open connection.
#[derive(Debug)]
pub struct Legs {
    /// To the client.
    pub client: Stream,
    /// To the server.
    pub server: Stream,
}
