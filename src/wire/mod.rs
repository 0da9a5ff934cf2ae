//! Bytes to values and back: PROXY header, request head, upgrade check, forwarded hops, frames, replies.
//!
//! Everything here is pure: no socket, clock, lock or log. Parsers are resumable: they are given all bytes so far and
//! say [`Step::More`] until they can tell.

mod address;
pub mod authority;
pub mod hops;
pub mod http;
pub mod path;
pub mod proxy;
mod token;
pub mod ws;

/// What a parser says about the bytes it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<T> {
    /// A whole value; bytes from `used` on belong to what follows.
    Done {
        /// The value.
        value: T,
        /// How many bytes it took.
        used: usize,
    },
    /// So far nothing is wrong, and nothing is whole.
    More,
}
