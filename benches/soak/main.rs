//! A soak test: in minutes, the real binary goes through everything that happens in months. At the end it must be as it
//! was at the beginning.
//!
//! ```sh
//! cargo bench --bench soak -- --minutes 30
//! cargo bench --bench soak -- --minutes 2 --binary target/release/wsguard --seed 7
//! ```
//!
//! Without `--minutes` nothing is done, so that `cargo test --benches` stays short. All traffic stays on the loopback
//! of this machine: clients have addresses of 127.0.0.0/8, and servers are child processes in which the bench runs
//! itself again. The run needs some 3 000 descriptors (`ulimit -n`).
//!
//! All the time there are clients that stay and check every echoed byte, clients that come and leave by FIN, reset and
//! close frame, readers that are slow or take nothing, and floods. Every few seconds a new configuration file is put in
//! place, in every possible way; some files are broken and must change nothing. One server is killed and started again,
//! and another one is stopped and continues. Traffic stops after two minutes for a first measurement at rest, and again
//! at the end for the second one. A line every ten seconds shows the state of the run.
//!
//! Each end of a connection must have a reason that the bench knows; otherwise it is a fault. The last line is `soak: N
//! passed, N failed`, and the exit code is 0 if no check failed.

mod backend;
mod book;
mod checks;
mod client;
mod dice;
mod echo;
mod floods;
#[allow(dead_code)] // The tests read frames as well.
#[path = "../../tests/rig/frames.rs"]
mod frames;
mod guard;
#[allow(dead_code)] // The tests' reader of /metrics tells more than is asked here.
#[path = "../../tests/rig/metrics.rs"]
mod metrics;
mod places;
mod plan;
mod readers;
mod reloads;
mod residents;
mod scene;
mod season;
mod servers;
mod visitors;
mod way;

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use book::{Book, Fault};
use checks::Checks;
use dice::Dice;
use guard::{Guard, Sample};
use places::Places;
use plan::Plan;
use reloads::Reloads;
use scene::Scene;
use season::Cast;
use servers::Servers;

/// Soaks wsguard for a given time.
#[derive(Debug, Parser)]
struct Options {
    /// How long in all
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// The wsguard to run; by default the one that was built along
    #[arg(long, default_value = env!("CARGO_BIN_EXE_wsguard"))]
    binary: PathBuf,
    /// What chance begins with
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the guard's file and log are kept; by default in a folder that is removed at the end
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
    /// Be a server behind the guard
    #[arg(long, hide = true)]
    as_backend: Option<SocketAddr>,
}

fn main() -> anyhow::Result<ExitCode> {
    // A run of all tests or benches may pass arguments that are not for this one.
    let is_asked = |arg: String| {
        [AS_BACKEND, "--minutes", "--help"]
            .iter()
            .any(|ours| arg.starts_with(ours))
    };
    if !std::env::args().any(is_asked) {
        println!("soak: nothing is done without --minutes");
        return Ok(ExitCode::SUCCESS);
    }
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if let Some(address) = options.as_backend {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        runtime.block_on(echo::serve(address))?;
        return Ok(ExitCode::SUCCESS);
    }
    let lasts = Duration::try_from_secs_f64(options.minutes * 60.0)?;
    let checks = runtime.block_on(async {
        // If a signal ends the bench, it still ends the processes that it has started.
        tokio::select! {
            checks = soak(&options, lasts) => checks,
            ended = end_signal() => Err(ended.err().unwrap_or_else(|| io::Error::other("ended by a signal"))),
        }
    })?;
    println!("soak: {} passed, {} failed", checks.passed, checks.failed);
    Ok(if checks.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn soak(options: &Options, lasts: Duration) -> io::Result<Checks> {
    let removed_at_the_end = tempfile::tempdir()?;
    let folder = options.folder.as_deref().unwrap_or(removed_at_the_end.path());
    fs::create_dir_all(folder)?;
    let places = Places::find()?;
    let plan = Plan::calm(0);
    let path = folder.join("wsguard.toml");
    fs::write(&path, plan.text(&places))?;
    let servers = Servers::start(&places).await?;
    let log = File::create(folder.join("wsguard.log"))?;
    let mut guard = Guard::start(&options.binary, &path, log, places.admin).await?;
    let book = Arc::new(Book::default());
    let (_end, ends) = watch::channel(false);
    let scene = Scene {
        book: Arc::clone(&book),
        places,
        eye: guard.eye(),
        ends,
    };
    let watching = tokio::spawn(watch_it(scene.clone()));
    let first = FIRST.min(lasts / 2);
    let cast = Cast {
        servers,
        reloads: Reloads { path, plan },
        dice: Dice::new(options.seed),
    };
    let cast = season::pass(first, cast, &scene).await;
    let (open_first, reference) = season::rest(&scene).await;
    println!("at rest after {first:.0?}: {reference:?}");
    let cast = season::pass(lasts.saturating_sub(first), cast, &scene).await;
    let (open_last, last) = season::rest(&scene).await;
    println!("at rest at the end:   {last:?}");
    watching.abort();
    let ended = guard.end().await;
    drop(cast);

    for (what, count) in book.counts() {
        println!("{count:>9}  {what}");
    }
    let mut checks = Checks::default();
    checks.of_the_book(&book);
    checks.of_gauges("after the first minutes", &open_first);
    checks.of_gauges("at the end", &open_last);
    checks.of_samples(reference, last);
    checks.that(
        "wsguard ends by TERM with 0",
        ended.as_ref().is_ok_and(ExitStatus::success),
        format!("{ended:?}"),
    );
    Ok(checks)
}

async fn end_signal() -> io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Prints a line every ten seconds, and counts a fault if a measurement can't be right.
async fn watch_it(scene: Scene) {
    let begin = Instant::now();
    let mut every = interval(SAMPLES);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut panics = 0;
    loop {
        every.tick().await;
        match scene.eye.sample().await {
            Ok(sample) => {
                print_sample(begin, &sample, &scene.book);
                if sample.drift != 0 {
                    scene
                        .book
                        .fault(Fault::Drift, format!("{} at {:.0?}", sample.drift, begin.elapsed()));
                }
                if sample.panics > panics {
                    scene.book.fault(Fault::Guard, format!("{} panics", sample.panics));
                    panics = sample.panics;
                }
                scene.book.count("samples");
            }
            Err(error) => scene.book.fault(Fault::Guard, format!("no sample: {error}")),
        }
    }
}

fn print_sample(begin: Instant, sample: &Sample, book: &Book) {
    let Sample {
        drift,
        open,
        pending,
        panics,
        log_lines_dropped,
        generation,
        pss,
        pss_anon,
        descriptors,
        threads,
    } = sample;
    println!(
        "{:>6.0}s  gen {generation}  drift {drift}  open {open}  pending {pending}  pss {pss} KiB ({pss_anon} anon)  \
         fds {descriptors}  threads {threads}  panics {panics}  dropped {log_lines_dropped}  echoes {}  refused {}  restarts {}",
        begin.elapsed().as_secs_f64(),
        book.counted("resident: echoes"),
        book.counted_all("flood: "),
        book.counted("servers: restarts"),
    );
}

/// The argument by which the bench asks itself to be a server.
const AS_BACKEND: &str = "--as-backend";
const FIRST: Duration = Duration::from_secs(120);
const SAMPLES: Duration = Duration::from_secs(10);
