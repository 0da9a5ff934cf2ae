//! Compiles the text of a configuration into a [`policy::Policy`], and matches requests to routes.
//!
//! `document` reads a text: it knows every key and judges no value. `compile` makes a policy and collects every mistake. A
//! policy that compiles is valid: there is no second check. Warnings are looked for only if there is no mistake.

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
