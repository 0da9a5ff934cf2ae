//! Standard output, for commands that print a whole document.

use std::io::{self, Write};

use super::exit::Exit;
use super::stderr::fail;

/// Prints what `write` writes. If `write` fails, nothing is printed.
pub(super) fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Exit {
    let mut text = Vec::new();
    write(&mut text)
        .and_then(|()| io::stdout().write_all(&text))
        .map_or_else(|error| fail(&error.into()), |()| Exit::Done)
}
