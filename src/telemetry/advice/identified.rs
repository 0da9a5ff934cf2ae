//! A client as the advice sees it.

use crate::limit::key::ClientKey;

/// What became of forwarding headers.
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
    /// What became of its forwarding headers.
    pub forwarded: Forwarded,
    /// Its hop is on this machine or in a private network.
    pub is_local: bool,
    /// Its client key.
    pub key: ClientKey,
    /// It was admitted.
    pub is_admitted: bool,
}
