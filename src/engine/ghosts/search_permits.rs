//! Permits to search for dead connections of a client: one search a client at a time, and a pause before the next.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::limit::budget::Budget;
use crate::limit::sync::{Mutex, RandomState};

use crate::engine::zone_client::ZoneClient;

/// The searches under way, and those that were made a moment ago. They are sharded by client: a refusal takes the lock
/// of one shard, which few other clients share.
#[derive(Debug)]
pub struct SearchPermits([Shard; SHARDS]);

type Shard = Mutex<HashMap<ZoneClient, Search, RandomState>>;

#[derive(Clone, Copy, Debug)]
enum Search {
    UnderWay,
    /// When the next search may begin.
    NotBefore(Instant),
}

/// The permit to search on behalf of a client. Dropping it gives it back.
#[derive(Debug)]
pub struct SearchPermit {
    permits: Arc<SearchPermits>,
    client: ZoneClient,
    /// The searches of the zone.
    searches: Arc<Budget>,
    /// When the next search on behalf of the client may begin.
    again_at: Instant,
}

impl SearchPermits {
    /// Permits a search on behalf of a client, `now`. `searches` bounds the searches of the client's zone. `None` if a
    /// search is under way, was made within the last second, or can't find anything yet (see
    /// [`SearchPermit::hold_off`]), or if the zone has no permit left.
    pub fn acquire(self: &Arc<Self>, client: ZoneClient, searches: &Arc<Budget>, now: Instant) -> Option<SearchPermit> {
        let mut shard = self.shard(client).lock();
        let is_free = match shard.get(&client) {
            None => true,
            Some(Search::UnderWay) => false,
            Some(Search::NotBefore(at)) => *at <= now,
        };
        if !is_free || !searches.try_take() {
            return None;
        }
        // Clients whose search was long ago are forgotten from time to time.
        if shard.len() >= MANY {
            shard.retain(|_, search| !matches!(search, Search::NotBefore(at) if *at <= now));
        }
        shard.insert(client, Search::UnderWay);
        drop(shard);
        Some(SearchPermit {
            permits: Arc::clone(self),
            client,
            searches: Arc::clone(searches),
            again_at: now + AGAIN,
        })
    }

    /// Notes that another connection of a client opens `now`. A longer pause, which was set because the client's older
    /// connections can't be dead yet, is shortened to a second.
    pub fn opened(&self, client: ZoneClient, now: Instant) {
        if let Some(Search::NotBefore(at)) = self.shard(client).lock().get_mut(&client) {
            *at = (*at).min(now + AGAIN);
        }
    }

    fn shard(&self, client: ZoneClient) -> &Shard {
        &self.0[client.shard(SHARDS)]
    }
}

impl Default for SearchPermits {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(HashMap::default())))
    }
}

impl SearchPermit {
    /// The client on whose behalf the search is made.
    pub fn client(&self) -> ZoneClient {
        self.client
    }

    /// Notes that the search is still under way `now`: the next one may begin a second after that at the earliest.
    pub fn renew(&mut self, now: Instant) {
        self.again_at = now + AGAIN;
    }

    /// Notes that no connection of the client can be dead before `alive_for` has passed from `now`: until then the next
    /// search would find nothing. The next search may begin after a second at the earliest, and after ten at the
    /// latest, so that a client that has gone is forgotten.
    pub fn hold_off(&mut self, alive_for: Duration, now: Instant) {
        self.again_at = now + alive_for.clamp(AGAIN, FORGOTTEN);
    }
}

impl Drop for SearchPermit {
    fn drop(&mut self) {
        let mut shard = self.permits.shard(self.client).lock();
        shard.insert(self.client, Search::NotBefore(self.again_at));
        self.searches.release();
    }
}

