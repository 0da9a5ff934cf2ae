//! Servers behind the guard. Each connection runs a script, and every byte of it is recorded.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use socket2::{Domain, SockFilter, SockRef, Type};

use super::frames::{first_masked, frame};
use super::request::accept_for;
use super::socket::{End, header_values};
use super::wait::{PATIENCE, until};

/// A server on its own port. Each of its connections runs the same script.
pub struct Backend {
    address: SocketAddr,
    book: Arc<Book>,
}

#[derive(Default)]
struct Book {
    visits: Mutex<Vec<Arc<Visit>>>,
    fences: Mutex<HashSet<u16>>,
}

/// The record of one connection from the guard.
#[derive(Default)]
pub struct Visit {
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    bytes: Vec<u8>,
    end: Option<End>,
}

/// One connection, as its script uses it.
pub struct Guest {
    /// The stream itself, for anything that has no method here.
    pub stream: TcpStream,
    visit: Arc<Visit>,
    place: usize,
}

impl Backend {
    /// A server that runs this script for each connection, and closes the connection when the script ends.
    pub fn start(script: impl Fn(&mut Guest) + Send + Sync + 'static) -> Self {
        Self::start_on(ANY_PORT, script)
    }

    /// The same, at this address.
    pub fn start_on(address: SocketAddr, script: impl Fn(&mut Guest) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let (address, book) = (listener.local_addr().unwrap(), Arc::new(Book::default()));
        let (shared, script) = (Arc::clone(&book), Arc::new(script));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                let Ok(peer) = stream.peer_addr() else { continue };
                if peer.ip() == FENCE {
                    shared.fences.lock().unwrap().insert(peer.port());
                    continue;
                }
                let visit = Arc::new(Visit::default());
                let mut visits = shared.visits.lock().unwrap();
                let place = visits.len();
                visits.push(Arc::clone(&visit));
                let script = Arc::clone(&script);
                thread::spawn(move || script(&mut Guest { stream, visit, place }));
            }
        });
        Self { address, book }
    }

    /// A server that accepts every WebSocket and sends each byte back.
    pub fn echo() -> Self {
        Self::start(|guest| {
            guest.open();
            guest.echo();
        })
    }

    /// A server that accepts every WebSocket and answers each frame with the same payload, and a close with a close.
    pub fn echo_frames() -> Self {
        Self::start(|guest| {
            guest.open();
            guest.echo_frames();
        })
    }

    /// A server that accepts every WebSocket and only reads.
    pub fn listening() -> Self {
        Self::start(|guest| {
            guest.open();
            guest.read_to_end();
        })
    }

    /// A server that answers every request with these bytes, and then only reads.
    pub fn answering(reply: impl AsRef<[u8]>) -> Self {
        let reply = reply.as_ref().to_vec();
        Self::start(move |guest| {
            guest.read_head();
            guest.send(&reply);
            guest.read_to_end();
        })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often it was dialled so far. This is exact: it waits until a connection of our own, which comes after all of
    /// those, is accepted.
    pub fn dials(&self) -> usize {
        let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(FENCE, 0).into()).unwrap();
        socket.connect(&self.address.into()).unwrap();
        let port = TcpStream::from(socket).local_addr().unwrap().port();
        until("the fence is accepted", || {
            self.book.fences.lock().unwrap().remove(&port).then_some(())
        });
        self.book.visits.lock().unwrap().len()
    }

    /// Waits for its n-th connection, counted from 0.
    pub fn visit(&self, n: usize) -> Arc<Visit> {
        until(&format!("connection {n} at the server"), || {
            self.book.visits.lock().unwrap().get(n).cloned()
        })
    }

    /// The request head of the newest connection.
    pub fn last_head(&self) -> Vec<u8> {
        let dials = self.dials();
        assert!(dials > 0, "never dialled");
        self.visit(dials - 1).head()
    }
}

impl Visit {
    /// Waits for the complete request head, with its blank line.
    pub fn head(&self) -> Vec<u8> {
        until("a whole head at the server", || {
            let seen = self.seen.lock().unwrap();
            head_len(&seen.bytes).map(|len| seen.bytes[..len].to_vec())
        })
    }

    /// Every value of a header in its head.
    pub fn header(&self, name: &str) -> Vec<String> {
        header_values(&self.head(), name)
    }

