//! How the sockets of a flood behave.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{interval, sleep, timeout};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::flood::Board;

/// The shapes of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Twelve within 800 ms from one address, which then stay.
    Burst,
    /// Many addresses: each connects and sends nothing, and has one that is upgraded and says nothing, not even pong.
    Silent,
    /// One address dials, is let in, hangs up and dials again.
    Dialler,
    /// One address says far too much, comes back when it is thrown out, and in the end says something far too long.
    Talker,
    /// One address says the same at a steady pace, as slowly as everybody may.
    Metronome,
}

/// One task's address, and where it writes down what it meets.
#[derive(Debug)]
pub(super) struct Attacker {
    guard: SocketAddr,
    from: Ipv4Addr,
    shape: Shape,
    board: Arc<Board>,
}

/// An open socket, which counts as one until it is dropped.
struct Open<'a> {
    socket: WebSocketStream<TcpStream>,
    attacker: &'a Attacker,
}

impl Shape {
    /// Every one, in the order of their numbers.
    pub(super) const ALL: [Self; 5] = [Self::Burst, Self::Silent, Self::Dialler, Self::Talker, Self::Metronome];

    /// The word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Burst => "burst",
            Self::Silent => "silent",
            Self::Dialler => "dialler",
            Self::Talker => "talker",
            Self::Metronome => "metronome",
        }
    }

    /// Its tasks: each with its address, all of them other clients than the page's, and its number.
    pub(super) fn sockets(self) -> impl Iterator<Item = (Self, Ipv4Addr, u8)> {
        let tasks = match self {
            Self::Burst => BURST,
            Self::Silent => SILENT,
            Self::Dialler | Self::Talker | Self::Metronome => 1,
        };
        (0..tasks).map(move |nth| {
            let from = match self {
                Self::Burst => Ipv4Addr::new(127, 0, 0, 2),
                Self::Silent => Ipv4Addr::new(127, 0, 1, nth + 1),
                Self::Dialler => Ipv4Addr::new(127, 0, 0, 3),
                Self::Talker => Ipv4Addr::new(127, 0, 0, 4),
                Self::Metronome => Ipv4Addr::new(127, 0, 0, 5),
            };
            (self, from, nth)
        })
    }
}

/// What the `nth` task of the attacker's shape does.
pub(super) async fn play(attacker: Attacker, nth: u8) {
    match attacker.shape {
        Shape::Burst => {
            sleep(BURST_WITHIN * nth.into() / BURST.into()).await;
            attacker.stay().await;
        }
        Shape::Silent => {
            // Spread, so that one sees them come.
            sleep(SILENT_WITHIN * nth.into() / SILENT.into()).await;
            tokio::join!(attacker.say_nothing_at_all(), attacker.stay());
        }
        Shape::Dialler => {
            let mut pace = interval(DIAL_PACE);
            for _ in 0..DIALS {
                pace.tick().await;
                drop(attacker.open().await);
            }
        }
        Shape::Talker => {
            for _ in 0..VISITS {
                attacker.hammer().await;
                sleep(VISIT_PAUSE).await;
            }
            if let Some(mut open) = attacker.open().await {
                open.say(&"x".repeat(FAR_TOO_LONG)).await;
                open.hear_out().await;
            }
        }
        Shape::Metronome => {
            let Some(mut open) = attacker.open().await else { return };
            open.join_room().await;
            let mut pace = interval(BEAT);
            loop {
                tokio::select! {
                    _ = pace.tick() => open.say(r#"{"say":"tick"}"#).await,
                    heard = open.socket.next() => if !matches!(heard, Some(Ok(_))) { break },
                }
            }
        }
    }
}

impl Attacker {
    pub(super) fn new(guard: SocketAddr, from: Ipv4Addr, shape: Shape, board: Arc<Board>) -> Self {
        Self {
            guard,
            from,
            shape,
            board,
        }
    }

    /// Gets in and stays, reading what comes off the socket but answering nothing, until it is thrown out.
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
        self.heard(closing(&last));
    }

    async fn say_nothing_at_all(&self) {
        let Some(mut socket) = self.dial().await else { return };
        while matches!(socket.read(&mut [0; 64]).await, Ok(1..)) {}
        self.heard(WORDLESS.to_owned());
    }

    async fn hammer(&self) {
        let Some(mut open) = self.open().await else { return };
        open.join_room().await;
        for n in 0..MESSAGES {
            open.say(&format!(r#"{{"say":"buy {n}"}}"#)).await;
        }
        open.hear_out().await;
    }

    async fn open(&self) -> Option<Open<'_>> {
        let stream = self.dial().await?;
        let upgrade = client_async(format!("ws://{}/chat", self.guard), stream);
        match timeout(PATIENCE, upgrade).await {
            Ok(Ok((socket, _))) => {
                self.board.change(self.shape, |fate| {
                    fate.admitted += 1;
                    fate.open += 1;
                });
                return Some(Open { socket, attacker: self });
            }
            Ok(Err(Error::Http(response))) => {
                let reason = response.headers().get("x-wsguard-reason");
                let reason = reason.and_then(|reason| reason.to_str().ok()).unwrap_or_default();
                self.heard(format!("{} {reason}", response.status().as_u16()).trim_end().to_owned());
            }
            Ok(Err(_)) | Err(_) => self.heard(NOTHING.to_owned()),
        }
        None
    }

    async fn dial(&self) -> Option<TcpStream> {
        self.board.change(self.shape, |fate| fate.dialled += 1);
        let dialled = async {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::from((self.from, 0)))?;
            socket.connect(self.guard).await
        };
        let stream = timeout(PATIENCE, dialled).await.ok().and_then(Result::ok);
        if stream.is_none() {
            self.heard(NOTHING.to_owned());
        }
        stream
    }

    fn heard(&self, what: String) {
        self.board
            .change(self.shape, |fate| *fate.heard.entry(what).or_default() += 1);
    }
}

