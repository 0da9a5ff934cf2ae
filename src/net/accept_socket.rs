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
    /// Its options were set before it listened, so that every accepted socket inherits them.
    has_options: bool,
}

/// Says that connections wait at an [`AcceptSocket`], as far as the runtime knows.
#[derive(Debug)]
pub struct Readiness<'a>(AsyncFdReadyGuard<'a, OwnedFd>);

impl AcceptSocket {
    /// Registers a bound socket with the runtime of the calling thread. An `is_inherited` one may have queued connections
    /// before our options were set.
    pub fn register(socket: Socket, is_inherited: bool) -> io::Result<Self> {
        let is_tcp = socket.local_addr()?.domain() != Domain::UNIX;
        let socket = sys::watch_readable(socket.into())?;
        Ok(Self {
            socket,
            is_tcp,
            has_options: !is_inherited,
        })
    }

    /// Waits until a connection waits.
    pub async fn readable(&self) -> io::Result<Readiness<'_>> {
        Ok(Readiness(self.socket.readable().await?))
    }

    /// The next queued connection with its peer's address, `None` if the queue is empty. It asks the kernel and not the
    /// runtime, which may not know of it yet. The peer of a Unix socket has no address.
    pub fn accept(&self) -> io::Result<Option<(AcceptedSocket<Unregistered>, Option<SocketAddr>)>> {
        // The same call returns the peer: it can't be asked for later if the socket was reset while it waited.
        match rustix::net::acceptfrom_with(&self.socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            // A Unix peer's address is of another kind, if it has one.
            Ok((socket, peer)) => Ok(Some((
                AcceptedSocket::new(socket, self.is_tcp, self.has_options),
                peer.and_then(|peer| peer.try_into().ok()),
            ))),
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Drops new SYNs; handshakes already under way still complete and are accepted. A client that connected between the last
    /// accept and the close would be reset, but one whose SYN is lost sends it again and is refused.
    pub fn refuse_new_syns(&self) -> io::Result<()> {
        if self.is_tcp {
            return SockRef::from(self.socket.get_ref()).attach_filter(&DROP_SYNS);
        }
        // A Unix connection has no handshake to filter; its file is removed, which keeps new clients away.
        Ok(())
    }
}

impl Readiness<'_> {
    /// Notes that no connection waits any more. The next one raises the readiness again.
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

/// A descriptor that is kept for when none is left: giving it up lets one more socket be accepted and closed, so that its
/// client learns at once that there is no room.
#[derive(Debug)]
pub struct SpareDescriptor(Option<OwnedFd>);

impl SpareDescriptor {
    /// Reserves one, if one is left.
    pub fn new() -> Self {
        Self(rustix::event::eventfd(0, EventfdFlags::CLOEXEC).ok())
    }

    /// Reserves one again if the last [`SpareDescriptor::refuse_one`] could not.
    pub fn replenish(&mut self) {
        if self.0.is_none() {
            *self = Self::new();
        }
    }

    /// Gives the spare up for as long as it takes to accept and close one connection.
    pub fn refuse_one(&mut self, listener: &AcceptSocket) {
        self.0 = None;
        // Closed before the spare is reserved again: the two are one descriptor.
        drop(listener.accept());
        *self = Self::new();
    }
}

impl Default for SpareDescriptor {
    fn default() -> Self {
        Self::new()
    }
}

/// What a failed accept says about the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptFault {
    /// It concerned one connection, which left the queue: the next accept concerns another.
    Connection,
    /// This process, or the machine, has no descriptor left.
    Descriptors,
    /// No memory, or another fault that the next accept would most likely meet too.
    Machine,
}

impl AcceptFault {
    /// The kind of an accept's error. An unknown one counts as the machine's, since waiting in vain does less harm than
    /// spinning. EPERM is unknown: a sandbox that forbids the call returns it for good.
    pub fn of(error: &io::Error) -> Self {
        let Some(errno) = Errno::from_io_error(error) else {
            return Self::Machine;
        };
        match errno {
            Errno::MFILE | Errno::NFILE => Self::Descriptors,
            // Linux returns errors that are pending on the new socket from accept (accept(2), error handling).
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
