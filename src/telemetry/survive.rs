//! A loop that outlives a panic.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `step`, which may panic, for a loop that has to go on; `None` if it did. The panic hook has counted and logged it.
pub fn survive<T>(step: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(step)).ok()
}
