//! The connections of each client in each zone.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use crate::engine::conn::ConnId;
use crate::engine::zone_client::ZoneClient;

/// The open connections of each client, as their ids. Sharded by client, so that a look-up waits for few others.
///
/// A tree of pairs takes 25 to 45 bytes a connection, however many of them one client has, and adds and removes each in
/// logarithmic time. Nodes are half empty where one client opens many in a row.
#[derive(Debug)]
pub(super) struct ClientIndex([Mutex<BTreeSet<(ZoneClient, ConnId)>>; SHARDS]);

impl ClientIndex {
    pub(super) fn insert(&self, client: ZoneClient, id: ConnId) {
        self.shard(client).lock().insert((client, id));
    }

    pub(super) fn remove(&self, client: ZoneClient, id: ConnId) {
        self.shard(client).lock().remove(&(client, id));
    }

    /// The ids of the client's connections, sorted. So those of one worker are in the order in which they were opened.
    pub(super) fn of(&self, client: ZoneClient) -> Vec<ConnId> {
        let shard = self.shard(client).lock();
        let of_client = shard.range((client, ConnId::MIN)..=(client, ConnId::MAX));
        of_client.map(|(_, id)| *id).collect()
    }

    fn shard(&self, client: ZoneClient) -> &Mutex<BTreeSet<(ZoneClient, ConnId)>> {
        &self.0[client.shard(SHARDS)]
    }
}

impl Default for ClientIndex {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

const SHARDS: usize = 64;
