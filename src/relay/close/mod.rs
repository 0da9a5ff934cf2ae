//! How a connection ends.

pub(super) mod closing;
pub(super) mod deadlines;
pub(super) mod handshake;
pub(super) mod sides;
