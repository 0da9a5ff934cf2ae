use super::*;
use proptest::prelude::*;

fn rate(tokens: u32, per: Duration, burst: u32) -> Rate {
    Rate {
        tokens: tokens.try_into().unwrap(),
        per,
        burst: burst.try_into().unwrap(),
    }
}

fn meter(tokens: u32, seconds: u64, burst: u32) -> Meter {
    rate(tokens, Duration::from_secs(seconds), burst).into()
}

const SECOND: u64 = 1_000_000_000;

#[test]
fn a_full_bucket_lets_the_burst_through_then_one_per_interval() {
    let (ten_a_second, mut bucket) = (meter(10, 1, 2), Bucket::default());
    let taken = [0, 0, 0, 99, 100, 100, 199, 200, 1000, 1000, 1000]
        .map(|ms| bucket.take(ten_a_second, Moment(5 * SECOND + ms * 1_000_000)));
    assert_eq!(
        taken,
        [true, true, false, false, true, false, false, true, true, true, false]
    );
}

#[test]
fn rates_by_the_minute_and_by_the_hour_are_exact() {
    for (tokens, seconds, interval) in [(300, 60, SECOND / 5), (3, 3600, 1200 * SECOND), (1, 1, SECOND)] {
        let (meter, mut bucket) = (meter(tokens, seconds, 4), Bucket::default());
        assert_eq!((0..10).filter(|_| bucket.take(meter, Moment(0))).count(), 4);
        assert!(!bucket.take(meter, Moment(interval - 1)));
        assert!(bucket.take(meter, Moment(interval)));
        assert!(!bucket.take(meter, Moment(interval)));
        assert!(!bucket.is_full(Moment(5 * interval - 1)));
        assert!(bucket.is_full(Moment(5 * interval)));
    }
}

#[test]
fn neither_looking_nor_a_refused_take_takes_a_token() {
    let (meter, mut bucket) = (meter(1, 1, 1), Bucket::default());
    assert!((0..5).all(|_| bucket.has_token(meter, Moment(0))));
    assert!(bucket.is_untouched());
    assert!(bucket.take(meter, Moment(0)));
    let empty = bucket;
    assert!((0..5).all(|_| !bucket.take(meter, Moment(7))));
    assert_eq!(bucket, empty);
}

#[test]
fn extreme_rates_neither_overflow_nor_let_everything_through() {
    let slowest = rate(1, Duration::MAX, u32::MAX).into();
    let fastest: Meter = rate(u32::MAX, Duration::from_nanos(1), u32::MAX).into();
    for now in [Moment(0), Moment(MOST)] {
        let mut bucket = Bucket::default();
        assert!(bucket.take(slowest, now));
        assert!(!bucket.take(slowest, now));
        assert!(Bucket::default().take(fastest, now));
        assert!(!bucket.forgive(slowest, now));
    }
    let epoch = Instant::now();
    assert_eq!(Moment::since(epoch + Duration::from_secs(9), epoch), Moment(0));
    assert_eq!(Moment::since(epoch, epoch + Duration::from_nanos(7)), Moment(7));
}

#[test]
fn a_raised_rate_starts_from_an_empty_bucket_at_worst() {
    let (slow, fast) = (meter(3, 3600, 3), meter(10, 1, 5));
    let mut bucket = Bucket::default();
    while bucket.take(slow, Moment(0)) {}
    assert!(bucket.forgive(fast, Moment(SECOND)));
    assert!(!bucket.forgive(fast, Moment(SECOND)));
    assert!(!bucket.take(fast, Moment(SECOND)));
    assert!(bucket.take(fast, Moment(SECOND + SECOND / 10)));

    let shared = SharedBucket::default();
    while shared.take(slow, Moment(0)) {}
    assert!(!shared.has_token(fast, Moment(SECOND)));
    assert!(!shared.take(fast, Moment(SECOND)));
    assert!(shared.has_token(fast, Moment(SECOND + SECOND / 10)));
    assert!(shared.take(fast, Moment(SECOND + SECOND / 10)));

    let shared = SharedBucket::default();
    while shared.charge(slow.one(), Moment(0)).is_ok() {}
    let in_a_moment = Err(Duration::from_millis(100));
    assert_eq!(shared.charge(fast.one(), Moment(SECOND)), in_a_moment);
    assert_eq!(shared.charge(fast.one(), Moment(SECOND + SECOND / 10)), Ok(()));
}

