//! A worker: one thread, one runtime, its own listening sockets, and the connections it accepted, for their whole life.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use socket2::Socket;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::net::listen::Listener as Door;
use crate::relay::pace::Pace;
use crate::relay::pulse::Pulse;

use super::Guard;
use super::accept::accept;
use super::running::Listener;
use super::sweep::Watched;

/// What the tasks of one worker share.
#[derive(Debug)]
pub struct Worker {
    index: usize,
    guard: Arc<Guard>,
    jitter: RandomState,
    watched: Mutex<Vec<Watched>>,
}

/// A listener's socket for one worker.
#[derive(Debug)]
pub struct Share {
    /// The listener.
    pub listener: Arc<Listener>,
    /// Its socket.
    pub socket: Socket,
}

impl Worker {
    /// Starts worker number `index` on `shares`; it ends when `stop` says so.
    pub fn start(
        index: usize,
        guard: Arc<Guard>,
        shares: Vec<Share>,
        stop: watch::Receiver<bool>,
    ) -> io::Result<JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let worker = Arc::new(Self {
            index,
            guard,
            jitter: RandomState::new(),
            watched: Mutex::default(),
        });
        std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || runtime.block_on(worker.run(shares, stop)))
    }

    /// Its number, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// What it serves.
    pub fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    /// Has the sweep watch a connection that opens `now`.
    pub fn watch(&self, pace: Pace, now: Instant) -> Arc<Pulse> {
        let pulse = Arc::new(Pulse::default());
        let share =
            f64::from(u16::try_from(self.jitter.hash_one(now) & 0xffff).unwrap_or_default()) / f64::from(u16::MAX);
        self.watched
            .lock()
            .push(Watched::new(Arc::clone(&pulse), pace, share, now));
        pulse
    }

    async fn run(self: Arc<Self>, shares: Vec<Share>, mut stop: watch::Receiver<bool>) {
        if self.index == 0 {
            for listener in &self.guard.running().listeners {
                tokio::spawn(expire(Arc::clone(listener)));
            }
        }
        for Share { listener, socket } in shares {
            match Door::register(socket) {
                Ok(door) => {
                    tokio::spawn(accept(door, listener, Arc::clone(&self)));
                }
                Err(error) => self
                    .guard
                    .running()
                    .shared
                    .log
                    .warn("listener", &format!("not served: {error}")),
            }
        }
        tokio::spawn(sweep(Arc::clone(&self)));
        let _guard_is_gone = stop.wait_for(|stop| *stop).await;
    }
}

/// Looks after what the worker's connections do not: they hold no timer while they are open.
async fn sweep(worker: Arc<Worker>) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut ticks = 0_u32;
    loop {
        // The tick's own time: measured by the clock, a limit would be missed by a hair and cost another tick.
        let now = every.tick().await.into_std();
        worker.watched.lock().retain_mut(|watched| watched.look(now));
        ticks = ticks.wrapping_add(1);
        if worker.index == 0 && ticks.is_multiple_of(A_SECOND) {
            worker.guard.running().shared.admission.sweep(now);
        }
    }
}

/// Ends pending sockets at their deadline. The timeout is the same for all of a listener's, so the oldest is the next
/// to end, and nobody that comes while this sleeps ends sooner.
async fn expire(listener: Arc<Listener>) {
    loop {
        let now = Instant::now();
        let next = listener
            .room
            .expire(now)
            .unwrap_or(now + listener.policy.handshake_timeout);
        tokio::time::sleep_until(next.into()).await;
    }
}

const EVERY: Duration = Duration::from_millis(250);
/// Ticks a second.
const A_SECOND: u32 = 4;
