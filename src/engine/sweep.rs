//! What a worker does at regular times: it visits its open connections, and ends pending sockets at their deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use crate::live::in_force::InForce;
use crate::net::fault;

use crate::engine::context::Context;
use crate::engine::timeouts::Parking;
use crate::telemetry::survive::survive;

/// When a worker last swept. A worker that is stuck does not sweep.
#[derive(Debug)]
pub struct LastSweep {
    started: Instant,
    /// Milliseconds from `started`.
    swept: AtomicU64,
}

impl LastSweep {
    /// The state of a worker that starts `now`. The start counts as its first sweep.
    pub fn begin(now: Instant) -> Self {
        Self {
            started: now,
            swept: AtomicU64::new(0),
        }
    }

    /// How long ago the last sweep was.
    pub fn elapsed(&self, now: Instant) -> Duration {
        let swept = self.started + Duration::from_millis(self.swept.load(Relaxed));
        now.saturating_duration_since(swept)
    }

    fn record(&self) {
        let swept = self.started.elapsed().as_millis();
        self.swept.store(u64::try_from(swept).unwrap_or(u64::MAX), Relaxed);
    }
}

/// Visits the worker's open connections four times a second: they hold no timer of their own.
pub(crate) async fn sweep(cx: Arc<Context>, last: Arc<LastSweep>) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut ticks = 0_u32;
    loop {
        let due = every.tick().await.into_std();
        let parking = Parking {
            after: fault::rest_after(PARK_AFTER),
            left: PARKED_A_TICK,
        };
        cx.registry.sweep(cx.index(), due, Instant::now(), EVERY, parking);
        last.record();
        ticks = ticks.wrapping_add(1);
        if cx.index() == 0 && ticks.is_multiple_of(A_SECOND) {
            survive(|| cx.live.process().admission.sweep(due));
        }
    }
}

/// Ends pending sockets at their deadline. Each room returns when its next deadline is due. The deadline of a socket
/// that comes in the meantime is later than the next look, unless a reload has made the timeout shorter.
pub(crate) async fn expire(cx: Arc<Context>) {
    loop {
        let in_force = cx.live.in_force();
        // The clock has to be read at regular times: otherwise it takes the time between two readings for a pause of
        // the process.
        let now = in_force.process.clock.now();
        let next = survive(|| expire_due(&in_force, now)).unwrap_or(now + EVERY);
        let next = in_force.process.clock.monotonic(next);
        drop(in_force);
        tokio::time::sleep_until(next.into()).await;
    }
}

/// Ends the pending sockets whose deadline has passed. Returns when to look again.
fn expire_due(in_force: &InForce, now: Instant) -> Instant {
    fault::point("expire");
    let next = in_force
        .rooms()
        .filter_map(|room| room.expire(now))
        .fold(now + EVERY, Instant::min);
    let shortest = in_force
        .listeners
        .iter()
        .map(|listener| listener.policy.handshake_timeout)
        .min();
    shortest.map_or(next, |timeout| next.min(now + timeout))
}

const EVERY: Duration = Duration::from_millis(250);
/// After a broadcast all connections become idle together. Parking them in batches keeps the latency of the others low.
const PARKED_A_TICK: u32 = 512;
/// Parking and resuming a connection costs some ten system calls. A connection with traffic more often than this is not
/// parked.
const PARK_AFTER: Duration = Duration::from_secs(5);
/// Ticks a second.
const A_SECOND: u32 = 4;
