//! The parsers against hostile bytes, kept as files in `tests/corpus`, and against plain models of themselves.
#![allow(clippy::unwrap_used)]

mod head_and_reply;
mod messages;
mod wire;
