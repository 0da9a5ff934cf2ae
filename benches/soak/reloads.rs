//! Puts a new file in place every few seconds, and waits for its effect.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::book::Fault;
use crate::dice::Dice;
use crate::plan::Plan;
use crate::scene::Scene;
use crate::way::Way;

/// The task that writes the files.
#[derive(Debug)]
pub struct Reloads {
    pub path: PathBuf,
    pub plan: Plan,
}

impl Reloads {
    /// Writes files until the season ends. Then it puts the calm file in force again.
    pub async fn go_on(mut self, scene: Scene, mut dice: Dice) -> Self {
        let mut is_broken = false;
        while !scene.waits(dice.millis(1500, 4500)).await {
            // Two broken files never follow each other: the guard does not read an unchanged file again.
            is_broken = !is_broken && dice.one_in(3);
            if is_broken {
                self.breaks(&scene, &mut dice).await;
            } else {
                self.changes(self.plan.next(&mut dice), &scene, &mut dice).await;
            }
        }
        self.changes(Plan::calm(self.plan.number + 1), &scene, &mut dice).await;
        self
    }

    /// Writes a good file, and checks that it comes into force soon.
    async fn changes(&mut self, plan: Plan, scene: &Scene, dice: &mut Dice) {
        let way = dice.pick(&Way::ALL);
        self.plan = plan;
        if !self.puts(way, &self.plan.text(&scene.places), scene).await {
            return;
        }
        let marker = self.plan.marker().into();
        if comes(scene, MARKER, |now| now == marker).await {
            scene.book.count(format!("reload: {way:?}"));
        } else {
            let story = format!("file {} ({way:?}) is not in force after {PATIENCE:?}", self.plan.number);
            scene.book.fault(Fault::Reload, story);
        }
    }

    /// Writes a broken file, and checks that it changes nothing.
    async fn breaks(&mut self, scene: &Scene, dice: &mut Dice) {
        let Ok(before) = scene.eye.metrics().await else {
            return scene.book.fault(Fault::Guard, "no metrics before a reload");
        };
        let (failures, marker) = (before.count(FAILURES), before.count(MARKER));
        let how = if dice.one_in(8) {
            let gone = std::fs::remove_file(&self.path).and_then(|()| scene.eye.hang_up());
            if let Err(error) = gone {
                return scene.book.fault(Fault::Reload, error);
            }
            "missing"
        } else {
            let (how, text) = self.plan.broken(&scene.places, dice);
            if !self.puts(dice.pick(&Way::ALL), &text, scene).await {
                return;
            }
            how
        };
        let was_refused = comes(scene, FAILURES, |now| now > failures).await;
        let is_kept = comes(scene, MARKER, |now| now == marker).await;
        if was_refused && is_kept {
            scene.book.count(format!("reload refused: {how}"));
        } else {
            let story = format!("a broken file ({how}): refused {was_refused}, the old one kept {is_kept}");
            scene.book.fault(Fault::Reload, story);
        }
    }

    async fn puts(&self, way: Way, text: &str, scene: &Scene) -> bool {
        let put = way.put(text, &self.path).await;
        let put = match way {
            Way::Hup => put.and_then(|()| scene.eye.hang_up()),
            _ => put,
        };
        if let Err(error) = &put {
            scene.book.fault(Fault::Reload, format!("{way:?}: {error}"));
        }
        put.is_ok()
    }
}

/// Whether a metric reaches such a value in time.
async fn comes(scene: &Scene, name: &str, is_it: impl Fn(i64) -> bool) -> bool {
    let late = Instant::now() + PATIENCE;
    while Instant::now() < late {
        if scene
            .eye
            .metrics()
            .await
            .is_ok_and(|metrics| is_it(metrics.count(name)))
        {
            return true;
        }
        sleep(Duration::from_millis(150)).await;
    }
    false
}

const MARKER: &str = "wsguard_connections_limit{zone=\"marker\"}";
const FAILURES: &str = "wsguard_config_reloads_total{outcome=\"failure\"}";
const PATIENCE: Duration = Duration::from_secs(15);
