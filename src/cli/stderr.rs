//! Messages on standard error.

use std::fmt::Display;
use std::io::{self, Write};

use crate::config::policy::{LogFormat, LogLevel};
use crate::telemetry::log;

use super::exit::Exit;

/// Writes a line to standard error. A failed write, for example to a full disk, is ignored; `eprintln!` would panic.
pub(super) fn print_line(line: impl Display) {
    let _unwritten = writeln!(io::stderr(), "{line}");
}

/// Prints why a command failed.
pub(super) fn fail(error: &anyhow::Error) -> Exit {
    print_line(format_args!("wsguard: {error:#}"));
    Exit::Failed
}

/// Writes, in the format of the log, why the guard could not start or go on.
pub(super) fn fail_in(format: LogFormat, error: &anyhow::Error) -> Exit {
    if !log::is_json(format) {
        return fail(error);
    }
    log::write_now(format, LogLevel::Error, "failed", format!("{error:#}"));
    Exit::Failed
}
