//! How many instructions the pure parts take, counted by valgrind: the same on a busy machine as on an idle one.
//!
//! ```sh
//! python3 benches/instructions/check.py           # counts, and compares with baseline.json
//! python3 benches/instructions/check.py --renew   # counts, and writes baseline.json
//! cargo bench --bench instructions                # counts, and compares with the last time on this machine
//! ```
//!
//! Needs valgrind and, on the PATH, the `gungraun-runner` of the version that `Cargo.lock` has of gungraun; `.ci/run install
//! instructions` brings both and checks. Does nothing under `cargo test --benches`, which is to need neither.
//!
//! What is asserted within a benchmark keeps a part that does nothing from passing for a fast one.

mod admissions;
mod buckets;
mod frames;
mod heads;
#[path = "../inputs/mod.rs"]
mod inputs;

/// gungraun's own main, which is private to where it stands.
mod counting {
    use crate::admissions::admission;
    use crate::buckets::bucket;
    use crate::frames::frame;
    use crate::heads::head;

    gungraun::main!(library_benchmark_groups = head, frame, bucket, admission);

    pub fn run() {
        main();
    }
}

fn main() {
    // Given by cargo, or by gungraun when it runs one benchmark.
    if std::env::args().any(|arg| arg == "--bench" || arg == "--gungraun-run") {
        counting::run();
    } else {
        println!("instructions: nothing is counted without --bench");
    }
}
