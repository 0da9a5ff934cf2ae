//! Findings: what is wrong or unlikely in a configuration, and how it is shown.

mod collection;
mod finding;
mod nearest;
mod source;

pub(crate) use collection::Findings;
pub use finding::Finding;
pub(crate) use nearest::{list, nearest, suggest};
pub(crate) use source::Severity;
pub use source::Source;
