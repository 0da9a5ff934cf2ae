//! A worker: one thread, one runtime, its own listening sockets, and the connections it accepted, for their whole life.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use socket2::Socket;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::net::fault;
use crate::net::listen::Listener as Door;
use crate::net::lookout::Mark;
use crate::net::pipe::Pipe;
use crate::relay::clock::Clock;
use crate::relay::pulse::Pulse;
use crate::relay::terms::Terms;

use crate::control::Guard;
use crate::control::descriptors::pipes_a_worker;
use crate::engine::accept::accept;
use crate::engine::ghosts::{Suspect, Whose};
use crate::engine::liveness::{Moment, Watched};
use crate::engine::panics::survive;
use crate::engine::parked::{Lobby, attend};
use crate::engine::post::Post;
use crate::live::running::Running;

/// What the tasks of one worker share.
#[derive(Debug)]
pub struct Worker {
    index: usize,
    guard: Arc<Guard>,
    jitter: RandomState,
    lobby: Lobby,
    watched: Mutex<Vec<Watched>>,
    started: Instant,
    /// What its open connections are judged by.
    clock: Clock,
    /// Milliseconds from `started` to the last sweep: a worker that is stuck in something does not sweep.
    swept: AtomicU64,
}

/// A worker as the guard holds it: dropping it ends the worker and its connections.
#[derive(Debug)]
pub struct Handle {
    worker: Arc<Worker>,
    shares: UnboundedSender<Share>,
    thread: JoinHandle<()>,
}

/// A post's socket for one worker.
#[derive(Debug)]
pub struct Share {
    /// The post.
    pub post: Arc<Post>,
    /// What says that it closes.
    pub closes: watch::Receiver<bool>,
    /// Its socket.
    pub socket: Socket,
}

impl Worker {
    /// Starts worker number `index`.
    pub fn start(index: usize, guard: Arc<Guard>) -> io::Result<Handle> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (lobby, ended) = {
            let _in = runtime.enter();
            Lobby::new()?
        };
        let started = Instant::now();
        let worker = Arc::new(Self {
            index,
            guard,
            jitter: RandomState::new(),
            lobby,
            watched: Mutex::default(),
            started,
            clock: Clock::begin(started),
            swept: AtomicU64::new(0),
        });
        let (shares, receives) = unbounded_channel();
        let runs = Arc::clone(&worker);
        let thread = std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || runtime.block_on(runs.run(receives, ended)))?;
        Ok(Handle { worker, shares, thread })
    }

    /// Its number, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// What it serves.
    pub fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    /// Where those of its sockets wait that have more to say.
    pub(crate) fn lobby(&self) -> &Lobby {
        &self.lobby
    }

    /// Has the sweep watch a connection that opens `now`, until its relay is dropped.
    pub fn watch(&self, pulse: Arc<Pulse>, whose: Whose, terms: Arc<Terms>, now: Instant) {
        let share =
            f64::from(u16::try_from(self.jitter.hash_one(now) & 0xffff).unwrap_or_default()) / f64::from(u16::MAX);
        let now = self.moment(now).next();
        self.watched.lock().push(Watched::new(pulse, whose, terms, share, now));
    }

    fn moment(&self, now: Instant) -> Moment {
        Moment::at(self.clock.at(now), self.started)
    }

    /// The moment of a sweep that was due then, and is made now.
    fn tick(&self, due: Instant, now: Instant) -> Moment {
        let judged = self.clock.look(now);
        // The tick's own time, where it is not long ago: measured by the clock, a limit would be missed by a hair and cost
        // another tick.
        let is_late = now.saturating_duration_since(due) >= EVERY;
        Moment::at(if is_late { judged } else { self.clock.at(due) }, self.started)
    }

    /// Serves what it is given, until nobody can give it more.
    async fn run(self: Arc<Self>, mut shares: UnboundedReceiver<Share>, ended: UnboundedReceiver<Mark>) {
        let running = self.guard.running();
        Pipe::allow(pipes_a_worker(running.shared.descriptors, running.shared.workers));
        drop(running);
        if self.index == 0 {
            tokio::spawn(expire(Arc::clone(&self)));
        }
        tokio::spawn(sweep(Arc::clone(&self)));
        tokio::spawn(attend(Arc::clone(&self), ended));
        while let Some(Share { post, closes, socket }) = shares.recv().await {
            match Door::register(socket, post.is_inherited()) {
                Ok(door) => {
                    tokio::spawn(accept(door, post, closes, Arc::clone(&self)));
                }
                Err(error) => {
                    let log = self.guard.log();
                    log.warn("listener", &format!("{} is not served: {error}", post.address()));
                }
            }
        }
    }
}

