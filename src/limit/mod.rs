//! Who may come in: client keys, networks, token buckets, budgets, the client table and admission.
//!
//! Nothing here does I/O or reads a clock: time is an argument, so tests never sleep.

pub mod admission;
pub mod bucket;
pub mod budget;
pub mod client_stats;
mod client_table;
pub mod key;
pub mod network;
pub mod pending;
pub mod rules;
pub mod shares;
pub(crate) mod sync;
pub mod wait_queue;
