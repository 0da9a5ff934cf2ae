//! Where to dial: which server of an upstream takes the next connection.

pub mod group;
pub mod lease;
pub mod rules;
pub mod server;
