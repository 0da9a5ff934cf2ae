//! The result of one attempt.

use serde::Serialize;

/// One thing that was tried, and its result.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    pub(super) verdict: Verdict,
    pub(super) check: &'static str,
    pub(super) says: String,
}

/// The verdict on one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Bad,
    Ok,
    Unknown,
}

impl Finding {
    /// The finding as a line of text.
    pub(super) fn line(&self) -> String {
        match self.verdict {
            Verdict::Bad => format!("BAD {}: {}\n", self.check, self.says),
            Verdict::Ok => format!("ok  {}: {}\n", self.check, self.says),
            Verdict::Unknown => format!("??  {}: unclear: {}\n", self.check, self.says),
        }
    }
}
