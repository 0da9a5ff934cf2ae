//! A tick: a coarse, small instant, because several are stored for every open connection.

use std::time::{Duration, Instant};

/// A number of 50 ms steps since a worker began, modulo 2^32. It takes 4 bytes, an `Instant` 16, and every open connection
/// has several. Two ticks more than 3.4 years apart can't be ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tick(u32);

impl Tick {
    /// The tick of `now`, counted from `started`.
    pub(crate) fn at(now: Instant, started: Instant) -> Self {
        let ticks = now.saturating_duration_since(started).as_millis() / MILLIS;
        Self(u32::try_from(ticks & u128::from(u32::MAX)).unwrap_or_default())
    }

    /// The next tick. A time that begins within a tick is counted from the next one, so that no limit ends early.
    pub(crate) fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// The time since `earlier`: a whole number of ticks, and zero if `earlier` is still to come.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        let ticks = self.0.wrapping_sub(earlier.0);
        let ticks = if ticks <= HALF { ticks } else { 0 };
        Duration::from_secs(1) * ticks / 20
    }
}

/// The length of a tick. The sweep's period is a whole number of ticks, so nothing is rounded between two sweeps.
const MILLIS: u128 = 50;
const HALF: u32 = u32::MAX / 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_ordered_across_the_wrap_of_their_count() {
        let started = Instant::now();
        let at = |span: Duration| Tick::at(started + span, started);
        let wrap = Duration::from_millis(50 << 32);
        for begin in [Duration::ZERO, wrap.saturating_sub(Duration::from_secs(1)), wrap * 3] {
            let (before, after) = (at(begin), at(begin + Duration::from_secs(90)));
            assert_eq!(after.since(before), Duration::from_secs(90));
            assert_eq!(before.since(after), Duration::ZERO, "nothing is due before it began");
            assert_eq!(before.since(before.next()), Duration::ZERO);
            assert_eq!(before.next().since(before), Duration::from_millis(50));
        }
        let year = Duration::from_secs(365 * 24 * 3600);
        assert_eq!(at(year * 3).since(at(Duration::ZERO)), year * 3);
    }
}
