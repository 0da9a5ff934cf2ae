//! Fuzzes every parser, and the relay under limits on messages. The targets do not only look for panics: each one
//! checks the promises of the documentation by a plain and slow model. Needs `cargo install cargo-fuzz --locked` and a
//! C++ compiler:
//!
//! ```text
//! RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir tests/fuzz head target/fuzz/head tests/corpus/head -- \
//!     -max_total_time=1200 -rss_limit_mb=2048 -dict=tests/fuzz/dict/head
//! ```
//!
//! New inputs go to the first folder, which must exist. The other folders are only read. `cargo fuzz tmin` makes a
//! finding small. It then becomes a new file in `tests/corpus/<parser>/`, where `cargo test` replays it. A target may
//! check more than that test, but a finding must not come back.

/// The positions where the buffer ends at each look if `data` comes in pieces. They grow, and `data.len()` is the last
/// one. The data itself decides them, so that a file of the corpus always has the same effect.
pub fn looks(data: &[u8]) -> impl Iterator<Item = usize> {
    let mut dice = Dice::of(data);
    // The pieces are single bytes, or small, or large.
    let longest = [1, 4, 16, 256, 4096][dice.below(5)];
    let mut end = 0;
    std::iter::from_fn(move || {
        if end >= data.len() {
            return None;
        }
        end = (end + 1 + dice.below(longest)).min(data.len());
        Some(end)
    })
}

/// `data` in the pieces between the [`looks`].
pub fn pieces(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut begin = 0;
    looks(data).map(move |end| &data[std::mem::replace(&mut begin, end)..end])
}

/// Numbers that depend on the data alone.
pub struct Dice(u64);

impl Dice {
    /// Dice with the FNV-1a hash of the data as their seed.
    pub fn of(data: &[u8]) -> Self {
        let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        Self(data.iter().fold(0xcbf2_9ce4_8422_2325, fold))
    }

    /// A number from 0 to `bound - 1`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).unwrap_or_default()
    }
}
