//! From a file or a text to a checked policy, or to every mistake in it.

use std::fmt;
use std::path::Path;

use toml::de::DeTable;

use crate::config::compile as compiler;
use crate::config::defaults;
use crate::config::document::schema;
use crate::config::document::syntax;
use crate::config::document::table::{Schema, Table};
use crate::config::file::{Pipes, Reader, Unread};
use crate::config::findings::{Finding, Findings, Severity, Source};
use crate::config::policy::{LogFormat, Policy};

/// A policy, and what is to be said about the text that it comes from.
#[derive(Debug)]
pub struct Checked {
    /// What the text says.
    pub policy: Policy,
    /// What surely isn't meant; `check --deny-warnings` refuses it.
    pub warnings: Vec<Finding>,
    /// The text.
    pub source: Source,
}

impl Checked {
    /// The warnings as people read them: `name:line:column`, the line, a caret and a hint; "" where there are none.
    pub fn render_warnings(&self, color: bool) -> String {
        self.source.render(&self.warnings, Severity::Warning, color)
    }
}

/// A text that is no configuration, and every reason why.
#[derive(Debug)]
pub struct Rejected {
    /// What is wrong; at least one.
    pub mistakes: Vec<Finding>,
    /// The text.
    pub source: Source,
    /// `log.format`, as far as the text says what it is.
    pub log_format: LogFormat,
}

impl Rejected {
    /// The mistakes as people read them: `name:line:column`, the line, a caret and a hint.
    pub fn render(&self, color: bool) -> String {
        self.source.render(&self.mistakes, Severity::Mistake, color)
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Rejected {}

/// Reads a file and compiles it.
///
/// # Errors
/// The file is missing, unreadable, not UTF-8, or nothing that a configuration may be, or its text is no configuration.
pub fn load(path: &Path) -> Result<Checked, Rejected> {
    load_by(&Reader::default(), path, Pipes::Refused)
}

/// The same by a reader that is there already; a pipe may do.
///
/// # Errors
/// As for [`load`].
pub fn load_by(reader: &Reader, path: &Path, pipes: Pipes) -> Result<Checked, Rejected> {
    let name = path.display().to_string();
    let refuse = |finding| Rejected {
        mistakes: vec![finding],
        source: Source {
            name: name.clone(),
            text: None,
        },
        log_format: LogFormat::default(),
    };
    let bytes = reader.read(path, pipes).map_err(|error| refuse(unread(path, &error)))?;
    match String::from_utf8(bytes) {
        Ok(text) => compile(&text, &name),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..at].split(|b| *b == b'\n').count();
            Err(refuse(Finding::nowhere(format!(
                "{name} is not UTF-8: see line {line}"
            ))))
        }
    }
}

fn unread(path: &Path, error: &Unread) -> Finding {
    let finding = Finding::nowhere(format!("{} can't be read: {error}", path.display()));
    // Who has named one knows how.
    if error.is_missing() && path == Path::new(defaults::FILE) {
        finding.hint("name the file: wsguard check FILE, wsguard run -c FILE, or $WSGUARD_CONFIG")
    } else {
        finding
    }
}

/// Compiles a text; `name` is what findings call it.
///
/// # Errors
/// Every mistake in it; where it is no TOML, those alone.
pub fn compile(text: &str, name: &str) -> Result<Checked, Rejected> {
    let source = Source {
        name: name.to_owned(),
        text: Some(text.to_owned()),
    };
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => {
            return Err(Rejected {
                mistakes: syntax::mistakes(text, &error),
                source,
                log_format: LogFormat::default(),
            });
        }
    };
    let mut found = Findings::default();
    let file = schema::File::read(Some(document.get_ref()), &mut found);
    let policy = compiler::policy(&file, &mut found);
    found.sort();
    match policy {
        Some(policy) if found.mistakes.is_empty() => Ok(Checked {
            policy,
            warnings: found.warnings,
            source,
        }),
        _ => Err(Rejected {
            mistakes: found.mistakes,
            source,
            log_format: compiler::log_format(&file),
        }),
    }
}

/// Every key that a file may have, with the table it stands in: "limits" is every `zone.*` too, "" the file itself.
pub fn keys() -> impl Iterator<Item = (&'static str, &'static str)> {
    let keys_of = |schema: Schema| schema.keys.iter().map(move |key| (schema.path, *key));
    schema::SCHEMAS.into_iter().flat_map(keys_of)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn only_who_has_named_no_file_is_told_how() {
        let hint = |path: &str, kind: io::ErrorKind| unread(Path::new(path), &Unread::Io(kind.into())).hint;
        let told = "name the file: wsguard check FILE, wsguard run -c FILE, or $WSGUARD_CONFIG";
        assert_eq!(hint(defaults::FILE, io::ErrorKind::NotFound).as_deref(), Some(told));
        assert_eq!(hint(defaults::FILE, io::ErrorKind::PermissionDenied), None);
        assert_eq!(hint("nosuch.toml", io::ErrorKind::NotFound), None);
    }
}
