//! What the rest of the process sees of an open connection, and how it tells it to end.

use std::sync::atomic::{AtomicU16, AtomicU32, Ordering::Relaxed};
use std::task::Waker;
use std::time::Duration;

use enum_map::Enum;
use parking_lot::Mutex;

use crate::reason::close::CloseReason;

/// Shared by a relay and the sweep that looks at it a few times a second. The relay reads no clock: it only leaves a mark
/// that something moved.
#[derive(Debug, Default)]
pub struct Pulse {
    marks: Marks,
    /// Goes up whenever something comes from the client, where it may be asked; never back to 0.
    heard: AtomicU16,
    /// Bytes that the client has taken, as of the last look, modulo 2^32.
    client_took: AtomicU32,
    waker: Mutex<Option<Waker>>,
}

/// Marks, and the order in the upper bits. In two bytes, for every open connection has a pulse.
#[derive(Debug, Default)]
struct Marks(AtomicU16);

/// What a relay is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub enum Order {
    /// End it for this reason: by close frames at the next frame boundary, or by a reset where the reason has none.
    Close(CloseReason),
    /// The client's host does not answer either, and somebody waits for its slot: close it as a ghost, and do not wait.
    Replace,
    /// The process ends: half-close now, boundary or not.
    Cut,
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
        self.marks.take(MOVED)
    }

    /// Whether the client may still have to take some of what was written to it; only a [`Pulse::look`] settles it.
    pub fn client_owes(&self) -> bool {
        self.marks.has(CLIENT_OWES)
    }

    /// Bytes that the client has taken, as of the last [`Pulse::look`]: enough of the number to see that it has changed.
    pub fn client_took(&self) -> u32 {
        self.client_took.load(Relaxed)
    }

    /// Whether a side is not read, because what it sent waits or because it has ended: only a [`Pulse::look`] finds out that it
    /// ends, or is reset, meanwhile.
    pub fn is_blocked(&self) -> bool {
        self.marks.has(BLOCKED)
    }

    /// Whether the relay has ended.
    pub fn is_over(&self) -> bool {
        self.marks.has(OVER)
    }

    /// Tells the relay to end. The first order stands, but for the last one that there is.
    pub fn order(&self, order: Order) {
        self.marks.order(order);
        self.wake();
    }

    /// Has the relay look at what the kernel tells nobody of: how much the client has taken, and the end of a side that is not
    /// read.
    pub fn look(&self) {
        self.marks.set(LOOK);
        self.wake();
    }

    /// Has the relay look, and rest if nothing is under way: until something comes, or it is told something.
    pub fn rest(&self) {
        self.marks.set(REST);
        self.look();
    }

    /// Has the relay ask the client whether it is still there, as soon as there is room between two frames.
    pub fn ask(&self) {
        self.marks.take(ASKED);
        self.marks.set(ASK);
        self.wake();
    }

    /// Changes whenever something has come from the client; only where its terms have it asked. 0 until then.
    pub fn heard(&self) -> u16 {
        self.heard.load(Relaxed)
    }

    /// Whether the last [`Pulse::look`] found that the client's host owes the kernel an answer to what was sent to it, and has
    /// not acknowledged anything for half a second. Only where a question is on its way.
    pub fn host_is_silent(&self) -> bool {
        self.marks.has(HOST_SILENT)
    }

    /// Whether the relay has looked since it was last told to.
    pub fn has_looked(&self) -> bool {
        !self.marks.has(LOOK)
    }

    /// What has become of the question.
    pub fn asked(&self) -> Asked {
        if !self.marks.has(ASKED) {
            Asked::Nothing
        } else if self.client_owes() {
            Asked::OnItsWay
        } else {
            Asked::Arrived
        }
    }

    /// Whether the client is not read, because a limit holds up something of it or the server does not take it: it can't be
    /// heard.
    pub fn is_unread(&self) -> bool {
        self.marks.has(UNREAD)
    }

    /// Whether a limit holds up something of the server's.
    pub fn is_delayed(&self) -> bool {
        self.marks.has(DELAYED)
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.lock() {
            waker.wake_by_ref();
        }
    }

    pub(super) fn mark_moved(&self) {
        self.marks.set(MOVED);
    }

    pub(super) fn mark_client_owes(&self) {
        self.marks.set(CLIENT_OWES);
    }

    pub(super) fn settle(&self, client_took: u64, client_owes: bool) {
        let low = u32::try_from(client_took & u64::from(u32::MAX)).unwrap_or_default();
        self.client_took.store(low, Relaxed);
        self.marks.put(CLIENT_OWES, client_owes);
    }

    pub(super) fn mark_blocked(&self, blocked: bool) {
        self.marks.put(BLOCKED, blocked);
    }

    pub(super) fn mark_host_silent(&self, silent: bool) {
        self.marks.put(HOST_SILENT, silent);
    }

    pub(super) fn mark_over(&self) {
        self.marks.set(OVER);
        *self.waker.lock() = None;
    }

    /// Whom to wake from here on. A task's waker stays the same for its life, so it is named once.
    pub(super) fn listen(&self, waker: &Waker) {
        *self.waker.lock() = Some(waker.clone());
    }

    pub(super) fn take_look(&self) -> bool {
        self.marks.take(LOOK)
    }

    pub(super) fn is_told_to_rest(&self) -> bool {
        self.marks.has(REST)
    }

    pub(super) fn take_rest(&self) -> bool {
        self.marks.take(REST)
    }

    /// Whether it is told anything that it has not taken note of.
    pub(super) fn is_told(&self) -> bool {
        self.marks.has(LOOK | ASK | ORDER)
    }

    pub(super) fn ordered(&self) -> Option<Order> {
        self.marks.ordered()
    }

    pub(super) fn take_ask(&self) -> bool {
        self.marks.take(ASK)
    }

    /// After [`Pulse::mark_client_owes`]: whoever sees this sees that too, for they are in one byte.
    pub(super) fn mark_asked(&self) {
        self.marks.set(ASKED);
    }

    pub(super) fn mark_heard(&self) {
        // Only the relay writes it, so this needs no more than a load and a store.
        self.heard
            .store(self.heard.load(Relaxed).wrapping_add(1).max(1), Relaxed);
        self.marks.take(ASKED);
    }

    pub(super) fn mark_unread(&self, unread: bool) {
        self.marks.put(UNREAD, unread);
    }

    pub(super) fn mark_delayed(&self, delayed: bool) {
        self.marks.put(DELAYED, delayed);
    }
}

