//! Large messages in one direction, on a few connections, as fast as they go through.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::backend::DONE;
use crate::crowd::{PATIENCE, open, resident};
use crate::frames::{BINARY, frame, masked};
use crate::poller::Poller;
use crate::socket::{reset, swallow, waits};

/// The direction of the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Up,
    Down,
}

/// The connections, ready to begin.
#[derive(Debug)]
pub struct Bulk {
    way: Way,
    lanes: Vec<Lane>,
    /// The bytes that each connection moves.
    total: usize,
    block: Block,
}

#[derive(Debug)]
struct Lane {
    stream: TcpStream,
    sent: usize,
    got: usize,
}

impl Bulk {
    /// Opens the connections. Together they will move about `bytes` bytes.
    pub fn open(way: Way, to: SocketAddr, bytes: usize) -> anyhow::Result<Self> {
        let block = match way {
            Way::Up => Block::new(|payload| masked(BINARY, payload)),
            Way::Down => Block::new(|payload| frame(BINARY, payload)),
        };
        let total = block.whole_frames(bytes / LANES);
        let target = match way {
            Way::Up => format!("/up/{total}"),
            Way::Down => format!("/down/{total}"),
        };
        let lanes = open(to, 0..LANES, &target, resident)?;
        for stream in &lanes {
            stream.set_nonblocking(true)?;
        }
        let lanes = lanes.into_iter().map(Lane::from).collect();
        Ok(Self {
            way,
            lanes,
            total,
            block,
        })
    }

    /// Moves all bytes, and returns their number.
    pub fn run(mut self) -> anyhow::Result<usize> {
        let (done, go) = (frame(BINARY, DONE).len(), masked(BINARY, b"go"));
        let (to_send, to_get) = match self.way {
            Way::Up => (self.total, done),
            Way::Down => (go.len(), self.total),
        };
        let go = Block(go);
        let sends = if self.way == Way::Up { &self.block } else { &go };
        let mut poller = Poller::new()?;
        for (token, lane) in self.lanes.iter().enumerate() {
            poller.add(&lane.stream, token)?;
        }
        let mut buffer = vec![0; 256 * 1024];
        let mut events = Vec::new();
        let mut open = self.lanes.len();
        while open > 0 {
            poller.wait(Some(PATIENCE), &mut events)?;
            anyhow::ensure!(!events.is_empty(), "nothing moves for {PATIENCE:?}");
            for event in &events {
                let lane = &mut self.lanes[event.token];
                if event.writable {
                    lane.send(sends, to_send)?;
                }
                if event.readable && lane.got < to_get {
                    lane.get(to_get, &mut buffer)?;
                    open -= usize::from(lane.got == to_get);
                }
            }
        }
        let moved = self.lanes.len() * self.total;
        for lane in self.lanes {
            reset(lane.stream);
        }
        // The proxy has to handle these resets before its CPU time is read.
        std::thread::sleep(Duration::from_millis(10));
        Ok(moved)
    }
}

impl Lane {
    fn send(&mut self, block: &Block, total: usize) -> io::Result<()> {
        while self.sent < total {
            match self.stream.write(block.rest(self.sent, total)) {
                Ok(n) => self.sent += n,
                Err(error) => return waits::<()>(error).map(|_| ()),
            }
        }
        Ok(())
    }

    fn get(&mut self, total: usize, buffer: &mut [u8]) -> anyhow::Result<()> {
        while self.got < total {
            let room = buffer.len().min(total - self.got);
            match swallow(&self.stream, &mut buffer[..room])? {
                None => break,
                Some(0) => anyhow::bail!("ended after {} of {total} bytes", self.got),
                Some(n) => self.got += n,
            }
        }
        Ok(())
    }
}

impl From<TcpStream> for Lane {
    fn from(stream: TcpStream) -> Self {
        Self {
            stream,
            sent: 0,
            got: 0,
        }
    }
}

/// A few equal frames. Any part of a long stream of such frames can be taken from them.
#[derive(Debug)]
pub struct Block(Vec<u8>);

impl Block {
    /// A block of messages of 64 KiB. `frame` makes a frame of a payload.
    pub fn new(frame: impl Fn(&[u8]) -> Vec<u8>) -> Self {
        Self(frame(&vec![b'b'; MESSAGE]).repeat(FRAMES))
    }

    /// The bytes that follow when `sent` bytes of `total` have been sent: as many as there are in one piece.
    pub fn rest(&self, sent: usize, total: usize) -> &[u8] {
        let at = sent % self.0.len();
        &self.0[at..self.0.len().min(at + total - sent)]
    }

    /// A length of at least `bytes` that ends at the end of a frame.
    fn whole_frames(&self, bytes: usize) -> usize {
        let frame = self.0.len() / FRAMES;
        bytes.div_ceil(frame) * frame
    }
}

const MESSAGE: usize = 64 * 1024;
const FRAMES: usize = 4;
const LANES: usize = 4;
