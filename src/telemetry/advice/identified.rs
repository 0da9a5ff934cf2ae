//! The facts about an identified client that hints follow from.

use crate::limit::key::ClientKey;

/// How forwarding headers were treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// They were read.
    Read,
    /// A trusted hop sent none.
    Missing,
    /// Sent by a hop that is not trusted, and ignored.
    Ignored,
    /// None were sent, and none expected.
    None,
}

/// A client as it was identified.
#[derive(Clone, Copy, Debug)]
pub struct Identified {
    /// How its forwarding headers were treated.
    pub forwarded: Forwarded,
    /// Its hop is on this machine or in a private network.
    pub is_local: bool,
    /// Its client key.
    pub key: ClientKey,
    /// It was admitted.
    pub is_admitted: bool,
}
