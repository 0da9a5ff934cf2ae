//! What a test asks for that no traffic brings about: a fault of our own, or a rest right away. Nothing at all in a build
//! without the feature `faults`. It stands on the lowest floor so that every floor above can have them.

use std::time::Duration;

/// Panics on the passing of `stage` that `WSGUARD_FAULT` names: `stage` for the first one of the process, `stage:n` for
/// the n-th. All others pass, so that the same process can show what a fault leaves behind.
///
/// # Panics
/// That is what it is for.
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
    assert!(!is_due, "a fault on stage {stage}, as was asked for");
}

/// Without the feature `faults` nobody can ask for any.
#[cfg(not(feature = "faults"))]
#[inline]
pub fn point(_stage: &str) {}

/// `usual`, or as many milliseconds as `WSGUARD_REST_AFTER` asks for: with 0 every connection rests as often as it can, and
/// every test is one of that as well.
///
/// # Panics
/// Where that is no number.
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

/// Without the feature `faults` it is as usual.
#[cfg(not(feature = "faults"))]
#[inline]
pub fn rest_after(usual: Duration) -> Duration {
    usual
}
