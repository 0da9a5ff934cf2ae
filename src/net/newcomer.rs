//! A socket that was accepted, and that no runtime knows yet: who is refused at once never costs it anything.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

use super::client::Ahead;
use super::lookout::{Lookout, Mark};
use super::socket::Socket;
use super::stream::{Stream, reset_on_close};

/// An accepted socket, and what was read of it at once.
#[derive(Debug)]
pub struct Newcomer {
    socket: Socket,
    /// It has what stands on its listening socket, because that stood there before it came.
    inherits: bool,
    /// A [`Lookout`] tells when more of it comes.
    is_watched: bool,
    ahead: Ahead,
}

impl Newcomer {
    /// An accepted socket, which does not block.
    pub(super) fn new(socket: OwnedFd, is_tcp: bool, inherits: bool) -> Self {
        Self {
            socket: Socket::new(socket, is_tcp),
            inherits,
            is_watched: false,
            ahead: Ahead::default(),
        }
    }

    /// What a [`Lookout`] tells it by.
    pub fn mark(&self) -> Mark {
        Mark::of(&self.socket)
    }

    /// Whether a [`Lookout`] watches it.
    pub fn is_watched(&self) -> bool {
        self.is_watched
    }

    /// Has `lookout` watch it from here on, if it does not yet.
    pub fn be_watched(&mut self, lookout: &Lookout) -> io::Result<()> {
        if !self.is_watched {
            lookout.watch(&self.socket, self.mark())?;
            self.is_watched = true;
        }
        Ok(())
    }

    /// Has `lookout` watch it no more.
    pub fn be_forgotten(&mut self, lookout: &Lookout) {
        if std::mem::take(&mut self.is_watched) {
            lookout.forget(&self.socket);
        }
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

    /// Whether its peer has ended or reset the connection, with nothing left to be read before that.
    pub fn has_ended(&self) -> bool {
        let mut byte = [0];
        let peeked = rustix::net::recv(&self.socket, byte.as_mut_slice(), RecvFlags::PEEK);
        !matches!(peeked, Ok((1.., _)) | Err(Errno::AGAIN | Errno::INTR))
    }

    /// Writes what the socket takes of `bytes`.
    pub fn write_at_once(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL)?)
    }

    /// Writes what the socket takes of `bytes`, the last ones; where it takes all of them, they leave together with the end of
    /// our direction, in one segment. So they are out before a close that has to reset, for bytes that came meanwhile.
    pub fn write_last(&self, bytes: &[u8]) -> io::Result<usize> {
        let written = rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL | SendFlags::MORE)?;
        if written == bytes.len() {
            rustix::net::shutdown(&self.socket, Shutdown::Write)?;
        }
        Ok(written)
    }

    /// Makes the close that follows a reset.
    pub fn reset_on_close(&self) {
        reset_on_close(&self.socket);
    }

    /// Hands the socket to the runtime of the calling thread; with what was read, and whether it inherits its options.
    pub(super) fn register(self) -> io::Result<(Stream, Ahead, bool)> {
        Ok((self.socket.register()?, self.ahead, self.inherits))
    }
}

impl AsFd for Newcomer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
