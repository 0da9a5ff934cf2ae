//! Random numbers that can't be guessed: nonces, payloads of pings, and times at which clients must not all come at once.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use siphasher::sip::SipHasher24;

/// A source of random numbers. It asks the operating system once; after that, a draw takes no lock and makes no system
/// call, and threads share the source by reference.
///
/// Each draw is `SipHash-2-4` of a counter, under a secret key of 128 bits. `SipHash` is a pseudorandom function (Aumasson
/// and Bernstein, "`SipHash`: a fast short-input PRF", 2012): draws that are known do not help to guess any other.
pub struct Random {
    prf: SipHasher24,
    drawn: AtomicU64,
}

impl Random {
    /// A source with a key from the operating system. Early at boot this waits until the system has enough entropy.
    /// Copies of the process's memory, such as clones of a virtual machine that runs, draw the same numbers.
    ///
    /// # Errors
    /// The operating system gives none.
    pub fn from_os() -> io::Result<Self> {
        let mut seed = [0; 16];
        getrandom::fill(&mut seed)?;
        Ok(Self::seeded(seed))
    }

    /// A source whose draws all follow from `seed`.
    pub fn seeded(seed: [u8; 16]) -> Self {
        Self {
            prf: SipHasher24::new_with_key(&seed),
            drawn: AtomicU64::new(0),
        }
    }

    /// Random bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        for part in bytes.chunks_mut(size_of::<u64>()) {
            part.copy_from_slice(&self.draw().to_le_bytes()[..part.len()]);
        }
        bytes
    }

    /// A number from 0 to `most`, both included. Each is as likely as any other, to one part in 2^64 / (`most` + 1).
    pub fn up_to(&self, most: u64) -> u64 {
        let scaled = u128::from(self.draw()) * (u128::from(most) + 1);
        u64::try_from(scaled >> 64).unwrap_or(most)
    }

    /// A time from zero to `most`, both included, in nanoseconds. More than 584 years count as 584 years.
    pub fn duration_up_to(&self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.up_to(most))
    }

    fn draw(&self) -> u64 {
        let count = self.drawn.fetch_add(1, Relaxed);
        self.prf.hash(&count.to_le_bytes())
    }
}

/// Without the key: values that hold a source may be printed.
impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Random").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    fn numbers(random: &Random, count: usize) -> Vec<u64> {
        (0..count).map(|_| random.up_to(u64::MAX)).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_draws_and_another_seed_gives_others() {
        let of = |seed| numbers(&Random::seeded([seed; 16]), 100);
        assert_eq!(of(1), of(1));
        let both: HashSet<u64> = [of(1), of(2)].concat().into_iter().collect();
        assert_eq!(both.len(), 200);
    }

    #[test]
    fn every_byte_of_the_seed_counts() {
        let first = |seed| numbers(&Random::seeded(seed), 1)[0];
        let flipped = (0..16).map(|at| {
            let mut seed = [7; 16];
            seed[at] ^= 1;
            first(seed)
        });
        let all: HashSet<u64> = flipped.chain([first([7; 16])]).collect();
        assert_eq!(all.len(), 17);
    }

    #[test]
    fn two_sources_of_the_operating_system_have_different_seeds() {
        let drawn = || numbers(&Random::from_os().expect("it has entropy"), 2);
        assert_ne!(drawn(), drawn());
    }

    #[test]
    fn no_two_threads_draw_the_same() {
        let random = Random::seeded([7; 16]);
        let drawn: Vec<Vec<u64>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| numbers(&random, 1000))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("it drew"))
                .collect()
        });
        let different: HashSet<u64> = drawn.concat().into_iter().collect();
        assert_eq!(different.len(), 4000);
    }

    #[test]
    fn numbers_are_spread_evenly_up_to_both_bounds() {
        let random = Random::seeded([7; 16]);
        let mut counts = [0; 11];
        for _ in 0..11_000 {
            counts[usize::try_from(random.up_to(10)).expect("it is small")] += 1;
        }
        // A number drawn a thousand times on average is off by 32 typically, and here by less than five times that.
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    #[test]
    fn every_bit_of_the_bytes_is_set_half_of_the_time() {
        let random = Random::seeded([7; 16]);
        let mut set = [0; 88];
        for _ in 0..1000 {
            for (at, byte) in random.bytes::<11>().into_iter().enumerate() {
                (0..8).for_each(|bit| set[at * 8 + bit] += u32::from(byte >> bit & 1));
            }
        }
        assert!(set.iter().all(|set| (420..580).contains(set)), "{set:?}");
    }

    #[test]
    fn a_source_prints_nothing_of_its_seed() {
        let printed = |seed| format!("{:?}", Random::seeded([seed; 16]));
        assert_eq!(printed(1), printed(2));
    }

    proptest! {
        #[test]
        fn no_number_or_time_is_above_its_bound(seed: [u8; 16], most: u64, shift in 0_u32..64, of_time: Duration) {
            let random = Random::seeded(seed);
            // Bounds of all sizes.
            let most = most >> shift;
            prop_assert!(random.up_to(most) <= most);
            prop_assert_eq!(random.up_to(0), 0);
            prop_assert!(random.duration_up_to(of_time) <= of_time);
            prop_assert_eq!(random.duration_up_to(Duration::ZERO), Duration::ZERO);
        }
    }
}
