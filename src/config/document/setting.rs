//! A value for which a word such as "off" or "auto" may be written instead.

/// What the file says for a key that takes a value or a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting<T> {
    /// The key is not written, or its value is a mistake.
    Unwritten,
    /// The word is written: "off" or "auto", for example.
    Off,
    /// A value is written.
    Value(T),
}

impl<T> Setting<T> {
    /// The setting in force: the written one, else the `inherited` one. `None` stands for the word.
    pub fn or(self, inherited: Option<T>) -> Option<T> {
        self.written().unwrap_or(inherited)
    }

    /// The written setting. The outer `None` means that nothing is written; the inner `None` stands for the word.
    #[allow(clippy::option_option)] // `NetworkPolicy` stores these three cases. The first one inherits.
    pub fn written(self) -> Option<Option<T>> {
        match self {
            Self::Unwritten => None,
            Self::Off => Some(None),
            Self::Value(value) => Some(Some(value)),
        }
    }
}
