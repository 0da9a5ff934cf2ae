//! The parked connections of one worker: sockets that have nothing to do. There may be thousands, so each takes as
//! little memory as possible: it has no task, and is not registered with the runtime.

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

/// The parked connections of one worker: pending ones whose request is incomplete, and open ones that are idle.
#[derive(Debug)]
pub struct ParkedSet {
    epoll: EpollSet,
    pending: Slots<PendingConn>,
    idle: Slots<IdleConn>,
    wakes: UnboundedSender<Token>,
}

/// Receives the tokens of connections that were woken, whether bytes have come or not.
pub type Wakes = UnboundedReceiver<Token>;

/// A connection that is not parked any longer.
#[derive(Debug)]
pub enum Unparked {
    /// It is pending.
    Pending(Box<PendingConn>),
    /// It is open.
    Idle(Box<IdleConn>),
}

/// The parked connections by token. They are boxed, so that a half-empty table is small.
#[derive(Debug)]
struct Slots<T>(Mutex<HashMap<Token, Box<T>>>);

impl ParkedSet {
    /// An empty set, registered with the runtime of the calling thread.
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

    /// Parks a pending connection until more bytes come, or its seat ends.
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

    /// Prepares an open connection to be parked: from here on, events of either socket and commands are reported to
    /// this set. Returns false if the connection can't be parked; then nothing has changed, and its `task` continues.
    ///
    /// The runtime still watches its sockets, so that nothing is lost if the kernel has no room to watch them here.
    pub fn prepare_to_park(&self, open: &mut OpenConn<Legs>, task: &Waker) -> bool {
        if open.legs.add_to(&self.epoll).is_err() {
            // The failure costs only some memory, and there may be thousands: they are not worth a log line each.
            return false;
        }
        let can_park = open.relay.set_parked_waker(&self.waker(open.legs.token()));
        if !can_park {
            open.legs.remove_from(&self.epoll);
            // A command may have called this set's waker, which then finds no parked connection.
            task.wake_by_ref();
        }
        can_park
    }

    /// Parks an open connection that was prepared for it, until it is woken.
    pub fn park_idle(&self, idle: Box<IdleConn>) {
        self.idle.put(idle.legs.token(), idle);
    }

    /// Stops watching the socket of a pending connection without closing it.
    pub fn deregister(&self, socket: &mut AcceptedSocket<Unregistered>) {
        socket.remove_from(&self.epoll);
    }

    /// Waits for events of parked connections. [`ParkedSet::AT_ONCE`] at most are appended.
    pub async fn wait(&self, events: &mut Vec<ReadyEvent>) -> io::Result<()> {
        self.epoll.wait(events).await
    }

    /// Takes out a parked connection. The connection that was reported may be gone by now, and its token may belong to
    /// another one; the other one then finds that no bytes have come.
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

    /// The most events that are reported at once.
    pub const AT_ONCE: usize = EpollSet::MAX_EVENTS;
}

impl<T> Slots<T> {
    fn put(&self, token: Token, parked: Box<T>) {
        self.0.lock().insert(token, parked);
    }

    fn take(&self, token: Token) -> Option<Box<T>> {
        let mut parked = self.0.lock();
        let removed = parked.remove(&token);
        // The memory that a flood needed is not kept for ever.
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

/// Wakes a parked connection. The pending room calls it when the connection's seat ends. Another thread calls it when
/// it has a command for the connection, for example a worker that searches for a slot for a new connection.
struct ParkedWaker {
    token: Token,
    wakes: UnboundedSender<Token>,
}

impl Wake for ParkedWaker {
    fn wake(self: Arc<Self>) {
        // The channel is closed only if the worker is gone, and then the socket is gone too.
        let _gone = self.wakes.send(self.token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A parked pending connection, its place in the table, its waker and its seat take less than half a KiB together.
    #[test]
    fn a_parked_pending_connection_is_small() {
        assert!(size_of::<PendingConn>() <= 160, "{}", size_of::<PendingConn>());
        assert!(size_of::<ParkedWaker>() <= 16, "{}", size_of::<ParkedWaker>());
    }

    /// Allocators have a size class of 256 bytes.
    #[test]
    fn a_parked_open_connection_is_small() {
        assert!(size_of::<IdleConn>() <= 256, "{}", size_of::<IdleConn>());
    }
}
