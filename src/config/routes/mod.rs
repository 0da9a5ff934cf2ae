//! Routes: which request goes to which zone and upstream.

pub mod clients;
pub mod host;
mod matching;
pub mod origin;
mod route;

pub use matching::{Matched, Missed, Routes};
pub use route::{Route, RoutePath};
