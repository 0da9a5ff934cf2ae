//! Findings: what is wrong or unlikely in a configuration, and how it is shown.

mod collection;
mod finding;
mod nearest;
mod source;

pub use collection::Findings;
pub use finding::Finding;
pub use nearest::{list, nearest, suggest};
pub use source::{Severity, Source};
