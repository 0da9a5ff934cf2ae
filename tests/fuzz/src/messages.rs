//! Of any stream, the relay lets the same bytes pass as a plain model of the limits on messages. That is no more
//! payload and no more frames than the buckets hold, at any split and any declared length, and nothing that is
//! forbidden.

#![no_main]

#[path = "../../model/messages.rs"]
mod model;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| model::check(data));
