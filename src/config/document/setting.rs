//! A value that a word may switch off, such as "off" or "auto".

/// What is written for a key that has such a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switched<T> {
    /// Nothing, or a mistake.
    Unwritten,
    /// The word.
    Off,
    /// A value.
    On(T),
}

impl<T> Switched<T> {
    /// A value, where one could be read.
    pub fn on(value: Option<T>) -> Self {
        value.map_or(Self::Unwritten, Self::On)
    }

    /// What holds: what is written, else this. `None` is the word.
    pub fn over(self, base: Option<T>) -> Option<T> {
        match self {
            Self::Unwritten => base,
            Self::Off => None,
            Self::On(value) => Some(value),
        }
    }

    /// The outer `None` where nothing is written, the inner one for the word.
    #[allow(clippy::option_option)] // It is what `NetworkPolicy` has: three cases, the first of which inherits.
    pub fn written(self) -> Option<Option<T>> {
        match self {
            Self::Unwritten => None,
            Self::Off => Some(None),
            Self::On(value) => Some(Some(value)),
        }
    }
}
