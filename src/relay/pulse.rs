//! What the rest of the process sees of an open connection, and how it tells it to end.

use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
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
    ask: AtomicBool,
    /// A question of ours is written, and nothing has come from the client since.
    asked: AtomicBool,
    /// Something of the client's is held up by a limit.
    delayed: AtomicBool,
    /// Goes up whenever something comes from the client, where it may be asked.
    heard: AtomicU32,
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
    /// The client has not answered: close 1001.
    Ghost,
    /// The client's host does not answer either, and somebody waits for its slot: close 1001, and do not wait.
    Replaced,
    /// The client has not said anything since the upgrade: close 1008.
    FirstMessage,
    /// The process ends: half-close now, boundary or not.
    Cut,
}

impl Order {
    const ALL: [Self; 8] = [
        Self::Idle,
        Self::Lifetime,
        Self::Stalled,
        Self::Drain,
        Self::Ghost,
        Self::Replaced,
        Self::FirstMessage,
        Self::Cut,
    ];
}

/// What has become of a question to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It is not written yet, or something has come from the client since.
    Nothing,
    /// Its host has not acknowledged it, as far as the last [`Pulse::look`] knows.
    OnItsWay,
    /// Its host has acknowledged it, and nothing has come since.
    Arrived,
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
        let order_or_none = order as u8 + 1;
        if order == Order::Cut {
            self.order.store(order_or_none, Relaxed);
        } else {
            let _already = self.order.compare_exchange(NONE, order_or_none, Relaxed, Relaxed);
        }
        self.wake();
    }

    /// Has the relay look at what the kernel tells nobody of: how much the client has taken, and a side that has ended
    /// behind bytes nobody takes.
    pub fn look(&self) {
        self.look.store(true, Relaxed);
        self.wake();
    }

    /// Has the relay ask the client whether it is still there, as soon as there is room between two frames.
    pub fn ask(&self) {
        self.asked.store(false, Relaxed);
        self.ask.store(true, Relaxed);
        self.wake();
    }

    /// Changes whenever something has come from the client; only where its terms have it asked. 0 until then.
    pub fn heard(&self) -> u32 {
        self.heard.load(Relaxed)
    }

    /// What has become of the question.
    pub fn asked(&self) -> Asked {
        if !self.asked.load(Acquire) {
            Asked::Nothing
        } else if self.client_owes() {
            Asked::OnItsWay
        } else {
            Asked::Arrived
        }
    }

    /// Whether something of the client's is held up by a limit, so that it can't be heard.
    pub fn is_delayed(&self) -> bool {
        self.delayed.load(Relaxed)
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
        let order = self.order.load(Relaxed).checked_sub(1)?;
        Order::ALL.get(usize::from(order)).copied()
    }

    pub(super) fn take_ask(&self) -> bool {
        self.ask.load(Relaxed) && self.ask.swap(false, Relaxed)
    }

    /// After [`Pulse::mark_client_owes`], which whoever sees this has to see too.
    pub(super) fn mark_asked(&self) {
        self.asked.store(true, Release);
    }

    pub(super) fn mark_heard(&self) {
        // Only the relay writes it, so this needs no more than a load and a store.
        self.heard.store(self.heard.load(Relaxed).wrapping_add(1), Relaxed);
        if self.asked.load(Relaxed) {
            self.asked.store(false, Relaxed);
        }
    }

    pub(super) fn mark_delayed(&self, delayed: bool) {
        if self.delayed.load(Relaxed) != delayed {
            self.delayed.store(delayed, Relaxed);
        }
    }
}

const NONE: u8 = 0;
