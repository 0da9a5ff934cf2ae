//! A stretch of traffic from nothing to nothing, and the rest after it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::book::Fault;
use crate::dice::Dice;
use crate::guard::Sample;
use crate::reloads::Reloads;
use crate::scene::Scene;
use crate::servers::Servers;
use crate::{floods, readers, residents, visitors};

/// Who acts in every season.
#[derive(Debug)]
pub struct Cast {
    pub servers: Servers,
    pub reloads: Reloads,
    pub dice: Dice,
}

/// Traffic of every kind for so long; back when all of it has come to its end.
pub async fn pass(lasts: Duration, cast: Cast, scene: &Scene) -> Cast {
    let (end, ends) = watch::channel(false);
    let scene = Scene { ends, ..scene.clone() };
    let Cast {
        servers,
        reloads,
        mut dice,
    } = cast;
    let servers = tokio::spawn(servers.suffer(scene.clone(), dice.fork()));
    let reloads = tokio::spawn(reloads.go_on(scene.clone(), dice.fork()));
    let mut season = JoinSet::new();
    residents::settle(&scene, &mut dice, &mut season);
    visitors::visit(&scene, &mut dice, &mut season);
    readers::read(&scene, &mut dice, &mut season);
    season.spawn(floods::flood(scene.clone(), dice.fork()));
    sleep(lasts).await;
    // Everybody holds a receiver.
    let _told = end.send(true);
    let all_gone = async { while season.join_next().await.is_some_and(|ended| ended.is_ok()) {} };
    if timeout(PATIENCE, all_gone).await.is_err() || !season.is_empty() {
        scene.book.fault(
            Fault::Late,
            format!("{} tasks have not ended after {PATIENCE:?}", season.len()),
        );
        season.shutdown().await;
    }
    Cast {
        servers: servers.await.expect("it does not panic"),
        reloads: reloads.await.expect("it does not panic"),
        dice,
    }
}

/// Waits until nothing is open, and a little longer; the gauges that never came to 0, and the sample.
pub async fn rest(scene: &Scene) -> (Vec<(String, String)>, std::io::Result<Sample>) {
    let late = Instant::now() + PATIENCE;
    let mut open = scene
        .eye
        .metrics()
        .await
        .map(|metrics| metrics.open_counts())
        .unwrap_or_default();
    while !open.is_empty() && Instant::now() < late {
        sleep(Duration::from_millis(500)).await;
        open = scene
            .eye
            .metrics()
            .await
            .map(|metrics| metrics.open_counts())
            .unwrap_or_default();
    }
    // What lingers, what is freed in the background, and what the sweeps do is done by then.
    sleep(Duration::from_secs(10)).await;
    (open, scene.eye.sample().await)
}

/// Longer than anything that somebody in a season waits for.
const PATIENCE: Duration = Duration::from_secs(90);
