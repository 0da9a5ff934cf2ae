//! What a relay does with its handle, for the models. Outside of wsguard's relay these methods can't be called.

use std::task::Waker;

#[allow(dead_code)] // The models need not all that a relay does.
#[path = "../../../src/relay/handle.rs"]
pub mod handle;
#[allow(dead_code)] // The models move no bytes.
#[path = "../../../src/relay/traffic.rs"]
pub mod traffic;

use handle::{Command, ConnHandle};

/// Sets the waker of a relay's task, or of the set of parked connections.
pub fn set_waker(handle: &ConnHandle, waker: &Waker) {
    handle.set_waker(waker);
}

/// Whether there is a request that the relay has not taken.
pub fn has_request(handle: &ConnHandle) -> bool {
    handle.has_request()
}

/// Takes the requests as a relay does in one poll. Returns whether it was asked to probe and to ping, and the command.
pub fn take_requests(handle: &ConnHandle) -> (bool, bool, Option<Command>) {
    let command = handle.command();
    (handle.take_probe(), handle.take_ping(), command)
}

/// Whether the relay was asked to park. It parks then.
pub fn take_park(handle: &ConnHandle) -> bool {
    handle.wants_park() && handle.take_park()
}

/// Writes a ping, as a relay does.
pub fn write_ping(handle: &ConnHandle) {
    handle.mark_unacked();
    handle.mark_pinged();
}

/// Notes how many bytes the client's host has acknowledged, and whether more are unacknowledged.
pub fn record_acked(handle: &ConnHandle, acked: u64, has_unacked: bool) {
    handle.record_acked(acked, has_unacked);
}

/// Notes that something came from the client.
pub fn mark_client_activity(handle: &ConnHandle) {
    handle.mark_client_activity();
}

/// Notes that the relay has ended.
pub fn mark_closed(handle: &ConnHandle) {
    handle.mark_closed();
}
