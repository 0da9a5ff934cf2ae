//! Accepting connections from a listening socket.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::event::EventfdFlags;
use rustix::io::Errno;
use rustix::net::SocketFlags;
use socket2::{Domain, SockFilter, SockRef, Socket};
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

use super::accepted::AcceptedSocket;
use super::sys;
use super::transport::Unregistered;

/// A worker's listening socket.
#[derive(Debug)]
pub struct AcceptSocket {
    socket: AsyncFd<OwnedFd>,
    is_tcp: bool,
    /// Our options were set before it listened, so every accepted socket inherits them.
    has_options: bool,
}

/// Connections wait at an [`AcceptSocket`], as far as the runtime knows.
#[derive(Debug)]
pub struct Readiness<'a>(AsyncFdReadyGuard<'a, OwnedFd>);

impl AcceptSocket {
    /// Registers a bound socket with the runtime of the calling thread. An inherited socket (`is_inherited`) may have
    /// queued connections before our options were set.
    pub fn register(socket: Socket, is_inherited: bool) -> io::Result<Self> {
        let is_tcp = socket.local_addr()?.domain() != Domain::UNIX;
        let socket = sys::watch_readable(socket.into())?;
        Ok(Self {
            socket,
            is_tcp,
            has_options: !is_inherited,
        })
    }

    /// Waits until a connection is queued.
    pub async fn readable(&self) -> io::Result<Readiness<'_>> {
        Ok(Readiness(self.socket.readable().await?))
    }

    /// The next queued connection and its peer's address; `None` if the queue is empty. It asks the kernel, since the
    /// runtime may not know of the connection yet. The peer of a Unix socket has no address.
    pub fn accept(&self) -> io::Result<Option<(AcceptedSocket<Unregistered>, Option<SocketAddr>)>> {
        // The same call returns the peer, because a later call would fail for a socket that was reset in the queue.
        match rustix::net::acceptfrom_with(&self.socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            // A Unix peer has no IP address.
            Ok((socket, peer)) => Ok(Some((
                AcceptedSocket::new(socket, self.is_tcp, self.has_options),
                peer.and_then(|peer| peer.try_into().ok()),
            ))),
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Drops new SYNs. Handshakes that have begun still complete and are accepted. Without this, a client that connects
    /// between the last accept and the close would be reset. A client whose SYN is dropped sends it again and is
    /// refused.
    pub fn refuse_new_syns(&self) -> io::Result<()> {
        if self.is_tcp {
            return SockRef::from(self.socket.get_ref()).attach_filter(&DROP_SYNS);
        }
        // A Unix connection has no handshake to filter. Removing the socket's file keeps new clients away.
        Ok(())
    }
}

impl Readiness<'_> {
    /// Notes that the queue is empty. The next connection makes the socket ready again.
    pub fn clear(mut self) {
        self.0.clear_ready();
    }
}

/// Drops a TCP segment with SYN and without ACK and passes every other (classic BPF, linux/filter.h; a socket's filter sees a
/// segment from its TCP header on, whose byte 13 holds the flags, RFC 9293 section 3.1).
const DROP_SYNS: [SockFilter; 5] = [
    SockFilter::new(BPF_LOAD_BYTE, 0, 0, 13),
    SockFilter::new(BPF_AND, 0, 0, TCP_SYN | TCP_ACK),
    SockFilter::new(BPF_JUMP_IF_EQUAL, 0, 1, TCP_SYN),
    SockFilter::new(BPF_RETURN, 0, 0, 0),
    SockFilter::new(BPF_RETURN, 0, 0, u32::MAX),
];
const BPF_LOAD_BYTE: u16 = 0x30;
const BPF_AND: u16 = 0x54;
const BPF_JUMP_IF_EQUAL: u16 = 0x15;
const BPF_RETURN: u16 = 0x06;
const TCP_SYN: u32 = 0x02;
const TCP_ACK: u32 = 0x10;

