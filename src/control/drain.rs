//! The end of the process: nothing new comes in, and the open connections are closed one after the other, not all at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{sleep, sleep_until, timeout};

use crate::config::policy::LogLevel;
use crate::reason::close::CloseReason;
use crate::relay::handle::{Command, ConnHandle};

use crate::control::drain_schedule::{DrainSchedule, longest_silent_first};
use crate::control::guard::Guard;
use crate::engine::bound_listener::BoundListener;
use crate::live::phase::Phase;
use crate::telemetry::log::Line;

impl Guard {
    /// Closes all connections; returns when nothing is open any more, `drain_delay` and `drain_timeout` from now at most.
    ///
    /// For the first half of `drain_timeout` open connections live on. Of the N that are still open then, the n-th is
    /// asked to close at n/N of the second half, starting with the longest silent, so that their reconnects are spread.
    /// At the end, those that have not reached a frame boundary are cut.
    pub(crate) async fn drain(&self) {
        let in_force = self.in_force();
        let (delay, span) = (in_force.policy.server.drain_delay, in_force.policy.server.drain_timeout);
        let phase = &in_force.process.phase;
        phase.enter(Phase::Leaving);
        self.notify_stopping();
        self.log_draining();
        sleep(delay).await;
        phase.enter(Phase::Draining);
        let schedule = DrainSchedule::new(Instant::now(), span);
        self.close_listeners().await;
        self.all_closed_by(schedule.half()).await;
        self.close_in_turn(schedule).await;
    }

    /// Closes every listener. Connections that are queued are answered before the open ones are counted.
    async fn close_listeners(&self) {
        let listeners: Vec<Arc<BoundListener>> = self.listeners.lock().drain(..).collect();
        for listener in &listeners {
            listener.close();
        }
        let all_left = async {
            for listener in &listeners {
                listener.all_closed().await;
            }
            // By now every client that has sent its head has its answer; there is no longer wait for the others.
            let answered_by = Instant::now() + ANSWERS;
            while self.pending() > 0 && Instant::now() < answered_by {
                sleep(LOOKS).await;
            }
        };
        let _stuck = timeout(CLOSES, all_left).await;
    }

    async fn close_in_turn(&self, schedule: DrainSchedule) {
        let left = self.open();
        let total = u32::try_from(left.len()).unwrap_or(u32::MAX);
        for (handle, nth) in left.iter().zip(1..) {
            sleep_until(schedule.closes(nth, total).into()).await;
            if self.alive() == 0 {
                return;
            }
            handle.send(Command::Close(CloseReason::Drain));
        }
        // Some were still being connected to a server when they were counted.
        for handle in self.open() {
            handle.send(Command::Close(CloseReason::Drain));
        }
        self.all_closed_by(schedule.cuts()).await;
        for handle in self.open() {
            handle.send(Command::Cut);
        }
        self.all_closed_by(schedule.end()).await;
    }

    /// The open connections, the longest silent first.
    fn open(&self) -> Vec<Arc<ConnHandle>> {
        let open = self.registry.view(Instant::now(), |row, now| {
            Some((row.silence(now), Arc::clone(row.handle())))
        });
        longest_silent_first(open)
    }

    /// Waits until nothing is open, or until `end`.
    async fn all_closed_by(&self, end: Instant) {
        while self.alive() > 0 && Instant::now() < end {
            sleep(LOOKS).await;
        }
    }

    fn pending(&self) -> u32 {
        self.in_force().rooms().map(|room| room.taken()).sum()
    }

    fn log_draining(&self) {
        let line = Line {
            message: Some(format!("{} open, load balancers are told", self.alive())),
            ..Line::default()
        };
        self.log().event(LogLevel::Info, "draining", line);
    }
}

/// The listening sockets are closed within a second, also those of a worker that is stuck.
const CLOSES: Duration = Duration::from_millis(900);
const ANSWERS: Duration = Duration::from_millis(250);
const LOOKS: Duration = Duration::from_millis(10);
