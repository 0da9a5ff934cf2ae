//! Waiting for a condition, with a bound, instead of sleeping and hoping.

use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for what is due at once before it says that it did not come.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until the condition yields something; panics after [`PATIENCE`].
pub fn until<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    reaches(PATIENCE, condition).unwrap_or_else(|| panic!("not within {PATIENCE:?}: {what}"))
}

/// Waits until the condition yields something, or gives up.
pub fn reaches<T>(bound: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + bound;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}
