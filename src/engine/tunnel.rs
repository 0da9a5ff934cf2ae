//! The task of an open connection. When neither side sends for a while, the task parks its connection and ends (`timeouts`
//! decides when); a new task is started once a side sends again. A task and two registered sockets take a kibibyte, mostly
//! in the runtime.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use crate::net::fault;
use crate::relay::legs::{IdleLegs, Legs};
use crate::walk::open::{IdleConn, OpenConn};

use crate::engine::context::Context;

/// Starts the task of an open connection.
pub(crate) fn spawn(open: OpenConn<Legs>, cx: &Arc<Context>) {
    tokio::spawn(Tunnel {
        open: Some(open),
        cx: Arc::clone(cx),
    });
}

/// Starts a task again for a connection that was parked.
pub(crate) fn unpark(idle: IdleConn, cx: &Arc<Context>) {
    fault::point("get up");
    if let Some(open) = with_legs(idle, IdleLegs::register, cx) {
        spawn(open, cx);
    }
}

/// Removes a connection from the runtime. The parked set watches it already.
fn park(open: OpenConn<Legs>, cx: &Context) {
    fault::point("rest");
    if let Some(idle) = with_legs(open, Legs::unregister, cx) {
        cx.parked().park_idle(Box::new(idle));
    }
}

/// The connection with its legs converted by `change`. If that fails, both are closed and the connection ends.
fn with_legs<L, M>(open: OpenConn<L>, change: impl FnOnce(L) -> io::Result<M>, cx: &Context) -> Option<OpenConn<M>> {
    let OpenConn {
        legs,
        relay,
        lease,
        mut record,
    } = open;
    match change(legs) {
        Ok(legs) => Some(OpenConn {
            legs,
            relay,
            lease,
            record,
        }),
        Err(error) => {
            let message = format!("a connection is lost: {error}");
            cx.live.log().warn("lobby", &message);
            record.closed(relay.totals_on_io_error());
            None
        }
    }
}

/// The task of a connection that is not idle.
struct Tunnel {
    /// The connection, until it is parked.
    open: Option<OpenConn<Legs>>,
    cx: Arc<Context>,
}

impl Future for Tunnel {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, task: &mut task::Context<'_>) -> Poll<()> {
        let tunnel = &mut *self;
        let Some(open) = &mut tunnel.open else {
            return Poll::Ready(());
        };
        if let Poll::Ready(totals) = open.relay.poll(&open.legs, task) {
            open.record.closed(totals);
            return Poll::Ready(());
        }
        if open.relay.server_has_ended() {
            open.lease = None;
        }
        if !open.relay.take_park() || !tunnel.cx.parked().prepare_to_park(open, task.waker()) {
            return Poll::Pending;
        }
        if let Some(open) = tunnel.open.take() {
            park(open, &tunnel.cx);
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The runtime adds 96 bytes to the future, and allocates in steps of 128: up to this size a task takes 512 bytes.
    #[test]
    fn the_task_of_an_open_connection_is_small() {
        // In a debug build mio stores more for each of the two sockets.
        let of_debug_builds = if cfg!(debug_assertions) { 16 } else { 0 };
        assert!(size_of::<Tunnel>() <= 416 + of_debug_builds, "{}", size_of::<Tunnel>());
    }
}
