//! The command line: one file a command.

pub mod check;
mod commands;
pub mod completions;
mod config_file;
mod exit;
mod grace;
pub mod man;
pub mod probe;
pub mod run;
mod signals;
mod stderr;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use self::commands::{Cli, Command};
use self::exit::Exit;
use self::stderr::{fail, fail_in};
use crate::config::policy::LogFormat;
use crate::demo;

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // clap returns help and version as errors too; those go to standard output.
            let _unwritten = error.print();
            return if error.use_stderr() {
                Exit::Usage.into()
            } else {
                Exit::Done.into()
            };
        }
    };
    match cli.command {
        Command::Demo(args) => demo::run(args).map_or_else(|error| fail_in(LogFormat::Auto, &error), |()| Exit::Done),
        Command::Run(options) => run::run(&options),
        Command::Check(options) => check::check(&options),
        Command::Probe(options) => probe::probe(&options),
        Command::Man => print(|out| man::write(Cli::command(), out)),
        Command::Completions(options) => print(|out| completions::write(&mut Cli::command(), &options, out)),
    }
    .into()
}

/// Writes to standard output, and fails if the write does.
fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Exit {
    let mut text = Vec::new();
    write(&mut text)
        .and_then(|()| io::stdout().write_all(&text))
        .map_or_else(|error| fail(&error.into()), |()| Exit::Done)
}
