//! Clients that stay: they say something now and then, check what comes back, and account for every end that is not theirs.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use tokio::task::JoinSet;

use crate::book::Fault;
use crate::client::{Answer, Client, Exit, Loss, upgrade};
use crate::dice::Dice;
use crate::scene::Scene;

/// One who stays.
#[derive(Clone, Copy, Debug)]
struct Resident {
    from: Ipv4Addr,
    to: SocketAddr,
    quarter: Quarter,
}

/// Where they live: what may happen to them there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quarter {
    /// Nothing: they stay whatever is reloaded.
    Steady,
    /// Nothing either, on a listener that is removed and added.
    Second,
    /// Nothing either, by a route, in a zone and on an upstream that are removed and added.
    Passing,
    /// Their server stops for a while, and goes on.
    Sleepy,
    /// Their server is killed.
    Moody,
}

/// Hundreds, two from an address.
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
        // They move in over two seconds, and come back as slowly.
        while !scene.waits(dice.millis(50, 2000)).await {
            // Its server may be killed between its 101 and our reading it.
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
        // The last word was answered: it was alive to its end.
        let exit = dice.pick(&[Exit::Close, Exit::Fin, Exit::Reset]);
        match client.goes(exit).await {
            Ok(()) => scene.book.count("resident: went by itself"),
            Err(loss) => self.accounts(&loss, since, scene),
        }
    }

    /// A pause and a message; whether it was the last.
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

    /// Each end that was not its own has a cause, or is a fault.
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
