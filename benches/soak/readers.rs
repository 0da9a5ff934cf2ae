//! Clients that take the server's bytes slowly, or not at all.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::book::Fault;
use crate::client::{Answer, Client, Exit, Loss, answer, connect, request};
use crate::dice::Dice;
use crate::echo::{CHUNK, pushed};
use crate::frames::{BINARY, frame};
use crate::scene::Scene;

/// Starts readers of both kinds.
pub fn read(scene: &Scene, dice: &mut Dice, season: &mut JoinSet<()>) {
    for nth in 1..=SLOW {
        let from = Ipv4Addr::new(127, 40, 0, nth);
        season.spawn(read_on(from, Manner::Slow, scene.clone(), dice.fork()));
    }
    for nth in 1..=STALLED {
        let from = Ipv4Addr::new(127, 40, 1, nth);
        season.spawn(read_on(from, Manner::Stalled, scene.clone(), dice.fork()));
    }
}

#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Takes few bytes at a time, and must get all of them.
    Slow,
    /// Takes nothing, and must be closed for that.
    Stalled,
}

async fn read_on(from: Ipv4Addr, manner: Manner, scene: Scene, mut dice: Dice) {
    while !scene.waits(dice.millis(500, 3000)).await {
        let size = match manner {
            Manner::Slow => dice.between(500_000, 2_000_000) as usize,
            // This is more than all buffers on the way hold.
            Manner::Stalled => 32 << 20,
        };
        let Ok(mut stream) = connect(from, scene.places.main, Some(16 * 1024)).await else {
            scene.book.fault(Fault::Answer, "the main listener is not there");
            continue;
        };
        // If this fails, reading the answer fails too.
        let _sent = stream.write_all(request(&format!("/push/{size}")).as_bytes()).await;
        let outcome = match answer(stream).await {
            Answer::Open(client) => manner.reads(client, size, &mut dice).await,
            Answer::Refused(status @ (429 | 503)) => {
                scene.book.count(format!("reader: refused with {status}"));
                continue;
            }
            other => {
                scene.book.fault(Fault::Answer, format!("{manner:?} reader: {other}"));
                continue;
            }
        };
        let story = |loss: &Loss| format!("{manner:?} reader of {size}: {loss}");
        match outcome {
            Ok(()) => scene.book.count(format!("reader: {manner:?}")),
            Err(loss @ Loss::Ended(_)) => scene.book.fault(Fault::Lost, story(&loss)),
            Err(loss @ Loss::Wrong(_)) => scene.book.fault(Fault::Bytes, story(&loss)),
            Err(loss @ Loss::Late) => scene.book.fault(Fault::Late, story(&loss)),
        }
    }
}

impl Manner {
    async fn reads(self, mut client: Client, size: usize, dice: &mut Dice) -> Result<(), Loss> {
        match self {
            Self::Slow => {
                let mut at = 0;
                while at < size {
                    let part = CHUNK.min(size - at);
                    let pace = dice.pick(&[2000, 5000, 20_000]);
                    client.takes_slowly(&frame(BINARY, &pushed(at, part)), pace).await?;
                    at += part;
                }
                client.goes(dice.pick(&[Exit::Close, Exit::Fin])).await
            }
            Self::Stalled => {
                sleep(Duration::from_secs(12)).await;
                match client.outlives(Duration::from_secs(20)).await {
                    Err(Loss::Ended(_)) => Ok(()),
                    Ok(_) => Err(Loss::Wrong("it was ended in order, short of bytes".to_owned())),
                    Err(other) => Err(other),
                }
            }
        }
    }
}

const SLOW: u8 = 10;
const STALLED: u8 = 4;
