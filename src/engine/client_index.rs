//! The connections of each client in each zone.

use parking_lot::Mutex;

use crate::engine::conn::ConnId;
use crate::engine::zone_client::ZoneClient;

/// The open connections of each client, as their ids. Sharded by client, so that a look-up waits for few others.
#[derive(Debug)]
pub(super) struct ClientIndex([Mutex<SortedPairs>; SHARDS]);

/// Pairs in order, in runs that grow by a few places at a time. They take at most 20 bytes a connection, however many
/// connections a client has (a test below). The nodes of a B-tree may be half empty: it took 45 bytes where each client had
/// 40 connections.
#[derive(Debug, Default)]
struct SortedPairs {
    /// Each is in order and before the next one. None is empty.
    runs: Vec<Vec<Pair>>,
}

type Pair = (ZoneClient, ConnId);

impl ClientIndex {
    pub(super) fn insert(&self, client: ZoneClient, id: ConnId) {
        self.shard(client).lock().insert((client, id));
    }

    pub(super) fn remove(&self, client: ZoneClient, id: ConnId) {
        self.shard(client).lock().remove((client, id));
    }

    /// The ids of the client's connections, in the order in which each worker opened them.
    pub(super) fn of(&self, client: ZoneClient) -> Vec<ConnId> {
        let pairs = self.shard(client).lock();
        let of_client = pairs
            .from((client, ConnId::MIN))
            .take_while(|(found, _)| *found == client);
        of_client.map(|(_, id)| id).collect()
    }

    fn shard(&self, client: ZoneClient) -> &Mutex<SortedPairs> {
        &self.0[client.shard(SHARDS)]
    }
}

impl Default for ClientIndex {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl SortedPairs {
    fn insert(&mut self, pair: Pair) {
        if self.runs.is_empty() {
            self.runs.push(Vec::new());
        }
        // A pair behind all others belongs into the last run.
        let nth = self.run_of(pair).min(self.runs.len() - 1);
        let mut run = &mut self.runs[nth];
        let Err(mut at) = run.binary_search(&pair) else { return };
        if run.len() == MOST {
            let second = run.split_off(MOST / 2);
            run.shrink_to_fit();
            self.runs.insert(nth + 1, second);
            let is_in_second = at > MOST / 2;
            run = &mut self.runs[nth + usize::from(is_in_second)];
            at -= if is_in_second { MOST / 2 } else { 0 };
        }
        if run.len() == run.capacity() {
            run.reserve_exact(STEP);
        }
        run.insert(at, pair);
    }

    fn remove(&mut self, pair: Pair) {
        let nth = self.run_of(pair);
        let Some(run) = self.runs.get_mut(nth) else { return };
        let Ok(at) = run.binary_search(&pair) else { return };
        run.remove(at);
        if run.is_empty() {
            self.runs.remove(nth);
            if self.runs.capacity() > self.runs.len().saturating_mul(8).max(MOST) {
                self.runs.shrink_to(self.runs.len() * 2);
            }
            return;
        }
        if run.capacity() - run.len() > STEP + STEP / 2 {
            run.shrink_to(run.len() + STEP / 2);
        }
        self.join(nth);
        if nth > 0 {
            self.join(nth - 1);
        }
    }

    /// Joins a run with the one behind it if they are small, so that there are not many small ones.
    fn join(&mut self, nth: usize) {
        let Some([run, next]) = self.runs.get_mut(nth..nth + 2) else {
            return;
        };
        if run.len() + next.len() <= MOST / 2 {
            run.reserve_exact(next.len());
            run.append(next);
            self.runs.remove(nth + 1);
        }
    }

    /// This pair and those behind it.
    fn from(&self, pair: Pair) -> impl Iterator<Item = Pair> {
        let runs = &self.runs[self.run_of(pair)..];
        let before = runs.first().map_or(0, |run| run.partition_point(|other| *other < pair));
        runs.iter().flatten().copied().skip(before)
    }

    /// The number of the run that has the first pair from this one on.
    fn run_of(&self, pair: Pair) -> usize {
        self.runs
            .partition_point(|run| run.last().is_some_and(|last| *last < pair))
    }
}

const SHARDS: usize = 64;
/// Pairs that a run has room for beyond what it needs: 128 bytes.
const STEP: usize = 8;
/// Pairs of a run: up to here each step is a size class of the allocator.
const MOST: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Pairs of a few clients, so that they are in each other's way; each is added or removed.
    fn changes() -> impl Strategy<Value = Vec<(bool, u64, u64)>> {
        prop::collection::vec((any::<bool>(), 0..5_u64, 0..200_u64), 0..2000)
    }

    fn pair(client: u64, nth: u64) -> Pair {
        (ZoneClient::of_hash(client), ConnId::of(nth, 0, 1))
    }

    proptest! {
        #[test]
        fn the_pairs_are_those_of_a_set(changes in changes()) {
            let (mut pairs, mut set) = (SortedPairs::default(), BTreeSet::new());
            for (is_added, client, nth) in changes {
                let pair = pair(client, nth);
                if is_added {
                    pairs.insert(pair);
                    set.insert(pair);
                } else {
                    pairs.remove(pair);
                    set.remove(&pair);
                }
                prop_assert!(pairs.runs.iter().all(|run| (1..=MOST).contains(&run.len())));
            }
            prop_assert!(pairs.from(pair(0, 0)).eq(set.iter().copied()));
            prop_assert!(pairs.from(pair(2, 50)).eq(set.range(pair(2, 50)..).copied()));
        }
    }

    #[test]
    fn memory_follows_the_number_of_connections_up_and_down() {
        let mut pairs = SortedPairs::default();
        let mut left = BTreeSet::new();
        let room = |pairs: &SortedPairs| pairs.runs.iter().map(Vec::capacity).sum::<usize>();
        for nth in 0..10_000 {
            // Clients come in no order, and each has ten connections.
            let pair = pair(nth / 10 * 7919 % 1000, nth);
            pairs.insert(pair);
            left.insert(pair);
        }
        assert!(room(&pairs) <= left.len() * 5 / 4, "{}", room(&pairs));
        let mut nth = 0;
        left.retain(|pair| {
            nth += 1;
            let stays = nth % 10 == 0;
            if !stays {
                pairs.remove(*pair);
            }
            stays
        });
        assert!(pairs.from(pair(0, 0)).eq(left.iter().copied()));
        assert!(room(&pairs) <= left.len() * 2, "{}", room(&pairs));
        for pair in left {
            pairs.remove(pair);
        }
        assert_eq!(room(&pairs), 0);
    }
}
