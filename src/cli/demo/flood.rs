//! A small flood, for showing: real sockets from one other loopback address, more than one address may have.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::{WebSocketStream, client_async};

/// The one flood that may run at a time.
#[derive(Debug)]
pub struct Flood {
    idle: Arc<Semaphore>,
}

/// What the sockets of one flood heard.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The address they came from.
    pub from: String,
    /// How many there were.
    pub sockets: u32,
    /// Those that were let in; they stay for `held_ms`.
    pub opened: u32,
    /// Those that heard another HTTP status.
    pub refused: u32,
    /// How many heard which.
    pub statuses: BTreeMap<u16, u32>,
    /// Those that heard no HTTP at all: dial refused, closed, reset or late.
    pub failed: u32,
    /// From the first dial to the last answer.
    pub took_ms: u64,
    /// How long the open ones stay from now on.
    pub held_ms: u64,
}

impl Flood {
    /// None is running.
    pub fn new() -> Self {
        Self {
            idle: Arc::new(Semaphore::new(1)),
        }
    }

    /// Asks `guard` for twelve upgrades within 800 ms and tells how each fared. `None`: one is running, which it is
    /// until its sockets are closed again, four seconds after this returned.
    pub async fn run(&self, guard: SocketAddr) -> Option<Outcome> {
        let running = Arc::clone(&self.idle).try_acquire_owned().ok()?;
        let guard = reachable(guard);
        let start = Instant::now();
        let mut attempts = JoinSet::new();
        for n in 0..SOCKETS {
            attempts.spawn(async move {
                sleep(WITHIN * n / SOCKETS).await;
                timeout(ATTEMPT, open(guard)).await.unwrap_or(Heard::Nothing)
            });
        }
        let mut outcome = Outcome {
            from: FROM.to_string(),
            sockets: SOCKETS,
            ..Outcome::default()
        };
        let mut open = Vec::new();
        for heard in attempts.join_all().await {
            match heard {
                Heard::Open(socket) => open.push(*socket),
                Heard::Status(status) => *outcome.statuses.entry(status).or_default() += 1,
                Heard::Nothing => outcome.failed += 1,
            }
        }
        outcome.refused = outcome.statuses.values().sum();
        outcome.opened = SOCKETS - outcome.refused - outcome.failed;
        outcome.took_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        outcome.held_ms = u64::try_from(HELD.as_millis()).unwrap_or(u64::MAX);
        tokio::spawn(hold(open, running));
        Some(outcome)
    }
}

impl Default for Flood {
    fn default() -> Self {
        Self::new()
    }
}

type Socket = WebSocketStream<TcpStream>;

enum Heard {
    Open(Box<Socket>),
    Status(u16),
    Nothing,
}

async fn open(guard: SocketAddr) -> Heard {
    let Ok(socket) = TcpSocket::new_v4() else {
        return Heard::Nothing;
    };
    if socket.bind(SocketAddr::from((FROM, 0))).is_err() {
        return Heard::Nothing;
    }
    let Ok(stream) = socket.connect(guard).await else {
        return Heard::Nothing;
    };
    match client_async(format!("ws://{guard}/chat"), stream).await {
        Ok((socket, _)) => Heard::Open(Box::new(socket)),
        Err(Error::Http(response)) => Heard::Status(response.status().as_u16()),
        Err(_) => Heard::Nothing,
    }
}

async fn hold(open: Vec<Socket>, running: OwnedSemaphorePermit) {
    sleep(HELD).await;
    for mut socket in open {
        // Who doesn't take the close frame gets the end of the socket.
        let _ = timeout(CLOSE, socket.close(None)).await;
    }
    drop(running);
}

fn reachable(guard: SocketAddr) -> SocketAddr {
    if guard.ip().is_unspecified() {
        return SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), guard.port());
    }
    guard
}

/// Another client than the page's, as the guard sees it.
const FROM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SOCKETS: u32 = 12;
const WITHIN: Duration = Duration::from_millis(800);
const HELD: Duration = Duration::from_secs(4);
const ATTEMPT: Duration = Duration::from_secs(3);
const CLOSE: Duration = Duration::from_millis(200);

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Lets the first five in, answers 429 to the rest; tells who came.
    async fn five_only(listener: TcpListener) -> Vec<IpAddr> {
        let (mut came, mut open) = (Vec::new(), Vec::new());
        while came.len() < 12 {
            let (mut socket, peer) = listener.accept().await.unwrap();
            came.push(peer.ip());
            if open.len() < 5 {
                open.push(tokio_tungstenite::accept_async(socket).await.unwrap());
            } else {
                let read = socket.read(&mut [0; 4096]).await.unwrap();
                assert!(read > 0);
                socket
                    .write_all(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n")
                    .await
                    .unwrap();
            }
        }
        came
    }

    #[tokio::test]
    async fn tells_how_many_opened_and_what_the_others_heard() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let guard = listener.local_addr().unwrap();
        let guarded = tokio::spawn(five_only(listener));
        let flood = Flood::new();
        let (outcome, second) = tokio::join!(flood.run(guard), flood.run(guard));
        let outcome = outcome.unwrap();
        assert_eq!(
            (outcome.sockets, outcome.opened, outcome.refused, outcome.failed),
            (12, 5, 7, 0)
        );
        assert_eq!(outcome.statuses, BTreeMap::from([(429, 7)]));
        assert_eq!(second, None, "one at a time");
        assert_eq!(guarded.await.unwrap(), [IpAddr::V4(FROM); 12]);
        assert_eq!(flood.run(guard).await, None, "it runs until its sockets are closed");
    }

    #[tokio::test]
    async fn a_guard_that_is_gone_is_a_failure_not_a_refusal() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let guard = listener.local_addr().unwrap();
        drop(listener);
        let outcome = Flood::new().run(guard).await.unwrap();
        assert_eq!((outcome.opened, outcome.refused, outcome.failed), (0, 0, 12));
    }
}
