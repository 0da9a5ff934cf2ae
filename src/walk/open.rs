//! An open connection, and how it is made from an admitted one whose server has answered.

use std::sync::Arc;
use std::time::Instant;

use crate::net::accepted::AcceptedSocket;
use crate::net::fault;
use crate::net::options::SocketOptions;
use crate::relay::handle::ConnHandle;
use crate::relay::legs::{IdleLegs, Legs};
use crate::relay::params::{EarlyBytes, RelayParams};
use crate::relay::relay::Relay;
use crate::upstream::lease::Lease;

use crate::walk::decide::Handshake;
use crate::walk::record::Record;
use crate::walk::upgrade::Upgraded;

/// An open connection. Its fields are dropped in this order: the slot becomes free only after the sockets are closed.
#[derive(Debug)]
pub struct OpenConn<L> {
    /// Its sockets.
    pub legs: L,
    /// The relay between them.
    pub relay: Relay,
    /// Its lease on its server, until the server has ended.
    pub lease: Option<Lease>,
    /// Its record, which is written when it is over.
    pub record: Record,
}

/// An open connection that is not registered with the runtime.
pub type IdleConn = OpenConn<IdleLegs>;

/// Opens the tunnel, on worker number `worker`. Nothing of the handshake is kept.
pub fn open(
    handshake: &Handshake,
    upgraded: Upgraded,
    client: AcceptedSocket,
    mut record: Record,
    worker: usize,
    now: Instant,
) -> (OpenConn<Legs>, Arc<ConnHandle>) {
    let zone = &handshake.destination.zone;
    let limits = Arc::clone(&zone.limits);
    let Upgraded {
        server,
        lease,
        reply,
        reply_size,
        extensions,
    } = upgraded;
    client.set_options(SocketOptions {
        keepalive: limits.timeouts.keepalive,
        user_timeout: limits.timeouts.stalled,
    });
    let (client, from_client) = client.into_parts();
    server.set_dialled_options();
    record.opened(now);
    let early = EarlyBytes {
        from_client,
        from_server: reply,
        reply_size,
        extensions,
    };
    let handle = Arc::<ConnHandle>::default();
    let params = RelayParams {
        mode: handshake.destination.relay,
        limits,
        shares: handshake.shares.clone(),
        handle: Arc::clone(&handle),
        counters: Arc::clone(&zone.state.relay_counters[worker]),
    };
    let relay = Relay::new(early, params);
    fault::point("open");
    let open = OpenConn {
        legs: Legs { client, server },
        relay,
        lease: Some(lease),
        record,
    };
    (open, handle)
}
