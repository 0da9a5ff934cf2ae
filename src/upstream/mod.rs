//! Chooses the server of an upstream that takes the next connection, and connects the client to it.

pub mod connect;
pub mod group;
pub mod lease;
pub mod outcome;
pub mod rules;
pub mod server;
