//! A client's socket, which sends raw bytes and records exactly what it receives.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockFilter, SockRef, Type};

use super::wait::PATIENCE;

/// How the other side ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// An orderly end.
    Fin,
    /// A reset.
    Reset,
}

/// A connection on which every read has a bound in time.
pub struct Socket {
    stream: TcpStream,
    ahead: Vec<u8>,
}

impl Socket {
    /// Connects from an address of this machine.
    pub fn connect(source: IpAddr, to: SocketAddr) -> Self {
        Self::connect_with(source, to, |_| {})
    }

    /// The same, with a function that prepares the socket before it connects.
    pub fn connect_with(source: IpAddr, to: SocketAddr, prepare: impl Fn(&socket2::Socket)) -> Self {
        let socket = socket2::Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
        // The usual source is not bound: then each destination has all local ports.
        if to.is_ipv4() && source != Ipv4Addr::LOCALHOST {
            socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
        }
        prepare(&socket);
        socket.connect(&to.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true).unwrap();
        Self::from(stream)
    }

    /// The stream itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Its own address.
    pub fn local(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    /// Writes all of it. It is not an error if the peer is gone; what was received shows that.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Ends our direction.
    pub fn fin(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// From now on nothing that the other side sends arrives or is acknowledged, as if the cable were pulled.
    pub fn vanish(&self) {
        const BPF_RET_K: u16 = 0x06;
        SockRef::from(&self.stream)
            .attach_filter(&[SockFilter::new(BPF_RET_K, 0, 0, 0)])
            .unwrap();
    }

    /// Plugs the cable in again: what the other side sends again arrives.
    pub fn come_back(&self) {
        SockRef::from(&self.stream).detach_filter().unwrap();
    }

    /// Reads exactly this many bytes.
    pub fn read_exactly(&mut self, len: usize) -> Vec<u8> {
        while self.ahead.len() < len {
            if let Some(end) = self.read_more() {
                panic!(
                    "{end:?} after {} of {len} bytes: {:?}",
                    self.ahead.len(),
                    printable(&self.ahead)
                );
            }
        }
        let rest = self.ahead.split_off(len);
        std::mem::replace(&mut self.ahead, rest)
    }

    /// Reads a head with its blank line, or the bytes before the end if that comes first.
    pub fn read_head(&mut self) -> Vec<u8> {
        loop {
            if let Some(at) = self.ahead.windows(4).position(|four| four == b"\r\n\r\n") {
                return self.ahead.drain(..at + 4).collect();
            }
            if self.read_more().is_some() {
                return std::mem::take(&mut self.ahead);
            }
        }
    }

    /// Reads one frame of a server: its first byte and its payload.
    pub fn read_frame(&mut self) -> (u8, Vec<u8>) {
        let head = self.read_exactly(2);
        let len = match head[1] {
            126 => u64::from(u16::from_be_bytes(self.read_exactly(2).try_into().unwrap())),
            127 => u64::from_be_bytes(self.read_exactly(8).try_into().unwrap()),
            short => u64::from(short),
        };
        (head[0], self.read_exactly(usize::try_from(len).unwrap()))
    }

    /// Reads everything up to the end, and returns which end it was.
    pub fn read_to_end(&mut self) -> (Vec<u8>, End) {
        loop {
            if let Some(end) = self.read_more() {
                return (std::mem::take(&mut self.ahead), end);
            }
        }
    }

    /// Reads an answer up to the end of the connection.
    pub fn answer(&mut self) -> Answer {
        self.answer_after(Vec::new())
    }

    /// The same, if its beginning was read already.
    pub fn answer_after(&mut self, mut bytes: Vec<u8>) -> Answer {
        let (rest, end) = self.read_to_end();
        bytes.extend(rest);
        Answer { bytes, end }
    }

    /// Whether nothing has been received so far, not even an end.
    pub fn is_silent(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let heard = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        self.ahead.is_empty() && heard.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    fn read_more(&mut self) -> Option<End> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => Some(End::Fin),
            Ok(n) => {
                self.ahead.extend(&buffer[..n]);
                None
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Some(End::Reset),
            Err(error) => panic!("{error}, after {:?}", printable(&self.ahead)),
        }
    }
}

/// Reads without keeping the bytes, for large transfers.
impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ahead.is_empty() {
            return self.stream.read(buffer);
        }
        let len = buffer.len().min(self.ahead.len());
        buffer[..len].copy_from_slice(&self.ahead[..len]);
        self.ahead.drain(..len);
        Ok(len)
    }
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(2 * PATIENCE)).unwrap();
        Self {
            stream,
            ahead: Vec::new(),
        }
    }
}

/// All that a client received, from the first byte to the end.
pub struct Answer {
    /// All bytes.
    pub bytes: Vec<u8>,
    /// The end after them.
    pub end: End,
}

impl Answer {
    /// The status; 0 if there was none.
    pub fn status(&self) -> u16 {
        let digits = self.bytes.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
        digits
            .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
            .unwrap_or(0)
    }

    /// The same, for an answer in HTTP/1.1 or HTTP/1.0.
    pub fn status_of_any_version(&self) -> u16 {
        let text = String::from_utf8_lossy(&self.bytes);
        let line = text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
        line.and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }

    /// The bytes after the head.
    pub fn body(&self) -> &[u8] {
        &self.bytes[self.head_len()..]
    }

    /// The bytes after the head, as text.
    pub fn body_text(&self) -> String {
        String::from_utf8_lossy(self.body()).into_owned()
    }

    /// Every value of a header.
    pub fn values(&self, name: &str) -> Vec<String> {
        header_values(&self.bytes[..self.head_len()], name)
    }

    /// Asserts that this is exactly the guard's refusal, to the byte, and that the connection had an orderly end. Only
    /// Retry-After may vary, from 5 to 10, if the status calls for it.
    pub fn assert_refusal(&self, status: &str, reason: &str, text: &str) {
        let mut extra = String::new();
        if status.starts_with("429") || status.starts_with("503") {
            let seconds = self.retry_after();
            assert!((5..=10).contains(&seconds), "Retry-After {seconds}");
            extra = format!("Retry-After: {seconds}\r\n");
        }
        let whole = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: {}\r\n{extra}\
             X-Wsguard-Reason: {reason}\r\n\r\n{text}\r\n",
            text.len() + 2
        );
        assert_eq!(printable(&self.bytes), printable(whole.as_bytes()));
        assert_eq!(self.end, End::Fin);
    }

    /// The seconds of Retry-After.
    pub fn retry_after(&self) -> u32 {
        let values = self.values("Retry-After");
        assert_eq!(values.len(), 1, "one Retry-After in {self}");
        values[0].parse().expect("seconds")
    }

    fn head_len(&self) -> usize {
        self.bytes
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .map_or(self.bytes.len(), |at| at + 4)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} then {:?}", printable(&self.bytes), self.end)
    }
}

/// Every value of a header in a head, in order.
pub fn header_values(head: &[u8], name: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(head);
    let lines = text.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    lines
        .filter(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim().to_owned())
        .collect()
}

fn printable(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| std::ascii::escape_default(*byte))
        .map(char::from)
        .collect()
}
