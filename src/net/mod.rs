//! What comes from the machine: sockets, bound, accepted, dialled, read and written; time and random numbers. Nothing here
//! knows what the bytes mean.

pub(crate) mod accept_socket;
pub(crate) mod accepted;
pub mod address;
pub(crate) mod bound;
pub mod clock;
pub(crate) mod dial;
pub(crate) mod epoll_set;
pub(crate) mod fault;
pub(crate) mod inherit;
pub(crate) mod options;
pub(crate) mod pipe;
pub mod random;
pub(crate) mod read_ahead;
pub(crate) mod sys;
pub(crate) mod transport;
