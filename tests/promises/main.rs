//! What wsguard promises, tested at the level of bytes: the real binary with real sockets on both sides.
#![allow(clippy::unwrap_used)]

#[path = "../rig/mod.rs"]
mod rig;

mod cli;
mod combinations;
mod corpus;
#[cfg(feature = "demo")]
mod demo;
mod ends;
mod examples;
#[cfg(feature = "faults")]
mod faults;
mod identity;
mod idle;
mod limits;
mod listeners;
mod liveness;
mod messages;
mod pauses;
mod payload;
mod pending;
mod probe;
mod proxy;
mod rates;
mod relay;
mod reload;
mod requests;
mod routes;
mod seen;
mod splice;
mod stalls;
mod stopping;
mod systemd;
mod timeouts;
mod upstream;
