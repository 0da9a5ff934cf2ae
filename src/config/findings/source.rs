//! The text of a configuration, and findings shown in it.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::finding::Finding;

/// A text and its name: a path, or "command line".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The name, shown before line and column.
    pub name: String,
    /// The text that spans refer to; `None` if it could not be read.
    pub text: Option<String>,
}

impl Source {
    /// Line and column of a finding, both from 1; the column counts characters. 1:1 for the file as a whole.
    pub fn place(&self, finding: &Finding) -> (usize, usize) {
        let start = finding.span.as_ref().map_or(0, |span| self.fit(span).start);
        let before = &self.text()[..start];
        let line = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line..].chars().count() + 1)
    }

    /// The findings as text: each with title, `name:line:column`, the line with a caret, and the hint.
    pub(crate) fn render(&self, findings: &[Finding], severity: Severity, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let parts: Vec<String> = findings
            .iter()
            .map(|finding| renderer.render(&self.groups(finding, severity)))
            .collect();
        parts.join("\n\n")
    }

    fn groups<'a>(&'a self, finding: &'a Finding, severity: Severity) -> Vec<Group<'a>> {
        let level = match severity {
            Severity::Mistake => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(finding.title.as_str());
        let mut group = match &finding.span {
            // An empty text has no line to show.
            Some(span) if !self.text().is_empty() => {
                let caret = AnnotationKind::Primary
                    .span(self.fit(span))
                    .label(finding.label.as_deref());
                let second = finding
                    .beside
                    .as_ref()
                    .map(|(span, label)| AnnotationKind::Context.span(self.fit(span)).label(label.as_str()));
                let snippet = Snippet::source(self.text()).path(self.name.as_str());
                title.element(snippet.annotation(caret).annotations(second))
            }
            _ if self.text.is_none() => Group::with_title(title),
            _ => title.element(Origin::path(self.name.as_str()).line(1).char_column(1)),
        };
        if let Some(hint) = &finding.hint {
            group = group.element(Level::HELP.message(hint.as_str()));
        }
        if let Some(note) = &finding.note {
            group = group.element(Level::NOTE.message(note.as_str()));
        }
        vec![group]
    }

    fn text(&self) -> &str {
        self.text.as_deref().unwrap_or_default()
    }

    /// Cuts a span to the text and to whole characters, as the renderer requires.
    fn fit(&self, span: &Range<usize>) -> Range<usize> {
        let text = self.text();
        let (mut start, mut end) = (span.start.min(text.len()), span.end.min(text.len()));
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        while !text.is_char_boundary(end) {
            end += 1;
        }
        start..end.max(start)
    }
}

/// The heading of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// `error`.
    Mistake,
    /// `warning`.
    Warning,
}
