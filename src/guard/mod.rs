//! The guard: what happens to a connection, from accept to ledger.
//!
//! Read [`walk`] first. This is the only floor that logs, counts metrics and decides what a peer hears.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::config::policy::{LogLevel, Policy};
use crate::net::address::Bind;
use crate::net::listen::Bound;

pub mod accept;
pub mod advice;
pub mod decide;
pub mod descriptors;
pub mod handshake;
pub mod identify;
pub mod ledger;
pub mod log;
pub mod metrics;
pub mod process;
pub mod reason;
pub mod refuse;
pub mod resolve;
pub mod running;
pub mod sample;
pub mod scrape;
pub mod stats;
pub mod stop;
mod sweep;
pub mod walk;
pub mod worker;

use descriptors::TooFew;
use log::{Line, Log};
use running::{Running, Shared};
use worker::{Share, Worker};

/// A guard that is running.
#[derive(Debug)]
pub struct Guard {
    running: ArcSwap<Running>,
    addresses: Vec<(Arc<str>, Bind)>,
    stop: watch::Sender<bool>,
    workers: Mutex<Vec<JoinHandle<()>>>,
    scraping: Mutex<()>,
}

/// Why a guard could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error("listener {listener}: cannot bind {bind}: {error}")]
    Bind {
        /// The listener's name.
        listener: Arc<str>,
        /// The address.
        bind: Bind,
        /// What the system says.
        error: io::Error,
    },
    /// The descriptor limit is too low.
    #[error(transparent)]
    TooFewDescriptors(#[from] TooFew),
    /// A thread or a runtime could not be made.
    #[error("cannot start: {0}")]
    Thread(#[from] io::Error),
}

impl Guard {
    /// Binds every listener, starts the workers and serves.
    pub fn start(policy: Policy) -> Result<Arc<Self>, StartError> {
        let log = Log::start(policy.log.clone())?;
        let workers = policy.server.workers.map_or_else(descriptors::cpus, usize::from);
        let limit = descriptors::raise_limit();
        let room = descriptors::deal(&policy, limit, workers)?;
        for (listener, cut) in descriptors::cuts(&policy, &room, limit) {
            log.event(
                LogLevel::Warn,
                "cut",
                Line {
                    listener,
                    message: Some(cut),
                    ..Line::default()
                },
            );
        }
        let bound = bind_all(&policy, workers)?;
        let shared = Arc::new(Shared::begin(&policy, &room, workers, log));
        let running = Running::begin(policy, shared, &room);
        let addresses = bound
            .iter()
            .map(|(at, bound)| (Arc::clone(&running.listeners[*at].policy.name), bound.address.clone()));
        let addresses: Vec<(Arc<str>, Bind)> = addresses.collect();
        let mut by_worker: Vec<Vec<Share>> = (0..workers).map(|_| Vec::new()).collect();
        for (at, bound) in bound {
            for (worker, socket) in bound.into_sockets().into_iter().enumerate() {
                by_worker[worker].push(Share {
                    listener: Arc::clone(&running.listeners[at]),
                    socket,
                });
            }
        }
        let (stop, stopped) = watch::channel(false);
        let guard = Arc::new(Self {
            running: ArcSwap::from_pointee(running),
            addresses,
            stop,
            workers: Mutex::default(),
            scraping: Mutex::default(),
        });
        resolve::start(&guard)?;
        for (index, shares) in by_worker.into_iter().enumerate() {
            let worker = Worker::start(index, Arc::clone(&guard), shares, stopped.clone())?;
            guard.workers.lock().push(worker);
        }
        guard.tell_addresses();
        Ok(guard)
    }

    /// The policy in force, and its state.
    pub fn running(&self) -> Arc<Running> {
        self.running.load_full()
    }

    /// Where each listener is bound; a port 0 has become the real one.
    pub fn addresses(&self) -> &[(Arc<str>, Bind)] {
        &self.addresses
    }

    /// What /metrics says, in Prometheus' text format.
    pub fn metrics_text(&self) -> String {
        let _one_at_a_time = self.scraping.lock();
        scrape::metrics_text(&self.running())
    }

    /// What /stats says, in JSON.
    pub fn stats_json(&self) -> String {
        serde_json::to_string(&stats::Stats::of(&self.running())).unwrap_or_default()
    }

    /// Whether load balancers should send clients here.
    pub fn is_ready(&self) -> bool {
        !*self.stop.borrow()
    }

    /// The log.
    pub fn log(&self) -> Log {
        self.running().shared.log.clone()
    }

    /// Ends the workers and every connection.
    pub fn stop(&self) {
        self.stop.send_replace(true);
        for worker in std::mem::take(&mut *self.workers.lock()) {
            // A worker that panicked has told so already.
            let _panicked = worker.join();
        }
        self.log().flush();
    }

    fn tell_addresses(&self) {
        let log = self.log();
        for (listener, bind) in &self.addresses {
            let line = Line {
                listener: Some(Arc::clone(listener)),
                address: Some(bind.to_string()),
                ..Line::default()
            };
            log.event(LogLevel::Info, "listening", line);
        }
    }
}

/// Binds what every listener asks for; the number is the listener's place.
fn bind_all(policy: &Policy, workers: usize) -> Result<Vec<(usize, Bound)>, StartError> {
    let mut all = Vec::new();
    for (at, listener) in policy.listeners.iter().enumerate() {
        for bind in &listener.bind {
            let bound = Bound::bind(bind, listener.backlog, workers).map_err(|error| StartError::Bind {
                listener: Arc::clone(&listener.name),
                bind: bind.clone(),
                error,
            })?;
            all.push((at, bound));
        }
    }
    Ok(all)
}
