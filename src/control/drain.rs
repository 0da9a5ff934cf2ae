//! The way out: nobody new comes in, and those who are there are seen off one after the other, not all at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::config::policy::LogLevel;
use crate::reason::close::CloseReason;
use crate::relay::handle::Command;

use crate::control::guard::Guard;
use crate::engine::bound_listener::BoundListener;
use crate::live::phase::Phase;
use crate::telemetry::log::Line;

impl Guard {
    /// Sees everybody off; returns when nothing is open any more, `drain_delay` and `drain_timeout` from now at most.
    ///
    /// For the first half of `drain_timeout` open connections live on. Of the N then left the n-th is told to close at
    /// n/N of the second half, the longest silent first, so that their reconnects are spread; what has not come to a frame
    /// boundary at the end is cut there.
    pub async fn drain(&self) {
        let in_force = self.in_force();
        let (delay, span) = (in_force.policy.server.drain_delay, in_force.policy.server.drain_timeout);
        let phase = &in_force.process.phase;
        phase.enter(Phase::Leaving);
        self.notify_stopping();
        self.tell("draining", &format!("{} open, load balancers are told", self.alive()));
        sleep(delay).await;
        phase.enter(Phase::Draining);
        let begin = Instant::now();
        self.close_listeners().await;
        self.all_gone_by(begin + span / 2).await;
        self.see_off(begin + span / 2, begin + span).await;
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
            // Who has sent a head is answered now, and who has not has no claim to be waited for longer than this.
            let answered_by = Instant::now() + ANSWERS;
            while self.pending() > 0 && Instant::now() < answered_by {
                sleep(LOOKS).await;
            }
        };
        let _stuck = timeout(CLOSES, all_left).await;
    }

    async fn see_off(&self, from: Instant, end: Instant) {
        let left = self.open();
        let total = u32::try_from(left.len()).unwrap_or(u32::MAX);
        // The last one needs a moment to take its leave in.
        let span = (end - from).saturating_sub(LAST_MOMENT.min((end - from) / 4));
        for (handle, nth) in left.iter().zip(1..) {
            sleep_until(from + span.mul_f64(f64::from(nth) / f64::from(total))).await;
            if self.alive() == 0 {
                return;
            }
            handle.send(Command::Close(CloseReason::Drain));
        }
        // Some were still on their way to a server when they were counted.
        for handle in self.open() {
            handle.send(Command::Close(CloseReason::Drain));
        }
        self.all_gone_by(end - LAST_MOMENT.min((end - from) / 4) / 2).await;
        for handle in self.open() {
            handle.send(Command::Cut);
        }
        self.all_gone_by(end).await;
    }

    /// Waits until nothing is open, or until `end`.
    async fn all_gone_by(&self, end: Instant) {
        while self.alive() > 0 && Instant::now() < end {
            sleep(LOOKS).await;
        }
    }

    fn pending(&self) -> u32 {
        self.in_force().rooms().map(|room| room.taken()).sum()
    }

    fn tell(&self, event: &'static str, message: &str) {
        let line = Line {
            message: Some(message.to_owned()),
            ..Line::default()
        };
        self.log().event(LogLevel::Info, event, line);
    }
}

/// Listeners are closed within a second, also those of a worker that is stuck.
const CLOSES: Duration = Duration::from_millis(900);
const ANSWERS: Duration = Duration::from_millis(250);
const LOOKS: Duration = Duration::from_millis(10);
const LAST_MOMENT: Duration = Duration::from_millis(500);