/// Between charge and refund others may have forgiven the debt.
#[test]
fn a_refund_fills_a_bucket_at_most() {
    let (slow, fast, shared) = (meter(1, 3600, 1), meter(10, 1, 5), SharedBucket::default());
    assert_eq!(shared.charge(slow.one(), Moment(SECOND)), Ok(()));
    assert!(shared.charge(fast.one(), Moment(SECOND)).is_err());
    shared.refund(slow.one());
    assert!(shared.bucket().is_full(Moment(SECOND)));
    assert_eq!(shared.charge(slow.one(), Moment(SECOND)), Ok(()));
}

#[test]
fn each_token_of_a_shared_bucket_goes_to_one_thread() {
    let (shared, meter) = (SharedBucket::default(), meter(1, 3600, 100));
    let taken: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| (0..500).filter(|_| shared.take(meter, Moment(1))).count()))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(taken, 100);
}

#[test]
fn capacity_20_refill_5_a_second_and_4_seconds_of_silence_let_20_of_25_through() {
    let five: Meter = rate(5, Duration::from_secs(1), 20).into();
    let mut bucket = Bucket::default();
    let mut passes = |now| {
        let passes = bucket.lacks(five.one(), now).is_none();
        if passes {
            bucket.charge(five.one(), now);
        }
        passes
    };
    assert_eq!((0..20).filter(|_| passes(Moment(SECOND))).count(), 20);
    assert_eq!((0..25).filter(|_| passes(Moment(5 * SECOND))).count(), 20);
    assert!(!passes(Moment(5 * SECOND + SECOND / 5 - 1)));
    assert!(passes(Moment(5 * SECOND + SECOND / 5)));
}

#[test]
fn a_burst_of_bytes_passes_to_the_byte_however_it_is_divided() {
    for (tokens, seconds, burst) in [(65_536, 1, 65_536), (7, 60, 1000), (1 << 28, 1, 1 << 20), (3, 3600, 17)] {
        let meter: ByteMeter = rate(tokens, Duration::from_secs(seconds), burst).into();
        for piece in [1, 3, 16, u64::from(burst)] {
            let (mut bucket, mut left) = (Bucket::default(), u64::from(burst));
            while left > 0 {
                let bytes = meter.bytes(piece.min(left));
                assert_eq!(
                    bucket.lacks(bytes, Moment(SECOND)),
                    None,
                    "{left} of {burst} in pieces of {piece}"
                );
                bucket.charge(bytes, Moment(SECOND));
                left -= piece.min(left);
            }
            assert!(bucket.lacks(meter.bytes(u64::from(burst)), Moment(SECOND)).is_some());
        }
    }
}

#[test]
fn more_than_a_bucket_holds_never_passes_but_may_be_owed() {
    let meter: ByteMeter = rate(100, Duration::from_secs(1), 100).into();
    let mut bucket = Bucket::default();
    assert_eq!(
        bucket.lacks(meter.bytes(150), Moment(0)),
        Some(Duration::from_millis(500))
    );
    assert_eq!(bucket.holds(meter, Moment(0)), 100);
    bucket.charge(meter.bytes(150), Moment(0));
    assert_eq!(
        bucket.lacks(meter.bytes(1), Moment(0)),
        Some(Duration::from_millis(510))
    );
    assert_eq!([SECOND / 2, SECOND].map(|at| bucket.holds(meter, Moment(at))), [0, 50]);
    bucket.charge(meter.bytes(u64::MAX), Moment(MOST));
    assert!(bucket.lacks(meter.bytes(u64::MAX), Moment(MOST)).is_some());
}

#[test]
fn eight_sockets_of_one_client_get_no_more_than_its_share_and_lose_nothing_to_each_other() {
    let shares = crate::limit::shares::Shares::default();
    let (messages, frames) = (meter(1, 3600, 100), meter(1, 3600, 60));
    let charge = || {
        let (first, second) = (
            (&shares.inbound, messages.one()),
            (&shares.inbound_frames, frames.one()),
        );
        crate::limit::shares::charge_both(first, second, Moment(1))
    };
    let taken: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| (0..500).filter(|_| charge().is_ok()).count()))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(taken, 60);
    // A message that one bucket refused has given its token back to the other.
    assert_eq!(
        (0..500)
            .filter(|_| shares.inbound.charge(messages.one(), Moment(1)).is_ok())
            .count(),
        40
    );
}

