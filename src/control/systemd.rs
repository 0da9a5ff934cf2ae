//! What systemd is told (`sd_notify(3)`): that we serve, reload or stop, how it goes, and that every worker still answers.

use std::fmt::Write;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::control::guard::Guard;
use crate::live::phase::Phase;

/// A reload that systemd has been told of; it hears the end of it when this is dropped, whichever way it went.
#[derive(Debug)]
pub struct Reloading<'a>(&'a Guard);

impl<'a> Reloading<'a> {
    /// Tells that a reload begins. With `Type=notify-reload` systemd waits for this and its end after it has sent HUP.
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

/// Tells that everything is up; from then on a thread of its own tells how it goes, as long as the guard lives.
pub fn start(guard: &Arc<Guard>) -> io::Result<()> {
    if !guard.notifier.is_there() {
        return Ok(());
    }
    guard.notify_with_status(NotifyState::Ready);
    let watch = Watch {
        guard: Arc::downgrade(guard),
        watchdog: guard.notifier.watchdog(),
        status: guard.status(),
        is_stuck: false,
    };
    thread::Builder::new().name("notify".into()).spawn(|| watch.run())?;
    Ok(())
}

impl Guard {
    /// Tells that the way out begins.
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

    /// How it goes, in a line.
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
            // A second line would be another variable.
            let _never = write!(status, "; reload refused: {}", error.replace(char::is_control, " "));
        }
        status
    }
}

/// Looks how it goes.
struct Watch {
    guard: Weak<Guard>,
    watchdog: Option<Duration>,
    /// What was said last.
    status: String,
    /// A worker does not answer, and the log has been told.
    is_stuck: bool,
}

impl Watch {
    fn run(mut self) {
        let mut status_at = Instant::now() + STATUS_EVERY;
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
                status_at = now + STATUS_EVERY;
                self.tell_status(&guard);
            }
            drop(guard);
            let next = ping_at.map_or(status_at, |at| at.min(status_at));
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    /// Tells the watchdog that all is well, if it is; when to look again.
    fn ping(&mut self, guard: &Guard, watchdog: Duration, now: Instant) -> Duration {
        let half = watchdog / 2;
        let Some(worker) = guard.silent_worker(half, now) else {
            self.is_stuck = false;
            // The next one may get through.
            let _unheard = guard.notifier.send(&[NotifyState::Watchdog]);
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

    fn tell_status(&mut self, guard: &Guard) {
        let status = guard.status();
        if status != self.status {
            // It is said again when it changes again.
            let _unheard = guard.notifier.send(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }
}

/// A status that changes all the time is told so often.
const STATUS_EVERY: Duration = Duration::from_secs(2);
