//! `wsguard probe URL`: attacks your own guard from outside, in bounded steps, and prints the findings.

mod attempts;
mod fakes;
mod finding;
mod target;

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;

use self::attempts::Attempts;
use self::finding::{Finding, Verdict};
use self::target::{Target, Wrong};
use super::exit::Exit;
use super::stderr::{fail, print_line};

/// `probe URL [--most N] [--exempt PATH]… [--patience SECONDS] [--json] [--i-own-this]`.
#[derive(Debug, Args)]
#[command(after_help = VERDICTS)]
pub(crate) struct Options {
    /// The guard, e.g. <ws://127.0.0.1:8080/chat>
    url: String,
    /// Sockets to open at most while looking for the limit by address, 1 to 150
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u8).range(1..=150))]
    most: u8,
    /// A path that is exempt from the limit, whose other spellings are tried; may be repeated
    #[arg(long, value_name = "PATH", default_values = ["/federation", "/server"])]
    exempt: Vec<String>,
    /// Seconds within which a silent or dripping socket must be closed, 1 to 30
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u8).range(1..=30))]
    patience: u8,
    /// Print the findings as a JSON array
    #[arg(long)]
    json: bool,
    /// Probe a target that is not on this machine; it must be yours
    #[arg(long = "i-own-this")]
    owned: bool,
}

/// Probes, prints the findings, and fails if one is bad.
pub(crate) fn probe(options: &Options) -> Exit {
    if let Some(path) = options.exempt.iter().find(|path| !target::is_path(path)) {
        print_line(format_args!(
            "wsguard: --exempt {path:?}: a path begins with / and has no spaces"
        ));
        return Exit::Usage;
    }
    let target = match Target::parse(&options.url, options.owned) {
        Ok(target) => target,
        Err(Wrong::Usage(why)) => {
            print_line(format_args!("wsguard: {}: {why}", options.url));
            return Exit::Usage;
        }
        Err(Wrong::Unreachable(error)) => return fail(&error.context(options.url.clone())),
    };
    let mut attempts = Attempts::new(&target, Duration::from_secs(options.patience.into()));
    match attempts.all(options.most.into(), &options.exempt) {
        Ok(()) => print_findings(&attempts.findings, options.json),
        Err(error) => fail(&error.context(options.url.clone())),
    }
}

fn print_findings(findings: &[Finding], json: bool) -> Exit {
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let (bad, ok, unknown) = (count(Verdict::Bad), count(Verdict::Ok), count(Verdict::Unknown));
    let text = if json {
        serde_json::to_string_pretty(findings).unwrap_or_default() + "\n"
    } else {
        let lines: String = findings.iter().map(Finding::line).collect();
        format!("{lines}{ok} ok, {bad} bad, {unknown} unclear\n")
    };
    // If stdout is closed, the exit code still tells the result.
    let _unread = io::stdout().lock().write_all(text.as_bytes());
    if bad == 0 { Exit::Done } else { Exit::Failed }
}

const VERDICTS: &str = "\
One line per finding. ok: as it should be. BAD: a way past the guard, or a socket that it does not end or give back. ??: \
unclear, and why. Exit code 1 if one is BAD. It opens 200 sockets at most, and takes a minute at most.";
