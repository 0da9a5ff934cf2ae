//! The facts about an identified client from which hints follow.

use crate::limit::key::ClientKey;

/// How forwarding headers were treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// The headers were read.
    Read,
    /// A trusted hop sent no such header.
    Missing,
    /// A hop that is not trusted sent such headers. They were ignored.
    Ignored,
    /// No such header was sent, and none was expected.
    None,
}

/// A client as it was identified.
#[derive(Clone, Copy, Debug)]
pub struct Identified {
    /// How the client's forwarding headers were treated.
    pub forwarded: Forwarded,
    /// Whether the client's hop is on this machine or in a private network.
    pub is_local: bool,
    /// The client key.
    pub key: ClientKey,
    /// Whether the client was admitted.
    pub is_admitted: bool,
}
