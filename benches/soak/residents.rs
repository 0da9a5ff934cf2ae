//! Clients that stay. They send a message now and then, check the echo, and account for every end that is not their
//! own.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use tokio::task::JoinSet;

use crate::book::Fault;
use crate::client::{Answer, Client, Exit, Loss, upgrade};
use crate::dice::Dice;
use crate::scene::Scene;

/// A client that stays.
#[derive(Clone, Copy, Debug)]
struct Resident {
    from: Ipv4Addr,
    to: SocketAddr,
    quarter: Quarter,
}

/// The place of a resident. It decides what may happen to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quarter {
    /// Nothing happens to it, whatever is reloaded.
    Steady,
    /// Nothing happens to it, although its listener is removed and added.
    Second,
    /// Nothing happens to it, although its route, its zone and its upstream are removed and added.
    Passing,
    /// Its server stops for a while and then continues.
    Sleepy,
    /// Its server is killed.
    Moody,
}

/// Starts hundreds of residents, two from each address.
pub fn settle(scene: &Scene, dice: &mut Dice, season: &mut JoinSet<()>) {
    let mut nth = 0_u16;
    for (quarter, count) in POPULATION {
        for _ in 0..count {
            let [high, low] = (nth / 2).to_be_bytes();
            let resident = Resident {
                from: Ipv4Addr::new(127, 10, high, low.max(1)),
                to: if quarter == Quarter::Second {
                    scene.places.second
                } else {
                    scene.places.main
                },
                quarter,
            };
            season.spawn(resident.lives(scene.clone(), dice.fork()));
            nth += 1;
        }
    }
}

impl Resident {
    async fn lives(self, scene: Scene, mut dice: Dice) {
        // The residents arrive over two seconds, and come back at the same pace.
        while !scene.waits(dice.millis(50, 2000)).await {
            // The time is taken before the upgrade: the server may be killed between its 101 and our reading it.
            let since = Instant::now();
            match upgrade(self.from, self.to, self.quarter.target()).await {
                Answer::Open(client) => self.stays(client, since, &scene, &mut dice).await,
                answer => self.was_refused(&answer, &scene),
            }
        }
    }

    async fn stays(self, mut client: Client, since: Instant, scene: &Scene, dice: &mut Dice) {
        scene.book.count("resident: came");
        loop {
            match self.talks(&mut client, scene, dice).await {
                Ok(false) => {}
                Ok(true) => break,
                Err(loss) => return self.accounts(&loss, since, scene),
            }
        }
        // Its last message was answered, so the connection was alive to its end.
        let exit = dice.pick(&[Exit::Close, Exit::Fin, Exit::Reset]);
        match client.goes(exit).await {
            Ok(()) => scene.book.count("resident: went by itself"),
            Err(loss) => self.accounts(&loss, since, scene),
        }
    }

    /// Makes a pause and sends a message. Returns whether it was the last one.
    async fn talks(self, client: &mut Client, scene: &Scene, dice: &mut Dice) -> Result<bool, Loss> {
        let mut ends = scene.ends.clone();
        let pause = dice.millis(200, 4000);
        tokio::select! {
            rested = client.rests(pause) => rested?,
            _ = ends.wait_for(|over| *over) => {}
        }
        let is_last = scene.is_over();
        let size = if dice.one_in(400) {
            dice.between(200_000, 1_200_000)
        } else if dice.one_in(12) {
            dice.between(126, 70_000)
        } else {
            dice.between(0, 125)
        };
        client.echo(dice, size as usize).await?;
        scene.book.count("resident: echoes");
        Ok(is_last)
    }

    /// Accounts for an end that was not the resident's own. Without a known cause it is a fault.
    fn accounts(self, loss: &Loss, since: Instant, scene: &Scene) {
        let quarter = self.quarter;
        let lasted = since.elapsed();
        let story = format!("{quarter:?} resident {} after {lasted:.1?}: {loss}", self.from);
        match loss {
            Loss::Ended(_) if quarter == Quarter::Moody && scene.book.was_killed_since(since) => {
                scene.book.count("resident: lost to a server's restart");
            }
            Loss::Ended(_) => scene.book.fault(Fault::Lost, story),
            Loss::Wrong(_) => scene.book.fault(Fault::Bytes, story),
            Loss::Late => scene.book.fault(Fault::Late, story),
        }
    }

    fn was_refused(self, answer: &Answer, scene: &Scene) {
        let quarter = self.quarter;
        let story = || format!("{quarter:?} resident {}: {answer}", self.from);
        match (answer, quarter) {
            (Answer::Refused(status @ (429 | 503)), _)
            | (Answer::Refused(status @ 404), Quarter::Passing)
            | (Answer::Refused(status @ (502 | 504)), Quarter::Moody)
            | (Answer::Refused(status @ 504), Quarter::Sleepy) => {
                scene.book.count(format!("resident: refused with {status}"));
            }
            (Answer::Unreachable, Quarter::Second) => scene.book.count("resident: found no listener"),
            (Answer::Late, _) => scene.book.fault(Fault::Late, story()),
            _ => scene.book.fault(Fault::Answer, story()),
        }
    }
}

impl Quarter {
    fn target(self) -> &'static str {
        match self {
            Self::Steady | Self::Second => "/echo",
            Self::Passing => "/passing",
            Self::Sleepy => "/sleepy",
            Self::Moody => "/moody",
        }
    }
}

const POPULATION: [(Quarter, u16); 5] = [
    (Quarter::Steady, 160),
    (Quarter::Second, 60),
    (Quarter::Passing, 40),
    (Quarter::Sleepy, 60),
    (Quarter::Moody, 60),
];
