//! The way out: nobody new comes in, and those who are there are seen off one after the other, not all at once.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::config::policy::LogLevel;
use crate::relay::pulse::Order;

use super::Guard;
use super::log::Line;
use super::phase::Phase;

impl Guard {
    /// Sees everybody off; returns when nothing is open any more, `drain_delay` and `drain_timeout` from now at most.
    ///
    /// For the first half of `drain_timeout` open connections live on. Of the N then left the n-th is told to close at
    /// n/N of the second half, the longest silent first, so that their reconnects are spread; what has not come to a frame
    /// boundary at the end is cut there.
    pub async fn drain(&self) {
        let running = self.running();
        let (delay, timeout) = (running.policy.server.drain_delay, running.policy.server.drain_timeout);
        let phase = &running.shared.phase;
        phase.enter(Phase::Leaving);
        self.notify_stopping();
        self.tell("draining", &format!("{} open, load balancers are told", self.alive()));
        sleep(delay).await;
        phase.enter(Phase::Draining);
        for post in self.posts.lock().drain(..) {
            post.close();
        }
        let begin = Instant::now();
        // The queues are accepted dry in passing; whoever stood there is answered before anybody looks at the count.
        sleep(PASSING).await;
        self.all_gone_by(begin + timeout / 2).await;
        self.see_off(begin + timeout / 2, begin + timeout).await;
    }

    async fn see_off(&self, from: Instant, end: Instant) {
        let left = self.open();
        let total = u32::try_from(left.len()).unwrap_or(u32::MAX);
        // The last one needs a moment to take its leave in.
        let span = (end - from).saturating_sub(LAST_MOMENT.min((end - from) / 4));
        for (pulse, nth) in left.iter().zip(1..) {
            sleep_until(from + span.mul_f64(f64::from(nth) / f64::from(total))).await;
            if self.alive() == 0 {
                return;
            }
            pulse.order(Order::Drain);
        }
        self.all_gone_by(end - LAST_MOMENT.min((end - from) / 4) / 2).await;
        for pulse in self.open() {
            pulse.order(Order::Cut);
        }
        self.all_gone_by(end).await;
    }

    /// Waits until nothing is open, or until `end`.
    async fn all_gone_by(&self, end: Instant) {
        while self.alive() > 0 && Instant::now() < end {
            sleep(LOOKS).await;
        }
    }

    fn tell(&self, event: &'static str, message: &str) {
        let line = Line {
            message: Some(message.to_owned()),
            ..Line::default()
        };
        self.log().event(LogLevel::Info, event, line);
    }
}

const PASSING: Duration = Duration::from_millis(50);
const LOOKS: Duration = Duration::from_millis(10);
const LAST_MOMENT: Duration = Duration::from_millis(500);
