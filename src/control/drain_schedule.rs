//! In which order and when a drain closes connections: pure arithmetic.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

/// The schedule of a drain. In its first half open connections stay. In its second half they are asked to close one
/// after the other, so that their reconnects are spread. Connections that are still open shortly before the end are
/// cut.
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

    /// When the connections that are still open are counted, and begin to be closed.
    pub(crate) fn half(&self) -> Instant {
        self.begin + self.span / 2
    }

    /// When the `nth` of `total` connections is asked to close, counted from 1: at n/N of the second half, which is a
    /// little shorter so that the last one has time to close.
    pub(crate) fn closes(&self, nth: u32, total: u32) -> Instant {
        let span = (self.span / 2).saturating_sub(self.last_moment());
        self.half() + span.mul_f64(f64::from(nth) / f64::from(total.max(1)))
    }

    /// When the connections that have not closed are cut: they have reached no frame boundary, or their clients do not answer.
    pub(crate) fn cuts(&self) -> Instant {
        self.begin + self.span.saturating_sub(self.last_moment() / 2)
    }

    /// When it is over, whatever is still open.
    pub(crate) fn end(&self) -> Instant {
        self.begin + self.span
    }

    fn last_moment(&self) -> Duration {
        LAST_MOMENT.min(self.span / 2 / 4)
    }
}

/// The order in which connections are closed, given how long each has been silent: the longest silent first.
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
    fn nobody_is_closed_in_the_first_half() {
        let (schedule, millis) = schedule(20);
        assert_eq!(millis(schedule.half()), 10_000);
        assert!((1..=1000).all(|nth| schedule.closes(nth, 1000) > schedule.half()));
    }

    #[test]
    fn the_nth_of_n_is_closed_at_that_part_of_the_second_half_and_the_last_has_a_moment() {
        let (schedule, millis) = schedule(21);
        let closes = [1, 2, 5, 10].map(|nth| millis(schedule.closes(nth, 10)));
        assert_eq!(closes, [11_500, 12_500, 15_500, 20_500]);
        assert_eq!(millis(schedule.closes(1, 1)), 20_500);
        assert_eq!((millis(schedule.cuts()), millis(schedule.end())), (20_750, 21_000));
    }

    #[test]
    fn in_a_short_drain_the_moment_is_an_eighth_of_it() {
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
    fn the_longest_silent_are_closed_first() {
        let open = [("b", 5), ("d", 0), ("a", 90), ("c", 1)];
        let open = open.map(|(conn, secs)| (Duration::from_secs(secs), conn));
        assert_eq!(longest_silent_first(open.to_vec()), ["a", "b", "c", "d"]);
    }
}
