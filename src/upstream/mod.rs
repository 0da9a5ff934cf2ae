//! Which server of an upstream takes the next connection, and how a client gets there.

pub mod connect;
pub mod group;
pub mod lease;
pub mod outcome;
pub mod rules;
pub mod server;
