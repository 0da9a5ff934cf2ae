//! Token buckets.

use std::hint::black_box;
use std::time::Instant;

use criterion::Criterion;
use wsguard::limit::bucket::{Bucket, Meter, Moment};

use crate::inputs::door::BY_DEFAULT;

pub fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("bucket");
    let epoch = Instant::now();
    let now = Moment::since(epoch, epoch);
    let meter = Meter::from(BY_DEFAULT.rate.expect("there is a rate by default"));
    group.bench_function("take", |bencher| {
        bencher.iter(|| black_box(Bucket::default()).take(black_box(meter), black_box(now)));
    });
    let mut empty = Bucket::default();
    while empty.take(meter, now) {}
    group.bench_function("refuse", |bencher| {
        bencher.iter(|| black_box(empty).take(black_box(meter), black_box(now)));
    });
}
