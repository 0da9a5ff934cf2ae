//! The totals of a connection.

use crate::reason::close::CloseReason;

use super::counters::MessageLimit;

/// The bytes and messages that a connection moved in all, and why it was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// Data messages from the client.
    pub messages_in: u64,
    /// Data messages to the client.
    pub messages_out: u64,
    /// How often a limit on messages was hit.
    pub limit_hits: u32,
    /// The last limit that was hit.
    pub last_limit: Option<MessageLimit>,
    /// Messages from the client that looked like heartbeats. They are counted only if its messages are policed.
    pub heartbeats: u32,
    /// Why it was closed.
    pub reason: CloseReason,
    /// It was closed as a ghost, because another connection of the same client needed its slot.
    pub was_replaced: bool,
}
