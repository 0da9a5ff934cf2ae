//! Hints for operators, found while serving. A hint is in `/stats` for as long as it holds, and in the log at most once a
//! minute.
//!
//! A hint follows from shares over the last minute or two, so a single odd client causes no hint. A hint disappears when its
//! cause does.

mod capacity;
mod collect;
mod hint;
mod identified;
mod recent;
#[cfg(test)]
mod tests;

pub use self::capacity::{few_descriptors, silent_zone};
pub use self::collect::{Advice, MOST_TOLD};
pub use self::hint::Hint;
pub use self::identified::{Forwarded, Identified};
