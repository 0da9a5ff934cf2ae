//! The code of `src/limit/`, and what else several threads share, the same files, with loom's atomics and locks in place of
//! std's (`src/limit/sync.rs`):
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --manifest-path tests/loom/Cargo.toml --locked
//! ```
//!
//! A package of its own, because tokio has no sockets under `cfg(loom)`, so that the whole of wsguard can't be built; and
//! because this takes seconds instead of minutes.

// The tests in those files are wsguard's own.
#![cfg(all(loom, not(test)))]

use std::sync::Arc;

use loom::thread;

pub mod engine;
#[path = "../../../src/limit/mod.rs"]
pub mod limit;
pub mod reason;
pub mod relay;

/// Runs `run` in every order of its threads' steps; where there are too many, in those with at most so many preemptions.
pub fn model(preemptions: Option<usize>, run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 10_000;
    builder.check(run);
}

/// What each of `threads` makes of what they share; the last of them is this one.
///
/// # Panics
/// Where one of them does.
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
