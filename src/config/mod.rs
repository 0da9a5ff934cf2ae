//! Text to [`policy::Policy`], and route matching.
//!
//! A text is read by `document`, which knows every key and judges no value, and compiled by `compile` with every
//! mistake collected: what compiles is valid, there is no second check. Warnings are looked for only if there is no
//! mistake.

mod compile;
pub mod defaults;
mod document;
pub(crate) mod file;
pub mod findings;
mod load;
pub(crate) mod notation;
pub mod policy;
mod quick;
pub mod routes;

pub use document::planned;
pub(crate) use load::load_with;
pub use load::{Checked, Rejected, compile, keys, load};
pub use quick::{QuickOptions, quick};
