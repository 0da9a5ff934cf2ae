//! Clients that connect, get their answer, and leave.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::contender::LIMIT;
use crate::crowd::{PATIENCE, open};
use crate::frames::{CLOSE, frame, masked};
use crate::poller::{Event, Poller};
use crate::request::{head_size, header, status, upgrade};
use crate::socket::{address, connect, read_now};

/// The answer that the clients get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 101, then a close frame and a FIN from each side.
    Upgrade,
    /// 429.
    Refusal,
}

/// A state machine that makes these connections.
pub struct Storm {
    kind: Kind,
    to: SocketAddr,
    request: Vec<u8>,
    close: Vec<u8>,
    closed: Vec<u8>,
    poller: Poller,
    events: Vec<Event>,
    visits: Vec<Option<Visit>>,
    free: Vec<usize>,
    /// The number of connections that have begun.
    begun: usize,
    done: u64,
}

#[derive(Debug)]
struct Visit {
    stream: TcpStream,
    heard: Vec<u8>,
    says_goodbye: bool,
}

impl Storm {
    /// A storm that goes to this address.
    pub fn new(kind: Kind, to: SocketAddr, target: &str) -> anyhow::Result<Self> {
        Ok(Self {
            kind,
            to,
            request: upgrade(target),
            close: masked(CLOSE, &1000_u16.to_be_bytes()),
            closed: frame(CLOSE, &1000_u16.to_be_bytes()),
            poller: Poller::new()?,
            events: Vec::new(),
            visits: Vec::new(),
            free: Vec::new(),
            begun: 0,
            done: 0,
        })
    }

    /// Keeps a few connections open at once until `lasts` has passed. Returns how many got their answer.
    pub fn run(&mut self, lasts: Duration) -> anyhow::Result<u64> {
        let (begin, before) = (Instant::now(), self.done);
        for _ in 0..AT_ONCE {
            self.begin()?;
        }
        while self.is_busy() {
            let ended = self.turn(PATIENCE)?;
            ensure!(!self.events.is_empty(), "no answer for {PATIENCE:?}");
            if begin.elapsed() < lasts {
                for _ in 0..ended {
                    self.begin()?;
                }
            }
        }
        Ok(self.done - before)
    }

    /// Begins `a_second` connections a second, whatever becomes of them, until `ends` is set. Returns how many got
    /// their answer.
    pub fn run_paced(&mut self, a_second: u32, ends: &AtomicBool) -> anyhow::Result<u64> {
        let begin = Instant::now();
        let mut due = 0;
        while !ends.load(Relaxed) {
            // The number of open connections is bounded, so that a proxy that stops for a while does not get all of
            // them at once.
            let now = (begin.elapsed().as_secs_f64() * f64::from(a_second)).round();
            while f64::from(due) < now {
                due += 1;
                if self.visits.len() - self.free.len() < OPEN_AT_MOST {
                    self.begin()?;
                }
            }
            self.turn(Duration::from_millis(1))?;
        }
        Ok(self.done)
    }

    fn begin(&mut self) -> anyhow::Result<()> {
        let from = self.kind.address(self.begun);
        self.begun += 1;
        let mut stream = connect(from, self.to).context("connecting")?;
        stream.write_all(&self.request)?;
        let place = self.free.pop().unwrap_or_else(|| {
            self.visits.push(None);
            self.visits.len() - 1
        });
        self.poller.add(&stream, place)?;
        self.visits[place] = Some(Visit {
            stream,
            heard: Vec::new(),
            says_goodbye: false,
        });
        Ok(())
    }

    fn is_busy(&self) -> bool {
        self.visits.len() > self.free.len()
    }

    /// Handles the events that have come. Returns how many connections are done.
    fn turn(&mut self, patience: Duration) -> anyhow::Result<usize> {
        let mut ended = 0;
        self.poller.wait(Some(patience), &mut self.events)?;
        for event in &self.events {
            let Some(visit) = &mut self.visits[event.token] else {
                continue;
            };
            let is_done = match self.kind {
                _ if !event.readable => false,
                Kind::Refusal => visit.is_refused(event.ended)?,
                Kind::Upgrade => visit.is_through(event.ended, &self.close, &self.closed)?,
            };
            if is_done {
                self.visits[event.token] = None;
                self.free.push(event.token);
                ended += 1;
            }
        }
        self.done += ended as u64;
        Ok(ended)
    }
}

impl Visit {
    fn is_through(&mut self, to_the_end: bool, close: &[u8], closed: &[u8]) -> anyhow::Result<bool> {
        let mut bytes = [0; 4096];
        loop {
            match read_now(&self.stream, &mut bytes)? {
                None => return Ok(false),
                Some(0) => {
                    ensure!(self.says_goodbye && self.heard == closed, "ended too early");
                    return Ok(true);
                }
                Some(n) => self.heard.extend(&bytes[..n]),
            }
            if !self.says_goodbye
                && let Some(size) = head_size(&self.heard)
            {
                ensure!(
                    status(&self.heard) == Some(101),
                    "answered {:?} instead of 101",
                    status(&self.heard)
                );
                self.heard.drain(..size);
                self.says_goodbye = true;
                self.stream.write_all(close)?;
            }
            if !to_the_end {
                return Ok(false);
            }
        }
    }

    /// Whether the client has its refusal. If the proxy keeps the connection open, the client ends it.
    fn is_refused(&mut self, to_the_end: bool) -> anyhow::Result<bool> {
        let mut bytes = [0; 4096];
        loop {
            let has_ended = match read_now(&self.stream, &mut bytes)? {
                None => return Ok(false),
                Some(0) => true,
                Some(n) => {
                    self.heard.extend(&bytes[..n]);
                    false
                }
            };
            let Some(size) = head_size(&self.heard) else {
                ensure!(!has_ended, "ended without an answer");
                continue;
            };
            let head = String::from_utf8_lossy(&self.heard[..size]);
            if status(&self.heard) != Some(429) {
                bail!("answered {:?} instead of 429", status(&self.heard));
            }
            let body: usize = header(&head, "content-length").map_or(Ok(0), str::parse)?;
            let is_last = header(&head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
            if has_ended || (!is_last && self.heard.len() >= size + body) {
                return Ok(true);
            }
            if !to_the_end {
                return Ok(false);
            }
        }
    }
}

impl Kind {
    /// The address of the `nth` client. Admitted clients have many addresses, so that each comes seldom. Refused
    /// clients have few.
    fn address(self, nth: usize) -> Ipv4Addr {
        match self {
            Self::Upgrade => address(NET, nth % VISITORS),
            Self::Refusal => offender(nth),
        }
    }
}

/// Opens all the connections that the addresses of the refused clients may have.
pub fn occupy(to: SocketAddr) -> anyhow::Result<Vec<TcpStream>> {
    open(to, 0..OFFENDERS * LIMIT, "/echo", offender)
}

fn offender(nth: usize) -> Ipv4Addr {
    address(OFFENDERS_NET, nth % OFFENDERS)
}

/// How many addresses refused clients come from.
const OFFENDERS: usize = 8;
const AT_ONCE: usize = 64;
const OPEN_AT_MOST: usize = 500;
const VISITORS: usize = 4096;
const NET: u8 = 51;
const OFFENDERS_NET: u8 = 52;
