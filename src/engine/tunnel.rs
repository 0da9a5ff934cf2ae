//! An open connection: a task of the runtime while its sides speak, and in the lobby while neither has anything to say. Its
//! memory is mostly the runtime's: a task and two registered sockets are a kibibyte.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use crate::net::fault;
use crate::relay::legs::{IdleLegs, Legs};
use crate::relay::relay::Relay;
use crate::upstream::lease::Lease;

use crate::engine::context::Context;
use crate::walk::record::Entry;

/// An open connection. Its fields are dropped in this order: the slot is free once the sockets are closed, and not before.
#[derive(Debug)]
pub struct Open<L> {
    /// Its sockets.
    pub legs: L,
    /// What relays between them.
    pub relay: Relay,
    /// Its right to its server, until that has ended.
    pub lease: Option<Lease>,
    /// What it leaves when it is over.
    pub entry: Entry,
}

/// An open connection that the runtime does not know.
pub type Idle = Open<IdleLegs>;

impl<L> Open<L> {
    /// It goes on with what `change` makes of its legs. Where they are lost to that it is over.
    fn change<M>(self, change: impl FnOnce(L) -> io::Result<M>, worker: &Context) -> Option<Open<M>> {
        let Self {
            legs,
            relay,
            lease,
            mut entry,
        } = self;
        match change(legs) {
            Ok(legs) => Some(Open {
                legs,
                relay,
                lease,
                entry,
            }),
            Err(error) => {
                let message = format!("a connection is lost: {error}");
                worker.live.log().warn("lobby", &message);
                entry.over(relay.totals_on_io_error());
                None
            }
        }
    }
}

impl Open<Legs> {
    /// Gives it to the runtime.
    pub fn spawn(self, worker: &Arc<Context>) {
        tokio::spawn(Busy {
            open: Some(self),
            worker: Arc::clone(worker),
        });
    }

    /// Takes it from the runtime until something comes, or it is told something: of both the lobby hears already.
    fn rest(self, worker: &Context) {
        fault::point("rest");
        if let Some(idle) = self.change(Legs::unregister, worker) {
            worker.lobby().rest(Box::new(idle));
        }
    }
}

impl Idle {
    /// Gives it back to the runtime.
    pub fn get_up(self, worker: &Arc<Context>) {
        fault::point("get up");
        if let Some(open) = self.change(IdleLegs::register, worker) {
            open.spawn(worker);
        }
    }
}

/// The task of one that is not idle.
struct Busy {
    /// Until it rests.
    open: Option<Open<Legs>>,
    worker: Arc<Context>,
}

impl Future for Busy {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        let busy = &mut *self;
        let Some(open) = &mut busy.open else {
            return Poll::Ready(());
        };
        if let Poll::Ready(totals) = open.relay.poll(&open.legs, cx) {
            open.entry.over(totals);
            return Poll::Ready(());
        }
        if open.relay.server_has_ended() {
            open.lease = None;
        }
        if !open.relay.take_park() || !busy.worker.lobby().expects(open, cx.waker()) {
            return Poll::Pending;
        }
        if let Some(open) = busy.open.take() {
            open.rest(&busy.worker);
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The runtime puts 96 bytes around it, and takes steps of 128: up to here its task is 512.
    #[test]
    fn one_that_is_busy_is_small() {
        // Two sockets, of which mio knows more in a debug build.
        let of_debug_builds = if cfg!(debug_assertions) { 16 } else { 0 };
        assert!(size_of::<Busy>() <= 416 + of_debug_builds, "{}", size_of::<Busy>());
    }
}
