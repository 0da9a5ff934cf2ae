//! A season of traffic, which begins and ends with no connection, and the rest after it.

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

/// The parts that act in every season.
#[derive(Debug)]
pub struct Cast {
    pub servers: Servers,
    pub reloads: Reloads,
    pub dice: Dice,
}

/// Runs traffic of every kind for this long. Returns when all of it has ended.
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
    // Sending can't fail: all tasks hold a receiver.
    let _sent = end.send(true);
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

/// Waits until nothing is open, and a little longer. Returns the gauges that did not come to 0, and a sample.
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
    // By then all lingering and all sweeps are done, and the allocator has given freed pages back: after ten seconds, but
    // it may look for few of them only every ten.
    sleep(Duration::from_secs(40)).await;
    (open, scene.eye.sample().await)
}

/// Longer than any wait in a season.
const PATIENCE: Duration = Duration::from_secs(90);
