//! The `relay` setting of an upstream: whether frames may be spliced. `flow/splice.rs` decides which are.

/// How bytes get from one leg to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RelayMode {
    /// The payload of large frames is spliced through a pipe, without a copy into this process; everything else is copied.
    #[default]
    Auto,
    /// Everything is copied.
    Copy,
}
