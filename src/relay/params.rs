//! The values that a relay is made from.

use std::sync::Arc;

use crate::limit::shares::Shares;
use crate::wire::ws::extensions::Extensions;

use super::conn_limits::ConnLimits;
use super::counters::RelayCounters;
use super::handle::ConnHandle;
use super::rules::RelayMode;

/// The bytes that were read from both legs before the tunnel opened.
#[derive(Debug)]
pub struct EarlyBytes {
    /// The bytes that the client sent behind its request.
    pub from_client: Vec<u8>,
    /// The server's 101 response, and the bytes that the server sent behind it.
    pub from_server: Vec<u8>,
    /// How many bytes of `from_server` are the response.
    pub reply_size: usize,
    /// The WebSocket extensions that the response agrees on.
    pub extensions: Extensions,
}

/// How a connection is relayed.
#[derive(Debug)]
pub struct RelayParams {
    /// Whether large frames are spliced.
    pub mode: RelayMode,
    /// The limits of the connection.
    pub limits: Arc<ConnLimits>,
    /// The buckets that all connections of the client key share, if its limits have any.
    pub shares: Option<Arc<Shares>>,
    /// The handle through which other threads see and steer the connection.
    pub handle: Arc<ConnHandle>,
    /// The counters that the relay adds to.
    pub counters: Arc<RelayCounters>,
}
