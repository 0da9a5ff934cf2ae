//! Listening sockets: bound once for each address, then one sibling a worker.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::Path;

use rustix::event::EventfdFlags;
use rustix::io::Errno;
use rustix::net::SocketFlags;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::address::Bind;
use super::stream::Stream;

/// A bound address: one listening socket for each worker, not yet known to any runtime.
#[derive(Debug)]
pub struct Bound {
    /// Where it is bound; a port 0 has become the real one.
    pub address: Bind,
    sockets: Vec<Socket>,
}

/// A worker's listening socket.
#[derive(Debug)]
pub enum Listener {
    /// Over TCP.
    Tcp(TcpListener),
    /// Over a Unix socket.
    Unix(UnixListener),
}

impl Bound {
    /// Binds `address` with `workers` sockets (at least one).
    ///
    /// The first is bound without `SO_REUSEPORT`, so that a second wsguard on the same address fails with "in use"
    /// rather than quietly taking half of the connections; the flag is set after, and the siblings join.
    pub fn bind(address: &Bind, backlog: u32, workers: usize) -> io::Result<Self> {
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        match address {
            Bind::Tcp(address) => bind_tcp(*address, backlog, workers),
            Bind::Unix(path) => bind_unix(path, backlog, workers),
        }
    }

    /// The sockets, one for each worker.
    pub fn into_sockets(self) -> Vec<Socket> {
        self.sockets
    }
}

impl Listener {
    /// Hands a bound socket to the runtime of the calling thread.
    pub fn register(socket: Socket) -> io::Result<Self> {
        if socket.domain()? == Domain::UNIX {
            Ok(Self::Unix(UnixListener::from_std(socket.into())?))
        } else {
            Ok(Self::Tcp(TcpListener::from_std(socket.into())?))
        }
    }

    /// The next connection and its peer; `None` for a peer without an address (a Unix socket).
    pub async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => listener
                .accept()
                .await
                .map(|(stream, peer)| (Stream::Tcp(stream), Some(peer))),
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| (Stream::Unix(stream), None)),
        }
    }
}

impl Listener {
    /// The next connection that is queued already, `None` when none is. Asks the kernel and not the runtime, which may not
    /// have heard of it yet.
    pub fn accept_queued(&self) -> io::Result<Option<(Stream, Option<SocketAddr>)>> {
        let fd = match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        };
        let socket = match rustix::net::accept_with(fd, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok(socket) => socket,
            Err(Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        match self {
            Self::Tcp(_) => {
                let stream = TcpStream::from_std(socket.into())?;
                let peer = stream.peer_addr()?;
                Ok(Some((Stream::Tcp(stream), Some(peer))))
            }
            Self::Unix(_) => Ok(Some((Stream::Unix(UnixStream::from_std(socket.into())?), None))),
        }
    }
}

/// A descriptor that is kept for the time when there is none left: with it one more socket can be accepted, and closed, so
/// that its peer learns at once that there is no room.
#[derive(Debug)]
pub struct Spare(Option<OwnedFd>);

impl Spare {
    /// Takes one; without one there is nothing to give up later.
    pub fn new() -> Self {
        Self(rustix::event::eventfd(0, EventfdFlags::CLOEXEC).ok())
    }

    /// Gives the spare up for as long as it takes to turn one socket away.
    pub fn refuse_one(&mut self, door: &Listener) {
        self.0 = None;
        let _refused = door.accept_queued();
        *self = Self::new();
    }
}

impl Default for Spare {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether an accept failed because this process, or the machine, has no descriptor left.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    let out = [Errno::MFILE, Errno::NFILE];
    error
        .raw_os_error()
        .is_some_and(|code| out.iter().any(|errno| errno.raw_os_error() == code))
}

fn bind_tcp(address: SocketAddr, backlog: i32, workers: usize) -> io::Result<Bound> {
    let first = tcp_socket(address)?;
    first.bind(&address.into())?;
    first.set_reuse_port(true)?;
    first.listen(backlog)?;
    let bound = first.local_addr()?.as_socket().ok_or(ErrorKind::InvalidData)?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        let sibling = tcp_socket(bound)?;
        sibling.set_reuse_port(true)?;
        sibling.bind(&bound.into())?;
        sibling.listen(backlog)?;
        sockets.push(sibling);
    }
    Ok(Bound {
        address: Bind::Tcp(bound),
        sockets,
    })
}

fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// One socket, shared by duplicates: Unix sockets have no siblings.
fn bind_unix(path: &Path, backlog: i32, workers: usize) -> io::Result<Bound> {
    let first = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    first.set_nonblocking(true)?;
    let name = SockAddr::unix(path)?;
    match first.bind(&name) {
        Err(error) if error.raw_os_error() == Some(Errno::ADDRINUSE.raw_os_error()) && is_left_behind(path) => {
            std::fs::remove_file(path)?;
            first.bind(&name)?;
        }
        other => other?,
    }
    first.listen(backlog)?;
    let first = StdUnixListener::from(first);
    let mut sockets = Vec::with_capacity(workers);
    for _ in 1..workers {
        sockets.push(Socket::from(first.try_clone()?));
    }
    sockets.push(Socket::from(first));
    Ok(Bound {
        address: Bind::Unix(path.to_path_buf()),
        sockets,
    })
}

/// Whether a socket file belongs to nobody: a guard that was killed leaves its own.
fn is_left_behind(path: &Path) -> bool {
    matches!(StdUnixStream::connect(path), Err(error) if error.kind() == ErrorKind::ConnectionRefused)
}
