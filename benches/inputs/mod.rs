//! The inputs of the benches of the parts.

pub mod door;
pub mod frames;
pub mod heads;
