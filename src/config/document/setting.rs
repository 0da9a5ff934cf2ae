//! A value for which a word such as "off" or "auto" may be written instead.

/// What is written for such a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting<T> {
    /// Nothing, or a mistake.
    Unwritten,
    /// The word.
    Off,
    /// A value.
    Value(T),
}

impl<T> Setting<T> {
    /// What is in force: what is written, else the `inherited` value. `None` is the word.
    pub fn or(self, inherited: Option<T>) -> Option<T> {
        self.written().unwrap_or(inherited)
    }

    /// The outer `None`: nothing is written; the inner one: the word.
    #[allow(clippy::option_option)] // It is what `NetworkPolicy` has: three cases, the first of which inherits.
    pub fn written(self) -> Option<Option<T>> {
        match self {
            Self::Unwritten => None,
            Self::Off => Some(None),
            Self::Value(value) => Some(Some(value)),
        }
    }
}
