//! The frame scanner.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use wsguard::wire::ws::header::Sender;
use wsguard::wire::ws::scanner::FrameScanner;

use crate::inputs::frames::{large, small};

pub fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    let (small, large) = (small(1000), large());
    for (name, frames, bytes, piece) in [
        ("in one buffer/thousand small", 1000, &small, small.len()),
        ("in one buffer/one of 64 KiB", 1, &large, large.len()),
        ("in pieces of 16 KiB/one of 64 KiB", 1, &large, 16 << 10),
        ("byte by byte/thousand small", 1000, &small, 1),
    ] {
        group.throughput(Throughput::Elements(frames));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut scanner = FrameScanner::new(Sender::Client);
                let began: u32 = bytes.chunks(piece).map(|piece| scanner.scan(black_box(piece))).sum();
                assert_eq!(u64::from(began), frames);
            });
        });
    }
}
