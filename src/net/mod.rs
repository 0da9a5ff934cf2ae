//! Sockets: bound, accepted, dialled, read and written. Nothing here knows what the bytes mean.

pub mod accept_socket;
pub mod accepted;
pub mod address;
pub mod bound;
pub mod dial;
pub mod epoll_set;
pub mod fault;
pub mod inherit;
pub mod options;
pub mod pipe;
pub mod read_ahead;
pub mod sys;
pub mod transport;
