//! Why a text can't be read.

/// Why a text can't be read, and how to fix it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// What is wrong, in one line.
    pub reason: String,
    /// How to fix it.
    pub hint: String,
}

impl Invalid {
    /// A reason with its hint.
    pub fn new(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            hint: hint.into(),
        }
    }
}
