//! Under a flood, equal lines become one: how many there were, and who sent the most.

use std::collections::BTreeMap;
use std::time::Instant;

use parking_lot::Mutex;

use crate::config::policy::LogLevel;
use crate::limit::key::ClientKey;
use crate::limit::rules::Rate;

use super::reason::{CloseReason, Reason};

/// What makes two lines equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// No permit was given.
    Rejected(Reason),
    /// A permit, but no tunnel.
    Failed(Reason),
    /// A tunnel, though this limit said no.
    Observed(Reason),
    /// A tunnel that ended.
    Closed(CloseReason),
}

/// Decides which lines are written, and sums the others.
#[derive(Debug)]
pub(super) struct Sampler {
    windows: Mutex<BTreeMap<Class, Window>>,
    since: Mutex<Instant>,
}

/// What a second's equal lines came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) class: Class,
    lines: u64,
    seconds: u64,
    top: Option<(ClientKey, u64)>,
}

#[derive(Debug, Default)]
struct Window {
    lines: u64,
    left_out: u64,
    /// The busiest keys, by the space-saving algorithm: the count of the least one is inherited by whoever replaces it.
    top: Vec<(ClientKey, u64)>,
}

impl Class {
    /// The line's `event`.
    pub fn event(self) -> &'static str {
        match self {
            Self::Rejected(_) => "rejected",
            Self::Failed(_) => "failed",
            Self::Observed(_) => "observed",
            Self::Closed(_) => "closed",
        }
    }

    /// The line's `reason`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Rejected(reason) | Self::Failed(reason) | Self::Observed(reason) => reason.word(),
            Self::Closed(reason) => reason.word(),
        }
    }

    /// The line's level: a panic and a server that fails are to be looked at, a refusal is the daily work.
    pub fn level(self) -> LogLevel {
        match self {
            Self::Rejected(Reason::Panic) | Self::Failed(Reason::Panic) | Self::Closed(CloseReason::Panic) => {
                LogLevel::Error
            }
            Self::Failed(reason) if reason != Reason::ClientGone => LogLevel::Warn,
            _ => LogLevel::Info,
        }
    }

    /// Whether `access = "rejected"` writes it.
    pub fn is_refusal(self) -> bool {
        !matches!(self, Self::Closed(_))
    }

    fn plural(self) -> &'static str {
        match self {
            Self::Rejected(_) => "refusals",
            Self::Failed(_) => "failed handshakes",
            Self::Observed(_) => "admissions over a limit",
            Self::Closed(_) => "closes",
        }
    }
}

impl Sampler {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            windows: Mutex::default(),
            since: Mutex::new(now),
        }
    }

    /// Whether this line is written, where equal ones may come at `rate`.
    pub(super) fn passes(&self, class: Class, key: Option<ClientKey>, rate: Option<Rate>) -> bool {
        let Some(rate) = rate else { return true };
        let mut windows = self.windows.lock();
        let window = windows.entry(class).or_default();
        window.lines += 1;
        if let Some(key) = key {
            window.note(key);
        }
        let passes = window.lines <= a_second(rate);
        window.left_out += u64::from(!passes);
        passes
    }

    /// Begins a new window, and says what the last one left out.
    pub(super) fn sums(&self, now: Instant) -> Vec<Sum> {
        let since = std::mem::replace(&mut *self.since.lock(), now);
        let seconds = now.saturating_duration_since(since).as_secs().max(1);
        let windows = std::mem::take(&mut *self.windows.lock());
        windows
            .into_iter()
            .filter(|(_, window)| window.left_out > 0)
            .map(|(class, window)| Sum {
                class,
                lines: window.lines,
                seconds,
                top: window.top.into_iter().max_by_key(|(_, count)| *count),
            })
            .collect()
    }
}

impl Window {
    fn note(&mut self, key: ClientKey) {
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
    /// `12 345 refusals in 1 s: per_ip, top client 203.0.113.7 with 12 300`.
    pub(super) fn text(&self) -> String {
        let what = format!(
            "{} {} in {} s: {}",
            grouped(self.lines),
            self.class.plural(),
            self.seconds,
            self.class.reason()
        );
        match self.top {
            Some((key, count)) => format!("{what}, top client {key} with {}", grouped(count)),
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

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// Keys that are watched for the busiest: one that sends more than a sixteenth of the lines is always among them.
const TOP: usize = 16;

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;
    use crate::limit::key::Prefixes;

    fn key(last: u8) -> ClientKey {
        ClientKey::of(IpAddr::from([203, 0, 113, last]), Prefixes::default())
    }

    #[test]
    fn a_flood_becomes_one_line_that_names_the_busiest() {
        let ten = NonZeroU32::new(10).expect("ten");
        let t0 = Instant::now();
        let rate = Some(Rate {
            tokens: ten,
            per: Duration::from_secs(1),
            burst: ten,
        });
        let sampler = Sampler::new(t0);
        let class = Class::Rejected(Reason::PerIp);
        let passed = (0..12_345)
            .filter(|n| sampler.passes(class, Some(key(if n % 100 == 0 { 1 } else { 7 })), rate))
            .count();
        assert_eq!(passed, 10);
        let sums = sampler.sums(t0 + Duration::from_secs(1));
        let text: Vec<String> = sums.iter().map(Sum::text).collect();
        assert_eq!(
            text,
            ["12 345 refusals in 1 s: per_ip, top client 203.0.113.7 with 12 221"]
        );
        assert!(sampler.passes(class, None, rate), "the next second begins anew");
        assert_eq!(sampler.sums(t0 + Duration::from_secs(2)), []);
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(grouped),
            ["0", "999", "1 000", "1 234 567"]
        );
    }
}
