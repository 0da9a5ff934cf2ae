//! The server behind a proxy, in a process of its own. The target of a request says what happens on the connection:
//! `/echo` echoes every message, `/up/N` takes N bytes and then sends [`DONE`], `/down/N` sends N bytes after the
//! client has sent something, and `/refuse` is answered 429.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use crate::bulk::Block;
use crate::frames::{BINARY, CLOSE, frame};
use crate::poller::{Event, Poller};
use crate::request::{ACCEPT, head_size};
use crate::scan::{Frame, Scan};
use crate::socket::{accept, listen, read_now, swallow, waits};

/// Serves until the process is killed.
pub fn serve(address: SocketAddr) -> io::Result<()> {
    let listener = listen(address)?;
    let mut poller = Poller::new()?;
    poller.add_listener(&listener, LISTENER)?;
    let mut kit = Kit {
        buffer: vec![0; 256 * 1024],
        answers: HashMap::new(),
        block: Block::new(|payload| frame(BINARY, payload)),
    };
    let mut talks: Vec<Option<Talk>> = Vec::new();
    let mut free = Vec::new();
    let mut events = Vec::new();
    loop {
        poller.wait(None, &mut events)?;
        for event in &events {
            if event.token == LISTENER {
                while let Some(stream) = accept(&listener)? {
                    stream.set_nodelay(true)?;
                    let place = free.pop().unwrap_or(talks.len());
                    poller.add(&stream, place)?;
                    let talk = Some(Talk::new(stream));
                    if place == talks.len() {
                        talks.push(talk);
                    } else {
                        talks[place] = talk;
                    }
                }
            } else if let Some(talk) = &mut talks[event.token]
                && !matches!(talk.step(*event, &mut kit), Ok(true))
            {
                talks[event.token] = None;
                free.push(event.token);
            }
        }
    }
}

/// The buffers that all connections share.
struct Kit {
    buffer: Vec<u8>,
    /// Answers by the size of their payload.
    answers: HashMap<u64, Vec<u8>>,
    block: Block,
}

struct Talk {
    stream: TcpStream,
    stage: Stage,
    unsent: Vec<u8>,
}

enum Stage {
    Head(Vec<u8>),
    Echo(Scan),
    Up {
        left: usize,
    },
    Down {
        total: usize,
        sent: usize,
        asked: bool,
    },
    /// Our FIN has been sent.
    Ended,
}

impl Talk {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            stage: Stage::Head(Vec::new()),
            unsent: Vec::new(),
        }
    }

    /// Handles an event. Returns false if the connection is over.
    fn step(&mut self, event: Event, kit: &mut Kit) -> io::Result<bool> {
        if event.writable {
            self.flush()?;
            self.produce(kit)?;
        }
        if !event.readable {
            return Ok(true);
        }
        loop {
            let room = kit.buffer.len();
            let n = match &mut self.stage {
                Stage::Up { left } => {
                    let room = room.min(*left);
                    let n = swallow(&self.stream, &mut kit.buffer[..room])?;
                    *left -= n.unwrap_or(0);
                    n
                }
                _ => read_now(&self.stream, &mut kit.buffer)?,
            };
            match n {
                None => return Ok(true),
                Some(0) => return Ok(false),
                Some(n) => {
                    self.take(n, kit)?;
                    if n < room && !event.ended && !matches!(self.stage, Stage::Up { .. }) {
                        return Ok(true);
                    }
                }
            }
        }
    }

    fn take(&mut self, n: usize, kit: &mut Kit) -> io::Result<()> {
        match &mut self.stage {
            Stage::Head(head) => {
                head.extend(&kit.buffer[..n]);
                self.answer()
            }
            Stage::Echo(scan) => {
                let mut used = 0;
                let mut frames = Vec::new();
                while used < n {
                    let (frame, took) = scan.feed(&kit.buffer[used..n]);
                    used += took;
                    frames.extend(frame);
                }
                frames
                    .into_iter()
                    .try_for_each(|frame| self.repeat(frame, &mut kit.answers))
            }
            Stage::Up { left: 0 } => {
                self.stage = Stage::Echo(Scan::default());
                self.send(&frame(BINARY, DONE))
            }
            Stage::Down { asked, .. } => {
                *asked = true;
                self.produce(kit)
            }
            Stage::Up { .. } | Stage::Ended => Ok(()),
        }
    }

    fn answer(&mut self) -> io::Result<()> {
        let Stage::Head(head) = &self.stage else { return Ok(()) };
        if head_size(head).is_none() {
            return Ok(());
        }
        let head = String::from_utf8_lossy(head);
        let target = head.split(' ').nth(1).unwrap_or_default();
        let size = |prefix| target.strip_prefix(prefix).and_then(|size| size.parse().ok());
        self.stage = if target == "/refuse" {
            self.send(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
            self.stream.shutdown(Shutdown::Write)?;
            self.stage = Stage::Ended;
            return Ok(());
        } else if let Some(left) = size("/up/") {
            Stage::Up { left }
        } else if let Some(total) = size("/down/") {
            Stage::Down {
                total,
                sent: 0,
                asked: false,
            }
        } else {
            Stage::Echo(Scan::default())
        };
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
        );
        self.send(answer.as_bytes())
    }

    fn repeat(&mut self, message: Frame, answers: &mut HashMap<u64, Vec<u8>>) -> io::Result<()> {
        if message.opcode == CLOSE {
            self.send(&frame(CLOSE, &1000_u16.to_be_bytes()))?;
            self.stage = Stage::Ended;
            return self.stream.shutdown(Shutdown::Write);
        }
        let size = usize::try_from(message.size).map_err(io::Error::other)?;
        let answer = answers
            .entry(message.size)
            .or_insert_with(|| frame(BINARY, &vec![b'a'; size]));
        self.send(answer)
    }

    fn produce(&mut self, kit: &Kit) -> io::Result<()> {
        let Stage::Down {
            total,
            sent,
            asked: true,
        } = &mut self.stage
        else {
            return Ok(());
        };
        while *sent < *total {
            match write_now(&mut self.stream, kit.block.rest(*sent, *total))? {
                None => return Ok(()),
                Some(n) => *sent += n,
            }
        }
        self.stage = Stage::Echo(Scan::default());
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.unsent.is_empty() {
            let sent = write_now(&mut self.stream, bytes)?.unwrap_or(0);
            self.unsent.extend(&bytes[sent..]);
        } else {
            self.unsent.extend(bytes);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.unsent.is_empty() {
            let sent = write_now(&mut self.stream, &self.unsent)?.unwrap_or(0);
            self.unsent.drain(..sent);
        }
        Ok(())
    }
}

fn write_now(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<Option<usize>> {
    match stream.write(bytes) {
        Ok(n) => Ok(Some(n)),
        Err(error) => waits(error),
    }
}

/// The message that follows the bytes of `/up/N`. No other scenario uses a message of this size.
pub const DONE: &[u8] = b"done";
const LISTENER: usize = usize::MAX;
