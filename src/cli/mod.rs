//! The command line: one file a command.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::defaults;
use crate::config::policy::{LogFormat, LogLevel};
use crate::demo;
use crate::telemetry::log;

pub mod check;
pub mod completions;
mod grace;
pub mod man;
pub mod probe;
pub mod run;
mod signals;

/// A guard for WebSocket servers: exact per-client limits and budgets before the handshake, near zero cost after it.
#[derive(Debug, Parser)]
#[command(
    name = "wsguard",
    version = VERSION.as_str(),
    propagate_version = true,
    arg_required_else_help = true,
    after_help = EXITS
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The real guard before an embedded chat server, with a page to chat on and live numbers; needs nothing else
    Demo(demo::DemoArgs),
    /// Serve in the foreground
    Run(run::Options),
    /// Look for mistakes in a configuration: every one, with its place and a hint
    Check(check::Options),
    /// Try a guard of one's own from outside: its limit, forged headers, path tricks, fake upgrades, silent sockets
    Probe(probe::Options),
    /// Print the manual page, for who packages wsguard: `wsguard man | man -l -` shows it
    #[command(hide = true)]
    Man,
    /// Print what completes wsguard's commands and options in a shell, for who packages it
    #[command(hide = true)]
    Completions(completions::Options),
}

/// Where the configuration is.
#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file
    #[arg(short = 'c', long = "config", value_name = "FILE", env = "WSGUARD_CONFIG", hide_env_values = true, default_value = defaults::FILE)]
    config: PathBuf,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The configuration is refused, or missing.
    Config = 3,
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no mistakes, and come this way too.
            let _closed = error.print();
            return if error.use_stderr() {
                Exit::Usage.into()
            } else {
                Exit::Done.into()
            };
        }
    };
    match cli.command {
        Command::Demo(args) => demo::run(args).map_or_else(|error| failed_in(LogFormat::Auto, &error), |()| Exit::Done),
        Command::Run(options) => run::run(&options),
        Command::Check(options) => check::check(&options),
        Command::Probe(options) => probe::probe(&options),
        Command::Man => printed(|out| man::write(Cli::command(), out)),
        Command::Completions(options) => printed(|out| completions::write(&mut Cli::command(), &options, out)),
    }
    .into()
}

/// Writes to standard output, where it fails as a write does.
fn printed(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Exit {
    let mut text = Vec::new();
    write(&mut text)
        .and_then(|()| io::stdout().write_all(&text))
        .map_or_else(|error| failed(&error.into()), |()| Exit::Done)
}

/// Says in the log's own format why a guard could not start, or go on.
fn failed_in(format: LogFormat, error: &anyhow::Error) -> Exit {
    if !log::is_json(format) {
        return failed(error);
    }
    log::say(format, LogLevel::Error, "failed", format!("{error:#}"));
    Exit::Failed
}

fn failed(error: &anyhow::Error) -> Exit {
    tell(format_args!("wsguard: {error:#}"));
    Exit::Failed
}

/// Writes a line to standard error. Where it can't be written, on a full disk say, there is nobody to tell, and that is no
/// reason not to go on: `eprintln!` panics.
fn tell(what: impl Display) {
    let _unheard = writeln!(io::stderr(), "{what}");
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// The version, and what was built in: a report of a bug says with it which program it is about.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let built_in: Vec<_> = FEATURES
        .iter()
        .filter(|(_, is_in)| *is_in)
        .map(|(name, _)| *name)
        .collect();
    let features = if built_in.is_empty() {
        "none".to_owned()
    } else {
        built_in.join(", ")
    };
    format!("{} (features: {features})", env!("CARGO_PKG_VERSION"))
});

/// The features of `Cargo.toml`, and which of them this build has.
const FEATURES: &[(&str, bool)] = &[
    ("jemalloc", cfg!(feature = "jemalloc")),
    ("faults", cfg!(feature = "faults")),
];

const EXITS: &str = "Exit codes: 0 done, 1 failed, 2 usage, 3 configuration refused or missing";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_version_tells_what_was_built_in() {
        let version = Cli::command().render_version();
        let features = FEATURES.iter().filter(|(_, is_in)| *is_in).map(|(name, _)| *name);
        let features = features.collect::<Vec<_>>().join(", ");
        let features = if features.is_empty() { "none" } else { &features };
        assert_eq!(
            version,
            format!("wsguard {} (features: {features})\n", env!("CARGO_PKG_VERSION"))
        );
    }

    #[test]
    fn every_feature_of_the_manifest_is_told() {
        let manifest: toml::Table = include_str!("../../Cargo.toml").parse().expect("a manifest");
        let features = manifest["features"].as_table().expect("a table").keys();
        let features: BTreeSet<_> = features.map(String::as_str).filter(|name| *name != "default").collect();
        assert_eq!(features, FEATURES.iter().map(|(name, _)| *name).collect());
    }
}
