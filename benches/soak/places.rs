//! The addresses of all listeners. Their ports lie below those that the kernel assigns, so that no outgoing socket
//! takes one while its owner is down.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// All addresses of a run.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// The listener that is always there.
    pub main: SocketAddr,
    /// The listener that is flooded.
    pub flooded: SocketAddr,
    /// The listener that is removed and added.
    pub second: SocketAddr,
    /// The address of /metrics.
    pub admin: SocketAddr,
    /// A server that never fails.
    pub steady: SocketAddr,
    /// Another server that never fails. It is not always in the upstream.
    pub spare: SocketAddr,
    /// A server that is killed and started again.
    pub moody: SocketAddr,
    /// A server that is stopped for a while.
    pub sleepy: SocketAddr,
}

impl Places {
    /// Finds eight free addresses.
    pub fn find() -> io::Result<Self> {
        let begin = LOWEST + u16::try_from(std::process::id() % 1000).unwrap_or_default() * 8;
        let mut free = (begin..HIGHEST)
            .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .filter(|address| TcpListener::bind(address).is_ok());
        let mut next = || free.next().ok_or_else(|| io::Error::other("no free port"));
        Ok(Self {
            main: next()?,
            flooded: next()?,
            second: next()?,
            admin: next()?,
            steady: next()?,
            spare: next()?,
            moody: next()?,
            sleepy: next()?,
        })
    }
}

const LOWEST: u16 = 20_000;
const HIGHEST: u16 = 32_000;
