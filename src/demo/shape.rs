//! The shapes of a flood.

use std::net::Ipv4Addr;

/// The shapes of real floods of chat servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Twelve connections from one address, opened within 800 ms, which then stay.
    Burst,
    /// Many addresses with two sockets each. One socket connects and sends nothing. The other one is upgraded and then sends
    /// nothing, not even a pong.
    Silent,
    /// One address that dials, is admitted, closes and dials again.
    Dialler,
    /// One address that sends far too many messages and comes back after each close. At the end it sends a message that is
    /// far too long.
    Talker,
    /// One address that sends the same message at a steady pace, within the limit.
    Metronome,
}

impl Shape {
    /// All shapes, in the order of declaration.
    pub(super) const ALL: [Self; 5] = [Self::Burst, Self::Silent, Self::Dialler, Self::Talker, Self::Metronome];

    /// The word for the shape in the page's JSON.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Burst => "burst",
            Self::Silent => "silent",
            Self::Dialler => "dialler",
            Self::Talker => "talker",
            Self::Metronome => "metronome",
        }
    }

    /// The tasks of the shape, each with its address and its number. No task has the page's own address.
    pub(super) fn sockets(self) -> impl Iterator<Item = (Self, Ipv4Addr, u8)> {
        let tasks = match self {
            Self::Burst => BURST,
            Self::Silent => SILENT,
            Self::Dialler | Self::Talker | Self::Metronome => 1,
        };
        (0..tasks).map(move |nth| {
            let from = match self {
                Self::Burst => Ipv4Addr::new(127, 0, 0, 2),
                Self::Silent => Ipv4Addr::new(127, 0, 1, nth + 1),
                Self::Dialler => Ipv4Addr::new(127, 0, 0, 3),
                Self::Talker => Ipv4Addr::new(127, 0, 0, 4),
                Self::Metronome => Ipv4Addr::new(127, 0, 0, 5),
            };
            (self, from, nth)
        })
    }
}

/// The number of sockets of a burst.
pub(super) const BURST: u8 = 12;
/// The number of addresses with silent sockets. Each address has two sockets.
pub(super) const SILENT: u8 = 30;
