//! Runs connections: the workers, their listening sockets, and the connections that are parked or open.

pub mod accept;
pub mod bound_listener;
mod client_index;
pub mod conn;
pub mod context;
pub mod drive;
pub mod ghosts;
pub mod parked_set;
pub mod registry;
mod rows;
pub mod sweep;
mod tick;
pub mod timeouts;
pub mod tunnel;
pub mod unpark;
pub mod worker;
pub mod zone_client;
