//! From the bytes of a client's request to the bytes of the request for the server.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use criterion::{Criterion, Throughput};
use wsguard::wire::Step;
use wsguard::wire::http::head::{Head, HeadScan};
use wsguard::wire::http::server_request::{Forwarding, SendMode, request_for_server};
use wsguard::wire::ws::upgrade_request::check_upgrade;

use crate::inputs::heads::{BROWSER, CAPS, with_headers};

pub fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("head");
    for (name, head) in [
        ("whole/browser", BROWSER),
        ("whole/forty headers", &with_headers(40)[..]),
    ] {
        group.throughput(Throughput::Bytes(head.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| parse(black_box(head)).headers.len()));
    }
    group.throughput(Throughput::Bytes(BROWSER.len() as u64));
    group.bench_function("in three pieces/browser", |bencher| {
        bencher.iter(|| {
            let mut scan = HeadScan::default();
            for third in 1..=3 {
                let come = &BROWSER[..BROWSER.len() * third / 3];
                let step = scan.parse(black_box(come), CAPS);
                assert_eq!(matches!(step, Ok(Step::Done { .. })), third == 3);
            }
        });
    });

    let head = parse(BROWSER);
    group.bench_function("check/browser", |bencher| {
        bencher.iter(|| check_upgrade(black_box(&head)).is_ok());
    });
    let client = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 77));
    let forwarding = Forwarding {
        hop: Some(client),
        hop_trusted: false,
        client: Some(client),
        proto: "https",
        send: SendMode::Append,
    };
    group.bench_function("for server/browser", |bencher| {
        bencher.iter(|| request_for_server(black_box(&head), black_box(&forwarding)));
    });
}

fn parse(head: &[u8]) -> Head<'_> {
    match HeadScan::default().parse(head, CAPS) {
        Ok(Step::Done { value, .. }) => value,
        other => panic!("{other:?}"),
    }
}
