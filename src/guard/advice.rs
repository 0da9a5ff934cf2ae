//! What operators should look at: found while serving, and told in /stats and, once a minute, in the log.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Something that surely isn't meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Clients are refused by the address of a proxy that nobody told us to trust.
    TrustNobody,
    /// A trusted proxy does not say who its client is.
    NoForwarding,
}

/// The hints given so far.
#[derive(Debug)]
pub struct Advice {
    began: Instant,
    /// When each was last logged, in seconds since `began`, plus one: 0 is never.
    told: [AtomicU64; Hint::ALL.len()],
}

impl Hint {
    const ALL: [Self; 2] = [Self::TrustNobody, Self::NoForwarding];

    /// The hint in words.
    pub fn text(self) -> &'static str {
        match self {
            Self::TrustNobody => "every client looks like 127.0.0.1: set [client_ip] trusted_proxies",
            Self::NoForwarding => {
                "a trusted proxy sends no forwarding header, so its clients share its address: \
                 have it set X-Forwarded-For, or take it out of [client_ip] trusted_proxies"
            }
        }
    }
}

impl Advice {
    /// Nothing is to be said yet. By a clock that never jumps: one that is set back must not silence a hint.
    pub fn begin(now: Instant) -> Self {
        Self {
            began: now,
            told: Default::default(),
        }
    }

    /// Remembers a hint; says whether it is time to log it again.
    pub fn give(&self, hint: Hint, now: Instant) -> bool {
        let now = now.saturating_duration_since(self.began).as_secs() + 1;
        let told = &self.told[hint as usize];
        let last = told.load(Relaxed);
        let is_due = last == 0 || now.saturating_sub(last) >= EVERY.as_secs();
        is_due && told.compare_exchange(last, now, Relaxed, Relaxed).is_ok()
    }

    /// Every hint that was given.
    pub fn given(&self) -> Vec<&'static str> {
        Hint::ALL
            .into_iter()
            .filter(|hint| self.told[*hint as usize].load(Relaxed) != 0)
            .map(Hint::text)
            .collect()
    }
}

const EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_logged_once_a_minute_and_stays_in_the_list() {
        let t0 = Instant::now();
        let advice = Advice::begin(t0);
        assert!(advice.given().is_empty());
        let due = [0, 1, 59, 60, 61].map(|s| advice.give(Hint::TrustNobody, t0 + Duration::from_secs(s)));
        assert_eq!(due, [true, false, false, true, false]);
        assert_eq!(advice.given(), [Hint::TrustNobody.text()]);
    }
}
