//! Everything found in one configuration.

use super::finding::Finding;

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
                findings.push(rest.hint("they are shown once some of the above are fixed"));
            }
        }
    }

    /// Notes what surely isn't meant.
    pub fn warn(&mut self, finding: Finding) {
        self.warnings.push(finding);
    }
}

/// So many mistakes, or warnings, are told one by one.
const MOST_TOLD: usize = 100;

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
}
