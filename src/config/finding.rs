//! What is found in a configuration: each finding has its place in the text, and how to put it right.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

/// One mistake or one warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong, in one line.
    pub title: String,
    /// Where, in bytes of the text; `None` where something is missing from the file as a whole.
    pub span: Option<Range<usize>>,
    /// What is said at the caret.
    pub label: Option<String>,
    /// A second place that has to do with it, and what is said there.
    pub beside: Option<(Range<usize>, String)>,
    /// How to put it right.
    pub hint: Option<String>,
    /// What else there is to know.
    pub note: Option<String>,
}

impl Finding {
    /// A finding about these bytes of the text.
    pub fn at(span: Range<usize>, title: impl Into<String>) -> Self {
        Self {
            span: Some(span),
            ..Self::nowhere(title)
        }
    }

    /// A finding about the file as a whole.
    pub fn nowhere(title: impl Into<String>) -> Self {
        Self {
            title: in_one_line(title.into()),
            span: None,
            label: None,
            beside: None,
            hint: None,
            note: None,
        }
    }

    /// With another title.
    #[must_use]
    pub fn title(self, title: impl Into<String>) -> Self {
        Self {
            title: in_one_line(title.into()),
            ..self
        }
    }

    /// With words at the caret.
    #[must_use]
    pub fn label(self, label: impl Into<String>) -> Self {
        Self {
            label: Some(in_one_line(label.into())),
            ..self
        }
    }

    /// With a second place.
    #[must_use]
    pub fn beside(self, span: Range<usize>, label: impl Into<String>) -> Self {
        Self {
            beside: Some((span, in_one_line(label.into()))),
            ..self
        }
    }

    /// With the way out.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(in_one_line(hint.into())),
            ..self
        }
    }

    /// With the way out, where there is one.
    #[must_use]
    pub fn maybe_hint(self, hint: Option<String>) -> Self {
        Self {
            hint: hint.map(in_one_line).or(self.hint),
            ..self
        }
    }
}

/// Words may quote the file, where a string can hold any character, and as many as the file: one that would break the line is
/// shown as its escape, and what nobody would read to its end is cut.
fn in_one_line(mut words: String) -> String {
    if let Some((cut, _)) = words.char_indices().nth(LONGEST) {
        words.truncate(cut);
        words.push('…');
    }
    if !words.contains(char::is_control) {
        return words;
    }
    let escaped = |char: char| {
        if char.is_control() {
            char.escape_default().to_string()
        } else {
            char.to_string()
        }
    };
    words.chars().map(escaped).collect()
}

/// Everything found so far. Reading goes on after a mistake, so that all of them are told at once.
#[derive(Debug, Default)]
pub struct Findings {
    /// What can't work.
    pub mistakes: Vec<Finding>,
    /// What surely isn't meant.
    pub warnings: Vec<Finding>,
}

impl Findings {
    /// Notes what can't work.
    pub fn mistake(&mut self, finding: Finding) {
        self.mistakes.push(finding);
    }

    /// Puts everything in the order of the text, what is about the file as a whole first. Of more than can be read (what
    /// stands there may be another program's file) the first are kept, and how many more there are.
    pub fn sort(&mut self) {
        for (findings, what) in [(&mut self.mistakes, "mistakes"), (&mut self.warnings, "warnings")] {
            findings.sort_by_key(|finding| finding.span.as_ref().map(|span| span.start));
            let untold = findings.len().saturating_sub(MOST_TOLD);
            if untold > 0 {
                findings.truncate(MOST_TOLD);
                let rest = Finding::nowhere(format!("there are {untold} more {what}"));
                findings.push(rest.hint("they are told once some of those above are put right"));
            }
        }
    }

    /// Notes what surely isn't meant.
    pub fn warn(&mut self, finding: Finding) {
        self.warnings.push(finding);
    }
}

/// A text and the name it goes by: a path, or "command line".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Shown before line and column.
    pub name: String,
    /// The text that spans count in; `None` where it could not be read.
    pub text: Option<String>,
}

impl Source {
    /// Line and column of a finding, both from 1, the column in characters; 1:1 for one about the file as a whole.
    pub fn place(&self, finding: &Finding) -> (usize, usize) {
        let start = finding.span.as_ref().map_or(0, |span| self.fit(span).start);
        let before = &self.text()[..start];
        let line = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line..].chars().count() + 1)
    }

    /// The findings as people read them, one after the other: title, `name:line:column`, the line with a caret, hint.
    pub fn render(&self, findings: &[Finding], severity: Severity, color: bool) -> String {
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
            // An empty text has no line that could be shown.
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

    /// The span within the text, and on the edges of characters: a renderer must not be given anything else.
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

/// How a finding is headed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// `error`.
    Mistake,
    /// `warning`.
    Warning,
}

/// The one of `known` that was probably meant by `written`.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = written.to_ascii_lowercase();
    let most = |name: &str| 1.max(name.len().max(lower.len()) / 3);
    known
        .into_iter()
        // To compare them takes time by the product of their lengths.
        .filter(|name| name.len().abs_diff(lower.len()) <= most(name))
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_ascii_lowercase()), name))
        .filter(|(distance, name)| *distance <= most(name))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// "did you mean" for [`nearest`], else all that there is (if there is anything).
pub fn suggest<'a>(written: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Option<String> {
    if let Some(name) = nearest(written, known.clone()) {
        return Some(format!("did you mean \"{name}\"?"));
    }
    let mut known = known.into_iter().peekable();
    known.peek()?;
    Some(list(known))
}

/// All that there is.
pub fn list<'a>(known: impl IntoIterator<Item = &'a str>) -> String {
    let all: Vec<String> = known.into_iter().map(|name| format!("\"{name}\"")).collect();
    format!("there is {}", all.join(", "))
}

/// So many mistakes, or warnings, are told one by one.
const MOST_TOLD: usize = 100;
/// Characters of what is said in one place.
const LONGEST: usize = 2000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_more_findings_than_can_be_read_the_first_are_told_and_how_many_more_there_are() {
        let mut found = Findings::default();
        for at in (0..MOST_TOLD + 7).rev() {
            found.mistake(Finding::at(at..at, "wrong"));
        }
        found.warn(Finding::nowhere("odd"));
        found.sort();
        assert_eq!(found.mistakes.len(), MOST_TOLD + 1);
        assert_eq!(found.mistakes[MOST_TOLD - 1].span, Some(MOST_TOLD - 1..MOST_TOLD - 1));
        assert_eq!(found.mistakes[MOST_TOLD].title, "there are 7 more mistakes");
        assert_eq!(found.warnings.len(), 1, "no word of more where there are none");
    }

    #[test]
    fn what_nobody_reads_to_its_end_is_cut_between_two_characters() {
        let title = Finding::nowhere("ä".repeat(LONGEST + 1)).title;
        assert_eq!(title.chars().count(), LONGEST + 1);
        assert!(title.ends_with("ä…"));
        assert_eq!(Finding::nowhere("ä".repeat(LONGEST)).title, "ä".repeat(LONGEST));
    }

    #[test]
    fn a_name_that_is_much_longer_than_all_known_ones_is_compared_with_none() {
        let long = "x".repeat(1 << 20);
        let begin = std::time::Instant::now();
        for _ in 0..1000 {
            assert_eq!(nearest(&long, ["listener", "limits"]), None);
        }
        assert!(begin.elapsed().as_secs() < 60);
        assert_eq!(nearest("lstener", ["listener", "limits"]), Some("listener"));
    }
}
