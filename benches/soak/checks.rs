//! The checks at the end of a run.

use std::io;

use crate::book::{Book, Fault};
use crate::guard::Sample;

/// The numbers of checks that passed and failed.
#[derive(Debug, Default)]
pub struct Checks {
    pub passed: u32,
    pub failed: u32,
}

impl Checks {
    /// Makes one check, and prints its result.
    pub fn that(&mut self, promise: &str, holds: bool, found: impl std::fmt::Display) {
        if holds {
            self.passed += 1;
            println!("passed: {promise} ({found})");
        } else {
            self.failed += 1;
            println!("FAILED: {promise} ({found})");
        }
    }

    /// Checks that no fault was counted, and that everything happened that had to happen.
    pub fn of_the_book(&mut self, book: &Book) {
        for (fault, promise) in [
            (Fault::Drift, "the counts never drift"),
            (Fault::Lost, "no connection ends for a reason that is not known"),
            (Fault::Bytes, "every byte comes back as it was sent"),
            (Fault::Late, "no client waits in vain"),
            (Fault::Answer, "every answer is one that is to be expected"),
            (Fault::Reload, "good files are taken and broken ones are not"),
            (Fault::Guard, "the guard always answers, and nothing panics"),
        ] {
            let times = book.faults(fault);
            self.that(promise, times == 0, format!("{times} faults"));
        }
        let came = book.counted("resident: came");
        let explained = book.counted("resident: went by itself") + book.counted("resident: lost to a server's restart");
        self.that(
            "every resident that came went by itself or was lost to a server's restart",
            came == explained,
            format!("{came} came, {explained} ends are explained"),
        );
        let rare: Vec<&str> = HAPPENS.into_iter().filter(|what| book.counted_all(what) == 0).collect();
        self.that(
            "everything that was to happen did",
            rare.is_empty(),
            format!("never: {rare:?}"),
        );
    }

    /// Checks that nothing is open after all clients have left.
    pub fn of_gauges(&mut self, when: &str, open: &[(String, String)]) {
        self.that(
            &format!("every gauge is 0 {when}"),
            open.is_empty(),
            format!("open: {open:?}"),
        );
    }

    /// Checks that the process is the same at the end as after its first minutes.
    pub fn of_samples(&mut self, reference: io::Result<Sample>, last: io::Result<Sample>) {
        let (Ok(first), Ok(last)) = (reference, last) else {
            return self.that("the guard can be measured at rest", false, "no sample");
        };
        let pairs = [
            ("PSS (KiB)", first.pss, last.pss),
            ("descriptors", first.descriptors, last.descriptors),
        ];
        for (what, before, after) in pairs {
            let is_near = after * 20 <= before * 21 && after * 20 >= before * 19;
            self.that(
                &format!("{what} within 5 %"),
                is_near,
                format!("{before}, then {after}"),
            );
        }
        let threads = (first.threads, last.threads);
        self.that(
            "as many threads",
            threads.0 == threads.1,
            format!("{}, then {}", threads.0, threads.1),
        );
    }
}

const HAPPENS: [&str; 21] = [
    "resident: came",
    "resident: echoes",
    "resident: went by itself",
    "visitor: Close",
    "visitor: Fin",
    "visitor: Reset",
    "visitor: BreakOff",
    "visitor: left early",
    "visitor: Idle",
    "visitor: Overstay",
    "reader: Slow",
    "reader: Stalled",
    "floods: Upgrades",
    "floods: Silence",
    "floods: HalfHeads",
    "floods: Garbage",
    "floods: Requests",
    "reload: ",
    "reload refused: ",
    "servers: restarts",
    "servers: freezes",
];
