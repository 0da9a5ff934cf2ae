//! An accepted socket with the bytes that were read from it so far. It is registered with the runtime only once its
//! client is admitted, so a client that is refused at once costs no registration.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::epoll_set::{EpollSet, Token};
use super::options::SocketOptions;
use super::read_ahead::ReadAhead;
use super::transport::{Registered, Transport, Unregistered};

/// An accepted socket and its unconsumed bytes.
#[derive(Debug)]
pub struct AcceptedSocket<S = Registered> {
    transport: Transport<S>,
    read_ahead: ReadAhead,
    /// It inherited the listening socket's options.
    inherits_options: bool,
    is_in_epoll_set: bool,
}

impl<S> AcceptedSocket<S> {
    /// The connection, to write to or to watch.
    pub fn transport(&self) -> &Transport<S> {
        &self.transport
    }

    /// The bytes that were read but not consumed.
    pub fn read_ahead(&mut self) -> &mut ReadAhead {
        &mut self.read_ahead
    }

    /// Whether every byte that was read is consumed and nothing is known to follow.
    pub fn is_drained(&self) -> bool {
        self.read_ahead.is_drained()
    }
}

impl AcceptedSocket<Unregistered> {
    /// Wraps an accepted socket, which must not block.
    pub(super) fn new(socket: OwnedFd, is_tcp: bool, inherits_options: bool) -> Self {
        Self {
            transport: Transport::unregistered(socket, is_tcp),
            read_ahead: ReadAhead::default(),
            inherits_options,
            is_in_epoll_set: false,
        }
    }

    /// Identifies it in an [`EpollSet`].
    pub fn token(&self) -> Token {
        Token::of(self)
    }

    /// Whether it is in an [`EpollSet`].
    pub fn is_in_epoll_set(&self) -> bool {
        self.is_in_epoll_set
    }

    /// Adds it to `set`, unless it is there already.
    pub fn add_to(&mut self, set: &EpollSet) -> io::Result<()> {
        if !self.is_in_epoll_set {
            set.add(&self.transport, self.token())?;
            self.is_in_epoll_set = true;
        }
        Ok(())
    }

    /// Removes it from `set`, if it is there.
    pub fn remove_from(&mut self, set: &EpollSet) {
        if std::mem::take(&mut self.is_in_epoll_set) {
            set.remove(&self.transport);
        }
    }

    /// Reads the bytes that have arrived, up to `limit` unconsumed bytes in all. 0 is the end of the stream; the error
    /// "would block" means that none have arrived.
    pub fn read_now(&mut self, limit: usize) -> io::Result<usize> {
        let transport = &self.transport;
        self.read_ahead.fill(limit, |scratch| transport.read_now(scratch))
    }

    /// Registers it with the runtime of the calling thread. It must not be in an [`EpollSet`].
    pub fn register(self) -> io::Result<AcceptedSocket> {
        Ok(AcceptedSocket {
            transport: self.transport.register()?,
            read_ahead: self.read_ahead,
            inherits_options: self.inherits_options,
            is_in_epoll_set: false,
        })
    }
}

impl AcceptedSocket {
    /// Checks whether more has arrived since the last read.
    pub fn check_unread(&mut self) {
        if self.transport.has_unread() {
            self.read_ahead.expect_more();
        }
    }

    /// Sets the options of an open connection. The default options need no system call, since the socket has inherited
    /// them.
    pub fn set_options(&self, options: SocketOptions) {
        self.transport.set_accepted_options(options, self.inherits_options);
    }

    /// The connection, and its unconsumed bytes.
    pub fn into_parts(self) -> (Transport, Vec<u8>) {
        (self.transport, self.read_ahead.into_bytes())
    }
}

impl<S> AsFd for AcceptedSocket<S>
where
    Transport<S>: AsFd,
{
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.transport.as_fd()
    }
}
