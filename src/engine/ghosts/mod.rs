//! Gives the slot of a dead connection (a ghost) to a new connection of the same client.
//!
//! [`search`] is one attempt on behalf of a new connection. [`suspects`] decides which of the old connections is dead and
//! replaces it; [`search_permits`] bounds how often a client's connections are searched.

pub mod search;
pub mod search_permits;
pub mod suspects;
