//! Sockets that have connected and ask for nothing, or not for all of it yet.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context as _, ensure};

use crate::crowd::resident;
use crate::request::upgrade;
use crate::socket::{connect, read_now};

/// All of them.
#[derive(Debug)]
pub struct Pending(Vec<TcpStream>);

impl Pending {
    /// So many that say nothing.
    pub fn open(to: SocketAddr, count: usize) -> anyhow::Result<Self> {
        let open = |nth| connect(resident(nth), to).context("connecting");
        Ok(Self((0..count).map(open).collect::<anyhow::Result<_>>()?))
    }

    /// Each sends the first half of a head.
    pub fn begin_to_ask(&mut self) -> anyhow::Result<()> {
        let head = upgrade("/echo");
        for stream in &mut self.0 {
            stream.write_all(&head[..head.len() / 2])?;
        }
        Ok(())
    }

    /// Nobody was sent away, which would have cost less.
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
