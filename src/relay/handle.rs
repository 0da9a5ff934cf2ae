//! The control block of an open connection: what other threads see of it, and what they ask of it.

use std::task::Waker;
use std::time::Duration;

use enum_map::Enum;

use crate::limit::sync::{AtomicU16, AtomicU32, Mutex, Ordering::Relaxed};
use crate::reason::close::CloseReason;

use super::traffic::Traffic;

/// Shared by a relay and its observers, such as the sweep, which looks at it a few times a second. The relay reads no
/// clock: it only sets a flag when something has moved.
///
/// Requests are flags that the relay takes. Each request wakes the relay. The flags are relaxed, and the lock of the
/// waker orders them: if the relay has set its waker before a request locks it, the relay is woken; otherwise the relay
/// sees the request after it has set its waker.
#[derive(Debug, Default)]
pub struct ConnHandle {
    flags: Flags,
    /// Changes whenever something comes from the client, if its limits ping it. It never goes back to 0.
    client_activity: AtomicU16,
    /// Bytes that the client's host has acknowledged as of the last probe, modulo 2^32.
    client_acked: AtomicU32,
    waker: Mutex<Option<Waker>>,
    /// The bytes and messages that have passed so far.
    pub traffic: Traffic,
}

/// The flags, with the command in the upper bits. They take two bytes, because every open connection has them.
#[derive(Debug, Default)]
struct Flags(AtomicU16);

/// How a relay is to close its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub enum Command {
    /// Close for this reason: by close frames at the next frame boundary, or by a reset if the reason has no close
    /// frame.
    Close(CloseReason),
    /// Close a ghost whose slot another connection of the client needs, without waiting for a frame boundary.
    Replace,
    /// Half-close both legs now, at a frame boundary or not, because the process ends.
    Cut,
}

/// What has become of the last ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PingDelivery {
    /// The ping has not been written yet, or something has come from the client since.
    None,
    /// As of the last probe, the client's host has not acknowledged it.
    InFlight,
    /// The client's host has acknowledged it, and nothing has come since.
    Acknowledged,
}

/// Methods for the observers of a connection.
impl ConnHandle {
    /// Whether any byte moved since the last call.
    pub fn take_moved(&self) -> bool {
        self.flags.take(MOVED)
    }

    /// Whether bytes may wait for the client or for its acknowledgement. The answer only becomes false when a
    /// [`ConnHandle::probe`] finds that none do.
    pub fn has_unacked(&self) -> bool {
        self.flags.has(UNACKED)
    }

    /// The number of bytes that the client's host has acknowledged as of the last [`ConnHandle::probe`], modulo 2^32.
    /// That is enough to see that the number has changed.
    pub fn client_acked(&self) -> u32 {
        self.client_acked.load(Relaxed)
    }

    /// Whether a side is not read, because the bytes that it sent wait or because it has ended. In that state only a
    /// [`ConnHandle::probe`] finds out that the side ends or is reset.
    pub fn is_blocked(&self) -> bool {
        self.flags.has(BLOCKED)
    }

    /// Whether the relay is gone.
    pub fn is_closed(&self) -> bool {
        self.flags.has(CLOSED)
    }

    /// Makes the relay close the connection. The first command is the one that is carried out, but [`Command::Cut`]
    /// overrides it.
    pub fn send(&self, command: Command) {
        self.flags.send(command);
        self.wake();
    }

    /// Makes the relay check the facts that the kernel sends no events for: how much the client's host has
    /// acknowledged, and whether a side that is not read has ended.
    pub fn probe(&self) {
        self.flags.set(PROBE);
        self.wake();
    }

    /// Makes the relay probe, and then park if nothing is under way.
    pub fn park(&self) {
        self.flags.set(PARK);
        self.probe();
    }

    /// Makes the relay send a ping to the client as soon as there is room between two frames.
    pub fn ping(&self) {
        self.flags.take(PINGED);
        self.flags.set(PING);
        self.wake();
    }

    /// A number that changes whenever something comes from the client, if its limits ping it. It is 0 until something
    /// comes.
    pub fn client_activity(&self) -> u16 {
        self.client_activity.load(Relaxed)
    }

    /// Whether, as of the last [`ConnHandle::probe`], the client's host owes an acknowledgement and has sent none for
    /// half a second. It is found out only while a ping is in flight.
    pub fn is_host_silent(&self) -> bool {
        self.flags.has(HOST_SILENT)
    }

    /// Whether the relay has probed since the last request for it.
    pub fn has_probed(&self) -> bool {
        !self.flags.has(PROBE)
    }

    /// What has become of the last ping.
    pub fn ping_delivery(&self) -> PingDelivery {
        let flags = self.flags.load();
        if flags & PINGED == 0 {
            PingDelivery::None
        } else if flags & UNACKED != 0 {
            PingDelivery::InFlight
        } else {
            PingDelivery::Acknowledged
        }
    }

    /// Whether the client is not read, because a limit delays its messages or the server does not take them. The client
    /// can't show activity then.
    pub fn is_client_unread(&self) -> bool {
        self.flags.has(UNREAD)
    }

    /// Whether a limit delays messages of the server.
    pub fn is_server_delayed(&self) -> bool {
        self.flags.has(DELAYED)
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.lock() {
            waker.wake_by_ref();
        }
    }
}

