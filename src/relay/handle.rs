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
pub struct ConnHandle {
    marks: Marks,
    /// Goes up whenever something comes from the client, where it may be asked; never back to 0.
    received: AtomicU16,
    /// Bytes that the client has taken, as of the last look, modulo 2^32.
    client_took: AtomicU32,
    waker: Mutex<Option<Waker>>,
}

/// Marks, and the order in the upper bits. In two bytes, for every open connection has a pulse.
#[derive(Debug, Default)]
struct Marks(AtomicU16);

/// What a relay is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub enum Command {
    /// End it for this reason: by close frames at the next frame boundary, or by a reset where the reason has none.
    Close(CloseReason),
    /// The client's host does not answer either, and somebody waits for its slot: close it as a ghost, and do not wait.
    Replace,
    /// The process ends: half-close now, boundary or not.
    Cut,
}

/// What has become of a question to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PingDelivery {
    /// It is not written yet, or something has come from the client since.
    None,
    /// Its host has not acknowledged it, as far as the last [`ConnHandle::probe`] knows.
    InFlight,
    /// Its host has acknowledged it, and nothing has come since.
    Acknowledged,
}

impl ConnHandle {
    /// Whether any byte moved since the last call.
    pub fn take_moved(&self) -> bool {
        self.marks.take(MOVED)
    }

    /// Whether the client may still have to take some of what was written to it; only a [`ConnHandle::probe`] settles it.
    pub fn has_unacked(&self) -> bool {
        self.marks.has(CLIENT_OWES)
    }

    /// Bytes that the client has taken, as of the last [`ConnHandle::probe`]: enough of the number to see that it has changed.
    pub fn client_acked(&self) -> u32 {
        self.client_took.load(Relaxed)
    }

    /// Whether a side is not read, because what it sent waits or because it has ended: only a [`ConnHandle::probe`] finds out that it
    /// ends, or is reset, meanwhile.
    pub fn is_blocked(&self) -> bool {
        self.marks.has(BLOCKED)
    }

    /// Whether the relay has ended.
    pub fn is_closed(&self) -> bool {
        self.marks.has(OVER)
    }

    /// Tells the relay to end. The first order stands, but for the last one that there is.
    pub fn send(&self, order: Command) {
        self.marks.send(order);
        self.wake();
    }

    /// Has the relay look at what the kernel tells nobody of: how much the client has taken, and the end of a side that is not
    /// read.
    pub fn probe(&self) {
        self.marks.set(LOOK);
        self.wake();
    }

    /// Has the relay look, and rest if nothing is under way: until something comes, or it is told something.
    pub fn park(&self) {
        self.marks.set(REST);
        self.probe();
    }

    /// Has the relay ask the client whether it is still there, as soon as there is room between two frames.
    pub fn ping(&self) {
        self.marks.take(ASKED);
        self.marks.set(ASK);
        self.wake();
    }

    /// Changes whenever something has come from the client; only where its terms have it asked. 0 until then.
    pub fn client_activity(&self) -> u16 {
        self.received.load(Relaxed)
    }

    /// Whether the last [`ConnHandle::probe`] found that the client's host owes the kernel an answer to what was sent to it, and has
    /// not acknowledged anything for half a second. Only where a question is on its way.
    pub fn is_host_silent(&self) -> bool {
        self.marks.has(HOST_SILENT)
    }

    /// Whether the relay has looked since it was last told to.
    pub fn has_probed(&self) -> bool {
        !self.marks.has(LOOK)
    }

    /// What has become of the question.
    pub fn ping_delivery(&self) -> PingDelivery {
        if !self.marks.has(ASKED) {
            PingDelivery::None
        } else if self.has_unacked() {
            PingDelivery::InFlight
        } else {
            PingDelivery::Acknowledged
        }
    }

    /// Whether the client is not read, because a limit holds up something of it or the server does not take it: it can't be
    /// heard.
    pub fn is_client_unread(&self) -> bool {
        self.marks.has(UNREAD)
    }

