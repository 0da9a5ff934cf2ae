//! The clock that peers are judged by. It stands still while this process does (stopped by a signal, a debugger, a frozen
//! cgroup, a paused virtual machine), for then nobody is read, and what a peer has said waits in the kernel.

use std::pin::Pin;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A clock that somebody looks at several times a second as long as the process runs. What lies between two looks that are
/// further apart than that was a pause, and does not count.
///
/// Its instants are those of the monotonic clock less all pauses, so they compare with one another, and with nothing else.
#[derive(Debug)]
pub struct Clock {
    state: Mutex<State>,
    /// What the monotonic clock says, in a test that sets it.
    #[cfg(test)]
    manual: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct State {
    /// The last look, by the monotonic clock.
    looked: Instant,
    /// All pauses together.
    paused: Duration,
    /// The last look found a pause.
    was_pause: bool,
}

impl Clock {
    /// A clock that begins to run `now`, by the monotonic clock.
    pub fn begin(now: Instant) -> Self {
        Self {
            state: Mutex::new(State {
                looked: now,
                paused: Duration::ZERO,
                was_pause: false,
            }),
            #[cfg(test)]
            manual: Mutex::default(),
        }
    }

    /// A clock that says `now` until [`Clock::advance`].
    #[cfg(test)]
    pub(crate) fn manual(now: Instant) -> Self {
        let clock = Self::begin(now);
        *clock.manual.lock() = Some(now);
        clock
    }

    /// Goes on by `span`, in steps that are no pauses.
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

    /// What it says now.
    pub fn now(&self) -> Instant {
        self.look(self.monotonic_now())
    }

    /// What the monotonic clock says now. Nothing else in this folder reads a clock.
    pub(super) fn monotonic_now(&self) -> Instant {
        #[cfg(test)]
        if let Some(manual) = *self.manual.lock() {
            return manual;
        }
        Instant::now()
    }

    /// What it says when the monotonic clock says `now`.
    pub fn look(&self, now: Instant) -> Instant {
        let mut state = self.state.lock();
        let since = now.saturating_duration_since(state.looked);
        let is_pause = since > LONGEST_RUN;
        if is_pause {
            // Once it is over, whoever has spoken meanwhile is heard first. Where the process is so slow that one look after
            // the other is late, time has to pass all the same.
            let pause = if state.was_pause {
                since.saturating_sub(LONGEST_RUN / 2)
            } else {
                since + HEARING
            };
            state.paused += pause;
        }
        state.was_pause = is_pause;
        state.looked = state.looked.max(now);
        before(now, state.paused)
    }

    /// What it said when the monotonic clock said `then`, which is not long ago. This is no look.
    pub fn at(&self, then: Instant) -> Instant {
        let state = self.state.lock();
        before(
            then.clamp(before(state.looked, LONGEST_RUN), state.looked + LONGEST_RUN),
            state.paused,
        )
    }

    /// What the monotonic clock will say when this one says `then`, if there is no other pause until then.
    pub fn monotonic(&self, then: Instant) -> Instant {
        then + self.state.lock().paused
    }

    /// Waits until it says `then`.
    pub async fn reaches(&self, then: Instant) {
        while self.now() < then {
            tokio::time::sleep_until(self.monotonic(then).into()).await;
        }
    }

    /// What `future` yields, or `None` when the clock says `deadline` first. By reference: a future that is handed down by
    /// value stands in each frame once more.
    pub async fn within<T>(&self, deadline: Option<Instant>, future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        let Some(deadline) = deadline else {
            return Some(future.await);
        };
        tokio::select! {
            biased;
            value = future => Some(value),
            () = self.reaches(deadline) => None,
        }
    }
}

fn before(now: Instant, span: Duration) -> Instant {
    now.checked_sub(span).unwrap_or(now)
}

/// Twice the time between two looks of one that looks regularly.
const LONGEST_RUN: Duration = Duration::from_millis(500);

/// So far the clock is put back after a pause.
const HEARING: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::pin::pin;

    use super::*;

    #[test]
    fn a_pause_does_not_count_and_what_came_meanwhile_is_heard_first() {
        let start = Instant::now() + Duration::from_secs(1000);
        let clock = Clock::begin(start);
        let ms = |ms| start + Duration::from_millis(ms);
        assert_eq!(clock.look(ms(250)), ms(250));
        assert_eq!(clock.look(ms(700)), ms(700), "a late look is no pause");
        assert_eq!(clock.look(ms(90_700)), ms(200), "and is put back a little");
        assert_eq!(clock.look(ms(90_950)), ms(450));
        assert_eq!(clock.monotonic(ms(450)), ms(90_950));
        assert_eq!(clock.at(ms(90_900)), ms(400));
        assert_eq!(
            clock.at(ms(200_000)),
            ms(950),
            "nobody has looked since: it may be a pause"
        );
        assert_eq!(clock.look(ms(91_450)), ms(950));
        assert_eq!(clock.look(ms(100_000)), ms(450));
    }

    #[test]
    fn looks_of_several_threads_may_step_back_a_little() {
        let start = Instant::now() + Duration::from_secs(1000);
        let clock = Clock::begin(start);
        let ms = |ms| start + Duration::from_millis(ms);
        assert_eq!(clock.look(ms(400)), ms(400));
        assert_eq!(clock.look(ms(399)), ms(399));
        assert_eq!(clock.look(ms(900)), ms(900), "measured from the latest");
    }

    /// A machine that is too slow for its work must not make every timeout last for ever.
    #[test]
    fn where_every_look_is_late_time_goes_on() {
        let start = Instant::now() + Duration::from_secs(1000);
        let clock = Clock::begin(start);
        let late = |n: u32| clock.look(start + Duration::from_secs(1) * n);
        let first = late(1);
        for n in 2..10 {
            assert_eq!(late(n) - first, Duration::from_millis(250) * (n - 1));
        }
    }

    #[tokio::test]
    async fn who_is_late_is_given_up() {
        let clock = Clock::begin(Instant::now());
        let soon = Some(clock.now() + Duration::from_millis(20));
        assert_eq!(clock.within(soon, pin!(pending::<()>())).await, None);
        assert_eq!(clock.within(soon, pin!(ready(7))).await, Some(7), "it is there");
        assert_eq!(clock.within(None, pin!(ready(7))).await, Some(7));
    }
}
