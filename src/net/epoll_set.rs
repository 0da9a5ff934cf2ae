//! Watches parked sockets by one descriptor, so that a socket that only waits costs the runtime nothing.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use tokio::io::unix::AsyncFd;

use super::sys;

/// An epoll instance (epoll(7)) that reports which of its sockets are readable.
///
/// It is edge-triggered: a socket is reported once for everything that has arrived by then, and must be read until
/// nothing is left. In return it needs only one system call, when it is added, however often more arrives.
#[derive(Debug)]
pub struct EpollSet {
    /// The epoll instance, which the runtime watches like any other descriptor.
    epoll: AsyncFd<OwnedFd>,
}

/// Identifies a socket in an [`EpollSet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(u64);

/// A socket that is readable. The event may be stale: the socket may have been removed or read since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadyEvent {
    /// The socket.
    pub token: Token,
    /// Its peer has ended or reset the connection, possibly with unread bytes before it.
    pub has_ended: bool,
}

impl EpollSet {
    /// The most events that one [`EpollSet::wait`] adds.
    pub const MAX_EVENTS: usize = 64;

    /// An empty set that the runtime of the calling thread watches.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: sys::watch_readable(epoll::create(CreateFlags::CLOEXEC)?)?,
        })
    }

    /// Adds a socket. Bytes that arrived before are reported too.
    pub fn add(&self, socket: impl AsFd, token: Token) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(token.0), flags)?)
    }

    /// Removes a socket. The kernel removes a closed one by itself.
    pub fn remove(&self, socket: impl AsFd) {
        // It fails only for a socket that is not in the set.
        let _unknown = epoll::delete(&self.epoll, socket);
    }

    /// Waits until a socket is readable, and appends at most [`EpollSet::MAX_EVENTS`] events to `ready`.
    pub async fn wait(&self, ready: &mut Vec<ReadyEvent>) -> io::Result<()> {
        let mut readiness = self.epoll.readable().await?;
        let mut events = [MaybeUninit::<Event>::uninit(); Self::MAX_EVENTS];
        let (seen, _) = epoll::wait(&self.epoll, &mut events, Some(&Timespec::default()))?;
        ready.extend(seen.iter().map(|event| {
            let (flags, data) = (event.flags, event.data);
            ReadyEvent {
                token: Token(data.u64()),
                has_ended: flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR),
            }
        }));
        if seen.len() < Self::MAX_EVENTS {
            // There are no more events now, and the next one makes the set ready again. This saves a call that would
            // return nothing.
            readiness.clear_ready();
        }
        Ok(())
    }
}

impl Token {
    /// The token of `socket`, unique as long as the socket is open.
    pub fn of(socket: impl AsFd) -> Self {
        Self(u64::try_from(socket.as_fd().as_raw_fd()).unwrap_or_default())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;
    use std::net::{Shutdown, SocketAddr, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::net::accept_socket::AcceptSocket;
    use crate::net::accepted::AcceptedSocket;
    use crate::net::address::Bind;
    use crate::net::bound::BoundSockets;
    use crate::net::transport::Unregistered;

    struct Rig {
        set: EpollSet,
        listener: AcceptSocket,
        address: SocketAddr,
    }

    impl Rig {
        fn new() -> Self {
            let bound = BoundSockets::bind(&Bind::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))), 128, 1).unwrap();
            let Bind::Tcp(address) = bound.address else {
                panic!("a TCP address")
            };
            Self {
                set: EpollSet::new().unwrap(),
                listener: AcceptSocket::register(bound.into_sockets().remove(0), false).unwrap(),
                address,
            }
        }

        fn added(&self) -> (TcpStream, AcceptedSocket<Unregistered>) {
            let client = TcpStream::connect(self.address).unwrap();
            let (mut socket, _) = self.listener.accept().unwrap().unwrap();
            socket.add_to(&self.set).unwrap();
            (client, socket)
        }

        async fn ready(&self) -> Vec<ReadyEvent> {
            let mut ready = Vec::new();
            let wait = self.set.wait(&mut ready);
            let _none = tokio::time::timeout(Duration::from_millis(50), wait).await;
            ready
        }
    }

    fn of(socket: &AcceptedSocket<Unregistered>, has_ended: bool) -> Vec<ReadyEvent> {
        vec![ReadyEvent {
            token: socket.token(),
            has_ended,
        }]
    }

    #[tokio::test]
    async fn a_readable_socket_is_reported_once_for_all_that_has_arrived() {
        let rig = Rig::new();
        let (mut client, mut socket) = rig.added();
        let (_silent, _other) = rig.added();
        assert_eq!(rig.ready().await, []);
        client.write_all(b"GET").unwrap();
        assert_eq!(rig.ready().await, of(&socket, false));
        assert_eq!(rig.ready().await, [], "whether it was read or not");
        assert_eq!(socket.read_now(99).unwrap(), 3);
        client.write_all(b" /").unwrap();
        assert_eq!(rig.ready().await, of(&socket, false));
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rig.ready().await, of(&socket, true));
        assert_eq!(rig.ready().await, [], "an end is reported once as well");
    }

    #[tokio::test]
    async fn what_arrived_before_it_was_added_is_reported() {
        let rig = Rig::new();
        let mut client = TcpStream::connect(rig.address).unwrap();
        client.write_all(b"GET").unwrap();
        drop(client);
        let (mut socket, _) = rig.listener.accept().unwrap().unwrap();
        socket.add_to(&rig.set).unwrap();
        socket.add_to(&rig.set).unwrap();
        assert_eq!(rig.ready().await, of(&socket, true));
    }

    #[tokio::test]
    async fn a_closed_or_removed_socket_is_not_reported() {
        let rig = Rig::new();
        let (mut first, mut removed) = rig.added();
        let (mut second, closed) = rig.added();
        removed.remove_from(&rig.set);
        removed.remove_from(&rig.set);
        drop(closed);
        first.write_all(b"GET").unwrap();
        second.write_all(b"GET").unwrap();
        assert_eq!(rig.ready().await, []);
        removed.add_to(&rig.set).unwrap();
        assert_eq!(rig.ready().await, of(&removed, false));
    }

    #[tokio::test]
    async fn what_exceeds_one_wait_is_reported_by_the_next() {
        let rig = Rig::new();
        let mut clients: Vec<_> = (0..EpollSet::MAX_EVENTS + 9).map(|_| rig.added()).collect();
        for (client, _) in &mut clients {
            client.write_all(b"GET").unwrap();
        }
        assert_eq!(rig.ready().await.len(), EpollSet::MAX_EVENTS);
        assert_eq!(rig.ready().await.len(), 9);
        assert_eq!(rig.ready().await, []);
    }
}
