//! A client in a zone, as a small value.

/// A client in a zone: a hash of both, with a seed of the process that nobody outside knows. Two clients that share one
/// would be taken for the same; among millions that is one chance in millions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZoneClient(u64);

impl ZoneClient {
    /// The client with this hash.
    pub const fn of_hash(hash: u64) -> Self {
        Self(hash)
    }

    /// Its shard, among so many.
    pub(super) fn shard(self, shards: usize) -> usize {
        // The remainder is less than `shards`.
        usize::try_from(self.0 % shards as u64).unwrap_or_default()
    }
}
