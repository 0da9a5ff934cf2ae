//! The two sockets of a tunnel.

use std::io;

use crate::net::lookout::{Lookout, Mark};
use crate::net::socket::Socket;
use crate::net::stream::Stream;

/// Both legs of an open connection.
#[derive(Debug)]
pub struct Legs {
    /// To the client.
    pub client: Stream,
    /// To the server.
    pub server: Stream,
}

/// Both legs while the runtime does not know them.
#[derive(Debug)]
pub struct IdleLegs {
    client: Socket,
    server: Socket,
}

impl Legs {
    /// Takes them away from the runtime. Where that fails they are closed.
    pub fn unregister(self) -> io::Result<IdleLegs> {
        Ok(IdleLegs {
            client: self.client.unregister()?,
            server: self.server.unregister()?,
        })
    }
}

impl IdleLegs {
    /// What a lookout tells either of them by.
    pub fn mark(&self) -> Mark {
        self.client.mark()
    }

    /// Has `lookout` watch both.
    pub fn be_watched(&self, lookout: &Lookout) -> io::Result<()> {
        lookout.watch(&self.client, self.mark())?;
        lookout.watch(&self.server, self.mark())
    }

    /// Has `lookout` watch neither any more.
    pub fn be_forgotten(&self, lookout: &Lookout) {
        lookout.forget(&self.client);
        lookout.forget(&self.server);
    }

    /// Hands them to the runtime of the calling thread. Where that fails they are closed.
    pub fn register(self) -> io::Result<Legs> {
        Ok(Legs {
            client: self.client.register()?,
            server: self.server.register()?,
        })
    }
}
