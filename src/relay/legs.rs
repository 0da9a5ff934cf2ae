//! The two sockets of a tunnel.

use std::io;
use std::os::fd::AsFd;

use crate::net::epoll_set::{EpollSet, Token};
use crate::net::transport::{Transport, Unregistered};

/// Both legs of an open connection.
#[derive(Debug)]
pub struct Legs<S = Transport> {
    /// To the client.
    pub client: S,
    /// To the server.
    pub server: S,
}

/// Both legs while they are not registered with the runtime.
pub type IdleLegs = Legs<Transport<Unregistered>>;

impl<S: AsFd> Legs<S> {
    /// Identifies both in an [`EpollSet`].
    pub(crate) fn token(&self) -> Token {
        Token::of(&self.client)
    }

    /// Adds both to `set`, or neither if the kernel has no room.
    pub(crate) fn add_to(&self, set: &EpollSet) -> io::Result<()> {
        set.add(&self.client, self.token())?;
        set.add(&self.server, self.token())
            .inspect_err(|_| set.remove(&self.client))
    }

    /// Removes both from `set`.
    pub(crate) fn remove_from(&self, set: &EpollSet) {
        set.remove(&self.client);
        set.remove(&self.server);
    }
}

impl Legs {
    /// Deregisters them from the runtime.
    ///
    /// # Errors
    /// Those of the runtime; both are closed then.
    pub(crate) fn unregister(self) -> io::Result<IdleLegs> {
        Ok(Legs {
            client: self.client.unregister()?,
            server: self.server.unregister()?,
        })
    }
}

impl IdleLegs {
    /// Registers them with the runtime of the calling thread.
    ///
    /// # Errors
    /// Those of the runtime; both are closed then.
    pub(crate) fn register(self) -> io::Result<Legs> {
        Ok(Legs {
            client: self.client.register()?,
            server: self.server.register()?,
        })
    }
}
