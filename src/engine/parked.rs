//! The parked connections of one worker: sockets that have nothing to do. There may be thousands, so nothing is kept of
//! one but what it is: it has no task, and the runtime does not know it.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::net::accepted::AcceptedSocket;
use crate::net::epoll_set::{EpollSet, ReadyEvent, Token};
use crate::net::transport::Unregistered;
use crate::relay::legs::Legs;
use crate::walk::open::{IdleConn, OpenConn};
use crate::walk::pending_conn::PendingConn;

/// The parked connections of one worker: pending ones of which more must come, and open ones that are idle.
#[derive(Debug)]
pub struct ParkedSet {
    epoll: EpollSet,
    pending: Slots<PendingConn>,
    idle: Slots<IdleConn>,
    wakes: UnboundedSender<Token>,
}

/// Those that are woken, whether more of them has come or not.
pub type Wakes = UnboundedReceiver<Token>;

/// A connection that is not parked any longer.
#[derive(Debug)]
pub enum Unparked {
    /// It is pending.
    Pending(Box<PendingConn>),
    /// It is open.
    Idle(Box<IdleConn>),
}

/// Boxed, so that a table that is half empty is small.
#[derive(Debug)]
struct Slots<T>(Mutex<HashMap<Token, Box<T>>>);

impl ParkedSet {
    /// An empty set that the runtime of the calling thread watches.
    pub fn new() -> io::Result<(Self, Wakes)> {
        let (wakes, receives) = unbounded_channel();
        let parked = Self {
            epoll: EpollSet::new()?,
            pending: Slots::default(),
            idle: Slots::default(),
            wakes,
        };
        Ok((parked, receives))
    }

    /// Parks a pending connection until more comes, or its seat ends.
    pub fn park_pending(&self, mut conn: PendingConn) -> Result<(), (Box<PendingConn>, io::Error)> {
        let token = conn.socket.token();
        if !conn.socket.is_in_epoll_set() {
            if let Err(error) = conn.socket.add_to(&self.epoll) {
                return Err((Box::new(conn), error));
            }
            let waker = self.waker(token);
            if conn.seat.poll_ended(&mut Context::from_waker(&waker)).is_ready() {
                waker.wake();
            }
        }
        self.pending.put(token, Box::new(conn));
        Ok(())
    }

    /// Prepares an open connection to be parked: from here on events of either side, and commands, are reported here.
    /// False where it can't be parked; then nothing has changed, and its `task` goes on.
    ///
    /// The runtime still knows its sockets, so that where the kernel has no room to watch them here nothing is lost.
    pub fn prepare_to_park(&self, open: &mut OpenConn<Legs>, task: &Waker) -> bool {
        if open.legs.add_to(&self.epoll).is_err() {
            // It costs some memory, and there may be thousands of them: no reason for a line each.
            return false;
        }
        let can_park = open.relay.set_parked_waker(&self.waker(open.legs.token()));
        if !can_park {
            open.legs.remove_from(&self.epoll);
            // A command may have woken the waker of this set, which finds nothing.
            task.wake_by_ref();
        }
        can_park
    }

    /// Parks an open connection that was prepared for it, until it is woken.
    pub fn park_idle(&self, idle: Box<IdleConn>) {
        self.idle.put(idle.legs.token(), idle);
    }

    /// Stops watching a pending connection's socket, which is not to be closed yet.
    pub fn deregister(&self, socket: &mut AcceptedSocket<Unregistered>) {
        socket.remove_from(&self.epoll);
    }

    /// Waits for events of parked connections. [`ParkedSet::AT_ONCE`] at most are appended.
    pub async fn wait(&self, events: &mut Vec<ReadyEvent>) -> io::Result<()> {
        self.epoll.wait(events).await
    }

    /// Takes out a parked connection. It may be gone meanwhile, and another be known by its token: that one then finds that
    /// nothing has come.
    pub fn take(&self, token: Token) -> Option<Unparked> {
        if let Some(conn) = self.pending.take(token) {
            return Some(Unparked::Pending(conn));
        }
        let idle = self.idle.take(token)?;
        idle.legs.remove_from(&self.epoll);
        Some(Unparked::Idle(idle))
    }

    fn waker(&self, token: Token) -> Waker {
        Waker::from(Arc::new(ParkedWaker {
            token,
            wakes: self.wakes.clone(),
        }))
    }

    /// Events that are reported at once.
    pub const AT_ONCE: usize = EpollSet::MAX_EVENTS;
}

impl<T> Slots<T> {
    fn put(&self, token: Token, parked: Box<T>) {
        self.0.lock().insert(token, parked);
    }

    fn take(&self, token: Token) -> Option<Box<T>> {
        let mut parked = self.0.lock();
        let removed = parked.remove(&token);
        // The capacity that a flood needed is not kept for ever.
        if parked.capacity() > parked.len().saturating_mul(8).max(1024) {
            let left = parked.len();
            parked.shrink_to(left * 2);
        }
        removed
    }
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// Wakes a parked connection: its room does when its seat ends, and another thread when it has a command for it. That may
/// be another worker, in search of a slot for a newcomer.
struct ParkedWaker {
    token: Token,
    wakes: UnboundedSender<Token>,
}

impl Wake for ParkedWaker {
    fn wake(self: Arc<Self>) {
        // The channel is closed when the worker is gone, and the socket with it.
        let _gone = self.wakes.send(self.token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With the table's place for it, its waker and its seat in the room the whole is less than half a KiB.
    #[test]
    fn a_parked_pending_connection_is_small() {
        assert!(size_of::<PendingConn>() <= 160, "{}", size_of::<PendingConn>());
        assert!(size_of::<ParkedWaker>() <= 16, "{}", size_of::<ParkedWaker>());
    }

    /// Allocators have a class for 320.
    #[test]
    fn a_parked_open_connection_is_small() {
        assert!(size_of::<IdleConn>() <= 320, "{}", size_of::<IdleConn>());
    }
}
