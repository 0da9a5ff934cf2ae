//! What the benches of the parts are given.

pub mod door;
pub mod frames;
pub mod heads;
