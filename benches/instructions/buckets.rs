//! Token buckets. Each benchmark makes a thousand calls: if it made one, the call itself would be most of the cost.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use gungraun::prelude::*;
use wsguard::limit::bucket::{Bucket, Meter, Moment};
use wsguard::limit::rules::Rate;

const CALLS: u32 = 1000;

#[library_benchmark]
#[bench::thousand(holding(CALLS))]
fn take(meter: Meter) -> Bucket {
    let (mut bucket, now) = (Bucket::default(), at_once());
    for _ in 0..CALLS {
        assert!(bucket.take(black_box(meter), black_box(now)));
    }
    bucket
}

#[library_benchmark]
#[bench::thousand(holding(1))]
fn refuse(meter: Meter) -> Bucket {
    let (mut bucket, now) = (Bucket::default(), at_once());
    assert!(bucket.take(meter, now));
    for _ in 0..CALLS {
        assert!(!bucket.take(black_box(meter), black_box(now)));
    }
    bucket
}

fn holding(tokens: u32) -> Meter {
    let tokens = NonZeroU32::new(tokens).expect("a bucket for some");
    Meter::from(Rate {
        tokens,
        per: Duration::from_secs(1),
        burst: tokens,
    })
}

fn at_once() -> Moment {
    let epoch = Instant::now();
    Moment::since(epoch, epoch)
}

library_benchmark_group!(name = bucket, benchmarks = [take, refuse]);