/// Methods for the relay.
impl ConnHandle {
    pub(super) fn mark_moved(&self) {
        self.flags.set(MOVED);
    }

    pub(super) fn mark_unacked(&self) {
        self.flags.set(UNACKED);
    }

    pub(super) fn record_acked(&self, acked: u64, has_unacked: bool) {
        let low = u32::try_from(acked & u64::from(u32::MAX)).unwrap_or_default();
        self.client_acked.store(low, Relaxed);
        self.flags.put(UNACKED, has_unacked);
    }

    pub(super) fn set_blocked(&self, is_blocked: bool) {
        self.flags.put(BLOCKED, is_blocked);
    }

    pub(super) fn set_host_silent(&self, is_silent: bool) {
        self.flags.put(HOST_SILENT, is_silent);
    }

    pub(super) fn mark_closed(&self) {
        self.flags.set(CLOSED);
        *self.waker.lock() = None;
    }

    /// Makes requests wake `waker` from here on. An earlier request is not lost: [`ConnHandle::has_request`] and
    /// [`ConnHandle::command`] still return it.
    pub(super) fn set_waker(&self, waker: &Waker) {
        *self.waker.lock() = Some(waker.clone());
    }

    pub(super) fn take_probe(&self) -> bool {
        self.flags.take(PROBE)
    }

    pub(super) fn wants_park(&self) -> bool {
        self.flags.has(PARK)
    }

    pub(super) fn take_park(&self) -> bool {
        self.flags.take(PARK)
    }

    /// Whether there is a request that the relay has not taken.
    pub(super) fn has_request(&self) -> bool {
        self.flags.has(PROBE | PING | COMMAND)
    }

    pub(super) fn command(&self) -> Option<Command> {
        self.flags.command()
    }

    pub(super) fn take_ping(&self) -> bool {
        self.flags.take(PING)
    }

    /// Must be called after [`ConnHandle::mark_unacked`]. Both flags are in one word, so a thread that sees this one
    /// sees the other one too.
    pub(super) fn mark_pinged(&self) {
        self.flags.set(PINGED);
    }

    pub(super) fn mark_client_activity(&self) {
        // Only the relay writes this number, so a load and a store are enough.
        let next = self.client_activity.load(Relaxed).wrapping_add(1).max(1);
        self.client_activity.store(next, Relaxed);
        self.flags.take(PINGED);
    }

    pub(super) fn set_client_unread(&self, is_unread: bool) {
        self.flags.put(UNREAD, is_unread);
    }

    pub(super) fn set_server_delayed(&self, is_delayed: bool) {
        self.flags.put(DELAYED, is_delayed);
    }
}

// A write that changes nothing would still take the cache line from its readers. So each method reads the flags first.
impl Flags {
    fn load(&self) -> u16 {
        self.0.load(Relaxed)
    }

    fn has(&self, flag: u16) -> bool {
        self.load() & flag != 0
    }

    fn set(&self, flag: u16) {
        if !self.has(flag) {
            self.0.fetch_or(flag, Relaxed);
        }
    }

    fn take(&self, flag: u16) -> bool {
        self.has(flag) && self.0.fetch_and(!flag, Relaxed) & flag != 0
    }

    fn put(&self, flag: u16, is_set: bool) {
        if is_set {
            self.set(flag);
        } else {
            self.take(flag);
        }
    }

    #[allow(clippy::cast_possible_truncation)] // Small: see the assertion below `COMMAND`.
    fn send(&self, command: Command) {
        let code = (command.into_usize() as u16 + 1) << COMMAND.trailing_zeros();
        let _has_one = self.0.fetch_update(Relaxed, Relaxed, |flags| {
            (command == Command::Cut || flags & COMMAND == 0).then_some(flags & !COMMAND | code)
        });
    }

    fn command(&self) -> Option<Command> {
        let code = (self.load() & COMMAND) >> COMMAND.trailing_zeros();
        code.checked_sub(1).map(|command| Command::from_usize(command.into()))
    }
}

const MOVED: u16 = 1;
const UNACKED: u16 = 2;
const BLOCKED: u16 = 4;
const CLOSED: u16 = 8;
/// A request to probe.
const PROBE: u16 = 16;
/// A request to ping the client.
const PING: u16 = 32;
/// A ping is written, and nothing has come from the client since.
const PINGED: u16 = 64;
const UNREAD: u16 = 128;
/// A request to be parked.
const PARK: u16 = 256;
const DELAYED: u16 = 512;
const HOST_SILENT: u16 = 1024;
/// The number of the command, from 1; 0 is none.
const COMMAND: u16 = 0xf800;
/// The number of every command fits.
const _: () = assert!(Command::LENGTH < 1 << COMMAND.count_ones());

/// How long a host that owes an acknowledgement must have sent none, so that it counts as silent. This is so much
/// longer than the time between two probes of a ghost search that no acknowledgement falls between two probes unseen.
pub(super) const SILENCE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    /// A handle and the counts of its `Arc` take 80 bytes, which is a size class of allocators.
    #[test]
    fn it_is_small() {
        assert!(size_of::<ConnHandle>() <= 64, "{}", size_of::<ConnHandle>());
    }

    #[test]
    fn the_first_command_counts_until_the_connection_is_cut() {
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
    fn one_flag_leaves_the_others_alone() {
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