    /// Whether a limit holds up something of the server's.
    pub fn is_server_delayed(&self) -> bool {
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

    pub(super) fn mark_unacked(&self) {
        self.marks.set(CLIENT_OWES);
    }

    pub(super) fn record_acked(&self, client_took: u64, client_owes: bool) {
        let low = u32::try_from(client_took & u64::from(u32::MAX)).unwrap_or_default();
        self.client_took.store(low, Relaxed);
        self.marks.put(CLIENT_OWES, client_owes);
    }

    pub(super) fn set_blocked(&self, blocked: bool) {
        self.marks.put(BLOCKED, blocked);
    }

    pub(super) fn set_host_silent(&self, silent: bool) {
        self.marks.put(HOST_SILENT, silent);
    }

    pub(super) fn mark_closed(&self) {
        self.marks.set(OVER);
        *self.waker.lock() = None;
    }

    /// Whom to wake from here on. A task's waker stays the same for its life, so it is named once.
    pub(super) fn set_waker(&self, waker: &Waker) {
        *self.waker.lock() = Some(waker.clone());
    }

    pub(super) fn take_probe(&self) -> bool {
        self.marks.take(LOOK)
    }

    pub(super) fn wants_park(&self) -> bool {
        self.marks.has(REST)
    }

    pub(super) fn take_park(&self) -> bool {
        self.marks.take(REST)
    }

    /// Whether it is told anything that it has not taken note of.
    pub(super) fn has_request(&self) -> bool {
        self.marks.has(LOOK | ASK | ORDER)
    }

    pub(super) fn command(&self) -> Option<Command> {
        self.marks.command()
    }

    pub(super) fn take_ping(&self) -> bool {
        self.marks.take(ASK)
    }

    /// After [`ConnHandle::mark_unacked`]: whoever sees this sees that too, for they are in one byte.
    pub(super) fn mark_pinged(&self) {
        self.marks.set(ASKED);
    }

    pub(super) fn mark_client_activity(&self) {
        // Only the relay writes it, so this needs no more than a load and a store.
        self.received
            .store(self.received.load(Relaxed).wrapping_add(1).max(1), Relaxed);
        self.marks.take(ASKED);
    }

    pub(super) fn set_client_unread(&self, unread: bool) {
        self.marks.put(UNREAD, unread);
    }

    pub(super) fn set_server_delayed(&self, delayed: bool) {
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
    fn send(&self, order: Command) {
        let code = (order.into_usize() as u16 + 1) << ORDER.trailing_zeros();
        let _already = self.0.fetch_update(Relaxed, Relaxed, |marks| {
            (order == Command::Cut || marks & ORDER == 0).then_some(marks & !ORDER | code)
        });
    }

    fn command(&self) -> Option<Command> {
        let code = (self.0.load(Relaxed) & ORDER) >> ORDER.trailing_zeros();
        code.checked_sub(1).map(|order| Command::from_usize(order.into()))
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
const _: () = assert!(Command::LENGTH < 1 << ORDER.count_ones());

/// So much longer than the time between two looks of a search that none of it misses an acknowledgement.
pub(super) const SILENCE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    /// With the counts of its `Arc` it is 48 bytes, which allocators have a class for.
    #[test]
    fn it_is_small() {
        assert!(size_of::<ConnHandle>() <= 32, "{}", size_of::<ConnHandle>());
    }

    #[test]
    fn the_first_order_stands_until_the_connection_is_cut() {
        for reason in CloseReason::ALL {
            let handle = ConnHandle::default();
            assert_eq!(handle.command(), None);
            handle.send(Command::Close(reason));
            handle.send(Command::Replace);
            assert_eq!(handle.command(), Some(Command::Close(reason)));
            handle.send(Command::Cut);
            handle.send(Command::Close(reason));
            assert_eq!(handle.command(), Some(Command::Cut));
            assert!(!handle.take_moved() && !handle.is_blocked() && !handle.is_host_silent());
        }
    }

    #[test]
    fn one_mark_leaves_the_others_alone() {
        let handle = ConnHandle::default();
        handle.mark_moved();
        handle.set_blocked(true);
        handle.record_acked(u64::from(u32::MAX) + 8, true);
        handle.probe();
        handle.set_server_delayed(true);
        handle.mark_pinged();
        assert_eq!(
            (handle.ping_delivery(), handle.client_activity()),
            (PingDelivery::InFlight, 0)
        );
        assert!(handle.take_moved() && !handle.take_moved());
        assert!(handle.take_probe() && !handle.take_probe());
        assert!(handle.is_blocked() && handle.has_unacked() && !handle.is_closed());
        assert_eq!(handle.client_acked(), 7);
        handle.record_acked(9, false);
        assert_eq!(
            (handle.ping_delivery(), handle.is_server_delayed()),
            (PingDelivery::Acknowledged, true)
        );
        handle.mark_client_activity();
        assert_eq!(
            (handle.ping_delivery(), handle.client_activity()),
            (PingDelivery::None, 1)
        );
        handle.set_blocked(false);
        handle.mark_closed();
        assert!(!handle.is_blocked() && !handle.has_unacked() && handle.is_closed());
    }
}
