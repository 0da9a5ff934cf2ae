//! A child process that is pinned before its first instruction, and ends with the bench in any case. For that the bench
//! runs itself again: setting these things in the child would need unsafe code between fork and exec.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Signal, set_parent_process_death_signal};

use crate::cores::pin_to;

/// A command that runs `program` on this core.
pub fn on_core(core: usize, ends_by: Ending, program: &Path) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args([AS_LAUNCHER, &core.to_string(), ends_by.word()])
        .arg(program)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    Ok(command)
}

/// Becomes the program that is named in the arguments behind `--as-launcher`.
pub fn launch(arguments: &[OsString]) -> anyhow::Result<()> {
    let [core, ends_by, program, arguments @ ..] = arguments else {
        anyhow::bail!("{AS_LAUNCHER} core signal program")
    };
    let core = core.to_str().and_then(|core| core.parse().ok());
    pin_to(core.ok_or_else(|| anyhow::anyhow!("no core"))?)?;
    let signal = if ends_by == Ending::Asked.word() {
        Signal::TERM
    } else {
        Signal::KILL
    };
    set_parent_process_death_signal(Some(signal))?;
    Err(Command::new(program).args(arguments).exec().into())
}

/// How the child is ended when the bench is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By TERM, since it has children of its own to end.
    Asked,
    Killed,
}

impl Ending {
    fn word(self) -> &'static str {
        match self {
            Self::Asked => "TERM",
            Self::Killed => "KILL",
        }
    }
}

/// The argument by which the bench asks itself to become another program.
pub const AS_LAUNCHER: &str = "--as-launcher";
