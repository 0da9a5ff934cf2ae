//! Routes decide which request goes to which zone and upstream.

pub(crate) mod clients;
pub(crate) mod host;
mod matching;
pub(crate) mod origin;
mod route;

pub use matching::{Matched, Missed, Routes};
pub use route::{Route, RoutePath};
