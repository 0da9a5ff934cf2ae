//! Sockets: bound, accepted, dialled, read and written. Nothing here knows what the bytes mean.

pub mod address;
pub mod client;
pub mod dial;
pub mod fault;
pub mod inherit;
pub mod listen;
pub mod lookout;
pub mod newcomer;
pub mod pipe;
pub mod socket;
pub mod stream;
pub mod sys;
