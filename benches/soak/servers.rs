//! The servers behind the guard: one of them is killed, and another one is stopped.

use std::io;

use tokio::time::sleep;

use crate::backend::Backend;
use crate::book::Fault;
use crate::dice::Dice;
use crate::places::Places;
use crate::scene::Scene;

/// All servers.
#[derive(Debug)]
pub struct Servers {
    moody: Backend,
    sleepy: Backend,
    /// Held only so that they are dropped at the end.
    _others: [Backend; 2],
}

impl Servers {
    /// Starts the servers. Returns once they accept.
    pub async fn start(places: &Places) -> io::Result<Self> {
        Ok(Self {
            moody: Backend::start(places.moody).await?,
            sleepy: Backend::start(places.sleepy).await?,
            _others: [
                Backend::start(places.steady).await?,
                Backend::start(places.spare).await?,
            ],
        })
    }

    /// Until the season ends, kills and restarts one server, and stops another one and lets it continue. In the end all
    /// servers run.
    pub async fn suffer(mut self, scene: Scene, mut dice: Dice) -> Self {
        while !scene.waits(dice.millis(6000, 14_000)).await {
            let done = if dice.one_in(2) {
                self.restart(&scene, &mut dice).await
            } else {
                self.freeze(&scene, &mut dice).await
            };
            if let Err(error) = done {
                scene.book.fault(Fault::Guard, format!("a server of ours: {error}"));
            }
        }
        self
    }

    async fn restart(&mut self, scene: &Scene, dice: &mut Dice) -> io::Result<()> {
        self.moody.kill()?;
        scene.book.killed();
        sleep(dice.millis(300, 2500)).await;
        self.moody.restart().await?;
        scene.book.count("servers: restarts");
        Ok(())
    }

    async fn freeze(&mut self, scene: &Scene, dice: &mut Dice) -> io::Result<()> {
        self.sleepy.freeze()?;
        sleep(dice.millis(1000, 9000)).await;
        self.sleepy.thaw()?;
        scene.book.count("servers: freezes");
        Ok(())
    }
}
