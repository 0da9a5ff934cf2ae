//! A finding: what is wrong in a configuration, where, and how to fix it.

use std::ops::Range;

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

/// Characters of what is said in one place.
const LONGEST: usize = 2000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_reads_to_its_end_is_cut_between_two_characters() {
        let title = Finding::nowhere("ä".repeat(LONGEST + 1)).title;
        assert_eq!(title.chars().count(), LONGEST + 1);
        assert!(title.ends_with("ä…"));
        assert_eq!(Finding::nowhere("ä".repeat(LONGEST)).title, "ä".repeat(LONGEST));
    }
}
