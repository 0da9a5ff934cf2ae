//! The end of the process: new connections are refused, and the open ones are closed one after the other, not all at once.

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
    /// Closes all connections. Returns when none is open any more, at the latest after `drain_delay` and `drain_timeout`.
    ///
    /// In the first half of `drain_timeout`, open connections stay. Let N connections be open after it. The n-th of them is
    /// asked to close at n/N of the second half, which spreads the reconnects. The connection that has been silent longest
    /// is the first. Connections that are still open shortly before the end are cut.
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

    /// Closes every listener. Waits a short time for queued connections to be answered, so that they are counted among the
    /// open ones.
    async fn close_listeners(&self) {
        let listeners: Vec<Arc<BoundListener>> = self.listeners.lock().drain(..).collect();
        for listener in &listeners {
            listener.close();
        }
        let all_left = async {
            for listener in &listeners {
                listener.all_closed().await;
            }
            // A client that has sent its head is answered within this time. Clients that have not are not waited for any
            // longer.
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
        // When the connections were counted, some were still being connected to a server. These are asked now.
        for handle in self.open() {
            handle.send(Command::Close(CloseReason::Drain));
        }
        self.all_closed_by(schedule.cuts()).await;
        for handle in self.open() {
            handle.send(Command::Cut);
        }
        self.all_closed_by(schedule.end()).await;
    }

    /// The open connections. The one that has been silent longest comes first.
    fn open(&self) -> Vec<Arc<ConnHandle>> {
        let open = self.registry.view(Instant::now(), |row, now| {
            Some((row.silence(now), Arc::clone(row.handle())))
        });
        longest_silent_first(open)
    }

    /// Waits until no connection is open, or until `end`.
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

/// How long to wait for the listening sockets to close. It is less than a second, even if a worker is stuck.
const CLOSES: Duration = Duration::from_millis(900);
const ANSWERS: Duration = Duration::from_millis(250);
const LOOKS: Duration = Duration::from_millis(10);
