//! A running guard: how it starts, what it holds, and how it stops.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::config::file::Reader;
use crate::config::policy::{LogLevel, Policy};
use crate::engine::bound_listener::BoundListener;
use crate::engine::conn::Conn;
use crate::engine::ghosts::search_permits::SearchPermits;
use crate::engine::registry::Registry;
use crate::engine::worker::{Common, Worker, WorkerSocket};
use crate::live::in_force::{InForce, Live};
use crate::live::phase::Phase;
use crate::live::process::ProcessState;
use crate::net::address::Bind;
use crate::net::bound::BoundSockets;
use crate::net::inherit::Inherited;
use crate::net::options::refused_options;
use crate::net::random::Random;
use crate::telemetry::log::{Line, Log};

use crate::control::bind::{BindError, bind};
use crate::control::descriptors::{self, Shortfall, TooFewDescriptors};
use crate::control::inherited::{ShareError, share};
use crate::control::memory;
use crate::control::notifier::Notifier;
use crate::control::resolver;

/// A guard that is running.
#[derive(Debug)]
pub struct Guard {
    pub(super) live: Arc<Live>,
    pub(super) registry: Arc<Registry>,
    pub(super) listeners: Mutex<Vec<Arc<BoundListener>>>,
    workers: Mutex<Vec<Worker>>,
    /// The text that the last reload read. The lock allows one reload at a time.
    pub(super) reloading: Mutex<Option<String>>,
    /// Reads the file for a reload.
    pub(super) reader: Reader,
    /// The lock allows one scrape at a time, because a scrape updates totals before it reads them.
    scraping: Mutex<()>,
    pub(super) notifier: Notifier,
}

/// The parts of its process that a guard may use. A guard changes nothing else in the process: no limit, no panic hook, no
/// signal handler.
#[derive(Debug)]
pub struct Environment {
    /// How many descriptors may be open: see [`descriptors::limit`] and [`descriptors::raise_limit`].
    pub descriptors: u64,
    /// Sockets that systemd has bound.
    pub sockets: Vec<Inherited>,
    /// Reports the state to systemd.
    pub notifier: Notifier,
}

impl Environment {
    /// An environment with this many `descriptors`, and without systemd.
    pub fn new(descriptors: u64) -> Self {
        Self {
            descriptors,
            sockets: Vec::new(),
            notifier: Notifier::default(),
        }
    }
}

