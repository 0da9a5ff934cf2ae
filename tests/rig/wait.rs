//! Waiting for a condition, with a bound, instead of sleeping and hoping.

use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for something that should happen at once, before it fails.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The longest pause between two looks. It is short, so that what happens at once is seen at once, and long enough to
/// leave the processor to other tests.
const PAUSE_MAX: Duration = Duration::from_millis(16);

/// When the guard's clock began to run: between two instants of ours, however long a process was paused there.
#[derive(Clone, Copy)]
pub struct Began {
    earliest: Instant,
    latest: Instant,
}

impl Began {
    /// Calls `begin`, during which the guard's clock begins to run. Returns its result too.
    pub fn with<T>(begin: impl FnOnce() -> T) -> (Self, T) {
        let earliest = Instant::now();
        let value = begin();
        let latest = Instant::now();
        (Self { earliest, latest }, value)
    }

    /// Asserts that what was just seen can have taken this long by the guard's clock.
    pub fn assert_took(&self, times: Range<Duration>) {
        let (least, most) = (self.latest.elapsed(), self.earliest.elapsed());
        assert!(
            times.start <= most && least < times.end,
            "after {least:?} to {most:?}, not {times:?}"
        );
    }
}

/// Runs the same test for all cases at the same time, since they mostly wait. Fails if one of them fails.
pub fn side_by_side<T: Send>(cases: impl IntoIterator<Item = T>, test: impl Fn(T) + Sync) {
    thread::scope(|scope| {
        for case in cases {
            scope.spawn(|| test(case));
        }
    });
}

/// Waits until the condition yields something; panics after [`PATIENCE`].
pub fn until<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    reaches(PATIENCE, condition).unwrap_or_else(|| panic!("not within {PATIENCE:?}: {what}"))
}

/// Waits until the condition yields something, or gives up.
pub fn reaches<T>(bound: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + bound;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(pause);
        pause = PAUSE_MAX.min(2 * pause);
    }
}
