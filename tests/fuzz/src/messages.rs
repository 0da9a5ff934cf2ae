//! The relay lets pass of any stream what a plain model of the limits on messages does: no more payload and no more frames
//! than the buckets hold, at any split and any declared length, and nothing that is forbidden.

#![no_main]

#[path = "../../model/messages.rs"]
mod model;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| model::check(data));
