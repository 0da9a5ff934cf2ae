//! Clients that come, send a message or none, and leave in every possible way.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::book::Fault;
use crate::client::{Answer, Client, Exit, Loss, connect, request, reset, upgrade};
use crate::dice::Dice;
use crate::frames::{CLOSE, frame};
use crate::scene::Scene;

/// Starts `AT_ONCE` visitors. Each one comes from another address every time.
pub fn visit(scene: &Scene, dice: &mut Dice, season: &mut JoinSet<()>) {
    for _ in 0..AT_ONCE {
        season.spawn(come_and_go(scene.clone(), dice.fork()));
    }
}

/// What a visitor does.
#[derive(Clone, Copy, Debug)]
enum Errand {
    /// Sends a message, and leaves in this way.
    Talk(Exit),
    /// Leaves in the middle of a message.
    BreakOff,
    /// Resets before it has read an answer.
    LeaveEarly,
    /// Sends nothing until the guard closes the connection for that.
    Idle,
    /// Stays until the guard closes the connection for that.
    Overstay,
    /// Sends a message to the server that is killed.
    TalkToMoody,
    /// Sends a message to the server that is stopped.
    TalkToSleepy,
}

async fn come_and_go(scene: Scene, mut dice: Dice) {
    while !scene.waits(dice.millis(100, 3000)).await {
        let errand = dice.pick(&ERRANDS);
        let from = Ipv4Addr::from_bits(FIRST + dice.between(1, ADDRESSES));
        if let Errand::LeaveEarly = errand {
            leave_early(from, &scene, &mut dice).await;
            continue;
        }
        let since = Instant::now();
        match upgrade(from, scene.places.main, errand.target()).await {
            Answer::Open(client) => {
                let done = errand.run(client, &mut dice).await;
                errand.account(done, since, &scene);
            }
            answer => errand.account_refusal(&answer, &scene),
        }
    }
}

/// A client's FIN or reset before the 101 ends the walk at any stage.
async fn leave_early(from: Ipv4Addr, scene: &Scene, dice: &mut Dice) {
    let target = dice.pick(&["/echo", "/sleepy", "/moody"]);
    let Ok(mut stream) = connect(from, scene.places.main, None).await else {
        return scene.book.fault(Fault::Answer, "the main listener is not there");
    };
    let request = request(target);
    let part = if dice.one_in(2) {
        request.len()
    } else {
        request.len() / 2
    };
    // It does not matter whether the request arrives.
    let _sent = stream.write_all(&request.as_bytes()[..part]).await;
    if dice.one_in(2) {
        tokio::time::sleep(dice.millis(0, 20)).await;
    }
    if dice.one_in(2) {
        reset(stream);
    }
    scene.book.count("visitor: left early");
}

impl Errand {
    fn target(self) -> &'static str {
        match self {
            Self::Talk(_) | Self::BreakOff | Self::LeaveEarly => "/echo",
            Self::Idle => "/brief",
            Self::Overstay => "/short",
            Self::TalkToMoody => "/moody",
            Self::TalkToSleepy => "/sleepy",
        }
    }

    async fn run(self, mut client: Client, dice: &mut Dice) -> Result<(), Loss> {
        let exit = match self {
            Self::Idle => return is_sent_away(client).await,
            Self::Overstay => {
                client.echo(dice, 100).await?;
                return is_sent_away(client).await;
            }
            Self::Talk(exit) => exit,
            _ => dice.pick(&[Exit::Close, Exit::Fin, Exit::Reset]),
        };
        for _ in 0..dice.between(0, 5) {
            let size = dice.pick(&[0, 1, 125, 126, 1000, 20_000, 65_536]);
            client.echo(dice, size).await?;
            client.rests(dice.millis(0, 300)).await?;
        }
        if let Self::BreakOff = self {
            return client.breaks_off().await;
        }
        client.goes(exit).await
    }

    fn account(self, done: Result<(), Loss>, since: Instant, scene: &Scene) {
        let story = |loss: &Loss| format!("{self:?} visitor after {:.1?}: {loss}", since.elapsed());
        match (done, self) {
            (Ok(()), Self::Talk(exit)) => scene.book.count(format!("visitor: {exit:?}")),
            (Ok(()), _) => scene.book.count(format!("visitor: {self:?}")),
            (Err(Loss::Ended(_)), Self::TalkToMoody) if scene.book.was_killed_since(since) => {
                scene.book.count("visitor: lost to a server's restart");
            }
            (Err(loss @ Loss::Ended(_)), _) => scene.book.fault(Fault::Lost, story(&loss)),
            (Err(loss @ Loss::Wrong(_)), _) => scene.book.fault(Fault::Bytes, story(&loss)),
            (Err(loss @ Loss::Late), _) => scene.book.fault(Fault::Late, story(&loss)),
        }
    }

    fn account_refusal(self, answer: &Answer, scene: &Scene) {
        match (answer, self) {
            (Answer::Refused(status @ (429 | 503)), _)
            | (Answer::Refused(status @ (502 | 504)), Self::TalkToMoody)
            | (Answer::Refused(status @ 504), Self::TalkToSleepy) => {
                scene.book.count(format!("visitor: refused with {status}"));
            }
            (Answer::Late, _) => scene.book.fault(Fault::Late, format!("{self:?} visitor: no answer")),
            _ => scene.book.fault(Fault::Answer, format!("{self:?} visitor: {answer}")),
        }
    }
}

/// The guard closes the connection with 1001, and the client answers by closing.
async fn is_sent_away(mut client: Client) -> Result<(), Loss> {
    let last = client.outlives(Duration::from_secs(20)).await?;
    if last.ends_with(&frame(CLOSE, &1001_u16.to_be_bytes())) {
        Ok(())
    } else {
        Err(Loss::Wrong(format!("instead of 1001: {last:02x?}")))
    }
}

const AT_ONCE: usize = 40;
const ADDRESSES: u32 = 4000;
/// 127.20.0.0
const FIRST: u32 = 0x7f14_0000;
const ERRANDS: [Errand; 12] = [
    Errand::Talk(Exit::Close),
    Errand::Talk(Exit::Close),
    Errand::Talk(Exit::Fin),
    Errand::Talk(Exit::Fin),
    Errand::Talk(Exit::Reset),
    Errand::Talk(Exit::Reset),
    Errand::BreakOff,
    Errand::LeaveEarly,
    Errand::Idle,
    Errand::Overstay,
    Errand::TalkToMoody,
    Errand::TalkToSleepy,
];
