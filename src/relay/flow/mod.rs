//! One direction of a relay.

mod buffer;
pub(super) mod ends;
#[allow(clippy::module_inception)]
pub(super) mod flow;
pub(super) mod gate;
mod inspection;
mod outlet;
pub(super) mod progress;
mod splice;
mod write_buffer;
