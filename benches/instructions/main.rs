//! How many instructions the pure parts take, counted by valgrind. The count is the same on a busy machine as on an
//! idle one.
//!
//! ```sh
//! python3 benches/instructions/check.py           # counts, and compares with baseline.json
//! python3 benches/instructions/check.py --renew   # counts, and writes baseline.json
//! cargo bench --bench instructions                # counts, and compares with the last time on this machine
//! ```
//!
//! The benches need valgrind and, on the PATH, `gungraun-runner` in the version that `Cargo.lock` has of gungraun.
//! `.ci/run install instructions` installs both and checks them. Under `cargo test --benches`, which must need neither,
//! nothing is done.
//!
//! The assertions within a benchmark make sure that a part that does nothing is not taken for a fast one.

mod admissions;
mod buckets;
mod frames;
mod heads;
#[path = "../inputs/mod.rs"]
mod inputs;

/// This module has gungraun's own main, which is private to it.
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
    // cargo passes the first argument. gungraun passes the second one when it runs one benchmark.
    if std::env::args().any(|arg| arg == "--bench" || arg == "--gungraun-run") {
        counting::run();
    } else {
        println!("instructions: nothing is counted without --bench");
    }
}
