//! A socket that was accepted, and that no runtime knows yet: who is refused at once never costs it anything.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags};
use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream};

use super::client::Ahead;
use super::stream::Stream;

/// An accepted socket, and what was read of it at once.
#[derive(Debug)]
pub struct Newcomer {
    socket: OwnedFd,
    /// Its peer; `None` for one without an address (a Unix socket).
    peer: Option<SocketAddr>,
    is_tcp: bool,
    ahead: Ahead,
}

impl Newcomer {
    /// An accepted socket, which does not block.
    pub(super) fn new(socket: OwnedFd, peer: Option<SocketAddr>, is_tcp: bool) -> Self {
        Self {
            socket,
            peer,
            is_tcp,
            ahead: Ahead::default(),
        }
    }

    /// Its peer; `None` for one without an address (a Unix socket).
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// What was read and not consumed.
    pub fn ahead(&mut self) -> &mut Ahead {
        &mut self.ahead
    }

    /// Reads what is there already, `limit` bytes at most; 0 is the end of the stream, "would block" that nothing is.
    pub fn read_at_once(&mut self, limit: usize) -> io::Result<usize> {
        let socket = self.socket.as_fd();
        self.ahead.fill(limit, |scratch| {
            let (read, _) = rustix::net::recv(socket, scratch, RecvFlags::empty())?;
            Ok(read)
        })
    }

    /// Writes what the socket takes of `bytes`. Where they are the `last`, for the socket is closed behind them, they leave
    /// with the close, in one segment.
    pub fn write_at_once(&self, bytes: &[u8], last: bool) -> io::Result<usize> {
        let more = if last { SendFlags::MORE } else { SendFlags::empty() };
        Ok(rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL | more)?)
    }

    /// Makes the close that follows a reset.
    pub fn reset_on_close(&self) {
        // Where it fails the close is an orderly one: less telling, and no harm.
        let _orderly = SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
    }

    /// Hands the socket to the runtime of the calling thread.
    pub(super) fn register(self) -> io::Result<(Stream, Ahead)> {
        let stream = if self.is_tcp {
            Stream::Tcp(TcpStream::from_std(self.socket.into())?)
        } else {
            Stream::Unix(UnixStream::from_std(self.socket.into())?)
        };
        Ok((stream, self.ahead))
    }
}

impl AsFd for Newcomer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
