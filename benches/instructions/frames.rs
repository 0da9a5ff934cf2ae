//! The frame scanner.

use std::hint::black_box;

use gungraun::prelude::*;
use wsguard::wire::ws::extensions::Extensions;
use wsguard::wire::ws::header::Sender;
use wsguard::wire::ws::scanner::FrameScanner;

use crate::inputs::frames::{large, small};

#[library_benchmark]
#[bench::thousand_small(small(1000), 1000)]
#[bench::one_of_64_kib(large(), 1)]
fn in_one_buffer(bytes: Vec<u8>, messages: u32) -> Vec<u8> {
    let mut scanner = FrameScanner::new(Sender::Client);
    assert_eq!(scanner.scan(black_box(&bytes)), messages);
    bytes
}

#[library_benchmark]
#[bench::one_of_64_kib(large(), 16 << 10)]
#[bench::thousand_small(small(1000), 1)]
fn in_pieces(bytes: Vec<u8>, size: usize) -> Vec<u8> {
    let mut scanner = FrameScanner::new(Sender::Client);
    for piece in bytes.chunks(size) {
        scanner.scan(black_box(piece));
    }
    assert!(scanner.at_boundary());
    bytes
}

#[library_benchmark]
#[bench::thousand_small(small(1000), 1000)]
#[bench::one_of_64_kib(large(), 1)]
fn strictly(bytes: Vec<u8>, messages: u32) -> Vec<u8> {
    let mut scanner = FrameScanner::strict(Sender::Client, Extensions::None);
    assert_eq!(scanner.scan_strictly(black_box(&bytes)), (bytes.len(), messages));
    bytes
}

library_benchmark_group!(name = frame, benchmarks = [in_one_buffer, in_pieces, strictly]);