#[test]
fn a_refusal_says_when_to_come_back() {
    let (shared, meter) = (SharedBucket::default(), meter(10, 1, 1));
    assert_eq!(shared.charge(meter.one(), Moment(SECOND)), Ok(()));
    assert_eq!(
        shared.charge(meter.one(), Moment(SECOND)),
        Err(Duration::from_millis(100))
    );
    assert_eq!(shared.charge(meter.one(), Moment(SECOND + SECOND / 10)), Ok(()));
}

/// The textbook's bucket with a level, in nanoseconds of filling, so that it is exact in whole numbers.
struct Level {
    level: u128,
    at: u64,
}

impl Level {
    fn take(&mut self, interval: u128, capacity: u128, now: u64) -> bool {
        self.level = capacity.min(self.level + u128::from(now - self.at));
        self.at = now;
        let has = self.level >= interval;
        self.level -= if has { interval } else { 0 };
        has
    }
}

proptest! {
    #[test]
    fn as_many_bytes_are_there_as_can_be_taken_at_once(
        tokens in 1u32..=1 << 30, seconds in 1u64..4000, burst in 1u32..=1 << 30, spent in 0u64..1 << 31, after in 0..SECOND,
    ) {
        let meter = ByteMeter::from(rate(tokens, Duration::from_secs(seconds), burst));
        let mut bucket = Bucket::default();
        prop_assert!(bucket.holds(meter, Moment(0)) >= burst.into());
        bucket.charge(meter.bytes(spent), Moment(0));
        let there = bucket.holds(meter, Moment(after));
        prop_assert_eq!(bucket.lacks(meter.bytes(there), Moment(after)).filter(|_| there > 0), None);
        prop_assert!(bucket.lacks(meter.bytes(there + 1), Moment(after)).is_some());
        prop_assert!((1..=burst.min(16 << 10).into()).contains(&meter.portion()));
        let quarter = u64::from(tokens) / 4 / seconds;
        prop_assert!(meter.portion() <= quarter + 1);
    }

    #[test]
    fn it_answers_as_a_bucket_with_a_level_does(
        tokens in 1u32..400, seconds in 1u64..4000, burst in 1u32..20,
        waits in prop::collection::vec((0u64..40, 0u64..3), 1..200),
    ) {
        let meter = meter(tokens, seconds, burst);
        let interval = (seconds * SECOND).div_ceil(u64::from(tokens));
        let capacity = u128::from(interval) * u128::from(burst);
        let (mut bucket, mut model, mut now) = (Bucket::default(), Level { level: capacity, at: 0 }, 0);
        for (tenths, extra) in waits {
            now += interval * tenths / 10 + extra;
            let looked = bucket.has_token(meter, Moment(now));
            prop_assert!(!bucket.forgive(meter, Moment(now)));
            let took = bucket.take(meter, Moment(now));
            prop_assert_eq!(looked, took);
            prop_assert_eq!(took, model.take(u128::from(interval), capacity, now));
            prop_assert_eq!(bucket.is_full(Moment(now)), model.level == capacity);
        }
    }

    #[test]
    fn never_more_than_burst_and_rate_and_at_most_a_rounding_less(
        tokens in 1u32..2_000_000_000, seconds in 1u64..100, burst in 1u32..50, steps in 1u64..300, step in 1u64..SECOND,
    ) {
        let (meter, mut bucket) = (meter(tokens, seconds, burst), Bucket::default());
        let mut taken = 0u128;
        for now in (0..steps).map(|n| Moment(n * step)) {
            // At any moment there is at most one burst.
            taken += (0..=burst).filter(|_| bucket.take(meter, now)).count() as u128;
        }
        let elapsed = u128::from((steps - 1) * step);
        let rational = elapsed * u128::from(tokens) / u128::from(seconds * SECOND);
        prop_assert!(taken <= u128::from(burst) + rational);
    }
}