/// Why a guard could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A socket from systemd could not be given to a listener.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// The descriptor limit is too low.
    #[error(transparent)]
    TooFewDescriptors(#[from] TooFewDescriptors),
    /// The operating system gives no random numbers.
    #[error("cannot start without random numbers from the operating system: {0}")]
    Randomness(io::Error),
    /// A thread or a runtime could not be made.
    #[error("cannot start: {0}")]
    Thread(#[from] io::Error),
}

impl Guard {
    /// Binds every listener that systemd has not already bound, starts the workers and serves. One process may run several
    /// guards.
    ///
    /// # Errors
    /// An address can't be bound, the descriptors do not suffice, there are no random numbers, or a thread can't be made. In
    /// these cases nothing is served.
    pub fn start(policy: Policy, environment: Environment) -> Result<Arc<Self>, StartError> {
        let Environment {
            descriptors: limit,
            sockets,
            notifier,
        } = environment;
        let random = Random::from_os().map_err(StartError::Randomness)?;
        let log = Log::start(policy.log.clone())?;
        let workers = policy.server.workers.map_or_else(descriptors::cpus, usize::from);
        let allocation = descriptors::allocate(&policy, limit, workers, memory::limit())?;
        log_shortfalls(descriptors::shortfalls(&policy, &allocation, limit), &log);
        for refused in refused_options() {
            log.warn("socket_option", &refused.to_string());
        }
        let mut bound = share(&policy, sockets, workers)?;
        let missing = bind(
            &policy,
            |asked| bound.iter().any(|(_, given, _)| given == asked),
            |_| None,
            workers,
        )?;
        bound.extend(missing);
        let process = Arc::new(ProcessState::begin(
            &policy,
            &allocation.capacity,
            workers,
            limit,
            log,
            random,
        ));
        let live = Arc::new(Live::new(InForce::build(
            policy,
            Arc::clone(&process),
            &allocation.capacity,
            None,
        )));
        resolver::start(&live)?;
        let guard = Arc::new(Self {
            live,
            registry: Arc::new(Registry::new(process, Instant::now())),
            listeners: Mutex::default(),
            workers: Mutex::default(),
            reloading: Mutex::default(),
            reader: Reader::default(),
            scraping: Mutex::default(),
            notifier,
        });
        let common = Common {
            live: Arc::clone(&guard.live),
            registry: Arc::clone(&guard.registry),
            search_permits: Arc::new(SearchPermits::default()),
            pipes: descriptors::pipes_per_worker(limit, workers),
        };
        for index in 0..workers {
            let worker = Worker::start(index, common.clone())?;
            guard.workers.lock().push(worker);
        }
        guard.attach(bound);
        Ok(guard)
    }

    /// The policy in force, and its state.
    pub(crate) fn in_force(&self) -> Arc<InForce> {
        self.live.in_force()
    }

    /// The name and the address of each listener. A port 0 is replaced by the port that the kernel chose.
    pub fn addresses(&self) -> Vec<(Arc<str>, Bind)> {
        let listeners = self.listeners.lock();
        listeners
            .iter()
            .map(|listener| (Arc::clone(&listener.listener().policy.name), listener.address().clone()))
            .collect()
    }

    /// Calls `read` for a scrape, with the policy in force and its state. Only one scrape runs at a time, because it updates
    /// totals before it reads them. `read` also gets whether series of removed parts may be forgotten. During a reload they
    /// may not, because the reload may bring the parts back.
    pub(crate) fn scrape<T>(&self, read: impl FnOnce(&InForce, bool) -> T) -> T {
        let _one_at_a_time = self.scraping.lock();
        let no_reload = self.reloading.try_lock();
        read(&self.in_force(), no_reload.is_some())
    }

    /// The open connections, in no order.
    pub fn connections(&self) -> Vec<Conn> {
        self.registry.connections(Instant::now())
    }

    /// Whether load balancers should send clients here.
    pub(crate) fn is_ready(&self) -> bool {
        self.live.process().phase.is(Phase::Serving)
    }

    /// The log.
    pub(crate) fn log(&self) -> Log {
        self.live.log()
    }

    /// Ends the workers and every connection.
    pub fn stop(&self) {
        // This comes first: connections that end with their worker then have the right outcome, that the process is
        // stopping.
        self.live.process().phase.enter(Phase::Draining);
        let workers = std::mem::take(&mut *self.workers.lock());
        workers.into_iter().for_each(Worker::stop);
        for listener in self.listeners.lock().drain(..) {
            listener.close();
        }
        self.log().flush();
    }

    /// The number of connections that hold a permit.
    pub(super) fn alive(&self) -> i64 {
        self.live.process().alive.load(Relaxed)
    }

    /// The number of a worker that has done nothing for longer than `limit`.
    pub(super) fn stuck_worker(&self, limit: Duration, now: Instant) -> Option<usize> {
        let workers = self.workers.lock();
        let silent = workers.iter().find(|worker| worker.silent_for(now) > limit)?;
        Some(silent.index())
    }

    /// Makes the workers accept on the sockets that were bound for the policy in force.
    pub(super) fn attach(&self, bound: Vec<(usize, Bind, BoundSockets)>) {
        let in_force = self.in_force();
        let workers = self.workers.lock();
        for (at, asked, bound) in bound {
            let listener = BoundListener::new(
                asked,
                &bound,
                Arc::clone(&in_force.listeners[at]),
                Arc::clone(&in_force),
            );
            let line = Line {
                listener: Some(Arc::clone(&in_force.policy.listeners[at].name)),
                address: Some(bound.address.to_string()),
                message: bound.is_inherited.then(|| "a socket from systemd".to_owned()),
                ..Line::default()
            };
            in_force.process.log.event(LogLevel::Info, "listening", line);
            for (worker, socket) in workers.iter().zip(bound.into_sockets()) {
                worker.serve(WorkerSocket {
                    bound: Arc::clone(&listener),
                    closes: listener.closing(),
                    socket,
                });
            }
            let mut listeners = self.listeners.lock();
            // The process may have begun to drain during a reload. The drain has closed every listener that existed then,
            // but not this one.
            if in_force.process.phase.is(Phase::Draining) {
                listener.close();
            }
            listeners.push(listener);
        }
    }
}

/// Logs each number of the policy that was lowered because it does not fit. For pending seats the level is only info,
/// because the default is lowered on every machine with few descriptors.
pub(super) fn log_shortfalls(shortfalls: Vec<Shortfall>, log: &Log) {
    for shortfall in shortfalls {
        let level = if shortfall.listener.is_some() {
            LogLevel::Info
        } else {
            LogLevel::Warn
        };
        let line = Line {
            listener: shortfall.listener,
            message: Some(shortfall.message),
            ..Line::default()
        };
        log.event(level, "lowered", line);
    }
}
