//! The bare relay, which costs the least. It moves bytes both ways, does not parse them, and limits nothing. It has one
//! thread and one shared buffer, and registers each descriptor once. A program that parses, counts or guards can only
//! cost more.

use std::io::{self, Read, Write};
use std::mem;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use socket2::{Domain, Socket, Type};

use crate::poller::{Event, Poller};
use crate::socket::{accept, listen, waits};

/// Relays until the process is killed.
pub fn serve(front: SocketAddr, to: SocketAddr) -> io::Result<()> {
    let listener = listen(front)?;
    let mut poller = Poller::new()?;
    poller.add_listener(&listener, LISTENER)?;
    let mut pairs = Pairs::default();
    let mut buffer = vec![0; 64 * 1024];
    let mut events = Vec::new();
    loop {
        poller.wait(None, &mut events)?;
        for event in &events {
            if event.token == LISTENER {
                pairs.welcome(&listener, to, &poller)?;
            } else {
                pairs.step(*event, &mut buffer);
            }
        }
    }
}

/// All open connections. The two sockets of a pair have the tokens 2 i and 2 i + 1.
#[derive(Default)]
struct Pairs {
    open: Vec<Option<Box<Pair>>>,
    free: Vec<usize>,
}

impl Pairs {
    fn welcome(&mut self, listener: &TcpListener, to: SocketAddr, poller: &Poller) -> io::Result<()> {
        while let Some(client) = accept(listener)? {
            client.set_nodelay(true)?;
            let server = begin_to_connect(to)?;
            let place = self.free.pop().unwrap_or_else(|| {
                self.open.push(None);
                self.open.len() - 1
            });
            poller.add(&client, place * 2)?;
            poller.add(&server, place * 2 + 1)?;
            self.open[place] = Some(Box::new(Pair([End::from(client), End::from(server)])));
        }
        Ok(())
    }

    fn step(&mut self, event: Event, buffer: &mut [u8]) {
        let place = event.token / 2;
        // The token may be of a pair that has ended in the meantime. The event then does no harm to the pair that has
        // the token now.
        let Some(pair) = &mut self.open[place] else { return };
        if !matches!(pair.step(event, buffer), Ok(true)) {
            self.open[place] = None;
            self.free.push(place);
        }
    }
}

struct Pair([End; 2]);

struct End {
    stream: TcpStream,
    /// The bytes that the socket did not take at once. While there are any, the other end is not read.
    unsent: Vec<u8>,
    /// The peer has sent its last byte.
    has_ended: bool,
}

impl Pair {
    /// Handles an event. Returns false if the pair is over.
    fn step(&mut self, event: Event, buffer: &mut [u8]) -> io::Result<bool> {
        let side = event.token % 2;
        if event.writable && !self.0[side].unsent.is_empty() && self.flush(side)? {
            // The other end was not read in the meantime, and its bytes have been reported already.
            self.pump(1 - side, true, buffer)?;
        }
        if event.readable {
            self.pump(side, event.ended, buffer)?;
        }
        Ok(self.0.iter().any(|end| !end.has_ended || !end.unsent.is_empty()))
    }

    /// Writes the unsent bytes. Returns true if the socket has taken all of them.
    fn flush(&mut self, side: usize) -> io::Result<bool> {
        let end = &mut self.0[side];
        let sent = write_now(&mut end.stream, &end.unsent)?;
        if sent < end.unsent.len() {
            end.unsent.drain(..sent);
            return Ok(false);
        }
        mem::take(&mut end.unsent);
        Ok(true)
    }

    fn pump(&mut self, from: usize, to_the_end: bool, buffer: &mut [u8]) -> io::Result<()> {
        let [client, server] = &mut self.0;
        let (from, to) = if from == 0 { (client, server) } else { (server, client) };
        while to.unsent.is_empty() && !from.has_ended {
            let n = match from.stream.read(buffer) {
                Ok(0) => {
                    from.has_ended = true;
                    return to.stream.shutdown(Shutdown::Write);
                }
                Ok(n) => n,
                Err(error) => return waits::<()>(error).map(|_| ()),
            };
            let sent = write_now(&mut to.stream, &buffer[..n])?;
            if sent < n {
                to.unsent = buffer[sent..n].to_vec();
            }
            // The next bytes will be reported again. That saves a read that finds nothing.
            if n < buffer.len() && !to_the_end {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl From<TcpStream> for End {
    fn from(stream: TcpStream) -> Self {
        Self {
            stream,
            unsent: Vec::new(),
            has_ended: false,
        }
    }
}

fn begin_to_connect(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(socket.into()),
    }
}

fn write_now(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match stream.write(bytes) {
        Ok(n) => Ok(n),
        Err(error) => Ok(waits(error)?.unwrap_or(0)),
    }
}

const LISTENER: usize = usize::MAX;
