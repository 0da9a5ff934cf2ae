//! Puts a new policy in force: as a whole or not at all, one at a time, and without closing a connection.

use std::io;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::config::file::Pipes;
use crate::config::findings::{Finding, Source};
use crate::config::policy::{LogLevel, Policy};
use crate::config::{Checked, Rejected, load_with};
use crate::net::address::Bind;

use crate::control::bind::{BindError, Own, bind};
use crate::control::descriptors::{self, TooFewDescriptors};
use crate::control::guard::{Guard, log_shortfalls};
use crate::control::policy_diff::policy_diff;
use crate::control::systemd::Reloading;
use crate::control::{memory, resolver};
use crate::engine::bound_listener::BoundListener;
use crate::live::in_force::InForce;
use crate::live::phase::Phase;
use crate::telemetry::log::Line;
use crate::telemetry::survive::survive;

/// Why a policy could not be put in force. The old one then stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file has mistakes, or can't be read.
    #[error("{}", first_mistake(.0))]
    Rejected(Rejected),
    /// The new policy changes a setting that can't change while the process runs.
    #[error("`{0}` can't be changed by a reload; restart wsguard for it")]
    NeedsRestart(&'static str),
    /// A new address can't be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The descriptor limit leaves no room.
    #[error(transparent)]
    TooFewDescriptors(#[from] TooFewDescriptors),
    /// The process is stopping.
    #[error("wsguard is stopping")]
    Stopping,
}

/// Reloads on request. One thread does all reloads for the life of the process. It is a thread because reading a file and
/// resolving names may take long. It is only one because each new thread would leave the memory of its arena behind.
#[derive(Debug)]
pub struct Reloader {
    requests: SyncSender<()>,
}

impl Reloader {
    /// Starts the thread. Dropping the result ends the thread.
    pub fn start(guard: &Arc<Guard>, path: &Path) -> io::Result<Self> {
        let (requests, received) = sync_channel(1);
        let (guard, path): (Weak<Guard>, _) = (Arc::downgrade(guard), path.to_path_buf());
        thread::Builder::new().name("reload".into()).spawn(move || {
            for () in received {
                let Some(guard) = guard.upgrade() else { return };
                // The reload has logged its result.
                survive(|| guard.reload_file(&path));
            }
        })?;
        Ok(Self { requests })
    }

    /// Requests a reload. The reload begins after the one that is under way. All requests that come before it begins share
    /// this reload.
    pub fn request(&self) {
        let _already_requested = self.requests.try_send(());
    }
}

impl Guard {
    /// Puts the file's policy in force, and logs what changed, or why the policy was refused.
    pub(crate) fn reload_file(&self, path: &Path) -> Result<(), ReloadError> {
        let mut last_read = self.reloading.lock();
        let _reloading = Reloading::begin(self);
        let loaded = load_with(&self.reader, path, Pipes::Refused);
        last_read.clone_from(match &loaded {
            Ok(checked) => &checked.source.text,
            Err(rejected) => &rejected.source.text,
        });
        let outcome = loaded
            .map_err(ReloadError::Rejected)
            .and_then(|checked| self.put_in_force(checked));
        let process = Arc::clone(&self.in_force().process);
        match outcome {
            Ok(changes) => {
                process.reloads.record(Ok(()), SystemTime::now());
                let line = Line {
                    message: Some(changes),
                    ..Line::default()
                };
                process.log.event(LogLevel::Info, "reloaded", line);
                Ok(())
            }
            Err(error) => {
                process.reloads.record(Err(error.to_string()), SystemTime::now());
                for mistake in mistakes(&error) {
                    let line = Line {
                        message: Some(mistake),
                        ..Line::default()
                    };
                    process.log.event(LogLevel::Error, "reload_refused", line);
                }
                Err(error)
            }
        }
    }

    /// Sets the text that the first policy came from, before any reload.
    pub(crate) fn set_initial_text(&self, text: Option<String>) {
        *self.reloading.lock() = text;
    }

    /// Whether the last reload, successful or not, read this text.
    pub(crate) fn has_read(&self, text: &[u8]) -> bool {
        self.reloading
            .lock()
            .as_ref()
            .is_some_and(|last| last.as_bytes() == text)
    }

    /// Puts a new policy in force; returns the changes in words. Every step that can fail comes before the swap.
    fn put_in_force(&self, checked: Checked) -> Result<String, ReloadError> {
        let before = self.in_force();
        let process = Arc::clone(&before.process);
        if !process.phase.is(Phase::Serving) {
            return Err(ReloadError::Stopping);
        }
        for warning in &checked.warnings {
            process
                .log
                .warn("config_warning", &finding_line(&checked.source, warning));
        }
        let policy = checked.policy;
        refuse_restart_only_changes(&before.policy, &policy)?;
        let allocation = descriptors::allocate(&policy, process.descriptors, process.workers, memory::limit())?;
        let listeners = self.listeners.lock().clone();
        let successors: Vec<_> = listeners.iter().map(|listener| listener.successor(&policy)).collect();
        let is_there = |asked: &Bind| successors.iter().flatten().any(|(_, bind)| *bind == asked);
        let own = |asked: &Bind| {
            let in_the_way = listeners
                .iter()
                .zip(&successors)
                .filter(|(listener, _)| listener.is_reachable() && listener.address().collides_with(asked));
            let own = in_the_way.map(|(listener, successor)| Own {
                listener: Arc::clone(&listener.listener().policy.name),
                address: listener.address().clone(),
                is_inherited: listener.is_inherited(),
                leaves: successor.is_none(),
            });
            // If several addresses are in the way, one that stays open counts first: it can't be bound again.
            own.min_by_key(|own| own.leaves)
        };
        let bound = bind(&policy, is_there, own, process.workers)?;
        // A listener counts as unused only when nothing else holds it.
        drop((successors, listeners));
        let mut shortfalls = descriptors::shortfalls(&policy, &allocation, process.descriptors);
        // A shortfall that was logged for the previous policy is not logged again.
        if let Ok(allocation) =
            descriptors::allocate(&before.policy, process.descriptors, process.workers, memory::limit())
        {
            let logged = descriptors::shortfalls(&before.policy, &allocation, process.descriptors);
            shortfalls.retain(|shortfall| !logged.contains(shortfall));
        }
        log_shortfalls(shortfalls, &process.log);
        let changes = policy_diff(&before.policy, &policy);
        let after = InForce::build(policy, Arc::clone(&process), &allocation.capacity, Some(&before));
        resolver::resolve_new(&after);
        for zone in &after.zones {
            zone.state.counts.budget.set_limit(zone.rules.connections);
        }
        process.adopt(&after.policy, &allocation.capacity);
        self.live.put_in_force(Arc::new(after));
        let retired = self.retire_unused();
        self.attach(bound);
        wait_until_unused(&retired);
        Ok(changes)
    }

    /// Gives each bound address to its listener in the new policy. Closes the addresses that the new policy does not name,
    /// and returns them.
    fn retire_unused(&self) -> Vec<Arc<BoundListener>> {
        let in_force = self.in_force();
        let mut retired = Vec::new();
        self.listeners.lock().retain(|listener| {
            let successor = listener.successor(&in_force.policy);
            if let Some((at, _)) = successor {
                listener.set_policy(Arc::clone(&in_force.listeners[at]), Arc::clone(&in_force));
            } else {
                listener.close();
                retired.push(Arc::clone(listener));
            }
            successor.is_some()
        });
        retired
    }
}

/// Waits until the workers have closed the retired addresses: the next reload may name such an address again, and would find
/// it in use. The wait is short, even if a worker is too busy to close its sockets.
fn wait_until_unused(retired: &[Arc<BoundListener>]) {
    let deadline = Instant::now() + CLOSE_TIMEOUT;
    while !retired.iter().all(BoundListener::is_unused) && Instant::now() < deadline {
        thread::sleep(POLL_INTERVAL);
    }
}

/// Returns an error if a change needs a restart.
fn refuse_restart_only_changes(before: &Policy, after: &Policy) -> Result<(), ReloadError> {
    let restart_only = [
        ("server.workers", before.server.workers == after.server.workers),
        ("server.table_size", before.server.table_size == after.server.table_size),
        (
            "client_ip.ipv4_prefix",
            before.identity.prefixes.v4 == after.identity.prefixes.v4,
        ),
        (
            "client_ip.ipv6_prefix",
            before.identity.prefixes.v6 == after.identity.prefixes.v6,
        ),
        (
            "client_ip.translation_prefixes",
            before.identity.translations == after.identity.translations,
        ),
        ("admin.listen", before.admin.listen == after.admin.listen),
        ("admin.hosts", before.admin.hosts == after.admin.hosts),
        ("admin.clients", before.admin.clients == after.admin.clients),
    ];
    match restart_only.iter().find(|(_, is_same)| !is_same) {
        Some((key, _)) => Err(ReloadError::NeedsRestart(key)),
        None => Ok(()),
    }
}

/// Each mistake as a line of text, with its place.
fn mistakes(error: &ReloadError) -> Vec<String> {
    match error {
        ReloadError::Rejected(rejected) => rejected
            .mistakes
            .iter()
            .map(|mistake| finding_line(&rejected.source, mistake))
            .collect(),
        other => vec![other.to_string()],
    }
}

fn first_mistake(rejected: &Rejected) -> String {
    rejected
        .mistakes
        .first()
        .map_or_else(String::new, |mistake| finding_line(&rejected.source, mistake))
}

/// A finding in one line, such as "wsguard.toml:3:1: unknown key `per_pi` (did you mean `per_ip`?)".
pub fn finding_line(source: &Source, finding: &Finding) -> String {
    let place = match finding.span {
        Some(_) => {
            let (line, column) = source.place(finding);
            format!("{}:{line}:{column}: ", source.name)
        }
        None => String::new(),
    };
    let hint = finding
        .hint
        .as_ref()
        .map_or_else(String::new, |hint| format!(" ({hint})"));
    format!("{place}{}{hint}", finding.title)
}

/// Whether users outside the file's owner and group may write to it.
pub fn is_world_writable(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata(path)?.mode() & 0o002 != 0)
}

const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(1);
