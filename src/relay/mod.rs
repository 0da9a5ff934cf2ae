//! Two sockets in, totals out.
//!
//! [`relay::Relay`] moves bytes both ways between two [`legs::Legs`] until the connection is over. What it may take its time over is
//! [`timeouts::Timeouts`], by [`clock::Clock`]; how others look at it and end it is [`handle::ConnHandle`]; what it counts as it goes is [`counters::RelayCounters`]. What its
//! messages are held to is [`rules::MessageRules`].

pub mod clock;
pub mod close_handshake;
mod closing;
pub mod conn_limits;
pub mod counters;
pub mod flow;
pub mod handle;
mod heartbeat;
mod inject;
mod inspect;
pub mod legs;
pub mod mode;
mod ping;
mod policer;
#[allow(clippy::module_inception)]
pub mod relay;
pub mod rules;
pub mod splice;
pub mod timeouts;
pub mod write_buffer;
