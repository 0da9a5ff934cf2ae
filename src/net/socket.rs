//! A connected socket that no runtime knows: it costs nothing but what the kernel keeps of it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tokio::net::{TcpStream, UnixStream};

use super::stream::Stream;

/// A connected socket, which does not block.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    is_tcp: bool,
}

impl Socket {
    /// What `fd` names; TCP, or else a Unix socket.
    pub(super) fn new(fd: OwnedFd, is_tcp: bool) -> Self {
        Self { fd, is_tcp }
    }

    /// Hands it to the runtime of the calling thread.
    pub fn register(self) -> io::Result<Stream> {
        Ok(if self.is_tcp {
            Stream::Tcp(TcpStream::from_std(self.fd.into())?)
        } else {
            Stream::Unix(UnixStream::from_std(self.fd.into())?)
        })
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
