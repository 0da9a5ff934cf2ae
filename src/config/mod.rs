//! Text to [`policy::Policy`], and route matching.
//!
//! A file is read into `raw`, which judges nothing, and compiled from there with every mistake collected; what compiles
//! is valid, there is no second check. Warnings are looked for only where there is no mistake.

pub mod addresses;
pub mod clients;
mod compile;
pub mod defaults;
pub mod file;
pub mod finding;
pub mod host;
pub mod later;
mod load;
mod meant;
pub mod origin;
mod paths;
pub mod policy;
mod quick;
mod raw;
mod read;
pub mod routes;
mod shape;
mod strays;
mod switched;
mod syntax;
pub mod units;

pub use load::{Checked, Rejected, compile, keys, load, load_by};
pub use quick::{QuickOptions, quick};
