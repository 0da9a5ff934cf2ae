//! The attacking clients of a flood.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{interval, sleep, timeout};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::scoreboard::Scoreboard;
use super::shape::{BURST, SILENT, Shape};

/// One task of a flood: its shape, its address, and where it records its results.
#[derive(Debug)]
pub(super) struct Attacker {
    guard: SocketAddr,
    from: Ipv4Addr,
    shape: Shape,
    scoreboard: Arc<Scoreboard>,
}

/// An open tunnel. It counts as open until this is dropped.
struct Open<'a> {
    socket: WebSocketStream<TcpStream>,
    attacker: &'a Attacker,
}

impl Attacker {
    pub(super) fn new(guard: SocketAddr, from: Ipv4Addr, shape: Shape, scoreboard: Arc<Scoreboard>) -> Self {
        Self {
            guard,
            from,
            shape,
            scoreboard,
        }
    }

    /// Runs the `nth` task of the shape.
    pub(super) async fn run(self, nth: u8) {
        match self.shape {
            Shape::Burst => {
                sleep(BURST_WITHIN * nth.into() / BURST.into()).await;
                self.stay().await;
            }
            Shape::Silent => {
                // The sockets are spread in time, so that the page shows how they come.
                sleep(SILENT_WITHIN * nth.into() / SILENT.into()).await;
                tokio::join!(self.connect_only(), self.stay());
            }
            Shape::Dialler => {
                let mut pace = interval(DIAL_PACE);
                for _ in 0..DIALS {
                    pace.tick().await;
                    drop(self.open().await);
                }
            }
            Shape::Talker => {
                for _ in 0..VISITS {
                    self.hammer().await;
                    sleep(VISIT_PAUSE).await;
                }
                if let Some(mut open) = self.open().await {
                    open.send(&"x".repeat(FAR_TOO_LONG)).await;
                    open.read_to_end().await;
                }
            }
            Shape::Metronome => {
                let Some(mut open) = self.open().await else { return };
                open.join_room().await;
                let mut pace = interval(BEAT);
                loop {
                    tokio::select! {
                        _ = pace.tick() => open.send(r#"{"say":"tick"}"#).await,
                        heard = open.socket.next() => if !matches!(heard, Some(Ok(_))) { break },
                    }
                }
            }
        }
    }

    /// Opens a tunnel and keeps it until the guard ends it. The task reads, but answers nothing, not even a ping.
    async fn stay(&self) {
        let Some(mut open) = self.open().await else { return };
        let mut bytes = [0; 512];
        let mut last = Vec::new();
        loop {
            match open.socket.get_mut().read(&mut bytes).await {
                Ok(0) | Err(_) => break,
                Ok(read) => last = bytes[..read].to_vec(),
            }
        }
        self.record(closing(&last));
    }

    async fn connect_only(&self) {
        let Some(mut socket) = self.dial().await else { return };
        while matches!(socket.read(&mut [0; 64]).await, Ok(1..)) {}
        self.record(WORDLESS.to_owned());
    }

    async fn hammer(&self) {
        let Some(mut open) = self.open().await else { return };
        open.join_room().await;
        for n in 0..MESSAGES {
            open.send(&format!(r#"{{"say":"buy {n}"}}"#)).await;
        }
        open.read_to_end().await;
    }

    async fn open(&self) -> Option<Open<'_>> {
        let stream = self.dial().await?;
        let upgrade = client_async(format!("ws://{}/chat", self.guard), stream);
        match timeout(PATIENCE, upgrade).await {
            Ok(Ok((socket, _))) => {
                self.scoreboard.record(self.shape, |result| {
                    result.admitted += 1;
                    result.open += 1;
                });
                return Some(Open { socket, attacker: self });
            }
            Ok(Err(Error::Http(response))) => {
                let reason = response.headers().get("x-wsguard-reason");
                let reason = reason.and_then(|reason| reason.to_str().ok()).unwrap_or_default();
                self.record(format!("{} {reason}", response.status().as_u16()).trim_end().to_owned());
            }
            Ok(Err(_)) | Err(_) => self.record(NOTHING.to_owned()),
        }
        None
    }

    async fn dial(&self) -> Option<TcpStream> {
        self.scoreboard.record(self.shape, |result| result.dialled += 1);
        let dialled = async {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::from((self.from, 0)))?;
            socket.connect(self.guard).await
        };
        let stream = timeout(PATIENCE, dialled).await.ok().and_then(Result::ok);
        if stream.is_none() {
            self.record(NOTHING.to_owned());
        }
        stream
    }

    fn record(&self, what: String) {
        self.scoreboard
            .record(self.shape, |result| *result.heard.entry(what).or_default() += 1);
    }
}

impl Open<'_> {
    /// Joins a room for its shape alone, so that its messages are not shown to people who chat.
    async fn join_room(&mut self) {
        let room = self.attacker.shape.word();
        self.send(&format!(r#"{{"join":{{"room":"{room}","nick":"{room}"}}}}"#))
            .await;
    }

    /// Sends a message. An error is ignored: [`Open::read_to_end`] records how the tunnel ended.
    async fn send(&mut self, text: &str) {
        let _ = timeout(PATIENCE, self.socket.send(Message::text(text))).await;
    }

    /// Reads until the tunnel ends, and records how it ended.
    async fn read_to_end(&mut self) {
        let end = async {
            while let Some(Ok(message)) = self.socket.next().await {
                if let Message::Close(Some(frame)) = message {
                    return Some(format!("{} {}", u16::from(frame.code), frame.reason));
                }
            }
            Some(WORDLESS.to_owned())
        };
        if let Some(how) = timeout(PATIENCE, end).await.ok().flatten() {
            self.attacker.record(how);
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.attacker
            .scoreboard
            .record(self.attacker.shape, |result| result.open -= 1);
    }
}

/// How a tunnel ended: the code and the reason, if the last bytes are a close frame.
fn closing(last: &[u8]) -> String {
    match last {
        [0x88, length, high, low, reason @ ..] if usize::from(*length) == reason.len() + 2 => {
            let code = u16::from_be_bytes([*high, *low]);
            format!("{code} {}", String::from_utf8_lossy(reason))
        }
        _ => WORDLESS.to_owned(),
    }
}

// The page describes these numbers in words.
const BURST_WITHIN: Duration = Duration::from_millis(800);
const SILENT_WITHIN: Duration = Duration::from_secs(2);
const DIALS: u32 = 250;
const DIAL_PACE: Duration = Duration::from_millis(40);
const VISITS: u32 = 5;
const VISIT_PAUSE: Duration = Duration::from_millis(1200);
const MESSAGES: u32 = 40;
/// The length of a message that is longer than the demo's guard allows.
const FAR_TOO_LONG: usize = 8 * 1024;
/// The time between two messages: a little slower than the rate that the demo's guard allows.
const BEAT: Duration = Duration::from_millis(600);
const PATIENCE: Duration = Duration::from_secs(3);
/// A dial or an upgrade without an answer.
const NOTHING: &str = "nothing";
/// A tunnel that ended without a close frame.
const WORDLESS: &str = "an end without a word";
