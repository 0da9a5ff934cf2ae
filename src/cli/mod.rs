//! The command line: one file per command.

mod check;
mod commands;
#[cfg(feature = "packaging")]
mod completions;
mod config_file;
#[cfg(feature = "demo")]
mod demo;
mod exit;
mod grace;
#[cfg(feature = "packaging")]
mod man;
mod probe;
mod run;
mod signals;
mod stderr;
#[cfg(feature = "packaging")]
mod stdout;

use std::process::ExitCode;

use clap::Parser;

use self::commands::{Cli, Command};
use self::exit::Exit;

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // clap returns help and version as errors too, and prints these two to standard output.
            let _unwritten = error.print();
            return if error.use_stderr() {
                Exit::Usage.into()
            } else {
                Exit::Done.into()
            };
        }
    };
    match cli.command {
        #[cfg(feature = "demo")]
        Command::Demo(args) => demo::run(args),
        Command::Run(options) => run::run(&options),
        Command::Check(options) => check::check(&options),
        Command::Probe(options) => probe::probe(&options),
        #[cfg(feature = "packaging")]
        Command::Man => stdout::print(|out| man::write(<Cli as clap::CommandFactory>::command(), out)),
        #[cfg(feature = "packaging")]
        Command::Completions(options) => {
            stdout::print(|out| completions::write(&mut <Cli as clap::CommandFactory>::command(), &options, out))
        }
    }
    .into()
}
