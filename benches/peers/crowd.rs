//! Many open connections. They come from many addresses, so that each address stays under every limit.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::frames::{BINARY, frame, masked};
use crate::poller::Poller;
use crate::request::{head_size, status, upgrade};
use crate::socket::{address, connect, read_now, waits};

/// Many open connections.
pub struct Crowd {
    members: Vec<Member>,
    poller: Poller,
}

#[derive(Debug)]
struct Member {
    stream: TcpStream,
    sent: usize,
    got: usize,
    /// It waits for the rest of an echo.
    waits: bool,
}

impl Crowd {
    /// Opens `count` connections whose messages are echoed.
    pub fn open(to: SocketAddr, count: usize) -> anyhow::Result<Self> {
        let mut crowd = Self {
            members: Vec::new(),
            poller: Poller::new()?,
        };
        crowd.grow(to, count)?;
        Ok(crowd)
    }

    /// Opens more connections, until there are `count`.
    pub fn grow(&mut self, to: SocketAddr, count: usize) -> anyhow::Result<()> {
        for stream in open(to, self.members.len()..count, "/echo", resident)? {
            stream.set_nonblocking(true)?;
            self.poller.add(&stream, self.members.len())?;
            self.members.push(Member {
                stream,
                sent: 0,
                got: 0,
                waits: false,
            });
        }
        Ok(())
    }

    /// The first `count` connections send a message, wait for its echo, send the next one, and so on until `lasts` has
    /// passed; each sends at least one. Returns the number of echoes when all have come.
    pub fn echo(&mut self, count: usize, size: usize, lasts: Duration) -> anyhow::Result<u64> {
        self.turn(0..count, &Message::new(size), lasts)
    }

    /// Each connection sends one message, a few connections at a time.
    pub fn one_each(&mut self, size: usize) -> anyhow::Result<()> {
        let message = Message::new(size);
        for begin in (0..self.members.len()).step_by(AT_ONCE) {
            let end = self.members.len().min(begin + AT_ONCE);
            self.turn(begin..end, &message, Duration::ZERO)?;
        }
        Ok(())
    }

    fn turn(&mut self, who: Range<usize>, message: &Message, lasts: Duration) -> anyhow::Result<u64> {
        let begin = Instant::now();
        let (mut waiting, mut echoes, mut goes_on) = (who.len(), 0, !lasts.is_zero());
        let mut buffer = vec![0; 128 * 1024];
        let mut events = Vec::new();
        for member in &mut self.members[who] {
            member.begins(message)?;
        }
        while waiting > 0 {
            self.poller.wait(Some(PATIENCE), &mut events)?;
            ensure!(!events.is_empty(), "{waiting} echoes are missing after {PATIENCE:?}");
            goes_on &= begin.elapsed() < lasts;
            for event in &events {
                let member = &mut self.members[event.token];
                if event.writable {
                    member.sends(message)?;
                }
                if event.readable && member.hears(message, &mut buffer, event.ended)? {
                    echoes += 1;
                    if goes_on {
                        member.begins(message)?;
                    } else {
                        waiting -= 1;
                    }
                }
            }
        }
        Ok(echoes)
    }
}

impl Member {
    fn begins(&mut self, message: &Message) -> anyhow::Result<()> {
        (self.sent, self.got, self.waits) = (0, 0, true);
        self.sends(message)
    }

    fn sends(&mut self, message: &Message) -> anyhow::Result<()> {
        while self.waits && self.sent < message.asked.len() {
            match self.stream.write(&message.asked[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(error) => return Ok(waits::<()>(error).map(|_| ())?),
            }
        }
        Ok(())
    }

    /// Reads what has come. Returns true when the echo is complete.
    fn hears(&mut self, message: &Message, buffer: &mut [u8], to_the_end: bool) -> anyhow::Result<bool> {
        let answer = &message.answer;
        loop {
            let Some(n) = read_now(&self.stream, buffer)? else {
                return Ok(false);
            };
            ensure!(n > 0, "a connection ended");
            ensure!(
                self.waits && answer.get(self.got..self.got + n) == Some(&buffer[..n]),
                "bytes came back that were never sent: {:02x?}",
                &buffer[..n.min(16)]
            );
            self.got += n;
            if self.got == answer.len() {
                self.waits = false;
                return Ok(true);
            }
            if n < buffer.len() && !to_the_end {
                return Ok(false);
            }
        }
    }
}

/// A message, and its echo.
#[derive(Debug)]
pub struct Message {
    pub asked: Vec<u8>,
    pub answer: Vec<u8>,
}

impl Message {
    /// A message with a payload of this many bytes.
    pub fn new(size: usize) -> Self {
        let payload = vec![b'a'; size];
        Self {
            asked: masked(BINARY, &payload),
            answer: frame(BINARY, &payload),
        }
    }
}

/// Opens a connection for each of `numbers`, from the address that `who` returns for the number. The sockets are
/// blocking.
pub fn open(
    to: SocketAddr,
    numbers: Range<usize>,
    target: &str,
    who: fn(usize) -> Ipv4Addr,
) -> anyhow::Result<Vec<TcpStream>> {
    let numbers: Vec<usize> = numbers.collect();
    let mut streams = Vec::with_capacity(numbers.len());
    // One by one, each connection would take a switch of processes. All at once would not fit into a listener's queue.
    for some in numbers.chunks(AT_ONCE) {
        let begin = streams.len();
        for nth in some {
            let mut stream = connect(who(*nth), to).context("connecting")?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(&upgrade(target))?;
            streams.push(stream);
        }
        for stream in &mut streams[begin..] {
            opened(stream)?;
        }
    }
    Ok(streams)
}

/// The address of the `nth` connection that stays. Few connections come from each address.
pub fn resident(nth: usize) -> Ipv4Addr {
    address(NET, nth / TO_AN_ADDRESS)
}

/// Waits for the 101. No bytes may follow it.
pub fn opened(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut bytes = [0; 2048];
    let mut has = 0;
    loop {
        match stream.read(&mut bytes[has..]).context("waiting for a 101")? {
            0 => bail!("ended instead of a 101"),
            n => has += n,
        }
        match (head_size(&bytes[..has]), status(&bytes[..has])) {
            (None, _) => {}
            (Some(size), Some(101)) if size == has => return Ok(()),
            (_, status) => bail!("answered {status:?} instead of 101"),
        }
    }
}

/// Nothing that works takes longer than this.
pub const PATIENCE: Duration = Duration::from_secs(10);
const AT_ONCE: usize = 50;
const TO_AN_ADDRESS: usize = 20;
const NET: u8 = 50;
