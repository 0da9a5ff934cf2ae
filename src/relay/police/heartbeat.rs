//! Messages that look like heartbeats: of equal size, at a steady interval. They are counted, and never acted on.

use crate::limit::bucket::Moment;

/// The size and the interval of the last messages. If messages have several sizes, it follows the most frequent size,
/// by Boyer and Moore's majority vote, so that a few other messages do not hide the heartbeats.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeartbeatDetector {
    size: u64,
    last: Option<Moment>,
    /// Nanoseconds between messages of this size.
    interval: u64,
    votes: u16,
    /// The number of gaps in a row that were as long as the one before.
    steady: u8,
    suspected: u32,
}

impl HeartbeatDetector {
    /// Notes a message of `size` bytes. Returns how many messages are newly suspected.
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
            // `SURE` gaps were equal to the gap before them. That makes `SURE + 1` gaps, which lie between `SURE + 2`
            // messages.
            SURE => u32::from(SURE) + 2,
            _ => 1,
        };
        self.suspected = self.suspected.saturating_add(news);
        news
    }

    /// Whether this gap is as long as the interval. A gap of twice the interval counts too: another message may have
    /// replaced a heartbeat.
    fn is_steady(&mut self, gap: u64) -> bool {
        let tolerance = self.interval / TOLERANCE;
        if self.interval == 0 {
            return false;
        }
        if gap.abs_diff(self.interval) <= tolerance {
            // The interval follows a clock that is a little fast or slow.
            self.interval = self.interval - self.interval / 4 + gap / 4;
            return true;
        }
        gap.abs_diff(self.interval.saturating_mul(2)) <= tolerance
    }

    /// How many messages have been suspected so far.
    pub(super) fn suspected(&self) -> u32 {
        self.suspected
    }
}

/// The most votes that a size can have: after this many messages of other sizes in a row, another size is followed.
const MOST_VOTES: u16 = 16;

/// The interval may differ by an eighth.
const TOLERANCE: u64 = 8;

/// This many gaps in a row that equal the one before are no coincidence.
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
        // A browser's timer is some milliseconds late each time.
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
        // Messages that come all at once are a flood and not a heartbeat.
        assert_eq!(suspected((0..100).map(|_| (5, 15))), 0);
    }
}
