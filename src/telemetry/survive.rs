//! A loop that outlives a panic.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `step` of a loop that has to go on after a panic. `None` if `step` panicked; the panic hook has counted and logged
/// that.
pub fn survive<T>(step: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(step)).ok()
}
