//! The policy in force, with its zones, listeners and servers, and the state that outlives a reload.

pub mod capacity;
pub mod destination;
pub mod in_force;
pub mod listener;
pub mod phase;
pub mod process;
pub mod reloads;
pub mod zone;
