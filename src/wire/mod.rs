//! Bytes to values and back: PROXY header, request head, upgrade check, forwarded hops, frames, replies.
//!
//! Everything here is pure: no socket, clock, lock or log. Parsers are resumable: they get all bytes so far, and return
//! [`Step::More`] until these are enough.

mod address;
pub(crate) mod authority;
pub mod hops;
pub mod http;
pub mod path;
pub mod proxy;
mod token;
pub mod ws;

/// What a parser found in the bytes so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<T> {
    /// A complete value. The bytes from `used` on belong to what follows it.
    Done {
        /// The value.
        value: T,
        /// How many bytes it took.
        used: usize,
    },
    /// Nothing is wrong so far, but the value is incomplete.
    More,
}
