//! The shapes of a flood.

use std::net::Ipv4Addr;

/// The shapes that floods of chat servers have in the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Twelve within 800 ms from one address, which then stay.
    Burst,
    /// Many addresses with two sockets each: one connects and sends nothing, the other one is upgraded and then sends
    /// nothing, not even a pong.
    Silent,
    /// One address that dials, is admitted, closes and dials again.
    Dialler,
    /// One address that sends far too many messages, comes back when it is closed, and in the end sends one far too long.
    Talker,
    /// One address that sends the same message at a steady pace, within the limit.
    Metronome,
}

impl Shape {
    /// All of them, in the order of declaration.
    pub(super) const ALL: [Self; 5] = [Self::Burst, Self::Silent, Self::Dialler, Self::Talker, Self::Metronome];

    /// The word for it, in the page's JSON.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Burst => "burst",
            Self::Silent => "silent",
            Self::Dialler => "dialler",
            Self::Talker => "talker",
            Self::Metronome => "metronome",
        }
    }

    /// Its tasks, each with its address and its number. No address is the page's own.
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

/// Sockets of a burst.
pub(super) const BURST: u8 = 12;
/// Addresses of silent sockets, each of which has two.
pub(super) const SILENT: u8 = 30;
