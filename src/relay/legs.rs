//! The two sockets of a tunnel.

use std::io;
use std::os::fd::AsFd;

use crate::net::epoll_set::{EpollSet, Token};
use crate::net::transport::{Transport, Unregistered};

/// Both legs of an open connection.
#[derive(Debug)]
pub struct Legs<S = Transport> {
    /// The leg to the client.
    pub client: S,
    /// The leg to the server.
    pub server: S,
}

/// Both legs while they are not registered with the runtime.
pub type IdleLegs = Legs<Transport<Unregistered>>;

impl<S: AsFd> Legs<S> {
    /// The token by which an [`EpollSet`] knows both legs.
    pub(crate) fn token(&self) -> Token {
        Token::of(&self.client)
    }

    /// Adds both legs to `set`. If the kernel has no room, it adds neither.
    pub(crate) fn add_to(&self, set: &EpollSet) -> io::Result<()> {
        set.add(&self.client, self.token())?;
        set.add(&self.server, self.token())
            .inspect_err(|_| set.remove(&self.client))
    }

    /// Removes both legs from `set`.
    pub(crate) fn remove_from(&self, set: &EpollSet) {
        set.remove(&self.client);
        set.remove(&self.server);
    }
}

impl Legs {
    /// Deregisters both legs from the runtime.
    ///
    /// # Errors
    /// Errors of the runtime. Both sockets are closed then.
    pub(crate) fn unregister(self) -> io::Result<IdleLegs> {
        Ok(Legs {
            client: self.client.unregister()?,
            server: self.server.unregister()?,
        })
    }
}

impl IdleLegs {
    /// Registers both legs with the runtime of the calling thread.
    ///
    /// # Errors
    /// Errors of the runtime. Both sockets are closed then.
    pub(crate) fn register(self) -> io::Result<Legs> {
        Ok(Legs {
            client: self.client.register()?,
            server: self.server.register()?,
        })
    }
}
