//! Gives the slot of a dead connection to a newcomer of the same client.

pub mod claims;
pub mod search;
pub mod suspects;
