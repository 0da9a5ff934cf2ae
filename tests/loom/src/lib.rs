//! The code of `src/limit/` and other code that several threads share. The files are the same, with loom's atomics and
//! locks in place of std's (`src/limit/sync.rs`):
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --manifest-path tests/loom/Cargo.toml --locked
//! ```
//!
//! This is a package of its own for two reasons. tokio has no sockets under `cfg(loom)`, so the whole of wsguard can't
//! be built. And this package takes seconds instead of minutes to build.

// The tests in those files are run by wsguard itself.
#![cfg(all(loom, not(test)))]

use std::sync::Arc;

use loom::thread;

pub mod engine;
#[path = "../../../src/limit/mod.rs"]
pub mod limit;
pub mod reason;
pub mod relay;

/// Runs `run` in every order of its threads' steps. If there are too many, `preemptions` bounds them: only orders with
/// at most that many preemptions are run.
pub fn model(preemptions: Option<usize>, run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 10_000;
    builder.check(run);
}

/// Runs `act` on `threads` threads with the shared value, and returns the results. The calling thread is the last of
/// them.
///
/// # Panics
/// If one of the threads panics.
pub fn of_all<S, T>(threads: usize, shared: &Arc<S>, act: impl Fn(usize, &Arc<S>) -> T + Clone + 'static) -> Vec<T>
where
    S: 'static,
    T: 'static,
{
    let others: Vec<_> = (0..threads - 1)
        .map(|thread| {
            let (shared, act) = (Arc::clone(shared), act.clone());
            thread::spawn(move || act(thread, &shared))
        })
        .collect();
    let own = act(threads - 1, shared);
    let mut all: Vec<T> = others.into_iter().map(|other| other.join().expect("it ends")).collect();
    all.push(own);
    all
}