/// A descriptor in reserve for the time when none is left. Closing it makes room to accept and close one connection, so
/// that its client learns at once that it is refused.
#[derive(Debug)]
pub struct SpareDescriptor(Option<OwnedFd>);

impl SpareDescriptor {
    /// Reserves a descriptor, if one is left.
    pub fn new() -> Self {
        Self(rustix::event::eventfd(0, EventfdFlags::CLOEXEC).ok())
    }

    /// Reserves a descriptor again if the last [`SpareDescriptor::refuse_one`] could not.
    pub fn replenish(&mut self) {
        if self.0.is_none() {
            *self = Self::new();
        }
    }

    /// Closes the spare, accepts and closes one connection, and reserves the spare again.
    pub fn refuse_one(&mut self, listener: &AcceptSocket) {
        self.0 = None;
        // It must be closed before the spare is reserved again, since both use the same descriptor.
        drop(listener.accept());
        *self = Self::new();
    }
}

impl Default for SpareDescriptor {
    fn default() -> Self {
        Self::new()
    }
}

/// The kind of an accept's error, which decides what to expect of the next accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptFault {
    /// It was about one connection, which has left the queue: the next accept is about another one.
    Connection,
    /// The process or the machine has no descriptor left.
    Descriptors,
    /// No memory, or another fault that the next accept will probably have too.
    Machine,
}

impl AcceptFault {
    /// The kind of an accept's error. An unknown error counts as [`Machine`](Self::Machine), since waiting in vain does
    /// less harm than spinning. So does EPERM, which a sandbox that forbids the call returns every time.
    pub fn of(error: &io::Error) -> Self {
        let Some(errno) = Errno::from_io_error(error) else {
            return Self::Machine;
        };
        match errno {
            Errno::MFILE | Errno::NFILE => Self::Descriptors,
            // Linux's accept returns errors that are pending on the new socket (accept(2), error handling).
            Errno::CONNABORTED
            | Errno::CONNRESET
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::INTR
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::NONET
            | Errno::NOPROTOOPT
            | Errno::OPNOTSUPP
            | Errno::PROTO
            | Errno::TIMEDOUT => Self::Connection,
            _ => Self::Machine,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::ErrorKind;

    use super::*;
    use crate::net::address::Bind;
    use crate::net::bound::BoundSockets;

    #[test]
    fn only_a_connections_own_error_lets_the_next_accept_follow_at_once() {
        let of = |errno: Errno| AcceptFault::of(&errno.into());
        for errno in [Errno::CONNABORTED, Errno::PROTO, Errno::NETUNREACH, Errno::INTR] {
            assert_eq!(of(errno), AcceptFault::Connection, "{errno}");
        }
        for errno in [Errno::MFILE, Errno::NFILE] {
            assert_eq!(of(errno), AcceptFault::Descriptors, "{errno}");
        }
        for errno in [Errno::NOMEM, Errno::NOBUFS, Errno::NOSPC, Errno::PERM, Errno::INVAL] {
            assert_eq!(of(errno), AcceptFault::Machine, "{errno}");
        }
        assert_eq!(AcceptFault::of(&ErrorKind::Other.into()), AcceptFault::Machine);
    }

    #[tokio::test]
    async fn a_socket_that_was_reset_in_the_queue_is_accepted_like_any_other() {
        let bound = BoundSockets::bind(&Bind::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))), 8, 1).unwrap();
        let Bind::Tcp(address) = bound.address else {
            panic!("a TCP address")
        };
        let listener = AcceptSocket::register(bound.into_sockets().remove(0), false).unwrap();
        let gone = std::net::TcpStream::connect(address).unwrap();
        let gone_from = gone.local_addr().unwrap();
        socket2::SockRef::from(&gone)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
        drop(gone);
        let there = std::net::TcpStream::connect(address).unwrap();
        let peer = || listener.accept().unwrap().unwrap().1;
        assert_eq!(peer(), Some(gone_from));
        assert_eq!(peer(), Some(there.local_addr().unwrap()));
        assert!(listener.accept().unwrap().is_none());
    }
}
