//! What is in force: the policy with its zones, listeners and servers, and what outlives a reload.

pub mod phase;
pub mod running;
