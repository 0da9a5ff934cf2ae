//! From the bytes of a client's request to the bytes of the request for the server.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use gungraun::prelude::*;
use wsguard::wire::Step;
use wsguard::wire::http::head::{Head, HeadScan};
use wsguard::wire::http::server_request::{Forwarding, SendMode, request_for_server};
use wsguard::wire::ws::upgrade_request::check_upgrade;

use crate::inputs::heads::{BROWSER, CAPS, with_headers};

#[library_benchmark]
#[bench::browser(BROWSER.to_vec())]
#[bench::forty_headers(with_headers(40))]
fn whole(bytes: Vec<u8>) -> Vec<u8> {
    let parsed = HeadScan::default().parse(black_box(&bytes), CAPS);
    assert!(matches!(parsed, Ok(Step::Done { used, .. }) if used == bytes.len()));
    bytes
}

#[library_benchmark]
#[bench::browser(BROWSER)]
fn in_three_pieces(bytes: &'static [u8]) {
    let mut scan = HeadScan::default();
    for third in 1..3 {
        let come = &bytes[..bytes.len() * third / 3];
        assert_eq!(scan.parse(black_box(come), CAPS), Ok(Step::More));
    }
    let parsed = scan.parse(black_box(bytes), CAPS);
    assert!(matches!(parsed, Ok(Step::Done { used, .. }) if used == bytes.len()));
}

#[library_benchmark]
#[bench::browser(parsed())]
fn check(head: Head<'static>) -> Head<'static> {
    assert!(check_upgrade(black_box(&head)).is_ok());
    head
}

#[library_benchmark]
#[bench::browser(parsed())]
fn for_server(head: Head<'static>) -> (Head<'static>, Vec<u8>) {
    let client = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 77));
    let forwarding = Forwarding {
        hop: Some(client),
        hop_trusted: false,
        client: Some(client),
        proto: "https",
        send: SendMode::Append,
    };
    let request = request_for_server(black_box(&head), black_box(&forwarding));
    (head, request)
}

fn parsed() -> Head<'static> {
    match HeadScan::default().parse(BROWSER, CAPS) {
        Ok(Step::Done { value, .. }) => value,
        other => panic!("{other:?}"),
    }
}

library_benchmark_group!(name = head, benchmarks = [whole, in_three_pieces, check, for_server]);
