//! Runs connections: the workers, their listening sockets, and the connections that are parked or open.

pub mod accept;
pub mod context;
pub mod drive;
pub mod ghosts;
pub mod liveness;
pub mod parked;
pub mod post;
pub mod registry;
mod suspect;
pub mod sweep;
pub mod tunnel;
pub mod unpark;
pub mod worker;
