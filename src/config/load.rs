//! Loads a configuration from a file or a text. The result is a policy with warnings, or all mistakes.

use std::fmt;
use std::path::Path;

use toml::de::DeTable;

use crate::config::compile as compiler;
use crate::config::defaults;
use crate::config::document::schema;
use crate::config::document::syntax;
use crate::config::document::table::{Schema, Table};
use crate::config::file::{Pipes, ReadError, Reader};
use crate::config::findings::{Finding, Findings, Severity, Source};
use crate::config::policy::{LogFormat, Policy};

/// A valid configuration.
#[derive(Debug)]
pub struct Checked {
    /// The compiled configuration.
    pub policy: Policy,
    /// Findings about settings that are valid but probably not intended; with one of them, `check --deny-warnings` fails.
    pub warnings: Vec<Finding>,
    /// The text.
    pub source: Source,
}

impl Checked {
    /// The warnings as text: each with `name:line:column`, the line, a caret and a hint. "" without warnings.
    pub fn render_warnings(&self, color: bool) -> String {
        self.source.render(&self.warnings, Severity::Warning, color)
    }
}

/// An invalid configuration, and every reason why.
#[derive(Debug)]
pub struct Rejected {
    /// The mistakes; at least one.
    pub mistakes: Vec<Finding>,
    /// The text.
    pub source: Source,
    /// `log.format` if it could be read, else the default: the mistakes are logged in it.
    pub log_format: LogFormat,
}

impl Rejected {
    /// The mistakes as text: each with `name:line:column`, the line, a caret and a hint.
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

/// Reads a file and compiles it. Takes at most 5 seconds, whatever the file system does.
///
/// # Errors
/// The file can't be read, is not a regular file of at most 1 MiB, or is not UTF-8. Otherwise: every mistake in its text.
pub fn load(path: &Path) -> Result<Checked, Rejected> {
    load_with(&Reader::default(), path, Pipes::Refused)
}

/// Like [`load`], with a reader that is reused, and optionally from a pipe.
///
/// # Errors
/// As for [`load`].
pub(crate) fn load_with(reader: &Reader, path: &Path, pipes: Pipes) -> Result<Checked, Rejected> {
    let name = path.display().to_string();
    let refuse = |finding| Rejected {
        mistakes: vec![finding],
        source: Source {
            name: name.clone(),
            text: None,
        },
        log_format: LogFormat::default(),
    };
    let bytes = reader
        .read(path, pipes)
        .map_err(|error| refuse(read_error(path, &error)))?;
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

fn read_error(path: &Path, error: &ReadError) -> Finding {
    let finding = Finding::nowhere(format!("{} can't be read: {error}", path.display()));
    // The hint is only for a call without a file name, which reads the default file.
    if error.is_missing() && path == Path::new(defaults::FILE) {
        finding.hint("name the file: wsguard check FILE, wsguard run -c FILE, or $WSGUARD_CONFIG")
    } else {
        finding
    }
}

/// Compiles a text. Findings show `name` as the name of the text.
///
/// # Errors
/// Every mistake in the text. If the text is not TOML, only its syntax errors.
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

/// Every table and key, as pairs. The table "limits" stands for every `zone.*` too; "" is the file itself.
pub fn keys() -> impl Iterator<Item = (&'static str, &'static str)> {
    let keys_of = |schema: Schema| schema.keys.iter().map(move |key| (schema.path, *key));
    schema::SCHEMAS.into_iter().flat_map(keys_of)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn only_a_missing_default_file_gets_the_hint_to_name_a_file() {
        let hint = |path: &str, kind: io::ErrorKind| read_error(Path::new(path), &ReadError::Io(kind.into())).hint;
        let expected = "name the file: wsguard check FILE, wsguard run -c FILE, or $WSGUARD_CONFIG";
        assert_eq!(hint(defaults::FILE, io::ErrorKind::NotFound).as_deref(), Some(expected));
        assert_eq!(hint(defaults::FILE, io::ErrorKind::PermissionDenied), None);
        assert_eq!(hint("nosuch.toml", io::ErrorKind::NotFound), None);
    }
}
