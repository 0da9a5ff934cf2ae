//! The last minute, second by second. The page's charts are drawn from it.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use super::numbers::{Numbers, Traffic};

/// The seconds of the last minute, at most [`SECONDS`].
#[derive(Debug, Default)]
pub(crate) struct Minute {
    before: Option<Numbers>,
    seconds: VecDeque<Second>,
}

/// The numbers of one second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Second {
    /// Connections that are open at the end of the second, and whose clients have sent something.
    pub speaking: u64,
    /// Connections that are open at the end of the second, and whose clients have sent nothing.
    pub silent: u64,
    /// Sockets that are still pending at the end of the second.
    pub pending: u64,
    /// Connections that the guard refused or ended within the second, by reason.
    pub turned_away: BTreeMap<&'static str, u64>,
    /// Messages within the second.
    pub messages: Traffic,
}

impl Minute {
    /// Records that a second is over. `now` has the guard's numbers at its end.
    pub(crate) fn note(&mut self, now: Numbers) {
        if let Some(before) = self.before.as_ref() {
            if self.seconds.len() == SECONDS {
                self.seconds.pop_front();
            }
            self.seconds.push_back(Second::between(before, &now));
        }
        self.before = Some(now);
    }

    /// All recorded seconds, the oldest first.
    pub(crate) fn seconds(&self) -> Vec<Second> {
        self.seconds.iter().cloned().collect()
    }
}

impl Second {
    fn between(before: &Numbers, now: &Numbers) -> Self {
        // No word but `panic` is both a reason to refuse and a reason to end.
        let turned_away = news(&before.reasons, &now.reasons)
            .chain(news(&before.ended, &now.ended))
            .collect();
        Self {
            speaking: now.connections.open.saturating_sub(now.silent),
            silent: now.silent,
            pending: now.pending,
            turned_away,
            messages: Traffic {
                inwards: now.messages.inwards.saturating_sub(before.messages.inwards),
                outwards: now.messages.outwards.saturating_sub(before.messages.outwards),
            },
        }
    }
}

fn news<'n>(
    before: &'n BTreeMap<&'static str, u64>,
    now: &'n BTreeMap<&'static str, u64>,
) -> impl Iterator<Item = (&'static str, u64)> + 'n {
    now.iter().filter_map(|(reason, total)| {
        let more = total.saturating_sub(before.get(reason).copied().unwrap_or(0));
        (more > 0).then_some((*reason, more))
    })
}

/// The most seconds that are kept: as many as the charts show.
pub(crate) const SECONDS: usize = 60;

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::super::numbers::Share;
    use super::*;

    fn numbers(open: u64, refused: u64, ghosts: u64) -> Numbers {
        Numbers {
            connections: Share { open, limit: 100 },
            silent: 2,
            pending: 3,
            reasons: BTreeMap::from([("per_ip", refused)]),
            ended: BTreeMap::from([("ghost", ghosts)]),
            messages: Traffic {
                inwards: refused,
                outwards: 0,
            },
            ..Numbers::default()
        }
    }

    #[test]
    fn a_second_has_the_open_connections_and_those_turned_away_within_it() {
        let mut minute = Minute::default();
        minute.note(numbers(5, 7, 0));
        assert!(minute.seconds().is_empty(), "totals alone say nothing about a second");
        minute.note(numbers(6, 10, 1));
        minute.note(numbers(6, 10, 1));
        let seconds = minute.seconds();
        assert_eq!(
            seconds[0],
            Second {
                speaking: 4,
                silent: 2,
                pending: 3,
                turned_away: BTreeMap::from([("ghost", 1), ("per_ip", 3)]),
                messages: Traffic {
                    inwards: 3,
                    outwards: 0
                },
            }
        );
        assert!(seconds[1].turned_away.is_empty());
    }

    #[test]
    fn only_the_last_minute_is_kept() {
        let mut minute = Minute::default();
        for n in 0..=100 {
            minute.note(numbers(n, 0, 0));
        }
        let seconds = minute.seconds();
        assert_eq!(seconds.len(), SECONDS);
        assert_eq!(seconds.last().unwrap().speaking, 98);
    }
}
