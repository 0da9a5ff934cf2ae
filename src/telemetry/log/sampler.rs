//! Under a flood, equal lines become one: how many there were, and who sent the most.
//!
//! Every second begins anew: the first lines are written up to the rate, whatever they are about. Beyond it only the first
//! line of each client is written, up to as many again, and the first of each class. The rest is summed by class.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::limit::key::ClientKey;
use crate::limit::rules::Rate;
use crate::telemetry::class::Class;

/// Decides which lines are written, and sums the others.
#[derive(Debug)]
pub(crate) struct Sampler(Mutex<Second>);

/// What a second's equal lines came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) class: Class,
    /// All of them, those that were written included.
    pub(crate) lines: u64,
    /// Those that were not written.
    pub(crate) left_out: u64,
    /// Their zone, if they have one in common.
    pub(crate) zone: Option<Arc<str>>,
    pub(crate) top: Option<(ClientKey, u64)>,
    seconds: u64,
}

/// The lines since the last sums.
#[derive(Debug)]
struct Second {
    begun: Instant,
    windows: BTreeMap<Class, Window>,
    /// Lines that were written within the rate.
    written: u64,
    /// Lines that were written beyond it, as the first of their clients.
    firsts: u64,
    /// Whose lines were written.
    known: HashSet<ClientKey>,
}

#[derive(Debug)]
struct Window {
    lines: u64,
    left_out: u64,
    /// The zone of the first one; `None` once another was seen.
    zone: Option<Arc<str>>,
    /// The busiest keys, by the space-saving algorithm: the count of the least one is inherited by whoever replaces it.
    top: Vec<(ClientKey, u64)>,
}

impl Sampler {
    pub(crate) fn new(now: Instant) -> Self {
        Self(Mutex::new(Second::begin(now)))
    }

    /// Whether this line is written, where lines may come at `rate`.
    pub(crate) fn passes(
        &self,
        class: Class,
        key: Option<ClientKey>,
        zone: Option<&Arc<str>>,
        rate: Option<Rate>,
    ) -> bool {
        rate.is_none_or(|rate| self.0.lock().passes(class, key, zone, a_second(rate)))
    }

    /// Begins a new second, and says what the last one left out.
    pub(crate) fn sums(&self, now: Instant) -> Vec<Sum> {
        let over = std::mem::replace(&mut *self.0.lock(), Second::begin(now));
        let seconds = now.saturating_duration_since(over.begun).as_secs().max(1);
        over.windows
            .into_iter()
            .filter(|(_, window)| window.left_out > 0)
            .map(|(class, window)| Sum {
                class,
                lines: window.lines,
                left_out: window.left_out,
                zone: window.zone,
                top: window.top.into_iter().max_by_key(|(_, count)| *count),
                seconds,
            })
            .collect()
    }
}

impl Second {
    fn begin(now: Instant) -> Self {
        Self {
            begun: now,
            windows: BTreeMap::new(),
            written: 0,
            firsts: 0,
            known: HashSet::new(),
        }
    }

    fn passes(&mut self, class: Class, key: Option<ClientKey>, zone: Option<&Arc<str>>, rate: u64) -> bool {
        let window = self.windows.entry(class).or_insert_with(|| Window::begin(zone));
        window.note(key, zone);
        let is_within = self.written < rate;
        let is_first = key.is_some_and(|key| {
            let has_room = is_within || self.firsts < rate.min(MOST_FIRSTS);
            has_room && self.known.len() < MOST_KNOWN && self.known.insert(key)
        });
        if is_within {
            self.written += 1;
        } else if is_first {
            self.firsts += 1;
        } else if window.lines > 1 {
            window.left_out += 1;
            return false;
        }
        true
    }
}

impl Window {
    fn begin(zone: Option<&Arc<str>>) -> Self {
        Self {
            lines: 0,
            left_out: 0,
            zone: zone.cloned(),
            top: Vec::new(),
        }
    }

    fn note(&mut self, key: Option<ClientKey>, zone: Option<&Arc<str>>) {
        self.lines += 1;
        if self.zone.as_ref() != zone {
            self.zone = None;
        }
        let Some(key) = key else { return };
        if let Some((_, count)) = self.top.iter_mut().find(|(known, _)| *known == key) {
            *count += 1;
        } else if self.top.len() < TOP {
            self.top.push((key, 1));
        } else if let Some(least) = self.top.iter_mut().min_by_key(|(_, count)| *count) {
            *least = (key, least.1 + 1);
        }
    }
}

impl Sum {
    /// `12345 refusals in 1 s: per_ip, top client 203.0.113.7 with 12300`.
    pub(crate) fn text(&self) -> String {
        let what = format!(
            "{} {} in {} s: {}",
            self.lines,
            self.class.plural(),
            self.seconds,
            self.class.reason()
        );
        match self.top {
            Some((key, count)) => format!("{what}, top client {key} with {count}"),
            None => what,
        }
    }
}

fn a_second(rate: Rate) -> u64 {
    let per = rate.per.as_millis().max(1);
    u64::try_from(u128::from(rate.tokens.get()) * 1000 / per)
        .unwrap_or(u64::MAX)
        .max(1)
}

