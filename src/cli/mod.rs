//! The command line: one file a command.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub mod check;
pub mod demo;
pub mod probe;
pub mod run;

/// A guard for WebSocket servers: exact per-client limits and budgets before the handshake, near zero cost after it.
#[derive(Debug, Parser)]
#[command(name = "wsguard", version, propagate_version = true, arg_required_else_help = true)]
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
}

/// Where the configuration is.
#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file
    #[arg(short = 'c', long = "config", value_name = "FILE", env = "WSGUARD_CONFIG", default_value = DEFAULT_CONFIG)]
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
        Command::Demo(args) => demo::run(args).map_or_else(|error| failed(&error), |()| Exit::Done),
        Command::Run(options) => run::run(&options),
        Command::Check(options) => check::check(&options),
        Command::Probe(options) => probe::probe(&options),
    }
    .into()
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

const DEFAULT_CONFIG: &str = "/etc/wsguard/wsguard.toml";