/// How often at most the connections of a client that hammers at its cap are searched.
const AGAIN: Duration = Duration::from_secs(1);
const FORGOTTEN: Duration = Duration::from_secs(10);
const SHARDS: usize = 64;
/// Clients of a shard.
const MANY: usize = 64;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn permits() -> (Arc<SearchPermits>, Arc<Budget>, Instant) {
        (Arc::default(), Arc::new(Budget::new(Some(100))), Instant::now())
    }

    const A: ZoneClient = ZoneClient::of_hash(1);
    const B: ZoneClient = ZoneClient::of_hash(1 + SHARDS as u64);

    #[test]
    fn a_client_is_searched_for_once_at_a_time_and_another_one_beside_it() {
        let (permits, zone, now) = permits();
        let permit = permits.acquire(A, &zone, now).unwrap();
        assert!(permits.acquire(A, &zone, now + AGAIN * 5).is_none(), "it is under way");
        assert!(permits.acquire(B, &zone, now).is_some());
        assert_eq!(permit.client(), A);
    }

    #[test]
    fn the_next_search_for_a_client_begins_a_second_after_the_last_look_of_the_one_before() {
        let (permits, zone, now) = permits();
        let mut permit = permits.acquire(A, &zone, now).unwrap();
        permit.renew(now + Duration::from_millis(700));
        drop(permit);
        assert!(permits.acquire(A, &zone, now + Duration::from_millis(1_699)).is_none());
        assert!(permits.acquire(A, &zone, now + Duration::from_millis(1_700)).is_some());
    }

    #[test]
    fn a_search_that_can_find_nothing_yet_is_not_made_before_it_can() {
        let (permits, zone, now) = permits();
        for (alive_for, again) in [(0, 1_000), (4_000, 4_000), (3_600_000, 10_000)] {
            let (alive_for, again) = (Duration::from_millis(alive_for), Duration::from_millis(again));
            permits.acquire(A, &zone, now).unwrap().hold_off(alive_for, now);
            assert!(
                permits
                    .acquire(A, &zone, now + again.saturating_sub(Duration::from_millis(1)))
                    .is_none()
            );
            assert!(permits.acquire(A, &zone, now + again).is_some());
            permits.0[1].lock().clear();
        }
    }

    #[test]
    fn a_connection_that_opens_meanwhile_may_be_dead_earlier_than_the_others() {
        let (permits, zone, now) = permits();
        let alive_for = Duration::from_secs(9);
        permits.acquire(A, &zone, now).unwrap().hold_off(alive_for, now);
        permits.opened(B, now);
        assert!(permits.acquire(A, &zone, now + AGAIN * 3).is_none());
        permits.opened(A, now + AGAIN);
        assert!(permits.acquire(A, &zone, now + AGAIN * 2).is_some());
    }

    #[test]
    fn a_zone_has_so_many_searches_at_once_and_no_more() {
        let (permits, _, now) = permits();
        let zone = Arc::new(Budget::new(Some(1)));
        let other = Arc::new(Budget::new(Some(1)));
        let permit = permits.acquire(A, &zone, now).unwrap();
        assert!(permits.acquire(B, &zone, now).is_none());
        assert!(
            permits.acquire(B, &other, now).is_some(),
            "that of another zone is none of its"
        );
        drop(permit);
        assert!(
            permits.acquire(ZoneClient::of_hash(7), &zone, now).is_some(),
            "and nobody was made to wait for it"
        );
        assert_eq!((zone.used(), other.used()), (0, 0), "all are given back");
    }

    #[test]
    fn clients_that_were_searched_for_long_ago_are_forgotten() {
        let (permits, zone, now) = permits();
        for client in 0..MANY as u64 {
            drop(
                permits
                    .acquire(ZoneClient::of_hash(client * SHARDS as u64), &zone, now)
                    .unwrap(),
            );
        }
        assert_eq!(permits.0[0].lock().len(), MANY);
        drop(
            permits
                .acquire(ZoneClient::of_hash((MANY * SHARDS) as u64), &zone, now + AGAIN)
                .unwrap(),
        );
        assert_eq!(permits.0[0].lock().len(), 1);
    }
}
