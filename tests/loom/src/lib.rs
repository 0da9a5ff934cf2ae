//! The code of `src/limit/`, the same files, with loom's atomics and locks in place of std's (`src/limit/sync.rs`):
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --manifest-path tests/loom/Cargo.toml --locked
//! ```
//!
//! A package of its own, because tokio has no sockets under `cfg(loom)`, so that the whole of wsguard can't be built; and
//! because this takes seconds instead of minutes.

// The tests in those files are wsguard's own.
#![cfg(all(loom, not(test)))]

#[path = "../../../src/limit/mod.rs"]
pub mod limit;
