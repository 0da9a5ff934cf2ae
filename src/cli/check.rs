//! `wsguard check`: shows every mistake in a configuration.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;

use crate::config::file::{Pipes, Reader};
use crate::config::load_with;
use crate::control::descriptors;

use super::config_file::ConfigFile;
use super::exit::Exit;
use super::grace::Stopper;
use super::stderr::print_line;

/// `check [FILE] [--deny-warnings]`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The file to check, or - for standard input [default: the file that `run` would read]
    file: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigFile,
    /// Fail on warnings, too
    #[arg(long)]
    deny_warnings: bool,
}

/// Checks a file. No name is resolved, so no network is needed.
pub(crate) fn check(options: &Options) -> Exit {
    let path = options.file.as_ref().unwrap_or(&options.config.path);
    let in_color = std::io::stderr().is_terminal();
    let checked = match load_with(&Reader::default(), path, Pipes::Allowed) {
        Ok(checked) => checked,
        Err(rejected) => {
            print_line(rejected.render(in_color));
            return Exit::Config;
        }
    };
    let stops = Stopper::of_this_machine().note(&checked.policy.server);
    for note in descriptors::describe_shortfalls(&checked.policy)
        .into_iter()
        .chain(stops)
    {
        print_line(format_args!("note: {note}"));
    }
    if checked.warnings.is_empty() {
        println!("{}: no mistakes", path.display());
        return Exit::Done;
    }
    print_line(checked.render_warnings(in_color));
    let count = match checked.warnings.len() {
        1 => "1 warning".to_owned(),
        many => format!("{many} warnings"),
    };
    if options.deny_warnings {
        print_line(format_args!("{}: {count}, refused by --deny-warnings", path.display()));
        return Exit::Config;
    }
    println!("{}: {count}; the configuration is usable", path.display());
    Exit::Done
}
