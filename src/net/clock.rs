//! The clock of timeouts. It stops while this process does (a signal, a debugger, a frozen cgroup, a paused virtual machine):
//! no peer is read then, and what it sent waits in the kernel.

use std::pin::Pin;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A clock that is read several times a second as long as the process runs. If two readings are further apart, the process was
/// paused in between, and that time does not count.
///
/// Its instants are those of the monotonic clock less all pauses: they compare with each other, and with nothing else.
#[derive(Debug)]
pub struct Clock {
    state: Mutex<State>,
    /// What the monotonic clock says, in a test that sets it.
    #[cfg(test)]
    manual: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct State {
    /// The last reading, by the monotonic clock.
    read_at: Instant,
    /// All pauses together.
    paused: Duration,
    /// The last reading found a pause.
    was_pause: bool,
}

impl Clock {
    /// A clock that starts `now`, by the monotonic clock.
    pub fn begin(now: Instant) -> Self {
        Self {
            state: Mutex::new(State {
                read_at: now,
                paused: Duration::ZERO,
                was_pause: false,
            }),
            #[cfg(test)]
            manual: Mutex::default(),
        }
    }

    /// A clock that stays at `now` until [`Clock::advance`].
    #[cfg(test)]
    pub(crate) fn manual(now: Instant) -> Self {
        let clock = Self::begin(now);
        *clock.manual.lock() = Some(now);
        clock
    }

    /// Advances by `span`, in steps that do not count as pauses.
    #[cfg(test)]
    pub(crate) fn advance(&self, span: Duration) {
        let mut left = span;
        while left > Duration::ZERO {
            let step = left.min(LONGEST_RUN / 2);
            if let Some(manual) = &mut *self.manual.lock() {
                *manual += step;
            }
            self.now();
            left -= step;
        }
    }

    /// The time now.
    pub fn now(&self) -> Instant {
        self.read(self.monotonic_now())
    }

    /// The monotonic clock. A relay reads it only here, so that a test can set it.
    #[cfg_attr(not(test), allow(clippy::unused_self))] // Only the clock of a test has a time of its own.
    pub(crate) fn monotonic_now(&self) -> Instant {
        #[cfg(test)]
        if let Some(manual) = *self.manual.lock() {
            return manual;
        }
        Instant::now()
    }

    /// The time when the monotonic clock is at `now`.
    pub fn read(&self, now: Instant) -> Instant {
        let mut state = self.state.lock();
        let since = now.saturating_duration_since(state.read_at);
        let is_pause = since > LONGEST_RUN;
        if is_pause {
            // After a pause, peers get the chance to be read before a timeout strikes. If the process is so slow that every
            // reading is late, time must pass all the same.
            let pause = if state.was_pause {
                since.saturating_sub(LONGEST_RUN / 2)
            } else {
                since + GRACE
            };
            state.paused += pause;
        }
        state.was_pause = is_pause;
        state.read_at = state.read_at.max(now);
        before(now, state.paused)
    }

    /// The time when the monotonic clock was at `then`, which is not long ago. This does not count as a reading.
    pub fn at(&self, then: Instant) -> Instant {
        let state = self.state.lock();
        before(
            then.clamp(before(state.read_at, LONGEST_RUN), state.read_at + LONGEST_RUN),
            state.paused,
        )
    }

    /// The time of the monotonic clock at `then`, unless there is another pause before.
    pub fn monotonic(&self, then: Instant) -> Instant {
        then + self.state.lock().paused
    }

    /// Waits until `then`.
    pub async fn wait_until(&self, then: Instant) {
        while self.now() < then {
            tokio::time::sleep_until(self.monotonic(then).into()).await;
        }
    }

    /// The output of `future`, or `None` if the `deadline` comes first. By reference: passed by value, a future takes its size
    /// in each caller's state once more.
    pub async fn within<T>(&self, deadline: Option<Instant>, future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        let Some(deadline) = deadline else {
            return Some(future.await);
        };
        tokio::select! {
            biased;
            value = future => Some(value),
            () = self.wait_until(deadline) => None,
        }
    }
}

fn before(now: Instant, span: Duration) -> Instant {
    now.checked_sub(span).unwrap_or(now)
}

/// The longest time between two readings that does not count as a pause: twice the sweep's interval.
const LONGEST_RUN: Duration = Duration::from_millis(500);

/// How far the clock is put back after a pause, so that peers are read before a timeout strikes.
const GRACE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::pin::pin;

    use super::*;

    #[test]
    fn a_pause_does_not_count_and_peers_get_half_a_second_after_it() {
        let start = Instant::now() + Duration::from_secs(1000);
        let clock = Clock::begin(start);
        let ms = |ms| start + Duration::from_millis(ms);
        assert_eq!(clock.read(ms(250)), ms(250));
        assert_eq!(clock.read(ms(700)), ms(700), "a late reading is no pause");
        assert_eq!(clock.read(ms(90_700)), ms(200), "and is put back a little");
        assert_eq!(clock.read(ms(90_950)), ms(450));
        assert_eq!(clock.monotonic(ms(450)), ms(90_950));
        assert_eq!(clock.at(ms(90_900)), ms(400));
        assert_eq!(
            clock.at(ms(200_000)),
            ms(950),
            "it was not read since: that may be a pause"
        );
        assert_eq!(clock.read(ms(91_450)), ms(950));
        assert_eq!(clock.read(ms(100_000)), ms(450));
    }

    #[test]
    fn readings_of_several_threads_may_step_back_a_little() {
        let start = Instant::now() + Duration::from_secs(1000);
        let clock = Clock::begin(start);
        let ms = |ms| start + Duration::from_millis(ms);
        assert_eq!(clock.read(ms(400)), ms(400));
        assert_eq!(clock.read(ms(399)), ms(399));
        assert_eq!(clock.read(ms(900)), ms(900), "measured from the latest");
    }

    /// A machine that is too slow for its work must not make every timeout last for ever.
    #[test]
    fn if_every_reading_is_late_time_passes_all_the_same() {
        let start = Instant::now() + Duration::from_secs(1000);
        let clock = Clock::begin(start);
        let late = |n: u32| clock.read(start + Duration::from_secs(1) * n);
        let first = late(1);
        for n in 2..10 {
            assert_eq!(late(n) - first, Duration::from_millis(250) * (n - 1));
        }
    }

    #[tokio::test]
    async fn a_future_that_misses_its_deadline_is_given_up() {
        let clock = Clock::begin(Instant::now());
        let soon = Some(clock.now() + Duration::from_millis(20));
        assert_eq!(clock.within(soon, pin!(pending::<()>())).await, None);
        assert_eq!(clock.within(soon, pin!(ready(7))).await, Some(7), "it is there");
        assert_eq!(clock.within(None, pin!(ready(7))).await, Some(7));
    }
}
