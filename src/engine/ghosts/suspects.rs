//! Decides which of a client's old connections is dead, and closes it so that a waiting new connection gets its slot. A
//! state machine that counts looks.

use crate::relay::handle::PingDelivery;

/// An old connection, as a search sees and commands it.
pub(crate) trait Suspect {
    /// Its signs of life now.
    fn signs(&self) -> Signs;

    /// Makes its relay ask the kernel what the client's host has acknowledged.
    fn probe(&self);

    /// Closes it at once: its slot goes to the new connection.
    fn replace(&self);
}

/// The signs of life of a suspect; see the methods of [`ConnHandle`](crate::relay::handle::ConnHandle) of like names.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools)] // Each is a fact of its own.
pub(crate) struct Signs {
    pub(super) is_closed: bool,
    pub(super) activity: u16,
    pub(super) is_unread: bool,
    pub(super) delivery: PingDelivery,
    pub(super) has_probed: bool,
    pub(super) acked: u32,
    pub(super) is_host_silent: bool,
}

/// The state of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing so far.
    NotYet,
    /// A slot should be free now.
    Slot,
    /// All suspects are alive, or the time is up.
    Nothing,
}

/// The suspects of one search.
#[derive(Debug)]
pub(crate) struct SuspectList<S> {
    suspects: Vec<Watched<S>>,
    /// One of the suspects has ended, and its slot is about to be free.
    has_ended: bool,
    looks_left: u32,
}

/// One suspect, and what was seen of it.
#[derive(Debug)]
struct Watched<S> {
    suspect: S,
    /// [`Signs::activity`] before it was pinged.
    activity: u16,
    /// Its relay was asked to probe.
    is_probed: bool,
    /// [`Signs::acked`] at the first probe after the ping. The ping alone proves nothing: if the server sends all the
    /// time, there are always bytes in flight, the ping among them.
    acked: Option<u32>,
    /// Looks in a row that found its host silent.
    silent_looks: u32,
}

impl<S: Suspect> SuspectList<S> {
    /// A search among these suspects, each of which has been pinged, with its [`Signs::activity`] before the ping.
    pub(super) fn new(pinged: impl IntoIterator<Item = (S, u16)>) -> Self {
        let watched = |(suspect, activity)| Watched {
            suspect,
            activity,
            is_probed: false,
            acked: None,
            silent_looks: 0,
        };
        Self {
            suspects: pinged.into_iter().map(watched).collect(),
            has_ended: false,
            looks_left: LOOKS,
        }
    }

    /// Looks at the suspects once more.
    pub(super) fn look(&mut self) -> Found {
        self.looks_left = self.looks_left.saturating_sub(1);
        let before = self.suspects.len();
        self.suspects.retain(|watched| !watched.suspect.signs().is_closed);
        if self.suspects.len() < before {
            self.has_ended = true;
            return Found::Slot;
        }
        if self.looks_left == 0 || self.suspects.is_empty() && !self.has_ended {
            return Found::Nothing;
        }
        if self.has_ended {
            return Found::Slot;
        }
        self.suspects.retain_mut(|watched| !watched.is_there());
        // One slot is enough; the suspect that has been silent longest is the most likely to be dead.
        let surest = self.suspects.iter().max_by_key(|watched| watched.silent_looks);
        if let Some(ghost) = surest.filter(|watched| watched.silent_looks >= UNANSWERED) {
            ghost.suspect.replace();
        }
        Found::NotYet
    }
}

impl<S: Suspect> Watched<S> {
    /// Whether the suspect has shown a sign of life since it was pinged. It also makes the suspect's relay probe for
    /// the next look.
    fn is_there(&mut self) -> bool {
        let signs = self.suspect.signs();
        if signs.activity != self.activity || signs.is_unread || signs.delivery == PingDelivery::Acknowledged {
            return true;
        }
        // Nothing is known before the ping is written and the relay has probed.
        if self.is_probed && signs.has_probed {
            if *self.acked.get_or_insert(signs.acked) != signs.acked {
                return true;
            }
            self.silent_looks = if signs.is_host_silent { self.silent_looks + 1 } else { 0 };
        }
        if signs.delivery == PingDelivery::InFlight {
            self.is_probed = true;
            self.suspect.probe();
        }
        false
    }
}

