//! What a relay begins with.

use std::sync::Arc;

use crate::limit::shares::Shares;
use crate::wire::ws::extensions::Extensions;

use super::conn_limits::ConnLimits;
use super::counters::RelayCounters;
use super::handle::ConnHandle;
use super::mode::RelayMode;

/// What was read of both legs before the tunnel opened.
#[derive(Debug)]
pub struct EarlyBytes {
    /// What the client sent behind its request.
    pub from_client: Vec<u8>,
    /// The server's 101 response, and what it sent behind it.
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
    /// What the connection is held to.
    pub limits: Arc<ConnLimits>,
    /// The buckets that all connections of the client key share, if its limits have any.
    pub shares: Option<Arc<Shares>>,
    /// How others see and steer the connection.
    pub handle: Arc<ConnHandle>,
    /// The counters that it adds to.
    pub counters: Arc<RelayCounters>,
}
