//! The buckets of messages that all open connections of one client key in one zone share.

use std::sync::Arc;
use std::time::Duration;

use super::bucket::{Charge, Moment, SharedBucket};
use super::wait_queue::WaitQueue;

/// The buckets of one (zone, client key). The client table keeps them until they are full, so a client that reconnects
/// does not get fresh ones.
#[derive(Debug, Default)]
pub struct Shares {
    /// Messages from the client.
    pub inbound: SharedBucket,
    /// Frames of every kind from the client.
    pub inbound_frames: SharedBucket,
    /// Messages to the client.
    pub outbound: SharedBucket,
    /// Frames of every kind to the client.
    pub outbound_frames: SharedBucket,
    /// The tasks that wait for the two inbound buckets.
    pub inbound_queue: Arc<WaitQueue>,
    /// The tasks that wait for the two outbound buckets.
    pub outbound_queue: Arc<WaitQueue>,
}

impl Shares {
    /// Whether all are full. Then they may be forgotten, since new ones are the same.
    pub(super) fn is_full(&self, now: Moment) -> bool {
        self.buckets().iter().all(|bucket| bucket.bucket().is_full(now))
    }

    /// Whether no token was ever taken.
    pub(super) fn is_untouched(&self) -> bool {
        self.buckets().iter().all(|bucket| bucket.bucket().is_untouched())
    }

    fn buckets(&self) -> [&SharedBucket; 4] {
        [
            &self.inbound,
            &self.inbound_frames,
            &self.outbound,
            &self.outbound_frames,
        ]
    }
}

/// Takes from both buckets or from neither.
///
/// # Errors
/// How long until the bucket that lacks tokens has enough.
pub fn charge_both(
    first: (&SharedBucket, Charge),
    second: (&SharedBucket, Charge),
    now: Moment,
) -> Result<(), Duration> {
    first.0.charge(first.1, now)?;
    second.0.charge(second.1, now).inspect_err(|_| first.0.refund(first.1))
}