/// A new connection waits for at most this many looks: 1.5 s.
const LOOKS: u32 = 30;
/// A host counts as dead after this many silent looks: 1.2 s. A live host acknowledges within a round trip; a lost
/// packet is sent again after 200 ms, and once more after 400.
const UNANSWERED: u32 = 24;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// An old connection whose signs of life the test sets.
    struct Host {
        signs: Cell<Signs>,
        probes: Cell<u32>,
        is_replaced: Cell<bool>,
    }

    impl Suspect for &Host {
        fn signs(&self) -> Signs {
            self.signs.get()
        }

        fn probe(&self) {
            self.probes.set(self.probes.get() + 1);
        }

        fn replace(&self) {
            self.is_replaced.set(true);
        }
    }

    impl Host {
        /// A host that was pinged and shows no sign of life.
        fn dead() -> Self {
            Self {
                signs: Cell::new(Signs {
                    is_closed: false,
                    activity: 7,
                    is_unread: false,
                    delivery: PingDelivery::InFlight,
                    has_probed: true,
                    acked: 1000,
                    is_host_silent: true,
                }),
                probes: Cell::new(0),
                is_replaced: Cell::new(false),
            }
        }

        fn now(&self, change: impl FnOnce(&mut Signs)) {
            let mut signs = self.signs.get();
            change(&mut signs);
            self.signs.set(signs);
        }
    }

    fn search<'h>(hosts: impl IntoIterator<Item = &'h Host>) -> SuspectList<&'h Host> {
        SuspectList::new(hosts.into_iter().map(|host| (host, 7)))
    }

    /// The number of looks that find nothing yet, and what the next look finds.
    fn looks(search: &mut SuspectList<&Host>) -> (u32, Found) {
        let mut looks = 0;
        loop {
            match search.look() {
                Found::NotYet => looks += 1,
                found => return (looks, found),
            }
        }
    }

    #[test]
    fn a_host_that_is_silent_for_24_looks_loses_its_slot() {
        let host = Host::dead();
        let mut search = search([&host]);
        // The first look only makes the relay probe.
        for _ in 0..UNANSWERED {
            assert_eq!((search.look(), host.is_replaced.get()), (Found::NotYet, false));
        }
        assert_eq!((search.look(), host.is_replaced.get()), (Found::NotYet, true));
        assert_eq!(host.probes.get(), UNANSWERED + 1, "it was probed at each look");
        host.now(|signs| signs.is_closed = true);
        assert_eq!(search.look(), Found::Slot);
        assert_eq!(
            search.look(),
            Found::Slot,
            "until the newcomer has it, or the time is up"
        );
        search.looks_left = 1;
        assert_eq!(search.look(), Found::Nothing);
    }

    #[test]
    fn any_sign_of_life_keeps_the_slot() {
        type Show = fn(&mut Signs);
        let signs: [(&str, Show); 4] = [
            ("the client says something", |signs| signs.activity += 1),
            ("its host acknowledges the ping", |signs| {
                signs.delivery = PingDelivery::Acknowledged;
            }),
            ("its host acknowledges anything", |signs| signs.acked += 1),
            ("it is not read, so it can't be heard", |signs| signs.is_unread = true),
        ];
        for (sign, show) in signs {
            let host = Host::dead();
            let mut search = search([&host]);
            for _ in 0..UNANSWERED - 1 {
                assert_eq!(search.look(), Found::NotYet);
            }
            host.now(show);
            assert_eq!(looks(&mut search), (1, Found::Nothing), "{sign}");
            assert!(!host.is_replaced.get(), "{sign}");
        }
    }

    #[test]
    fn a_pause_in_the_silence_begins_it_anew() {
        let host = Host::dead();
        let mut search = search([&host]);
        for _ in 0..10 {
            search.look();
        }
        host.now(|signs| signs.is_host_silent = false);
        search.look();
        host.now(|signs| signs.is_host_silent = true);
        assert_eq!(looks(&mut search), (LOOKS - 12, Found::Nothing));
        assert!(!host.is_replaced.get(), "the rest of the time is too short");
    }

    #[test]
    fn nothing_counts_before_the_ping_is_written_or_while_the_relay_does_not_probe() {
        let hinders: [fn(&mut Signs); 2] = [
            |signs| signs.delivery = PingDelivery::None,
            |signs| signs.has_probed = false,
        ];
        for hinder in hinders {
            let host = Host::dead();
            host.now(hinder);
            assert_eq!(looks(&mut search([&host])), (LOOKS - 1, Found::Nothing));
            assert!(!host.is_replaced.get());
        }
    }

    #[test]
    fn one_slot_is_enough_and_the_longest_silence_is_the_surest() {
        let (early, late) = (Host::dead(), Host::dead());
        late.now(|signs| signs.is_host_silent = false);
        let mut search = search([&late, &early]);
        for _ in 0..3 {
            search.look();
        }
        late.now(|signs| signs.is_host_silent = true);
        while !early.is_replaced.get() {
            assert_eq!(search.look(), Found::NotYet);
        }
        early.now(|signs| signs.is_closed = true);
        while search.look() == Found::Slot {}
        assert!(!late.is_replaced.get());
    }

    #[test]
    fn a_connection_that_ends_by_itself_leaves_its_slot_too() {
        let (ends, stays) = (Host::dead(), Host::dead());
        let mut search = search([&ends, &stays]);
        search.look();
        ends.now(|signs| signs.is_closed = true);
        assert_eq!(search.look(), Found::Slot);
        assert!(!ends.is_replaced.get() && !stays.is_replaced.get());
    }
}
