//! Compares wsguard with its peers: what a handshake, a message, an idle connection and a refusal cost on this machine.
//! All contenders run in one interleaved run: wsguard, nginx, `HAProxy`, and a bare relay that shows the least that any
//! proxy costs.
//!
//! ```sh
//! cargo bench --bench peers -- --quick                        # under three minutes: does it work, large differences
//! cargo bench --bench peers -- --full --out target/peers      # forty minutes: figures to compare
//! cargo bench --bench peers -- --quick --only echo --only bulk
//! ```
//!
//! Without `--quick` or `--full` nothing is done, so that `cargo test --benches` stays short. Peers are looked for in
//! PATH and /usr/sbin (`apt-get install nginx haproxy strace`), and those that are missing are left out. All traffic
//! stays on the loopback of this machine: clients have addresses of 127.0.0.0/8. The run needs two cores that nothing
//! else uses, and for `--full` 17 000 descriptors a process (`ulimit -n`).
//!
//! The proxy has a core to itself. The clients (this process) and the backend (this program again) have another core.
//! The measured time is the proxy's own CPU time, as the kernel counts it. It is read while the proxy sleeps, before
//! and after. wsguard runs with its limits at their defaults and one worker. The peers run with one worker or thread,
//! logs off and long timeouts. Their limits are on only if a limit is measured.
//!
//! A table of Markdown is written to stdout, and with `--out` also `peers.md`, `peers.json` and `peers.svg`. The last
//! line is `peers: N passed, N failed`; it counts wsguard's targets. The exit code is 0 unless something broke or, with
//! `--deny-missed`, a target was missed.

#![allow(clippy::cast_precision_loss)] // Figures are rounded to three digits.

mod backend;
mod book;
mod bulk;
mod calls;
mod chart;
mod contender;
mod cores;
mod course;
mod crowd;
mod effort;
mod flood;
#[allow(dead_code)] // The tests and the soak need more of it.
#[path = "../../tests/rig/frames.rs"]
mod frames;
mod launch;
mod machine;
mod meter;
mod pending;
mod poller;
mod proxy;
mod record;
mod relay;
mod request;
mod scan;
mod scenario;
mod socket;
mod storm;
mod table;
mod target;
mod tools;

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use book::Book;
use cores::{Cores, pin_to};
use course::Course;
use effort::Effort;
use launch::AS_LAUNCHER;
use machine::Machine;
use proxy::{AS_BACKEND, AS_RELAY};
use scenario::Scenario;
use target::Verdict;
use tools::Tools;

/// Compares wsguard with its peers.
#[derive(Debug, Parser)]
#[allow(clippy::struct_excessive_bools)] // As many as there are flags.
struct Options {
    /// Few short rounds: under three minutes
    #[arg(long, required_unless_present = "full")]
    quick: bool,
    /// Five rounds of everything: some forty minutes
    #[arg(long, conflicts_with = "quick")]
    full: bool,
    /// Only scenarios whose names begin so; may be given several times
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Rounds of each scenario, instead of 2 or 5
    #[arg(long)]
    rounds: Option<usize>,
    /// The wsguard to run; by default the one that was built along
    #[arg(long, default_value = env!("CARGO_BIN_EXE_wsguard"))]
    binary: PathBuf,
    /// A folder for peers.md, peers.json and peers.svg
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Fail where a target is missed
    #[arg(long)]
    deny_missed: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let is = |nth: usize, word: &str| arguments.get(nth).is_some_and(|argument| argument == word);
    let address = |nth: usize| -> anyhow::Result<SocketAddr> {
        let argument = arguments.get(nth).and_then(|argument| argument.to_str());
        Ok(argument.context("an address is missing")?.parse()?)
    };
    if is(0, AS_LAUNCHER) {
        launch::launch(&arguments[1..])?;
    } else if is(0, AS_RELAY) {
        relay::serve(address(1)?, address(2)?)?;
    } else if is(0, AS_BACKEND) {
        backend::serve(address(1)?)?;
    } else if ["--quick", "--full", "--help"]
        .iter()
        .any(|ours| arguments.iter().any(|each| each == ours))
    {
        return compare(&Options::parse());
    } else {
        // A run of all tests or benches may pass arguments that are not for this one.
        println!("peers: nothing is done without --quick or --full");
    }
    Ok(ExitCode::SUCCESS)
}

fn compare(options: &Options) -> anyhow::Result<ExitCode> {
    let begin = Instant::now();
    let mut effort = if options.full { Effort::FULL } else { Effort::QUICK };
    if let Some(rounds) = options.rounds {
        (effort.rounds, effort.steady_rounds) = (rounds, rounds);
    }
    let mut scenarios = Scenario::all(&effort);
    scenarios.retain(|scenario| {
        options.only.is_empty() || options.only.iter().any(|name| scenario.name().starts_with(name))
    });
    anyhow::ensure!(!scenarios.is_empty(), "no scenario has such a name");
    raise_descriptors(&effort)?;
    let tools = Tools::find(&options.binary)?;
    let cores = Cores::find()?;
    let machine = Machine::look(cores, &tools, &effort);
    for (name, value) in machine.lines() {
        eprintln!("{name}: {value}");
    }
    // All processes that are started from here on run on this core too, unless they are pinned elsewhere.
    pin_to(cores.clients)?;
    let mut course = Course {
        tools: &tools,
        cores,
        effort,
        book: Book::default(),
    };
    for scenario in scenarios {
        course.run(scenario);
    }
    let book = course.book;
    eprintln!("it took {:.0} s", begin.elapsed().as_secs_f64());
    println!("{}", table::text(&machine, &book));
    if let Some(folder) = &options.out {
        write(folder, &machine, &book)?;
    }
    Ok(judge(&book, options.deny_missed))
}

fn write(folder: &Path, machine: &Machine, book: &Book) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("peers.md"), table::text(machine, book))?;
    fs::write(folder.join("peers.json"), record::text(machine, book)?)?;
    fs::write(folder.join("peers.svg"), chart::text(machine, book))?;
    Ok(())
}

fn judge(book: &Book, deny_missed: bool) -> ExitCode {
    let verdicts = |row| [Verdict::on(row), Verdict::with_limits(row)].into_iter().flatten();
    let met: Vec<bool> = book
        .rows
        .iter()
        .flat_map(verdicts)
        .filter_map(|verdict| verdict.is_met())
        .collect();
    let passed = met.iter().filter(|is_met| **is_met).count();
    let failed = met.len() - passed;
    if !book.faults.is_empty() {
        println!("peers: {} measurements broke", book.faults.len());
    }
    println!("peers: {passed} passed, {failed} failed");
    if book.faults.is_empty() && (failed == 0 || !deny_missed) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Raises the limit of descriptors as far as that needs no privilege. Children inherit it.
fn raise_descriptors(effort: &Effort) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let needed = effort.descriptors();
    anyhow::ensure!(
        limit.maximum.is_none_or(|limit| limit >= needed),
        "{needed} descriptors are needed (ulimit -n)"
    );
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )
    .context("raising the descriptor limit")
}
