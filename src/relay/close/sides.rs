//! The facts about both sides that decide how a connection ends.

/// The facts about both sides that decide how a connection ends.
#[allow(clippy::struct_excessive_bools)] // Facts, each of them independent of the others.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::relay) struct Sides {
    /// The client has ended, in order or not.
    pub(in crate::relay) client_ended: bool,
    /// The client has ended by a reset or an error, or can't be written to.
    pub(in crate::relay) client_died: bool,
    /// The server has ended, in order or not, or can't be written to.
    pub(in crate::relay) server_ended: bool,
    /// The server has ended by a reset or an error, or can't be written to.
    pub(in crate::relay) server_died: bool,
    /// Everything for the client has been written to its socket.
    pub(in crate::relay) is_all_sent_to_client: bool,
    /// Everything for the server has been written to its socket.
    pub(in crate::relay) is_all_sent_to_server: bool,
    /// Nothing more will be written in either direction.
    pub(in crate::relay) is_done: bool,
}

impl Sides {
    /// Whether nothing is left to wait for.
    pub(in crate::relay) fn are_over(self) -> bool {
        if self.client_died || self.server_died {
            self.client_died && self.server_died
        } else {
            self.is_done
        }
    }
}
