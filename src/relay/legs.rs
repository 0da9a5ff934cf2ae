//! The two sockets of a tunnel.

use std::io;
use std::os::fd::AsFd;

use crate::net::lookout::{Lookout, Mark};
use crate::net::socket::Socket;
use crate::net::stream::Stream;

/// Both legs of an open connection.
#[derive(Debug)]
pub struct Legs<S = Stream> {
    /// To the client.
    pub client: S,
    /// To the server.
    pub server: S,
}

/// Both legs while the runtime does not know them.
pub type IdleLegs = Legs<Socket>;

impl<S: AsFd> Legs<S> {
    /// What a lookout tells either of them by.
    pub fn mark(&self) -> Mark {
        Mark::of(&self.client)
    }

    /// Has `lookout` watch both, or neither where there is no room for that in the kernel.
    pub fn be_watched(&self, lookout: &Lookout) -> io::Result<()> {
        lookout.watch(&self.client, self.mark())?;
        lookout
            .watch(&self.server, self.mark())
            .inspect_err(|_| lookout.forget(&self.client))
    }

    /// Has `lookout` watch neither any more.
    pub fn be_forgotten(&self, lookout: &Lookout) {
        lookout.forget(&self.client);
        lookout.forget(&self.server);
    }
}

impl Legs {
    /// Takes them away from the runtime. Where that fails they are closed.
    pub fn unregister(self) -> io::Result<IdleLegs> {
        Ok(Legs {
            client: self.client.unregister()?,
            server: self.server.unregister()?,
        })
    }
}

impl IdleLegs {
    /// Hands them to the runtime of the calling thread. Where that fails they are closed.
    pub fn register(self) -> io::Result<Legs> {
        Ok(Legs {
            client: self.client.register()?,
            server: self.server.register()?,
        })
    }
}
