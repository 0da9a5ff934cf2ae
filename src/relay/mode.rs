//! How an upstream's connections are relayed.

/// The way bytes take from one leg to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RelayMode {
    /// Large frames' payload through a pipe, without passing through this process; everything else is copied.
    #[default]
    Auto,
    /// Everything is copied.
    Copy,
}
