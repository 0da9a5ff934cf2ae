//! Operating the process: start and stop, reload, drain, systemd, descriptors and names.

use std::cmp::Reverse;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::config::file::Reader;
use crate::config::policy::{LogLevel, Policy};
use crate::net::address::Bind;
use crate::net::bound::BoundSockets;
use crate::net::inherit::Inherited;
use crate::net::options::refused_options;
use crate::relay::handle::ConnHandle;

pub mod config_watch;
pub mod descriptors;
pub mod drain;
mod file_view;
pub mod inherited;
mod memory;
pub mod reload;
pub mod resolver;
pub mod systemd;

use crate::admin::{scrape, stats};
use crate::engine::conn::Conn;
use crate::engine::ghosts::claims::Claims;
use crate::engine::post::Post;
use crate::engine::registry::Registry;
use crate::engine::worker::{Common, Share, Worker};
use crate::live::in_force::{InForce, Live};
use crate::live::phase::Phase;
use crate::live::process::ProcessState;
use crate::telemetry::log::{Line, Log};

use descriptors::TooFew;
use inherited::{ShareError, share};
use systemd::Notifier;

/// A guard that is running.
#[derive(Debug)]
pub struct Guard {
    live: Arc<Live>,
    registry: Arc<Registry>,
    posts: Mutex<Vec<Arc<Post>>>,
    workers: Mutex<Vec<Worker>>,
    /// One reload at a time; the text that the last one read.
    reloading: Mutex<Option<String>>,
    /// Reads the file for it.
    reader: Reader,
    /// One scrape at a time: it writes the gauges before it reads them.
    scraping: Mutex<()>,
    notifier: Notifier,
}

/// The part of its process that a guard may use. It changes nothing else of the process: no limit, no panic hook, no signal
/// handler.
#[derive(Debug)]
pub struct Environment {
    /// So many descriptors may be open: see [`descriptors::limit`] and [`descriptors::raise_limit`].
    pub descriptors: u64,
    /// Sockets that systemd has bound.
    pub sockets: Vec<Inherited>,
    /// Reports the state to systemd.
    pub notifier: Notifier,
}