    /// All bytes received so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.seen.lock().unwrap().bytes.clone()
    }

    /// The bytes received after the head so far.
    pub fn tail(&self) -> Vec<u8> {
        let bytes = self.bytes();
        head_len(&bytes).map_or_else(Vec::new, |len| bytes[len..].to_vec())
    }

    /// Waits until this many bytes have come after the head.
    pub fn tail_of(&self, len: usize) -> Vec<u8> {
        until(&format!("{len} bytes behind the head"), || {
            let seen = self.seen.lock().unwrap();
            let begins = head_len(&seen.bytes)?;
            (seen.bytes.len() - begins >= len).then(|| seen.bytes[begins..].to_vec())
        })
    }

    /// How the guard ended it, if it has.
    pub fn end(&self) -> Option<End> {
        self.seen.lock().unwrap().end
    }

    /// Waits until the guard ended it.
    pub fn ended(&self) -> End {
        until("the guard ends the connection to the server", || self.end())
    }
}

impl Guest {
    /// The number of this connection, counted from 0.
    pub fn place(&self) -> usize {
        self.place
    }

    /// Reads up to the blank line. Bytes that come after it are recorded too.
    pub fn read_head(&mut self) -> Vec<u8> {
        loop {
            let bytes = self.visit.bytes();
            if let Some(len) = head_len(&bytes) {
                return bytes[..len].to_vec();
            }
            if self.read().is_none() {
                return bytes;
            }
        }
    }

    /// The 101 that answers this request.
    pub fn switching(&mut self) -> Vec<u8> {
        let head = self.read_head();
        let key = header_values(&head, "Sec-WebSocket-Key").concat();
        let accept = accept_for(key);
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        )
        .into_bytes()
    }

    /// Reads the head and accepts the WebSocket.
    pub fn open(&mut self) {
        let reply = self.switching();
        self.send(&reply);
    }

    /// Sends these bytes. It is not an error if the guard is gone.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The same; returns whether the guard was still there.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Reads once and records the bytes. An empty read is the end.
    pub fn read(&mut self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 64 * 1024];
        let end = match self.stream.read(&mut buffer) {
            Ok(0) => End::Fin,
            Ok(n) => {
                buffer.truncate(n);
                self.visit.seen.lock().unwrap().bytes.extend(&buffer);
                return Some(buffer);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => return Some(Vec::new()),
            Err(_) => End::Reset,
        };
        self.visit.seen.lock().unwrap().end = Some(end);
        None
    }

    /// Reads and records everything until the guard ends.
    pub fn read_to_end(&mut self) {
        while self.read().is_some() {}
    }

    /// Sends every byte back, then the end.
    pub fn echo(&mut self) {
        self.send(&self.visit.tail());
        while let Some(bytes) = self.read() {
            self.send(&bytes);
        }
        self.fin();
    }

    /// Answers each frame with one of the same opcode and payload, and ends after a close.
    pub fn echo_frames(&mut self) {
        let mut waiting = self.visit.tail();
        loop {
            while let Some((used, opcode, payload)) = first_masked(&waiting) {
                self.send(&frame(opcode, &payload));
                waiting.drain(..used);
                if opcode == 8 {
                    self.fin();
                    return self.read_to_end();
                }
            }
            let Some(bytes) = self.read() else { return };
            waiting.extend(bytes);
        }
    }

    /// Ends our direction.
    pub fn fin(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Makes the connection end with a reset.
    pub fn reset(&mut self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// From now on nothing from the guard arrives or is acknowledged, as if this machine were gone.
    pub fn vanish(&mut self) {
        const BPF_RET_K: u16 = 0x06;
        SockRef::from(&self.stream)
            .attach_filter(&[SockFilter::new(BPF_RET_K, 0, 0, 0)])
            .unwrap();
    }
}

/// A gate at which scripts wait until a test opens it.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Opens it for all scripts, now and later.
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Waits until it is open. It gives up after a while, in case the test ended early.
    pub fn wait(&self) {
        let open = self.0.0.lock().unwrap();
        drop(self.0.1.wait_timeout_while(open, 12 * PATIENCE, |open| !*open).unwrap());
    }
}

/// An address where a dial is neither accepted nor refused, because its accept queue is full. It stays so as long as
/// the sockets live.
pub fn full_queue() -> (SocketAddr, Vec<socket2::Socket>) {
    let listener = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&ANY_PORT.into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut held = vec![listener];
    for _ in 0..4 {
        let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.connect(&address.into());
        held.push(socket);
    }
    (address, held)
}

fn head_len(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const FENCE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 255, 255, 253));
