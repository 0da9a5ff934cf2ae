//! A small flood to look at: real sockets from other loopback addresses, in the shapes in which chat servers are attacked.
//! The flood is bounded in count and in time: after [`LASTS`] its tasks end, with their sockets, even if the guard does
//! nothing.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use super::attacker::Attacker;
use super::scoreboard::{Progress, Scoreboard};
use super::shape::Shape;

/// The one flood that may run at a time.
#[derive(Debug)]
pub(crate) struct Flood {
    guard: SocketAddr,
    lasts: Duration,
    scoreboard: Arc<Scoreboard>,
}

impl Flood {
    /// Prepares floods of the guard at this address. Each flood lasts for `lasts`. None is running yet.
    pub(crate) fn new(guard: SocketAddr, lasts: Duration) -> Self {
        Self {
            guard: reachable(guard),
            lasts,
            scoreboard: Arc::default(),
        }
    }

    /// Starts a flood. The task of the handle ends when the flood does. `None` if a flood is running.
    pub(crate) fn start(&self) -> Option<JoinHandle<()>> {
        if !self.scoreboard.begin(Instant::now() + self.lasts) {
            return None;
        }
        let (guard, lasts, scoreboard) = (self.guard, self.lasts, Arc::clone(&self.scoreboard));
        Some(tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            for (shape, from, nth) in Shape::ALL.into_iter().flat_map(Shape::sockets) {
                let attacker = Attacker::new(guard, from, shape, Arc::clone(&scoreboard));
                tasks.spawn(attacker.run(nth));
            }
            sleep(lasts).await;
            tasks.shutdown().await;
            scoreboard.end();
        }))
    }

    /// How far the running flood has come, or how the last one ended.
    pub(crate) fn progress(&self) -> Progress {
        self.scoreboard.progress(Instant::now())
    }
}

fn reachable(guard: SocketAddr) -> SocketAddr {
    if guard.ip().is_unspecified() {
        return SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), guard.port());
    }
    guard
}

/// How long a flood lasts: long enough for the demo's ping and pong timeout, with some time to spare.
pub(crate) const LASTS: Duration = Duration::from_secs(15);

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use parking_lot::Mutex;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    /// A guard that refuses every client, and records each client's address.
    async fn refuses_all(listener: TcpListener, came: Arc<Mutex<Vec<IpAddr>>>) {
        let mut tasks = JoinSet::new();
        loop {
            let (mut socket, peer) = listener.accept().await.unwrap();
            came.lock().push(peer.ip());
            tasks.spawn(async move {
                // A silent client is closed after a while.
                let read = timeout(Duration::from_secs(1), socket.read(&mut [0; 4096])).await;
                if matches!(read, Ok(Ok(1..))) {
                    let answer = "HTTP/1.1 503 Service Unavailable\r\nX-Wsguard-Reason: zone_full\r\n\r\n";
                    let _ = socket.write_all(answer.as_bytes()).await;
                }
            });
        }
    }

    #[tokio::test]
    async fn a_flood_is_bounded_in_count_and_time_and_comes_from_its_own_loopback_addresses() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let lasts = Duration::from_secs(4);
        let flood = Flood::new(listener.local_addr().unwrap(), lasts);
        assert_eq!((flood.progress().left_ms, flood.progress().shapes.len()), (0, 0));
        let came = Arc::new(Mutex::new(Vec::new()));
        let guard = tokio::spawn(refuses_all(listener, Arc::clone(&came)));

        let start = Instant::now();
        let running = flood.start().unwrap();
        assert!(flood.start().is_none(), "one at a time");
        running.await.unwrap();
        assert!(
            start.elapsed() < lasts + Duration::from_secs(1),
            "{:?}",
            start.elapsed()
        );

        let progress = flood.progress();
        assert_eq!(progress.left_ms, 0);
        let dialled: u32 = progress.shapes.iter().map(|result| result.dialled).sum();
        assert_eq!(usize::try_from(dialled).unwrap(), came.lock().len(), "each is counted");
        assert!(dialled <= 400, "{dialled}");
        for result in &progress.shapes {
            assert_eq!((result.admitted, result.open), (0, 0), "{result:?}");
            assert_eq!(result.dialled, result.heard.values().sum::<u32>(), "{result:?}");
        }
        let sources: BTreeSet<_> = came.lock().iter().copied().collect();
        assert_eq!(sources.len(), 34);
        assert!(sources.iter().all(IpAddr::is_loopback) && !sources.contains(&IpAddr::from([127, 0, 0, 1])));
        assert!(flood.start().is_some(), "and then another");
        guard.abort();
    }

    #[tokio::test]
    async fn dials_of_a_guard_that_is_gone_do_not_count_as_refusals() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let flood = Flood::new(listener.local_addr().unwrap(), LASTS);
        drop(listener);
        let _running = flood.start().unwrap();
        sleep(Duration::from_secs(2)).await;
        let burst = &flood.progress().shapes[0];
        assert_eq!((burst.dialled, burst.admitted), (12, 0));
        assert_eq!(burst.heard, BTreeMap::from([("nothing".to_owned(), 12)]));
    }
}
