//! Findings: mistakes and warnings about a configuration, and how they are shown.

mod collection;
mod finding;
mod nearest;
mod source;

pub(crate) use collection::Findings;
pub use finding::Finding;
pub(crate) use nearest::{list, nearest, suggest};
pub(crate) use source::Severity;
pub use source::Source;
