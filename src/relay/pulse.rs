//! What the rest of the process sees of an open connection, and how it tells it to end.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::task::Waker;

use parking_lot::Mutex;

/// Shared by a relay and the sweep that looks at it a few times a second. The relay reads no clock: it only leaves a mark
/// that something moved.
#[derive(Debug, Default)]
pub struct Pulse {
    moved: AtomicBool,
    /// The client may still have to take some of what was written to it.
    client_owes: AtomicBool,
    /// Bytes that the client has taken, as of the last look.
    client_took: AtomicU64,
    bytes_wait: AtomicBool,
    over: AtomicBool,
    order: AtomicU8,
    look: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

/// What a relay is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// No byte moved for the idle timeout: close 1001.
    Idle,
    /// Its lifetime is over: close 1001.
    Lifetime,
    /// The client takes nothing of what waits for it: end it.
    Stalled,
    /// The process is about to end: close 1012, whenever a frame boundary comes.
    Drain,
    /// The process ends: half-close now, boundary or not.
    Cut,
}

impl Pulse {
    /// Whether any byte moved since the last call.
    pub fn take_moved(&self) -> bool {
        self.moved.swap(false, Relaxed)
    }

    /// Whether the client may still have to take some of what was written to it; only a [`Pulse::look`] settles it.
    pub fn client_owes(&self) -> bool {
        self.client_owes.load(Relaxed)
    }

    /// Bytes that the client has taken, as of the last [`Pulse::look`].
    pub fn client_took(&self) -> u64 {
        self.client_took.load(Relaxed)
    }

    /// Whether bytes wait in the relay, one way or the other, because the peer does not take them.
    pub fn bytes_wait(&self) -> bool {
        self.bytes_wait.load(Relaxed)
    }

    /// Whether the relay has ended.
    pub fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// Tells the relay to end. The first order stands, but for the last one that there is.
    pub fn order(&self, order: Order) {
        if order == Order::Cut {
            self.order.store(CUT, Relaxed);
        } else {
            let _already = self.order.compare_exchange(NONE, order as u8 + 1, Relaxed, Relaxed);
        }
        self.wake();
    }

    /// Has the relay look at what the kernel tells nobody of: how much the client has taken, and a side that has ended
    /// behind bytes nobody takes.
    pub fn look(&self) {
        self.look.store(true, Relaxed);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.lock() {
            waker.wake_by_ref();
        }
    }

    pub(super) fn mark_moved(&self) {
        // A store that changes nothing still takes the cache line from whoever reads it.
        if !self.moved.load(Relaxed) {
            self.moved.store(true, Relaxed);
        }
    }

    pub(super) fn mark_client_owes(&self) {
        if !self.client_owes.load(Relaxed) {
            self.client_owes.store(true, Relaxed);
        }
    }

    pub(super) fn settle(&self, client_took: u64, client_owes: bool) {
        self.client_took.store(client_took, Relaxed);
        self.client_owes.store(client_owes, Relaxed);
    }

    pub(super) fn mark_bytes_wait(&self, wait: bool) {
        if self.bytes_wait.load(Relaxed) != wait {
            self.bytes_wait.store(wait, Relaxed);
        }
    }

    pub(super) fn mark_over(&self) {
        self.over.store(true, Relaxed);
        *self.waker.lock() = None;
    }

    /// A task's waker stays the same for its life, so this is called once.
    pub(super) fn listen(&self, waker: &Waker) {
        *self.waker.lock() = Some(waker.clone());
    }

    pub(super) fn take_look(&self) -> bool {
        self.look.load(Relaxed) && self.look.swap(false, Relaxed)
    }

    pub(super) fn ordered(&self) -> Option<Order> {
        match self.order.load(Relaxed) {
            NONE => None,
            IDLE => Some(Order::Idle),
            LIFETIME => Some(Order::Lifetime),
            DRAIN => Some(Order::Drain),
            CUT => Some(Order::Cut),
            _ => Some(Order::Stalled),
        }
    }
}

const NONE: u8 = 0;
const IDLE: u8 = Order::Idle as u8 + 1;
const LIFETIME: u8 = Order::Lifetime as u8 + 1;
const DRAIN: u8 = Order::Drain as u8 + 1;
const CUT: u8 = Order::Cut as u8 + 1;
