//! The order and the times in which a drain closes connections: pure arithmetic.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

/// The schedule of a drain. In the first half, open connections stay. In the second half, they are asked to close one after
/// the other, which spreads the reconnects. Connections that are still open shortly before the end are cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DrainSchedule {
    begin: Instant,
    span: Duration,
}

impl DrainSchedule {
    /// A drain that begins at `begin` and takes `span` at most.
    pub(crate) fn new(begin: Instant, span: Duration) -> Self {
        Self { begin, span }
    }

    /// The time when the open connections are counted and the first is asked to close.
    pub(crate) fn half(&self) -> Instant {
        self.begin + self.span / 2
    }

    /// The time when the `nth` of `total` connections is asked to close, counted from 1: at n/N of the second half. The
    /// second half ends a little early here, so that the last connection has time to close.
    pub(crate) fn closes(&self, nth: u32, total: u32) -> Instant {
        let span = (self.span / 2).saturating_sub(self.last_moment());
        self.half() + span.mul_f64(f64::from(nth) / f64::from(total.max(1)))
    }

    /// The time when connections that have not closed are cut: either they have reached no frame boundary, or their clients
    /// do not answer.
    pub(crate) fn cuts(&self) -> Instant {
        self.begin + self.span.saturating_sub(self.last_moment() / 2)
    }

    /// The time when the drain is over, even if connections are still open.
    pub(crate) fn end(&self) -> Instant {
        self.begin + self.span
    }

    fn last_moment(&self) -> Duration {
        LAST_MOMENT.min(self.span / 2 / 4)
    }
}

/// Puts connections in the order in which they are closed. Each comes with its time of silence; the longest silence comes
/// first.
pub(crate) fn longest_silent_first<T>(mut open: Vec<(Duration, T)>) -> Vec<T> {
    open.sort_by_key(|(silence, _)| Reverse(*silence));
    open.into_iter().map(|(_, conn)| conn).collect()
}

const LAST_MOMENT: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(secs: u64) -> (DrainSchedule, impl Fn(Instant) -> u128) {
        let begin = Instant::now();
        let schedule = DrainSchedule::new(begin, Duration::from_secs(secs));
        (schedule, move |at| (at - begin).as_millis())
    }

    #[test]
    fn no_connection_is_closed_in_the_first_half() {
        let (schedule, millis) = schedule(20);
        assert_eq!(millis(schedule.half()), 10_000);
        assert!((1..=1000).all(|nth| schedule.closes(nth, 1000) > schedule.half()));
    }

    #[test]
    fn closes_are_spread_over_the_second_half_and_the_last_has_a_moment_to_close() {
        let (schedule, millis) = schedule(21);
        let closes = [1, 2, 5, 10].map(|nth| millis(schedule.closes(nth, 10)));
        assert_eq!(closes, [11_500, 12_500, 15_500, 20_500]);
        assert_eq!(millis(schedule.closes(1, 1)), 20_500);
        assert_eq!((millis(schedule.cuts()), millis(schedule.end())), (20_750, 21_000));
    }

    #[test]
    fn in_a_short_drain_the_last_moment_is_an_eighth_of_the_drain() {
        let (schedule, millis) = schedule(1);
        assert_eq!(millis(schedule.closes(7, 7)), 875);
        assert_eq!((millis(schedule.cuts()), millis(schedule.end())), (937, 1_000));
    }

    #[test]
    fn a_drain_without_time_closes_and_cuts_at_once() {
        let (schedule, millis) = schedule(0);
        let all = [
            schedule.half(),
            schedule.closes(1, 3),
            schedule.closes(3, 3),
            schedule.cuts(),
            schedule.end(),
        ];
        assert_eq!(all.map(millis), [0; 5]);
    }

    #[test]
    fn connections_that_are_silent_longest_are_closed_first() {
        let open = [("b", 5), ("d", 0), ("a", 90), ("c", 1)];
        let open = open.map(|(conn, secs)| (Duration::from_secs(secs), conn));
        assert_eq!(longest_silent_first(open.to_vec()), ["a", "b", "c", "d"]);
    }
}
