//! Decides which frames may pass: `policer` gives the verdict (strict frames, the size of messages), `buckets` holds the
//! rates, `pong` knows the answers to our pings, and `heartbeat` only counts.

mod buckets;
mod heartbeat;
pub(super) mod policer;
mod pong;
pub(super) mod verdict;