// A write that changes nothing would still take the cache line from whoever reads it, so each looks first.
impl Marks {
    fn has(&self, mark: u16) -> bool {
        self.0.load(Relaxed) & mark != 0
    }

    fn set(&self, mark: u16) {
        if !self.has(mark) {
            self.0.fetch_or(mark, Relaxed);
        }
    }

    fn take(&self, mark: u16) -> bool {
        self.has(mark) && self.0.fetch_and(!mark, Relaxed) & mark != 0
    }

    fn put(&self, mark: u16, is_set: bool) {
        if is_set {
            self.set(mark);
        } else {
            self.take(mark);
        }
    }

    #[allow(clippy::cast_possible_truncation)] // Small: see the assertion below `ORDER`.
    fn order(&self, order: Order) {
        let code = (order.into_usize() as u16 + 1) << ORDER.trailing_zeros();
        let _already = self.0.fetch_update(Relaxed, Relaxed, |marks| {
            (order == Order::Cut || marks & ORDER == 0).then_some(marks & !ORDER | code)
        });
    }

    fn ordered(&self) -> Option<Order> {
        let code = (self.0.load(Relaxed) & ORDER) >> ORDER.trailing_zeros();
        code.checked_sub(1).map(|order| Order::from_usize(order.into()))
    }
}

/// Something moved.
const MOVED: u16 = 1;
/// The client may still have to take some of what was written to it.
const CLIENT_OWES: u16 = 2;
/// A side is not read.
const BLOCKED: u16 = 4;
const OVER: u16 = 8;
const LOOK: u16 = 16;
const ASK: u16 = 32;
/// A question of ours is written, and nothing has come from the client since.
const ASKED: u16 = 64;
/// The client is not read.
const UNREAD: u16 = 128;
/// It is to rest if it can.
const REST: u16 = 256;
/// Something of the server's is held up by a limit.
const DELAYED: u16 = 512;
const HOST_SILENT: u16 = 1024;
/// The number of an order, from 1; 0 is none.
const ORDER: u16 = 0xf800;
/// Every order has a number that fits.
const _: () = assert!(Order::LENGTH < 1 << ORDER.count_ones());

/// So much longer than the time between two looks of a search that none of it misses an acknowledgement.
pub(super) const SILENCE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    /// With the counts of its `Arc` it is 48 bytes, which allocators have a class for.
    #[test]
    fn it_is_small() {
        assert!(size_of::<Pulse>() <= 32, "{}", size_of::<Pulse>());
    }

    #[test]
    fn the_first_order_stands_until_the_connection_is_cut() {
        for reason in CloseReason::ALL {
            let pulse = Pulse::default();
            assert_eq!(pulse.ordered(), None);
            pulse.order(Order::Close(reason));
            pulse.order(Order::Replace);
            assert_eq!(pulse.ordered(), Some(Order::Close(reason)));
            pulse.order(Order::Cut);
            pulse.order(Order::Close(reason));
            assert_eq!(pulse.ordered(), Some(Order::Cut));
            assert!(!pulse.take_moved() && !pulse.is_blocked() && !pulse.host_is_silent());
        }
    }

    #[test]
    fn one_mark_leaves_the_others_alone() {
        let pulse = Pulse::default();
        pulse.mark_moved();
        pulse.mark_blocked(true);
        pulse.settle(u64::from(u32::MAX) + 8, true);
        pulse.look();
        pulse.mark_delayed(true);
        pulse.mark_asked();
        assert_eq!((pulse.asked(), pulse.heard()), (Asked::OnItsWay, 0));
        assert!(pulse.take_moved() && !pulse.take_moved());
        assert!(pulse.take_look() && !pulse.take_look());
        assert!(pulse.is_blocked() && pulse.client_owes() && !pulse.is_over());
        assert_eq!(pulse.client_took(), 7);
        pulse.settle(9, false);
        assert_eq!((pulse.asked(), pulse.is_delayed()), (Asked::Arrived, true));
        pulse.mark_heard();
        assert_eq!((pulse.asked(), pulse.heard()), (Asked::Nothing, 1));
        pulse.mark_blocked(false);
        pulse.mark_over();
        assert!(!pulse.is_blocked() && !pulse.client_owes() && pulse.is_over());
    }
}
