//! Two sockets in, totals out.
//!
//! [`relay::Relay`] moves bytes both ways between two [`legs::Legs`] until the connection is over.
//! [`conn_limits::ConnLimits`] has its limits, among them [`rules::Timeouts`] and [`rules::MessageRules`]. It tells the
//! time by [`Clock`](crate::net::clock::Clock). Other threads see and steer it through its `handle::ConnHandle`. The
//! bytes and messages that it moves are counted for the connection in `traffic::Traffic`, and for the zone in
//! `counters::RelayCounters`.
//!
//! `flow` is one direction, `police` decides which frames may pass, `close` is how a connection ends.

mod close;
pub mod conn_limits;
pub(crate) mod counters;
mod env;
mod flow;
mod flows;
pub(crate) mod handle;
mod inject;
pub mod legs;
pub mod params;
mod police;
#[allow(clippy::module_inception)]
pub mod relay;
pub mod rules;
pub(crate) mod totals;
pub(crate) mod traffic;
