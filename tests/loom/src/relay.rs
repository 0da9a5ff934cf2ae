//! What a relay does with its handle, for the models: those methods are the relay's alone.

use std::task::Waker;

#[allow(dead_code)] // The models need not all that a relay does.
#[path = "../../../src/relay/handle.rs"]
pub mod handle;
#[allow(dead_code)] // The models move no bytes.
#[path = "../../../src/relay/traffic.rs"]
pub mod traffic;

use handle::{Command, ConnHandle};

/// A relay names the waker of its task, or of the set of parked connections.
pub fn set_waker(handle: &ConnHandle, waker: &Waker) {
    handle.set_waker(waker);
}

/// Whether there is a request that the relay has not taken.
pub fn has_request(handle: &ConnHandle) -> bool {
    handle.has_request()
}

/// What a relay does with its requests in one poll: whether it was to probe and to ping, and the command.
pub fn take_requests(handle: &ConnHandle) -> (bool, bool, Option<Command>) {
    let command = handle.command();
    (handle.take_probe(), handle.take_ping(), command)
}

/// Whether the relay parks, as it was to.
pub fn take_park(handle: &ConnHandle) -> bool {
    handle.wants_park() && handle.take_park()
}

/// A relay writes a ping.
pub fn write_ping(handle: &ConnHandle) {
    handle.mark_unacked();
    handle.mark_pinged();
}

/// A relay finds that the client's host has acknowledged so many bytes, and whether some are left.
pub fn record_acked(handle: &ConnHandle, acked: u64, has_unacked: bool) {
    handle.record_acked(acked, has_unacked);
}

/// Something came from the client.
pub fn mark_client_activity(handle: &ConnHandle) {
    handle.mark_client_activity();
}

/// The relay ends.
pub fn mark_closed(handle: &ConnHandle) {
    handle.mark_closed();
}
