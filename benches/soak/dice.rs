//! Random numbers that can be repeated from a seed.

use std::time::Duration;

/// `SplitMix64`: small, fast, and even enough to decide which client does what next.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice with this seed. The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Independent dice for another task.
    pub fn fork(&mut self) -> Self {
        Self(self.throw())
    }

    /// A random number.
    pub fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u32, high: u32) -> u32 {
        let span = u64::from(high - low) + 1;
        low + u32::try_from(self.throw() % span).expect("less than a u32 and one")
    }

    /// Returns true in one of `n` cases.
    pub fn one_in(&mut self, n: u32) -> bool {
        self.between(1, n) == 1
    }

    /// One of these values.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        let last = u32::try_from(of.len()).expect("a short list") - 1;
        of[self.between(0, last) as usize]
    }

    /// A duration from `low` to `high` milliseconds.
    pub fn millis(&mut self, low: u32, high: u32) -> Duration {
        Duration::from_millis(self.between(low, high).into())
    }

    /// This many random bytes.
    pub fn bytes(&mut self, size: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..size.div_ceil(8)).flat_map(|_| self.throw().to_le_bytes()).collect();
        bytes.truncate(size);
        bytes
    }
}
