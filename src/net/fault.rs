//! Faults for tests: a panic at a chosen stage, or parking right away. Without the feature `faults` they do nothing.
//! The file is on the lowest floor so that every floor can use it.

use std::time::Duration;

/// Panics when `stage` is passed, if `WSGUARD_FAULT` names it: `stage` means the first time in the process, `stage:n`
/// the n-th. At all other times it does nothing, so the same process shows what a panic leaves behind.
///
/// # Panics
/// At that time, on purpose.
#[cfg(feature = "faults")]
#[track_caller]
pub fn point(stage: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    static ASKED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);

    let asked = ASKED.get_or_init(|| {
        let asked = std::env::var("WSGUARD_FAULT").ok()?;
        let (stage, nth) = asked.split_once(':').unwrap_or((&asked, "1"));
        Some((stage.to_owned(), nth.parse().expect("WSGUARD_FAULT is stage:number")))
    });
    let is_due = asked
        .as_ref()
        .is_some_and(|(at, nth)| at == stage && PASSED.fetch_add(1, Relaxed) + 1 == *nth);
    assert!(!is_due, "a planned fault at stage {stage}");
}

/// Without the feature `faults` it does nothing.
#[cfg(not(feature = "faults"))]
#[inline]
pub fn point(_stage: &str) {}

/// The silence after which a connection is parked: `usual`, or the milliseconds in `WSGUARD_REST_AFTER`. With 0 every
/// connection is parked as often as possible, so every test also tests parking.
///
/// # Panics
/// If the variable is not a number.
#[cfg(feature = "faults")]
pub fn rest_after(usual: Duration) -> Duration {
    use std::sync::OnceLock;

    static ASKED: OnceLock<Option<Duration>> = OnceLock::new();

    let asked = ASKED.get_or_init(|| {
        let asked = std::env::var("WSGUARD_REST_AFTER").ok()?;
        Some(Duration::from_millis(
            asked.parse().expect("WSGUARD_REST_AFTER is milliseconds"),
        ))
    });
    asked.unwrap_or(usual)
}

/// Without the feature `faults` it is `usual`.
#[cfg(not(feature = "faults"))]
#[inline]
pub fn rest_after(usual: Duration) -> Duration {
    usual
}