impl Environment {
    /// So many `descriptors`, and no systemd.
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
    TooFewDescriptors(#[from] TooFew),
    /// A thread or a runtime could not be made.
    #[error("cannot start: {0}")]
    Thread(#[from] io::Error),
}

/// An address could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("listener {listener}: cannot bind {bind}{}: {error}", beside(.own.as_ref()))]
pub struct BindError {
    listener: Arc<str>,
    bind: Bind,
    /// What of ours is in its way.
    own: Option<Own>,
    error: io::Error,
}

/// An address that a listener of ours has.
#[derive(Clone, Debug)]
struct Own {
    listener: Arc<str>,
    address: Bind,
    is_inherited: bool,
    /// It closes when the policy at hand is in force.
    leaves: bool,
}

fn beside(own: Option<&Own>) -> String {
    let Some(own) = own else { return String::new() };
    let systemds = if own.is_inherited {
        ", a socket from systemd"
    } else {
        ""
    };
    format!(
        " in place of {}, which wsguard's own listener {} has{systemds}; a restart does it",
        own.address, own.listener
    )
}

impl Guard {
    /// Binds every listener that systemd has not bound already, starts the workers and serves. One process may run several
    /// guards.
    ///
    /// # Errors
    /// An address can't be bound, the descriptors do not suffice, or a thread can't be made. Nothing is served then.
    pub fn start(policy: Policy, environment: Environment) -> Result<Arc<Self>, StartError> {
        let Environment {
            descriptors: limit,
            sockets,
            notifier,
        } = environment;
        let log = Log::start(policy.log.clone())?;
        let workers = policy.server.workers.map_or_else(descriptors::cpus, usize::from);
        let room = descriptors::deal(&policy, limit, workers, memory::limit())?;
        tell_cuts(descriptors::cuts(&policy, &room, limit), &log);
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
        let process = Arc::new(ProcessState::begin(&policy, &room.capacity, workers, limit, log));
        let live = Arc::new(Live::new(InForce::build(policy, process, &room.capacity, None)));
        resolver::start(&live)?;
        let guard = Arc::new(Self {
            live,
            registry: Arc::new(Registry::new(workers, Instant::now())),
            posts: Mutex::default(),
            workers: Mutex::default(),
            reloading: Mutex::default(),
            reader: Reader::default(),
            scraping: Mutex::default(),
            notifier,
        });
        let common = Common {
            live: Arc::clone(&guard.live),
            registry: Arc::clone(&guard.registry),
            claims: Arc::new(Claims::default()),
            pipes: descriptors::pipes_a_worker(limit, workers),
        };
        for index in 0..workers {
            let worker = Worker::start(index, common.clone())?;
            guard.workers.lock().push(worker);
        }
        guard.man(bound);
        Ok(guard)
    }

    /// The policy in force, and its state.
    pub fn in_force(&self) -> Arc<InForce> {
        self.live.in_force()
    }

    /// Where each listener is bound; a port 0 has become the real one.
    pub fn addresses(&self) -> Vec<(Arc<str>, Bind)> {
        let posts = self.posts.lock();
        posts
            .iter()
            .map(|post| (Arc::clone(&post.listener().policy.name), post.address().clone()))
            .collect()
    }

    /// What /metrics says, in Prometheus' text format.
    pub fn metrics_text(&self) -> String {
        let _one_at_a_time = self.scraping.lock();
        // A reload may bring back what is gone by the policy before.
        let no_reload = self.reloading.try_lock();
        scrape::metrics_text(&self.in_force(), no_reload.is_some())
    }

    /// What /stats says, in JSON, on one line.
    pub fn stats_json(&self) -> String {
        let mut json = serde_json::to_string(&stats::Stats::of(&self.in_force())).unwrap_or_default();
        json.push('\n');
        json
    }

    /// The open connections, in no order.
    pub fn connections(&self) -> Vec<Conn> {
        self.registry.connections(Instant::now())
    }

    /// Whether load balancers should send clients here.
    pub fn is_ready(&self) -> bool {
        self.live.process().phase.is(Phase::Serving)
    }

    /// The log.
    pub fn log(&self) -> Log {
        self.live.log()
    }

    /// Ends the workers and every connection.
    pub fn stop(&self) {
        // Connections that end with their worker have an outcome then: the process is stopping.
        self.live.process().phase.enter(Phase::Draining);
        let workers = std::mem::take(&mut *self.workers.lock());
        workers.into_iter().for_each(Worker::stop);
        for post in self.posts.lock().drain(..) {
            post.close();
        }
        self.log().flush();
    }

    /// Connections that hold a permit.
    fn alive(&self) -> i64 {
        self.live.process().alive.load(Relaxed)
    }

    /// The open connections, the longest silent first.
    fn open(&self) -> Vec<Arc<ConnHandle>> {
        let mut open: Vec<(Duration, Arc<ConnHandle>)> = self.registry.view(Instant::now(), |row, now| {
            Some((row.silence(now), Arc::clone(row.handle())))
        });
        open.sort_by_key(|(silence, _)| Reverse(*silence));
        open.into_iter().map(|(_, handle)| handle).collect()
    }

    /// The number of a worker that has done nothing for longer than `limit`.
    fn silent_worker(&self, limit: Duration, now: Instant) -> Option<usize> {
        let workers = self.workers.lock();
        let silent = workers.iter().find(|worker| worker.silent_for(now) > limit)?;
        Some(silent.index())
    }

    /// Has the workers accept on what was bound for the policy in force.
    fn man(&self, bound: Vec<(usize, Bind, BoundSockets)>) {
        let in_force = self.in_force();
        let workers = self.workers.lock();
        for (at, asked, bound) in bound {
            let post = Post::new(
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
                worker.serve(Share {
                    post: Arc::clone(&post),
                    closes: post.closes(),
                    socket,
                });
            }
            let mut posts = self.posts.lock();
            // The process may have begun to drain while a reload was under way, and closed every post there was.
            if in_force.process.phase.is(Phase::Draining) {
                post.close();
            }
            posts.push(post);
        }
    }
}

/// Binds what the policy's listeners ask for and is not there yet; the number is the listener's place. `own` tells what of ours
/// is in the way of an address. In place of one that leaves it is bound all the same, and listens when everything is bound.
fn bind(
    policy: &Policy,
    is_there: impl Fn(&Bind) -> bool,
    own: impl Fn(&Bind) -> Option<Own>,
    workers: usize,
) -> Result<Vec<(usize, Bind, BoundSockets)>, BindError> {
    let mut all = Vec::new();
    let failed = |at: usize, bind: &Bind, own: Option<Own>, error: io::Error| BindError {
        listener: Arc::clone(&policy.listeners[at].name),
        bind: bind.clone(),
        own: own.filter(|_| error.kind() == io::ErrorKind::AddrInUse),
        error,
    };
    for (at, listener) in policy.listeners.iter().enumerate() {
        for asked in listener.bind.iter().filter(|asked| !is_there(asked)) {
            let own = own(asked);
            let bound = match &own {
                None => BoundSockets::bind(asked, listener.backlog, workers),
                Some(own) if own.leaves => BoundSockets::join(asked, listener.backlog, workers),
                Some(_) => Err(io::ErrorKind::AddrInUse.into()),
            };
            all.push((at, asked.clone(), bound.map_err(|error| failed(at, asked, own, error))?));
        }
    }
    for (at, asked, bound) in &mut all {
        bound.listen().map_err(|error| failed(*at, asked, own(asked), error))?;
    }
    Ok(all)
}

/// What was asked for and does not fit is cut, and said. Pending seats are so by default on a machine with few
/// descriptors, which is no reason to worry anybody.
fn tell_cuts(cuts: Vec<descriptors::Cut>, log: &Log) {
    for cut in cuts {
        let level = if cut.listener.is_some() {
            LogLevel::Info
        } else {
            LogLevel::Warn
        };
        let line = Line {
            listener: cut.listener,
            message: Some(cut.message),
            ..Line::default()
        };
        log.event(level, "lowered", line);
    }
}
