//! Messages that look like heartbeats: of one size, at a steady interval. Shown, and never acted on.

use crate::limit::bucket::Moment;

/// What the last messages were like. Of several sizes the one that most of them have is followed, by Boyer and Moore's
/// majority vote, so that a talker's few other messages do not hide the beat.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeartbeatDetector {
    size: u64,
    last: Option<Moment>,
    /// Nanoseconds between those of this size.
    interval: u64,
    votes: u16,
    /// Gaps in a row that were like the one before.
    steady: u8,
    suspected: u32,
}

impl HeartbeatDetector {
    /// A message of `size` bytes. Says how many messages are suspected now that were not before.
    pub(super) fn message(&mut self, size: u64, now: Moment) -> u32 {
        if self.votes == 0 {
            *self = Self {
                size,
                last: Some(now),
                votes: 1,
                suspected: self.suspected,
                ..Self::default()
            };
            return 0;
        }
        if size != self.size {
            self.votes -= 1;
            return 0;
        }
        self.votes = (self.votes + 1).min(MOST_VOTES);
        let gap = self.last.map_or(0, |last| now.nanos_since(last));
        self.last = Some(now);
        if self.is_steady(gap) {
            self.steady = (self.steady + 1).min(SURE + 1);
        } else {
            (self.interval, self.steady) = (gap, 0);
        }
        let news = match self.steady {
            0..SURE => 0,
            // So many gaps that are like the one before them lie between so many messages, and two more.
            SURE => u32::from(SURE) + 2,
            _ => 1,
        };
        self.suspected = self.suspected.saturating_add(news);
        news
    }

    /// Whether this gap is like the one that is followed, or twice as long, where something else took a beat's place.
    fn is_steady(&mut self, gap: u64) -> bool {
        let tolerance = self.interval / TOLERANCE;
        if self.interval == 0 {
            return false;
        }
        if gap.abs_diff(self.interval) <= tolerance {
            // A clock that is a little fast or slow is followed.
            self.interval = self.interval - self.interval / 4 + gap / 4;
            return true;
        }
        gap.abs_diff(self.interval.saturating_mul(2)) <= tolerance
    }

    /// How many so far.
    pub(super) fn suspected(&self) -> u32 {
        self.suspected
    }
}

/// So many others in a row, and another size is followed.
const MOST_VOTES: u16 = 16;

/// An eighth of the interval more or less is the same interval.
const TOLERANCE: u64 = 8;

/// So many gaps that are like the one before are no chance any more.
const SURE: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn suspected(messages: impl IntoIterator<Item = (u64, u64)>) -> u32 {
        let epoch = Instant::now();
        let mut beats = HeartbeatDetector::default();
        for (ms, size) in messages {
            beats.message(size, Moment::since(epoch, epoch + Duration::from_millis(ms)));
        }
        beats.suspected()
    }

    #[test]
    fn of_200_messages_a_minute_the_180_equal_ones_are_suspected() {
        let messages = (0..200_u64).map(|n| (n * 300, if n % 10 == 9 { 20 + n } else { 15 }));
        assert_eq!(suspected(messages), 180);
        // A timer in a browser is some milliseconds late each time.
        assert_eq!(suspected((0..180).map(|n| (n * 25_000 + n * 7 % 40, 15))), 180);
    }

    #[test]
    fn talk_is_no_heartbeat_be_it_of_one_size_or_at_one_pace() {
        let gaps = (0..200_u64).scan(1_u64, |state, _| {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            Some(200 + (*state >> 33) % 9000)
        });
        let times = gaps.scan(0, |now, gap| {
            *now += gap;
            Some(*now)
        });
        assert!(suspected(times.map(|ms| (ms, 15))) < 20);
        assert_eq!(suspected((0..100).map(|n| (n * 1000, 10 + n % 7))), 0);
        // All at once is a flood, and no beat.
        assert_eq!(suspected((0..100).map(|_| (5, 15))), 0);
    }
}
