//! Ghost searches: a client has at most one at a time, and every permit of a zone comes back.

#![cfg(loom)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use wsguard_loom::engine::search_permits::SearchPermits;
use wsguard_loom::engine::zone_client::ZoneClient;
use wsguard_loom::limit::budget::Budget;
use wsguard_loom::{model, of_all};

const A: ZoneClient = ZoneClient::of_hash(1);
const B: ZoneClient = ZoneClient::of_hash(2);

/// Three connections of one client arrive at its cap at once.
#[test]
fn a_client_has_one_search_at_a_time() {
    let now = Instant::now();
    model(Some(3), move || {
        let shared = Arc::new((Arc::new(SearchPermits::default()), Arc::new(Budget::new(Some(100)))));
        let held = of_all(3, &shared, move |_, shared| shared.0.acquire(A, &shared.1, now));
        assert_eq!(held.iter().flatten().count(), 1);
        assert_eq!(shared.1.used(), 1);
        drop(held);
        assert_eq!(shared.1.used(), 0);
    });
}

/// A search ends while another newcomer asks for one. The next search does not overlap with it, and does not begin too
/// early.
#[test]
fn after_a_search_the_next_one_may_begin_but_not_at_once() {
    let now = Instant::now();
    model(Some(3), move || {
        let shared = Arc::new((Arc::new(SearchPermits::default()), Arc::new(Budget::new(Some(100)))));
        let held = of_all(2, &shared, move |thread, shared| {
            let permit = shared.0.acquire(A, &shared.1, now);
            // The first thread's search ends at once.
            permit.filter(|_| thread == 1)
        });
        drop(held);
        let (permits, zone) = &*shared;
        assert_eq!(zone.used(), 0);
        assert!(permits.acquire(A, zone, now).is_none(), "a second has not passed");
        assert!(permits.acquire(A, zone, now + Duration::from_secs(1)).is_some());
    });
}

/// Two clients of a zone that has one permit for a search.
#[test]
fn a_zone_never_has_too_many_searches_and_each_permit_comes_back() {
    let now = Instant::now();
    model(Some(3), move || {
        let shared = Arc::new((Arc::new(SearchPermits::default()), Arc::new(Budget::new(Some(1)))));
        let held = of_all(2, &shared, move |thread, shared| {
            shared.0.acquire([A, B][thread], &shared.1, now)
        });
        assert_eq!(held.iter().flatten().count(), 1);
        drop(held);
        assert_eq!(shared.1.used(), 0);
    });
}