impl Open<'_> {
    /// A room apart: what the talker says before it is thrown out is not for the people who chat.
    async fn join_room(&mut self) {
        let room = self.attacker.shape.word();
        self.say(&format!(r#"{{"join":{{"room":"{room}","nick":"{room}"}}}}"#))
            .await;
    }

    /// Where nobody takes it any more, [`Open::hear_out`] learns why.
    async fn say(&mut self, text: &str) {
        let _ = timeout(PATIENCE, self.socket.send(Message::text(text))).await;
    }

    /// Reads until the end, and writes down how it came.
    async fn hear_out(&mut self) {
        let end = async {
            while let Some(Ok(message)) = self.socket.next().await {
                if let Message::Close(Some(frame)) = message {
                    return Some(format!("{} {}", u16::from(frame.code), frame.reason));
                }
            }
            Some(WORDLESS.to_owned())
        };
        if let Some(how) = timeout(PATIENCE, end).await.ok().flatten() {
            self.attacker.heard(how);
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.attacker.board.change(self.attacker.shape, |fate| fate.open -= 1);
    }
}

/// What the last bytes before the end say, if they are a close frame with a code.
fn closing(last: &[u8]) -> String {
    match last {
        [0x88, length, high, low, reason @ ..] if usize::from(*length) == reason.len() + 2 => {
            let code = u16::from_be_bytes([*high, *low]);
            format!("{code} {}", String::from_utf8_lossy(reason))
        }
        _ => WORDLESS.to_owned(),
    }
}

// The page says these in words.
const BURST: u8 = 12;
const BURST_WITHIN: Duration = Duration::from_millis(800);
const SILENT: u8 = 30;
const SILENT_WITHIN: Duration = Duration::from_secs(2);
const DIALS: u32 = 250;
const DIAL_PACE: Duration = Duration::from_millis(40);
const VISITS: u32 = 5;
const VISIT_PAUSE: Duration = Duration::from_millis(1200);
const MESSAGES: u32 = 40;
/// More than the demo's guard lets through in one message.
const FAR_TOO_LONG: usize = 8 * 1024;
/// A little slower than the demo's guard allows for good.
const BEAT: Duration = Duration::from_millis(600);
const PATIENCE: Duration = Duration::from_secs(3);
/// Of a dial or an upgrade that came to nothing.
const NOTHING: &str = "nothing";
/// Of a socket that was closed without a close frame.
const WORDLESS: &str = "an end without a word";
