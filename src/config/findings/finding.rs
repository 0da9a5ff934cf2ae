//! A finding: what is wrong in a configuration, where, and how to fix it.

use std::ops::Range;

/// A mistake or a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong, in one line.
    pub title: String,
    /// The place, in bytes of the text. `None` for a finding about the file as a whole.
    pub span: Option<Range<usize>>,
    /// The label at the caret.
    pub label: Option<String>,
    /// A second place that matters, and its label.
    pub beside: Option<(Range<usize>, String)>,
    /// How to fix it.
    pub hint: Option<String>,
    /// A remark.
    pub note: Option<String>,
}

impl Finding {
    /// A finding at these bytes of the text.
    pub(crate) fn at(span: Range<usize>, title: impl Into<String>) -> Self {
        Self {
            span: Some(span),
            ..Self::nowhere(title)
        }
    }

    /// A finding about the file as a whole.
    pub(crate) fn nowhere(title: impl Into<String>) -> Self {
        Self {
            title: in_one_line(title.into()),
            span: None,
            label: None,
            beside: None,
            hint: None,
            note: None,
        }
    }

    /// Replaces the title.
    #[must_use]
    pub(crate) fn title(self, title: impl Into<String>) -> Self {
        Self {
            title: in_one_line(title.into()),
            ..self
        }
    }

    /// Adds a label at the caret.
    #[must_use]
    pub(crate) fn label(self, label: impl Into<String>) -> Self {
        Self {
            label: Some(in_one_line(label.into())),
            ..self
        }
    }

    /// Adds a second place.
    #[must_use]
    pub(crate) fn beside(self, span: Range<usize>, label: impl Into<String>) -> Self {
        Self {
            beside: Some((span, in_one_line(label.into()))),
            ..self
        }
    }

    /// Sets the hint.
    #[must_use]
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(in_one_line(hint.into())),
            ..self
        }
    }

    /// Sets the hint, if there is one.
    #[must_use]
    pub(crate) fn maybe_hint(self, hint: Option<String>) -> Self {
        Self {
            hint: hint.map(in_one_line).or(self.hint),
            ..self
        }
    }
}

/// Makes a text fit into one line: escapes control characters, and cuts a text that is too long. A finding can quote a
/// string of the file, which can hold any character and be as long as the file.
fn in_one_line(mut text: String) -> String {
    if let Some((cut, _)) = text.char_indices().nth(MAX_CHARS) {
        text.truncate(cut);
        text.push('…');
    }
    if !text.contains(char::is_control) {
        return text;
    }
    let escaped = |char: char| {
        if char.is_control() {
            char.escape_default().to_string()
        } else {
            char.to_string()
        }
    };
    text.chars().map(escaped).collect()
}

/// The most characters of a title, label or hint.
const MAX_CHARS: usize = 2000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_too_long_is_cut_between_two_characters() {
        let title = Finding::nowhere("ä".repeat(MAX_CHARS + 1)).title;
        assert_eq!(title.chars().count(), MAX_CHARS + 1);
        assert!(title.ends_with("ä…"));
        assert_eq!(Finding::nowhere("ä".repeat(MAX_CHARS)).title, "ä".repeat(MAX_CHARS));
    }
}