/// Keys that are watched for the busiest: one that sends more than a sixteenth of the lines is always among them.
const TOP: usize = 16;
/// Clients whose first line is written beyond the rate, at whatever rate.
const MOST_FIRSTS: u64 = 1024;
/// Clients that are known to have had a line.
const MOST_KNOWN: usize = 4096;

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;
    use crate::limit::key::Prefixes;
    use crate::reason::close::CloseReason;
    use crate::reason::reject::RejectReason;

    fn key(last: u8) -> ClientKey {
        ClientKey::of(IpAddr::from([203, 0, 113, last]), Prefixes::default())
    }

    fn rate(tokens: u32, seconds: u64) -> Rate {
        let tokens = NonZeroU32::new(tokens).expect("more than none");
        Rate {
            tokens,
            per: Duration::from_secs(seconds),
            burst: tokens,
        }
    }

    fn second(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    const PER_IP: Class = Class::Rejected(RejectReason::PerIp);

    #[test]
    fn a_flood_becomes_one_line_that_names_the_busiest() {
        let t0 = Instant::now();
        let sampler = Sampler::new(t0);
        let zone: Arc<str> = "games".into();
        let passed = (0..12_345)
            .filter(|n| {
                let key = key(if n % 100 == 99 { 1 } else { 7 });
                sampler.passes(PER_IP, Some(key), Some(&zone), Some(rate(10, 1)))
            })
            .count();
        assert_eq!(passed, 11, "up to the rate, and the first of the other one");
        let sums = sampler.sums(t0 + second(1));
        assert_eq!(
            sums,
            [Sum {
                class: PER_IP,
                lines: 12_345,
                left_out: 12_334,
                zone: Some(zone),
                top: Some((key(7), 12_222)),
                seconds: 1
            }]
        );
        assert_eq!(
            sums[0].text(),
            "12345 refusals in 1 s: per_ip, top client 203.0.113.7 with 12222"
        );
        assert!(
            sampler.passes(PER_IP, None, None, Some(rate(10, 1))),
            "the next second begins anew"
        );
        assert_eq!(sampler.sums(t0 + second(2)), []);
    }

    #[test]
    fn the_first_line_of_each_client_in_a_second_is_written_however_many_others_come_before() {
        let t0 = Instant::now();
        let sampler = Sampler::new(t0);
        for n in 0..3 {
            for _ in 0..2000 {
                sampler.passes(PER_IP, Some(key(7)), None, Some(rate(10, 1)));
            }
            let honest: Vec<bool> = (0..3)
                .map(|_| sampler.passes(PER_IP, Some(key(1)), None, Some(rate(10, 1))))
                .collect();
            assert_eq!(honest, [true, false, false], "second {n}");
            sampler.sums(t0 + second(n + 1));
        }
    }

    #[test]
    fn of_a_flood_from_everywhere_twice_the_rate_is_written() {
        let sampler = Sampler::new(Instant::now());
        let addresses = (0..100_000_u32).map(|n| ClientKey::of(IpAddr::V4(n.into()), Prefixes::default()));
        let passed = addresses.filter(|key| sampler.passes(PER_IP, Some(*key), None, Some(rate(100, 1))));
        assert_eq!(passed.count(), 200);
    }

    #[test]
    fn lines_of_all_reasons_together_have_one_rate_and_each_reason_is_heard_of() {
        let t0 = Instant::now();
        let sampler = Sampler::new(t0);
        let classes: Vec<Class> = RejectReason::ALL
            .into_iter()
            .flat_map(|reason| [Class::Rejected(reason), Class::Failed(reason), Class::Observed(reason)])
            .chain(CloseReason::ALL.into_iter().map(Class::Closed))
            .collect();
        let mut heard = std::collections::BTreeSet::new();
        let mut written = 0;
        for _ in 0..1000 {
            for class in &classes {
                if sampler.passes(*class, Some(key(7)), None, Some(rate(10, 1))) {
                    written += 1;
                    heard.insert(*class);
                }
            }
        }
        assert_eq!(heard.len(), classes.len());
        assert!(written <= 10 + classes.len(), "{written}");
        let sums = sampler.sums(t0 + second(1));
        let left_out: u64 = sums.iter().map(|sum| sum.left_out).sum();
        assert_eq!(
            left_out + u64::try_from(written).expect("few"),
            1000 * classes.len() as u64
        );
    }

    #[test]
    fn below_the_rate_nothing_is_left_out_whoever_sends_it() {
        let t0 = Instant::now();
        let sampler = Sampler::new(t0);
        assert!((0..100).all(|_| sampler.passes(PER_IP, Some(key(7)), None, Some(rate(100, 1)))));
        assert_eq!(sampler.sums(t0 + second(1)), []);
        let slow = (0..20).filter(|_| sampler.passes(PER_IP, Some(key(7)), None, Some(rate(300, 60))));
        assert_eq!(slow.count(), 5, "300 a minute are five a second");
        assert!((0..1000).all(|_| sampler.passes(PER_IP, Some(key(7)), None, None)));
    }

    #[test]
    fn a_sum_of_several_zones_names_none() {
        let t0 = Instant::now();
        let sampler = Sampler::new(t0);
        let [one, other]: [Arc<str>; 2] = ["one".into(), "other".into()];
        for zone in [&one, &other, &one] {
            sampler.passes(PER_IP, Some(key(7)), Some(zone), Some(rate(1, 1)));
        }
        assert_eq!(sampler.sums(t0 + second(1))[0].zone, None);
    }
}
