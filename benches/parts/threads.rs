//! Two threads that contend for the same data.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// Runs `act` on two threads at the same time, `rounds` times on each, and each with a state of its own. Returns how
/// long the slower thread took.
pub fn both_at_once<S: Send>(states: &mut [S; 2], rounds: u64, act: impl Fn(&mut S) + Sync) -> Duration {
    let start = Barrier::new(states.len());
    thread::scope(|scope| {
        let threads = states.each_mut().map(|state| {
            scope.spawn(|| {
                start.wait();
                let began = Instant::now();
                for _ in 0..rounds {
                    act(state);
                }
                began.elapsed()
            })
        });
        let took = threads.map(|thread| thread.join().expect("an act does not panic"));
        took.into_iter().max().unwrap_or_default()
    })
}
