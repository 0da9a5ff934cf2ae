//! The socket of one client, from its own address through the upgrade to the end.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::dice::Dice;
use crate::frames::{BINARY, CLOSE, frame, masked};

/// An open tunnel, between two messages.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
}

/// The outcome of an attempt to upgrade.
#[derive(Debug)]
pub enum Answer {
    /// A tunnel is open.
    Open(Client),
    /// The answer had a status other than 101.
    Refused(u16),
    /// The connection ended before the first byte.
    Cut(String),
    /// The address has no listener.
    Unreachable,
    /// No answer came in time.
    Late,
    /// The bytes that came are no answer.
    Odd(String),
}

/// Why a tunnel can't go on.
#[derive(Debug)]
pub enum Loss {
    /// The other side ended the connection in this way.
    Ended(String),
    /// The other side sent bytes that it should not have sent.
    Wrong(String),
    /// The other side sent no bytes although it had to.
    Late,
}

/// How a client leaves.
#[derive(Clone, Copy, Debug)]
pub enum Exit {
    /// By a close frame. It waits for the answer.
    Close,
    /// By a FIN. It waits for the FIN of the other side.
    Fin,
    /// By a reset.
    Reset,
}

/// Asks for a tunnel.
pub async fn upgrade(from: Ipv4Addr, to: SocketAddr, target: &str) -> Answer {
    let Ok(mut stream) = connect(from, to, None).await else {
        return Answer::Unreachable;
    };
    if stream.write_all(request(target).as_bytes()).await.is_err() {
        return Answer::Cut("while it wrote its request".to_owned());
    }
    answer(stream).await
}

/// Reads the answer to a request that was sent.
pub async fn answer(mut stream: TcpStream) -> Answer {
    let Ok(head) = timeout(PATIENCE, head(&mut stream)).await else {
        return Answer::Late;
    };
    let head = match head {
        Ok(head) => head,
        Err((error, head)) if head.is_empty() => return Answer::Cut(error.to_string()),
        Err((error, head)) => return Answer::Odd(format!("{error} after {:?}", String::from_utf8_lossy(&head))),
    };
    let status = head.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
    match status.and_then(|status| str::from_utf8(status).ok()?.parse().ok()) {
        Some(101) => Answer::Open(Client { stream }),
        Some(status) => Answer::Refused(status),
        None => Answer::Odd(String::from_utf8_lossy(&head).into_owned()),
    }
}

/// Connects from this address. `buffer` sets the size of the receive buffer.
pub async fn connect(from: Ipv4Addr, to: SocketAddr, buffer: Option<u32>) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    if let Some(size) = buffer {
        socket.set_recv_buffer_size(size)?;
    }
    let stream = timeout(PATIENCE, socket.connect(to)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The request of a browser.
pub fn request(target: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: soak.example.org\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// Reads a head byte by byte, because the bytes behind it must stay in the socket.
async fn head(stream: &mut TcpStream) -> Result<Vec<u8>, (io::Error, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) => return Err((error, head)),
        }
    }
    Ok(head)
}

impl Client {
    /// Sends a message and checks its echo byte for byte. A large message is read while it is written.
    pub async fn echo(&mut self, dice: &mut Dice, size: usize) -> Result<(), Loss> {
        let payload = dice.bytes(size);
        let (sent, expected) = (masked(BINARY, &payload), frame(BINARY, &payload));
        let in_two = dice.one_in(8);
        let (mut read, mut write) = self.stream.split();
        let writing = async {
            if in_two {
                write.write_all(&sent[..sent.len() / 2]).await?;
                sleep(Duration::from_millis(20)).await;
                write.write_all(&sent[sent.len() / 2..]).await
            } else {
                write.write_all(&sent).await
            }
        };
        let reading = async {
            let mut at = 0;
            let mut bytes = vec![0; expected.len().min(CHUNK)];
            while at < expected.len() {
                let part = bytes.len().min(expected.len() - at);
                let n = read.read(&mut bytes[..part]).await?;
                if n == 0 {
                    return Err(Loss::Ended(format!("a FIN at {at} of {} bytes", expected.len())));
                }
                if bytes[..n] != expected[at..at + n] {
                    return Err(unasked(&bytes[..n], at));
                }
                at += n;
            }
            Ok(())
        };
        // The error of the reading side is returned first: it says better why the connection is lost than a failed
        // write does.
        let both = async {
            let (written, read) = tokio::join!(writing, reading);
            read?;
            Ok(written?)
        };
        timeout(PATIENCE, both).await.unwrap_or(Err(Loss::Late))
    }