impl Handle {
    /// Has the worker accept on one more socket.
    pub fn serve(&self, share: Share) {
        // It fails for a worker whose thread has ended, which it does when the guard does.
        let _ended = self.shares.send(share);
    }

    /// The worker's number.
    pub fn index(&self) -> usize {
        self.worker.index
    }

    /// For how long it has not come round to its sweep.
    pub fn silent_for(&self, now: Instant) -> Duration {
        let swept = self.worker.started + Duration::from_millis(self.worker.swept.load(Relaxed));
        now.saturating_duration_since(swept)
    }

    /// The connections that are open, and for how long nothing has moved on each.
    pub fn open(&self, now: Instant) -> Vec<(Duration, Arc<Pulse>)> {
        let now = self.worker.moment(now);
        let mut watched = self.worker.watched.lock();
        watched.retain_mut(Watched::is_open);
        watched.iter().map(|watched| watched.silence(now)).collect()
    }

    /// The connections of this client that have been silent for long, each asked by now whether it is still there.
    pub(crate) fn suspects(&self, whose: Whose, now: Instant) -> Vec<Suspect> {
        let now = self.worker.moment(now);
        let mut watched = self.worker.watched.lock();
        watched
            .iter_mut()
            .filter_map(|watched| watched.suspect(whose, now))
            .collect()
    }

    /// Ends the worker and every connection of its.
    pub fn stop(self) {
        drop(self.shares);
        // A worker that panicked has told so already.
        let _panicked = self.thread.join();
    }
}

/// Looks after what the worker's connections do not: they hold no timer while they are open.
async fn sweep(worker: Arc<Worker>) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut ticks = 0_u32;
    loop {
        let tick = every.tick().await.into_std();
        let now = worker.tick(tick, Instant::now());
        let mut rests = RESTS_A_TICK;
        // Each by itself: a fault over one connection must not keep those behind it from being looked at.
        worker
            .watched
            .lock()
            .retain_mut(|watched| survive(|| watched.look(now, &mut rests)).unwrap_or(true));
        let swept = worker.started.elapsed().as_millis();
        worker.swept.store(u64::try_from(swept).unwrap_or(u64::MAX), Relaxed);
        ticks = ticks.wrapping_add(1);
        if worker.index == 0 && ticks.is_multiple_of(A_SECOND) {
            survive(|| worker.guard.running().shared.admission.sweep(tick));
        }
    }
}

/// Ends pending sockets at their deadline. A room tells when its next one is due; who comes meanwhile is due later than
/// this looks again, unless a reload has made the timeout shorter than that.
async fn expire(worker: Arc<Worker>) {
    loop {
        let running = worker.guard.running();
        // Regular looks, by which the clock knows that the process runs.
        let now = running.shared.clock.now();
        let next = survive(|| expire_due(&running, now)).unwrap_or(now + EVERY);
        let next = running.shared.clock.monotonic(next);
        drop(running);
        tokio::time::sleep_until(next.into()).await;
    }
}

/// Ends those whose deadline has passed; says when to look again.
fn expire_due(running: &Running, now: Instant) -> Instant {
    fault::point("expire");
    let next = running
        .rooms()
        .filter_map(|room| room.expire(now))
        .fold(now + EVERY, Instant::min);
    let shortest = running
        .listeners
        .iter()
        .map(|listener| listener.policy.handshake_timeout)
        .min();
    shortest.map_or(next, |timeout| next.min(now + timeout))
}

const EVERY: Duration = Duration::from_millis(250);
/// A message to everybody has everybody fall silent at once, and whoever speaks meanwhile waits behind those that go to rest.
const RESTS_A_TICK: u32 = 512;
/// Ticks a second.
const A_SECOND: u32 = 4;
