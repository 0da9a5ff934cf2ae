//! Sockets that have connected and have sent no request, or only a part of it.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context as _, ensure};

use crate::crowd::resident;
use crate::request::upgrade;
use crate::socket::{connect, read_now};

/// The open sockets.
#[derive(Debug)]
pub struct Pending(Vec<TcpStream>);

impl Pending {
    /// Opens `count` sockets that send nothing.
    pub fn open(to: SocketAddr, count: usize) -> anyhow::Result<Self> {
        let open = |nth| connect(resident(nth), to).context("connecting");
        Ok(Self((0..count).map(open).collect::<anyhow::Result<_>>()?))
    }

    /// Sends the first half of a head on each socket.
    pub fn begin_to_ask(&mut self) -> anyhow::Result<()> {
        let head = upgrade("/echo");
        for stream in &mut self.0 {
            stream.write_all(&head[..head.len() / 2])?;
        }
        Ok(())
    }

    /// Checks that no client was refused, which would have cost less.
    pub fn ensure_all_wait(&self) -> anyhow::Result<()> {
        for stream in &self.0 {
            ensure!(
                read_now(stream, &mut [0; 16])?.is_none(),
                "a pending socket was answered or closed"
            );
        }
        Ok(())
    }
}
