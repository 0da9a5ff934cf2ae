//! Two sockets in, totals out.
//!
//! [`relay::Relay`] moves bytes both ways between two [`legs::Legs`] until the connection is over.
//! [`conn_limits::ConnLimits`] is what it is held to, [`rules::Timeouts`] and [`rules::MessageRules`] among them, by the
//! time of [`Clock`](crate::net::clock::Clock). Others see and steer it through its `handle::ConnHandle`. What it moves
//! is counted in `traffic::Traffic` for itself, and in `counters::RelayCounters` for its zone.
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
pub mod mode;
pub mod params;
mod police;
#[allow(clippy::module_inception)]
pub mod relay;
pub mod rules;
pub(crate) mod totals;
pub(crate) mod traffic;
