//! A WebSocket server that echoes every message. It runs in the bench's child processes.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::frames::{CLOSE, PING, PONG, frame, frame_header};

/// Serves until the process is killed. On `/push/N` it first sends N bytes without being asked by a message.
pub async fn serve(address: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(async move {
                    // Clients may end in any way here. The soak judges the client's side.
                    let _gone = converse(stream).await;
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn converse(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::with_capacity(CHUNK, read);
    let head = head(&mut read).await?;
    let target = head.split(' ').nth(1).unwrap_or_default();
    let key = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
        .map_or("", |(_, value)| value.trim());
    let accept = STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    write.write_all(answer.as_bytes()).await?;
    if let Some(size) = target.strip_prefix("/push/").and_then(|size| size.parse().ok()) {
        push(&mut write, size).await?;
    }
    while let Some(opcode) = repeat(&mut read, &mut write).await? {
        if opcode == CLOSE {
            break;
        }
    }
    write.shutdown().await?;
    // It reads until the client has closed too: an unread byte would turn our end into a reset.
    let mut rest = [0; 1024];
    timeout(LINGER, async {
        while read.read(&mut rest).await.is_ok_and(|n| n > 0) {}
    })
    .await
    .map_err(|_| ErrorKind::TimedOut.into())
}

async fn head(read: &mut BufReader<OwnedReadHalf>) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(read.read_u8().await?);
        if head.len() > CHUNK {
            return Err(ErrorKind::InvalidData.into());
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

async fn push(write: &mut OwnedWriteHalf, size: usize) -> io::Result<()> {
    let mut at = 0;
    while at < size {
        let part = CHUNK.min(size - at);
        write.write_all(&frame(2, &pushed(at, part))).await?;
        at += part;
    }
    Ok(())
}

/// The bytes that `/push` sends from byte `at` on. Both sides compute them.
pub fn pushed(at: usize, size: usize) -> Vec<u8> {
    (at..at + size)
        .map(|at| u8::try_from((at * 31 + at / 251) % 256).unwrap_or_default())
        .collect()
}

/// Echoes one frame while it comes in, and returns its opcode. `None` if the client has ended between two frames.
async fn repeat(read: &mut BufReader<OwnedReadHalf>, write: &mut OwnedWriteHalf) -> io::Result<Option<u8>> {
    let first = match read.read_u8().await {
        Ok(first) => first,
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut left = match read.read_u8().await? & 0x7f {
        126 => usize::from(read.read_u16().await?),
        127 => usize::try_from(read.read_u64().await?).map_err(|_| ErrorKind::InvalidData)?,
        short => usize::from(short),
    };
    let mut mask = [0; 4];
    read.read_exact(&mut mask).await?;
    let opcode = first & 0x0f;
    let reply_opcode = if opcode == PING { PONG } else { opcode };
    let mut out = frame_header(reply_opcode, left, 0);
    let mut chunk = vec![0; CHUNK.min(left)];
    loop {
        let part = left.min(CHUNK);
        read.read_exact(&mut chunk[..part]).await?;
        // A chunk is a multiple of the mask's length, so each chunk begins with the first byte of the mask.
        out.extend(
            chunk[..part]
                .iter()
                .zip(mask.iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        write.write_all(&out).await?;
        out.clear();
        left -= part;
        if left == 0 {
            return Ok(Some(opcode));
        }
    }
}

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
pub const CHUNK: usize = 16 * 1024;
const LINGER: Duration = Duration::from_secs(5);
