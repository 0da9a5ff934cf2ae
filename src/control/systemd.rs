//! Notifies systemd (`sd_notify(3)`) of start, reload, stop and status, and feeds its watchdog while every worker runs.

use std::fmt::Write;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::control::guard::Guard;
use crate::live::phase::Phase;

/// A reload that systemd was notified of. Dropping it notifies systemd of the end, whether the reload worked or not.
#[derive(Debug)]
pub struct Reloading<'a>(&'a Guard);

impl<'a> Reloading<'a> {
    /// Notifies systemd that a reload begins. With `Type=notify-reload`, systemd sends HUP and then waits for the reload's
    /// begin and end.
    pub fn begin(guard: &'a Guard) -> Self {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => guard.notify(&[NotifyState::Reloading, now]),
            Err(error) => guard.log().warn("notify", &error.to_string()),
        }
        Self(guard)
    }
}

impl Drop for Reloading<'_> {
    fn drop(&mut self) {
        self.0.notify_with_status(NotifyState::Ready);
    }
}

/// Notifies systemd that the guard is ready. From then on a thread reports the status, for as long as the guard lives.
pub fn start(guard: &Arc<Guard>) -> io::Result<()> {
    if !guard.notifier.is_enabled() {
        return Ok(());
    }
    guard.notify_with_status(NotifyState::Ready);
    let reporter = StatusReporter {
        guard: Arc::downgrade(guard),
        watchdog: guard.notifier.watchdog(),
        status: guard.status(),
        is_stuck: false,
    };
    thread::Builder::new().name("notify".into()).spawn(|| reporter.run())?;
    Ok(())
}

impl Guard {
    /// Notifies systemd that the guard begins to stop.
    pub(crate) fn notify_stopping(&self) {
        self.notify_with_status(NotifyState::Stopping);
    }

    fn notify_with_status(&self, state: NotifyState<'_>) {
        self.notify(&[state, NotifyState::Status(&self.status())]);
    }

    fn notify(&self, states: &[NotifyState<'_>]) {
        if let Err(error) = self.notifier.send(states) {
            self.log().warn("notify", &format!("systemd can't be told: {error}"));
        }
    }

    /// The status, in one line.
    fn status(&self) -> String {
        let in_force = self.in_force();
        let (process, open) = (&in_force.process, self.alive());
        if !process.phase.is(Phase::Serving) {
            return format!("stopping, {open} connections open");
        }
        let mut status = format!(
            "{open} of {} connections open, generation {}",
            process.connections_limit.load(Relaxed),
            process.reloads.generation()
        );
        if let Some(error) = process.reloads.last().error {
            // systemd would read a second line as another variable.
            let _never = write!(status, "; reload refused: {}", error.replace(char::is_control, " "));
        }
        status
    }
}

/// Reports the status of the guard, and feeds the watchdog while every worker runs.
struct StatusReporter {
    guard: Weak<Guard>,
    watchdog: Option<Duration>,
    /// The status that was sent last.
    status: String,
    /// Whether a stuck worker has been logged.
    is_stuck: bool,
}

impl StatusReporter {
    fn run(mut self) {
        let mut status_at = Instant::now() + STATUS_INTERVAL;
        let mut ping_at = self.watchdog.map(|_| Instant::now());
        loop {
            let now = Instant::now();
            let Some(guard) = self.guard.upgrade() else { return };
            if let (Some(watchdog), Some(at)) = (self.watchdog, &mut ping_at)
                && *at <= now
            {
                *at = now + self.ping(&guard, watchdog, now);
            }
            if status_at <= now {
                status_at = now + STATUS_INTERVAL;
                self.send_status(&guard);
            }
            drop(guard);
            let next = ping_at.map_or(status_at, |at| at.min(status_at));
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    /// Notifies the watchdog if no worker is stuck. Returns the time until the next check.
    fn ping(&mut self, guard: &Guard, watchdog: Duration, now: Instant) -> Duration {
        let half = watchdog / 2;
        let Some(worker) = guard.stuck_worker(half, now) else {
            self.is_stuck = false;
            // If this message is lost, the next may arrive.
            let _lost = guard.notifier.send(&[NotifyState::Watchdog]);
            return half;
        };
        if !self.is_stuck {
            self.is_stuck = true;
            let stuck =
                format!("worker {worker} has not answered for {half:?}: the watchdog is not told that all is well");
            guard.log().warn("watchdog", &stuck);
        }
        half / 4
    }

    fn send_status(&mut self, guard: &Guard) {
        let status = guard.status();
        if status != self.status {
            // If this message is lost, the next change is still sent.
            let _lost = guard.notifier.send(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }
}

/// The time between two checks of the status, so that a status that changes all the time is not sent more often.
const STATUS_INTERVAL: Duration = Duration::from_secs(2);
