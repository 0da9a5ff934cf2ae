//! All findings in one configuration.

use std::ops::Range;

use crate::config::notation::invalid::Invalid;

use super::finding::Finding;

/// The findings so far. Compiling goes on after a mistake, so that all of them are shown at once.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Findings about invalid settings.
    pub mistakes: Vec<Finding>,
    /// Findings about settings that are valid but probably not intended.
    pub warnings: Vec<Finding>,
}

impl Findings {
    /// Adds a mistake.
    pub fn mistake(&mut self, finding: Finding) {
        self.mistakes.push(finding);
    }

    /// Sorts by place; findings about the file as a whole come first. If there are very many (the file may be another
    /// program's), keeps the first ones and adds the number of the others.
    pub fn sort(&mut self) {
        for (findings, what) in [(&mut self.mistakes, "mistakes"), (&mut self.warnings, "warnings")] {
            findings.sort_by_key(|finding| finding.span.as_ref().map(|span| span.start));
            let more = findings.len().saturating_sub(MAX_SHOWN);
            if more > 0 {
                findings.truncate(MAX_SHOWN);
                let rest = Finding::nowhere(format!("there are {more} more {what}"));
                findings.push(rest.hint("they are shown once some of the above are fixed"));
            }
        }
    }

    /// Adds a mistake about a text that can't be read.
    pub fn invalid(&mut self, span: Range<usize>, text: Invalid) {
        self.mistake(Finding::at(span, text.reason).hint(text.hint));
    }

    /// Adds a warning.
    pub fn warn(&mut self, finding: Finding) {
        self.warnings.push(finding);
    }
}

/// The most mistakes, and the most warnings, that are shown.
const MAX_SHOWN: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_findings_are_cut_to_the_first_ones_and_the_number_of_the_others() {
        let mut found = Findings::default();
        for at in (0..MAX_SHOWN + 7).rev() {
            found.mistake(Finding::at(at..at, "wrong"));
        }
        found.warn(Finding::nowhere("odd"));
        found.sort();
        assert_eq!(found.mistakes.len(), MAX_SHOWN + 1);
        assert_eq!(found.mistakes[MAX_SHOWN - 1].span, Some(MAX_SHOWN - 1..MAX_SHOWN - 1));
        assert_eq!(found.mistakes[MAX_SHOWN].title, "there are 7 more mistakes");
        assert_eq!(found.warnings.len(), 1, "nothing is added where there are no more");
    }
}
