//! A client in a zone, as a small value.

/// A client in a zone: a hash of both, with a secret seed of the process. Two clients with the same hash would be taken
/// for one; among millions of clients the chance is one in millions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZoneClient(u64);

impl ZoneClient {
    /// The client with this hash.
    pub const fn of_hash(hash: u64) -> Self {
        Self(hash)
    }

    /// Its shard, out of this many.
    pub(super) fn shard(self, shards: usize) -> usize {
        // The conversion can't fail: the remainder is less than `shards`.
        usize::try_from(self.0 % shards as u64).unwrap_or_default()
    }
}
