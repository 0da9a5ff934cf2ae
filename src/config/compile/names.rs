//! Checks the names of listeners, networks, routes, zones and upstreams.

use std::ops::Range;
use std::sync::Arc;

use crate::config::document::table::{Entry, Text};
use crate::config::findings::{Finding, Findings};

/// The names of one kind of table so far, each with its place.
pub struct Names {
    kind: &'static str,
    taken: Vec<(Arc<str>, Range<usize>)>,
}

impl Names {
    /// No names yet.
    pub fn new(kind: &'static str) -> Self {
        Self {
            kind,
            taken: Vec::new(),
        }
    }

    /// Adds the written name, or `default`; `header` is where the table begins.
    pub fn add(&mut self, entry: &Entry, default: String, header: Range<usize>, found: &mut Findings) -> Arc<str> {
        let written = entry.text("such as \"chat\"", found);
        let (name, span): (Arc<str>, _) = match &written {
            Some(text) => (text.text.into(), text.span.clone()),
            None => (default.into(), header),
        };
        if let Some(text) = &written {
            check(text, found);
        }
        if let Some((_, first)) = self.taken.iter().find(|(taken, _)| *taken == name) {
            found.mistake(
                Finding::at(span, format!("a second {} named \"{name}\"", self.kind))
                    .beside(first.clone(), "the first")
                    .hint("give each its own `name`: the log and the metrics show it"),
            );
        } else {
            self.taken.push((Arc::clone(&name), span));
        }
        name
    }
}

/// Adds a mistake for a name that can't be used in a log line or a metric.
pub fn check(name: &Text, found: &mut Findings) {
    let Text { text: name, span } = name;
    let why = if name.is_empty() {
        "a name is empty"
    } else if *name == "-" {
        "a name can't be \"-\": the log and the metrics use it where there is no name"
    } else if name.chars().any(char::is_control) {
        "a name has a control character"
    } else if name.len() > 100 {
        "a name is longer than 100 bytes"
    } else {
        return;
    };
    found.mistake(Finding::at(span.clone(), why));
}
