//! Summaries of the client table, for metrics and `/stats`. The table is read shard by shard, so no admission waits for
//! long.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::admission::Admission;
use super::key::ClientKey;

/// The connections of one zone by client key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientStats {
    /// The zone's id.
    pub zone: u32,
    /// Keys with open connections.
    pub clients: u64,
    /// The most open connections of one key.
    pub most: u32,
    /// For each of [`CONNECTION_BOUNDS`] the number of keys with at most that many open connections, and last the
    /// number of all keys.
    pub by_connections: [u64; CONNECTION_BOUNDS.len() + 1],
}

/// The upper bounds of [`ClientStats::by_connections`]. Its last entry has no bound.
pub const CONNECTION_BOUNDS: [u32; 8] = [1, 2, 3, 5, 10, 20, 50, 100];

impl Admission {
    /// Counts the clients of these zones, in their order, in one walk over the table.
    pub fn client_stats(&self, zones: &[u32]) -> Vec<ClientStats> {
        let mut counted: Vec<ClientStats> = zones
            .iter()
            .map(|zone| ClientStats {
                zone: *zone,
                ..ClientStats::default()
            })
            .collect();
        self.table.visit(|entry| {
            let Some(zone) = counted
                .iter_mut()
                .find(|zone| zone.zone == entry.zone && entry.open > 0)
            else {
                return;
            };
            zone.clients += 1;
            zone.most = zone.most.max(entry.open);
            let place = CONNECTION_BOUNDS
                .iter()
                .position(|bound| entry.open <= *bound)
                .unwrap_or(CONNECTION_BOUNDS.len());
            zone.by_connections[place] += 1;
        });
        for zone in &mut counted {
            let mut below = 0;
            for keys in &mut zone.by_connections {
                below += *keys;
                *keys = below;
            }
        }
        counted
    }

    /// The `n` busiest clients as (zone id, key, open connections), the busiest first, equal ones by zone and key. It
    /// never holds more than `n` of them.
    pub fn top(&self, n: usize) -> Vec<(u32, ClientKey, u32)> {
        let mut busiest = BinaryHeap::new();
        self.table.visit(|entry| {
            if entry.open == 0 || n == 0 {
                return;
            }
            // The greatest element of the heap is the least busy client, which is the one to remove.
            let candidate = (Reverse(entry.open), entry.zone, entry.key);
            if busiest.len() < n {
                busiest.push(candidate);
            } else if let Some(mut least) = busiest.peek_mut()
                && candidate < *least
            {
                *least = candidate;
            }
        });
        busiest
            .into_sorted_vec()
            .into_iter()
            .map(|(Reverse(open), zone, key)| (zone, key, open))
            .collect()
    }

    /// Open connections of all keys, summed entry by entry. The metric of drift compares the counters with this sum.
    pub fn open_in_table(&self) -> u64 {
        let mut open = 0;
        self.table.visit(|entry| open += u64::from(entry.open));
        open
    }

    /// Client keys remembered, open or idle, for the tests and the models.
    #[cfg(any(test, loom))]
    pub fn remembered(&self) -> u64 {
        let mut entries = 0;
        self.table.visit(|_| entries += 1);
        entries
    }
}
