//! Advice for operators, found while serving: in `/stats` for as long as it holds and, once a minute, in the log.
//!
//! A hint follows from shares of the last minute or two, so that a single odd client causes none. It disappears when
//! its cause does.

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
