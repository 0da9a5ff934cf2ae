//! What runs connections: worker threads, their listening sockets, parked and open connections.

pub mod accept;
pub mod ghosts;
pub mod liveness;
pub mod panics;
pub mod parked;
pub mod post;
pub mod tunnel;
pub mod worker;