    /// Reads exactly these bytes, at most `pace` of them in a step of 20 ms.
    pub async fn takes_slowly(&mut self, expected: &[u8], pace: usize) -> Result<(), Loss> {
        let mut bytes = vec![0; pace];
        let mut at = 0;
        while at < expected.len() {
            let part = pace.min(expected.len() - at);
            let n = timeout(PATIENCE, self.stream.read(&mut bytes[..part]))
                .await
                .map_err(|_| Loss::Late)??;
            if n == 0 {
                return Err(Loss::Ended(format!("a FIN at {at} of {} bytes", expected.len())));
            }
            if bytes[..n] != expected[at..at + n] {
                return Err(unasked(&bytes[..n], at));
            }
            at += n;
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Checks that no bytes come for this long.
    pub async fn rests(&mut self, lasts: Duration) -> Result<(), Loss> {
        let mut bytes = [0; 256];
        match timeout(lasts, self.stream.read(&mut bytes)).await {
            Err(_) => Ok(()),
            Ok(Ok(0)) => Err(Loss::Ended("a FIN".to_owned())),
            Ok(Ok(n)) => Err(unasked(&bytes[..n], 0)),
            Ok(Err(error)) => Err(error.into()),
        }
    }

    /// Reads to the end, whatever comes. Returns the bytes of the last read.
    pub async fn outlives(&mut self, patience: Duration) -> Result<Vec<u8>, Loss> {
        let mut last = Vec::new();
        let mut bytes = vec![0; CHUNK];
        let reading = async {
            loop {
                match self.stream.read(&mut bytes).await {
                    Ok(0) => return Ok(()),
                    Ok(n) => last = bytes[..n].to_vec(),
                    Err(error) => return Err(error.into()),
                }
            }
        };
        timeout(patience, reading)
            .await
            .unwrap_or(Err(Loss::Late))
            .map(|()| last)
    }

    /// Leaves, and checks that the other side ends too.
    pub async fn goes(mut self, exit: Exit) -> Result<(), Loss> {
        match exit {
            Exit::Reset => {
                reset(self.stream);
                Ok(())
            }
            Exit::Fin => {
                self.stream.shutdown().await?;
                match self.outlives(PATIENCE).await? {
                    rest if rest.is_empty() => Ok(()),
                    rest => Err(unasked(&rest, 0)),
                }
            }
            Exit::Close => {
                let code = 1000_u16.to_be_bytes();
                self.stream.write_all(&masked(CLOSE, &code)).await?;
                match self.outlives(PATIENCE).await? {
                    rest if rest == frame(CLOSE, &code) => Ok(()),
                    rest => Err(unasked(&rest, 0)),
                }
            }
        }
    }

    /// Sends only a part of a message, and then resets.
    pub async fn breaks_off(mut self) -> Result<(), Loss> {
        let bytes = masked(BINARY, &[7; 1000]);
        self.stream.write_all(&bytes[..500]).await?;
        sleep(Duration::from_millis(50)).await;
        reset(self.stream);
        Ok(())
    }
}

/// Closes with a reset.
pub fn reset(stream: TcpStream) {
    // A socket that has been reset already needs no reset.
    let _gone = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    drop(stream);
}

fn unasked(bytes: &[u8], at: usize) -> Loss {
    match bytes {
        // At the beginning of a message, a close frame is an end. Within a message it is wrong.
        [0x88, _, high, low, ..] if at == 0 => {
            Loss::Ended(format!("a close frame {}", u16::from_be_bytes([*high, *low])))
        }
        _ => Loss::Wrong(format!(
            "{} wrong bytes from {at} on: {:02x?}",
            bytes.len(),
            &bytes[..bytes.len().min(16)]
        )),
    }
}

impl From<io::Error> for Loss {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Self::Ended("a reset".to_owned()),
            _ => Self::Ended(error.to_string()),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(_) => write!(f, "a tunnel"),
            Self::Refused(status) => write!(f, "refused with {status}"),
            Self::Cut(how) => write!(f, "ended before the first byte: {how}"),
            Self::Unreachable => write!(f, "no listener"),
            Self::Late => write!(f, "nothing for {PATIENCE:?}"),
            Self::Odd(what) => write!(f, "no answer: {what:?}"),
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(how) => write!(f, "ended by {how}"),
            Self::Wrong(what) => write!(f, "{what}"),
            Self::Late => write!(f, "nothing for {PATIENCE:?}"),
        }
    }
}

/// Longer than every timeout of the guard, and than every pause of a server.
pub const PATIENCE: Duration = Duration::from_secs(40);
const CHUNK: usize = 16 * 1024;
