//! What the rest of the process sees of an open connection, and how it tells it to end.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::task::Waker;

use parking_lot::Mutex;

/// Shared by a relay and the sweep that looks at it once a second. The relay reads no clock: it only leaves a mark
/// that something moved.
#[derive(Debug, Default)]
pub struct Pulse {
    moved: AtomicBool,
    to_client_moved: AtomicBool,
    waits: AtomicU8,
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
}

/// Which way bytes wait in the relay because the peer does not take them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Waits {
    /// Bytes wait for the client.
    pub for_client: bool,
    /// Bytes wait for the server.
    pub for_server: bool,
}

impl Pulse {
    /// Whether any byte moved since the last call.
    pub fn take_moved(&self) -> bool {
        self.moved.swap(false, Relaxed)
    }

    /// Whether the client took a byte since the last call.
    pub fn take_client_took(&self) -> bool {
        self.to_client_moved.swap(false, Relaxed)
    }

    /// Which way bytes wait.
    pub fn waits(&self) -> Waits {
        let bits = self.waits.load(Relaxed);
        Waits {
            for_client: bits & FOR_CLIENT != 0,
            for_server: bits & FOR_SERVER != 0,
        }
    }

    /// Whether the relay has ended.
    pub fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// Tells the relay to end; the first order stands.
    pub fn order(&self, order: Order) {
        let _already = self.order.compare_exchange(NONE, order as u8 + 1, Relaxed, Relaxed);
        self.wake();
    }

    /// Has the relay look for a side that has ended behind bytes nobody takes.
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

    pub(super) fn mark_client_took(&self) {
        if !self.to_client_moved.load(Relaxed) {
            self.to_client_moved.store(true, Relaxed);
        }
    }

    pub(super) fn mark_waits(&self, waits: Waits) {
        let bits = u8::from(waits.for_client) * FOR_CLIENT + u8::from(waits.for_server) * FOR_SERVER;
        if self.waits.load(Relaxed) != bits {
            self.waits.store(bits, Relaxed);
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
            _ => Some(Order::Stalled),
        }
    }
}

const FOR_CLIENT: u8 = 1;
const FOR_SERVER: u8 = 2;

const NONE: u8 = 0;
const IDLE: u8 = Order::Idle as u8 + 1;
const LIFETIME: u8 = Order::Lifetime as u8 + 1;
