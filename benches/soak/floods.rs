//! Bursts of the traffic that a guard has to stop.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::book::Fault;
use crate::client::{Answer, connect, reset, upgrade};
use crate::dice::Dice;
use crate::scene::Scene;

/// Sends one flood after the other, with a pause between them.
pub async fn flood(scene: Scene, mut dice: Dice) {
    let mut kinds = Kind::ALL.into_iter().cycle();
    while !scene.waits(dice.millis(3000, 6000)).await {
        let kind = kinds.next().expect("it goes round");
        let at_once = Arc::new(Semaphore::new(kind.at_once()));
        let mut burst = JoinSet::new();
        for nth in 0..kind.size() {
            let (scene, dice) = (scene.clone(), dice.fork());
            let at_once = Arc::clone(&at_once);
            burst.spawn(async move {
                // The semaphore is never closed.
                let _turn = at_once.acquire().await;
                kind.attacks(nth, &scene, dice).await;
            });
        }
        burst.join_all().await;
        scene.book.count(format!("floods: {kind:?}"));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Upgrades from few addresses. Nearly all of them are refused.
    Upgrades,
    /// Sockets that send nothing.
    Silence,
    /// Sockets that send half a head.
    HalfHeads,
    /// Random bytes.
    Garbage,
    /// Requests that are no upgrade, or that no route matches.
    Requests,
}

impl Kind {
    const ALL: [Self; 5] = [
        Self::Upgrades,
        Self::Silence,
        Self::HalfHeads,
        Self::Garbage,
        Self::Requests,
    ];

    fn size(self) -> u16 {
        match self {
            Self::Upgrades => 800,
            Self::Silence | Self::HalfHeads => 500,
            Self::Garbage | Self::Requests => 400,
        }
    }

    /// Sockets that wait for a deadline all wait at the same time.
    fn at_once(self) -> usize {
        match self {
            Self::Upgrades => 60,
            Self::Silence | Self::HalfHeads => 500,
            Self::Garbage | Self::Requests => 30,
        }
    }

    async fn attacks(self, nth: u16, scene: &Scene, mut dice: Dice) {
        let few = Ipv4Addr::new(127, 30, 0, u8::try_from(nth % 4).unwrap_or_default() + 1);
        let [high, low] = nth.to_be_bytes();
        let many = Ipv4Addr::new(127, 31, high, low.max(1));
        let from = if self == Self::Upgrades || dice.one_in(2) {
            few
        } else {
            many
        };
        if self == Self::Upgrades {
            let to = dice.pick(&[scene.places.main, scene.places.flooded]);
            return storms(from, to, scene, dice).await;
        }
        // Only the flooded listener has few pending seats, so that residents and visitors never have to give way to a
        // flood.
        let bytes = match self {
            Self::Upgrades | Self::Silence => Vec::new(),
            Self::HalfHeads => b"GET /flood HTTP/1.1\r\nHost: soak.exa".to_vec(),
            Self::Garbage => dice.bytes(700),
            Self::Requests => dice.pick(&REQUESTS).to_vec(),
        };
        self.sends(from, &bytes, scene, &mut dice).await;
    }

    /// Sends `bytes` and reads to the end. Whatever the guard answers, the connection has to end.
    async fn sends(self, from: Ipv4Addr, bytes: &[u8], scene: &Scene, dice: &mut Dice) {
        let to = scene.places.flooded;
        let Ok(mut stream) = connect(from, to, None).await else {
            return scene
                .book
                .fault(Fault::Answer, format!("{self:?}: the flooded listener is not there"));
        };
        // A socket whose seat was given away takes no bytes any more.
        let _sent = stream.write_all(bytes).await;
        if self == Self::HalfHeads && dice.one_in(4) {
            return reset(stream);
        }
        let mut answer = Vec::new();
        let reading = stream.read_to_end(&mut answer);
        if timeout(Duration::from_secs(30), reading).await.is_err() {
            return scene.book.fault(Fault::Late, format!("{self:?}: no end after 30 s"));
        }
        let status = answer.get(..12).map(|line| String::from_utf8_lossy(line).into_owned());
        match status.as_deref() {
            None if answer.is_empty() => scene.book.count("flood: no bytes"),
            Some("HTTP/1.1 400" | "HTTP/1.1 404" | "HTTP/1.1 408" | "HTTP/1.1 426" | "HTTP/1.1 431")
                if self != Self::Silence =>
            {
                scene.book.count(format!("flood: {}", status.unwrap_or_default()));
            }
            _ => {
                let answer = String::from_utf8_lossy(&answer);
                scene.book.fault(Fault::Answer, format!("{self:?}: {answer:?}"));
            }
        }
    }
}

/// Makes one of many upgrades. An admitted client stays for a moment.
async fn storms(from: Ipv4Addr, to: SocketAddr, scene: &Scene, mut dice: Dice) {
    match upgrade(from, to, "/flood").await {
        Answer::Open(mut client) => {
            // With `reject_with`, a refusal may look like a tunnel that is closed at once.
            let was_let_in = client.rests(dice.millis(20, 400)).await.is_ok();
            scene
                .book
                .count(if was_let_in { "flood: let in" } else { "flood: closed" });
        }
        Answer::Refused(status @ (429 | 503)) => scene.book.count(format!("flood: HTTP/1.1 {status}")),
        Answer::Cut(_) => scene.book.count("flood: no bytes"),
        other => scene.book.fault(Fault::Answer, format!("a storm from {from}: {other}")),
    }
}

const REQUESTS: [&[u8]; 4] = [
    b"GET / HTTP/1.1\r\nHost: soak.example.org\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: soak.example.org\r\nContent-Length: 4\r\n\r\nabcd",
    b"GET /nowhere HTTP/1.1\r\nHost: soak.example.org\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
      Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    b"GET /echo HTTP/1.1\r\nHost: soak.example.org\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
      Sec-WebSocket-Key: too short\r\nSec-WebSocket-Version: 13\r\n\r\n",
];
