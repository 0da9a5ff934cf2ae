//! A small flood, for showing: real sockets from other loopback addresses, in the shapes that chat servers meet in the
//! field. Bounded in count, and over after [`LASTS`] whatever the guard does: its tasks end then, and with them its
//! sockets.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use super::shapes::{self, Attacker, Shape};

/// The one flood that may run at a time.
#[derive(Debug)]
pub struct Flood {
    guard: SocketAddr,
    lasts: Duration,
    board: Arc<Board>,
}

/// What the last flood's sockets have come to so far.
#[derive(Clone, Debug, Serialize)]
pub struct Progress {
    /// Until it is over; 0 when none is running.
    pub left_ms: u64,
    /// One for each shape; none before the first flood.
    pub shapes: Vec<Fate>,
}

/// What the sockets of one shape have come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fate {
    /// Its word.
    pub shape: &'static str,
    /// Where its sockets come from.
    pub from: String,
    /// Sockets dialled.
    pub dialled: u32,
    /// Those that were let in.
    pub admitted: u32,
    /// Those of them that are open now.
    pub open: u32,
    /// What the others heard, and those that were closed again: the status with its reason, or the close code with its
    /// own.
    pub heard: BTreeMap<String, u32>,
}

/// Where every task of a flood writes down what it meets.
#[derive(Debug, Default)]
pub(super) struct Board {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    ends: Option<Instant>,
    fates: Vec<Fate>,
}

impl Flood {
    /// None is running; each lasts so long.
    pub fn new(guard: SocketAddr, lasts: Duration) -> Self {
        Self {
            guard: reachable(guard),
            lasts,
            board: Arc::default(),
        }
    }

    /// Starts one, which ends when the handle does. `None`: one is running.
    pub fn start(&self) -> Option<JoinHandle<()>> {
        {
            let mut inner = self.board.inner.lock();
            if inner.ends.is_some() {
                return None;
            }
            inner.ends = Some(Instant::now() + self.lasts);
            inner.fates = Shape::ALL.map(Fate::of).into();
        }
        let (guard, lasts, board) = (self.guard, self.lasts, Arc::clone(&self.board));
        Some(tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            for (shape, from, nth) in Shape::ALL.into_iter().flat_map(Shape::sockets) {
                let attacker = Attacker::new(guard, from, shape, Arc::clone(&board));
                tasks.spawn(shapes::play(attacker, nth));
            }
            sleep(lasts).await;
            tasks.shutdown().await;
            board.inner.lock().ends = None;
        }))
    }

    /// How the one that runs fares, or how the last one did.
    pub fn progress(&self) -> Progress {
        let inner = self.board.inner.lock();
        let left = inner
            .ends
            .map_or(Duration::ZERO, |ends| ends.saturating_duration_since(Instant::now()));
        Progress {
            left_ms: match inner.ends {
                // It has yet to clear away.
                Some(_) => u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1),
                None => 0,
            },
            shapes: inner.fates.clone(),
        }
    }
}

impl Board {
    pub(super) fn change(&self, shape: Shape, change: impl FnOnce(&mut Fate)) {
        if let Some(fate) = self.inner.lock().fates.get_mut(shape as usize) {
            change(fate);
        }
    }
}

impl Fate {
    fn of(shape: Shape) -> Self {
        let sources: Vec<IpAddr> = shape.sockets().map(|(_, from, _)| from.into()).collect();
        let from = match (sources.first(), sources.last()) {
            (Some(first), Some(last)) if first != last => format!("{first} to {last}"),
            (first, _) => first.map_or_else(String::new, ToString::to_string),
        };
        Self {
            shape: shape.word(),
            from,
            dialled: 0,
            admitted: 0,
            open: 0,
            heard: BTreeMap::new(),
        }
    }

    /// As a line for people.
    pub fn line(&self) -> String {
        let heard: Vec<_> = self
            .heard
            .iter()
            .map(|(what, n)| format!(", {n} heard {what}"))
            .collect();
        format!(
            "{} from {}: {} dialled, {} let in{}",
            self.shape,
            self.from,
            self.dialled,
            self.admitted,
            heard.concat()
        )
    }
}

fn reachable(guard: SocketAddr) -> SocketAddr {
    if guard.ip().is_unspecified() {
        return SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), guard.port());
    }
    guard
}

/// Long enough for the demo's ping and the time of its pong, with some to spare.
pub const LASTS: Duration = Duration::from_secs(15);

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::collections::BTreeSet;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    /// A guard that lets nobody in; tells who came.
    async fn refuses_all(listener: TcpListener, came: Arc<Mutex<Vec<IpAddr>>>) {
        let mut tasks = JoinSet::new();
        loop {
            let (mut socket, peer) = listener.accept().await.unwrap();
            came.lock().push(peer.ip());
            tasks.spawn(async move {
                // Who says nothing is closed after a while.
                let read = timeout(Duration::from_secs(1), socket.read(&mut [0; 4096])).await;
                if matches!(read, Ok(Ok(1..))) {
                    let answer = "HTTP/1.1 503 Service Unavailable\r\nX-Wsguard-Reason: zone_full\r\n\r\n";
                    let _ = socket.write_all(answer.as_bytes()).await;
                }
            });
        }
    }

    #[tokio::test]
    async fn it_is_bounded_in_count_and_time_and_comes_from_loopback_addresses_of_its_own() {
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
        let dialled: u32 = progress.shapes.iter().map(|fate| fate.dialled).sum();
        assert_eq!(usize::try_from(dialled).unwrap(), came.lock().len(), "each is counted");
        assert!(dialled <= 400, "{dialled}");
        for fate in &progress.shapes {
            assert_eq!((fate.admitted, fate.open), (0, 0), "{fate:?}");
            assert_eq!(fate.dialled, fate.heard.values().sum::<u32>(), "{fate:?}");
        }
        let sources: BTreeSet<_> = came.lock().iter().copied().collect();
        assert_eq!(sources.len(), 34);
        assert!(sources.iter().all(IpAddr::is_loopback) && !sources.contains(&IpAddr::from([127, 0, 0, 1])));
        assert!(flood.start().is_some(), "and then another");
        guard.abort();
    }

    #[tokio::test]
    async fn a_guard_that_is_gone_is_no_refusal() {
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
