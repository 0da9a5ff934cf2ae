//! The bytes and messages that one connection has moved, readable while it is open.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes and data messages of a connection so far. Only its relay adds to them, once per poll and not once per frame.
/// Any thread may read them.
#[derive(Debug, Default)]
pub struct Traffic {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    messages_in: AtomicU64,
    messages_out: AtomicU64,
}

impl Traffic {
    /// Bytes from the client that passed.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Relaxed)
    }

    /// Bytes to the client that passed.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Relaxed)
    }

    /// Messages from the client.
    pub fn messages_in(&self) -> u64 {
        self.messages_in.load(Relaxed)
    }

    /// Messages to the client.
    pub fn messages_out(&self) -> u64 {
        self.messages_out.load(Relaxed)
    }

    pub(super) fn add_in(&self, bytes: u64, messages: u64) {
        add(&self.bytes_in, bytes);
        add(&self.messages_in, messages);
    }

    pub(super) fn add_out(&self, bytes: u64, messages: u64) {
        add(&self.bytes_out, bytes);
        add(&self.messages_out, messages);
    }
}

/// There is one writer, so a load and a store are enough.
fn add(to: &AtomicU64, more: u64) {
    to.store(to.load(Relaxed) + more, Relaxed);
}
