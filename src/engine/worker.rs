//! A worker: one thread, one runtime, its own listening sockets, and the connections it accepted, for their whole life.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::Socket;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;

use crate::live::in_force::Live;
use crate::net::accept_socket::AcceptSocket;
use crate::net::pipe::Pipe;

use crate::engine::accept::accept;
use crate::engine::bound_listener::BoundListener;
use crate::engine::context::Context;
use crate::engine::ghosts::search_permits::SearchPermits;
use crate::engine::parked_set::{ParkedSet, Wakes};
use crate::engine::registry::Registry;
use crate::engine::sweep::{LastSweep, expire, sweep};
use crate::engine::unpark::unpark;

/// A worker. Dropping it ends its thread and its connections.
#[derive(Debug)]
pub struct Worker {
    index: usize,
    last_sweep: Arc<LastSweep>,
    sockets: UnboundedSender<WorkerSocket>,
    thread: JoinHandle<()>,
}

/// The values that all workers share.
#[derive(Clone, Debug)]
pub struct Common {
    /// The policy in force, and the state that outlives it.
    pub live: Arc<Live>,
    /// The open connections.
    pub registry: Arc<Registry>,
    /// The permits to search for ghosts.
    pub search_permits: Arc<SearchPermits>,
    /// How many pipes each worker may hold for splicing.
    pub pipes: usize,
}

/// The socket of a bound listener for one worker.
#[derive(Debug)]
pub struct WorkerSocket {
    /// The bound listener.
    pub bound: Arc<BoundListener>,
    /// Becomes true when the listener closes.
    pub closes: watch::Receiver<bool>,
    /// Its socket.
    pub socket: Socket,
}

impl Worker {
    /// Starts worker number `index`.
    pub fn start(index: usize, common: Common) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (parked, wakes) = {
            let _in = runtime.enter();
            ParkedSet::new()?
        };
        let last_sweep = Arc::new(LastSweep::begin(Instant::now()));
        let Common {
            live,
            registry,
            search_permits,
            pipes,
        } = common;
        let cx = Arc::new(Context::new(index, live, registry, search_permits, parked));
        let (sockets, receives) = unbounded_channel();
        let swept = Arc::clone(&last_sweep);
        let thread = std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                Pipe::allow(pipes);
                runtime.block_on(run(cx, receives, wakes, swept));
            })?;
        Ok(Self {
            index,
            last_sweep,
            sockets,
            thread,
        })
    }

    /// Makes the worker accept on another socket.
    pub fn serve(&self, socket: WorkerSocket) {
        // Sending fails only if the worker's thread has ended, together with the guard.
        let _ended = self.sockets.send(socket);
    }

    /// The worker's number.
    pub fn index(&self) -> usize {
        self.index
    }

    /// How long ago it last swept.
    pub fn silent_for(&self, now: Instant) -> Duration {
        self.last_sweep.elapsed(now)
    }

    /// Ends the worker and all its connections.
    pub fn stop(self) {
        drop(self.sockets);
        // A panic of the worker is in the log already.
        let _panicked = self.thread.join();
    }
}

/// Accepts on the sockets that come through the channel, until the handle is dropped.
async fn run(cx: Arc<Context>, mut sockets: UnboundedReceiver<WorkerSocket>, wakes: Wakes, swept: Arc<LastSweep>) {
    if cx.index() == 0 {
        tokio::spawn(expire(Arc::clone(&cx)));
    }
    tokio::spawn(sweep(Arc::clone(&cx), swept));
    tokio::spawn(unpark(Arc::clone(&cx), wakes));
    while let Some(WorkerSocket { bound, closes, socket }) = sockets.recv().await {
        match AcceptSocket::register(socket, bound.is_inherited()) {
            Ok(socket) => {
                tokio::spawn(accept(socket, bound, closes, Arc::clone(&cx)));
            }
            Err(error) => {
                let message = format!("{} is not served: {error}", bound.address());
                cx.live.log().warn("listener", &message);
            }
        }
    }
}
