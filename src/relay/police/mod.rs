//! Decides which frames may pass.

mod buckets;
mod heartbeat;
pub(super) mod policer;
mod pong;
pub(super) mod verdict;
