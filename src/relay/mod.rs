//! Two sockets in, totals out.
//!
//! [`tunnel::Relay`] moves bytes both ways between two [`legs::Legs`] until the connection is over. What it may take its time over is
//! [`pace::Pace`], by [`clock::Clock`]; how others look at it and end it is [`pulse::Pulse`]; what it counts as it goes is [`tally::Tally`]. What its
//! messages are held to is [`rules::MessageRules`].

mod aside;
mod beats;
pub mod bypass;
pub mod clock;
mod ending;
pub mod flow;
pub mod goodbye;
pub mod held;
mod inspect;
mod judge;
pub mod legs;
pub mod mode;
pub mod pace;
mod ping;
pub mod pulse;
pub mod rules;
pub mod tally;
pub mod terms;
pub mod tunnel;
