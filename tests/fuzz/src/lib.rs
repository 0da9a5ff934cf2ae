//! Fuzzes every parser, and the relay under limits on messages: each target holds the promises that the documentation
//! makes, by models that are plain and slow, and not only that nothing panics. Needs `cargo install cargo-fuzz --locked` and a C++ compiler:
//!
//! ```text
//! RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir tests/fuzz head target/fuzz/head tests/corpus/head -- \
//!     -max_total_time=1200 -rss_limit_mb=2048 -dict=tests/fuzz/dict/head
//! ```
//!
//! New inputs go to the first folder, which must be there; the others are only read. A finding, made small by
//! `cargo fuzz tmin`, becomes one more file in `tests/corpus/<parser>/`, where `cargo test` replays it: a target may
//! ask for more, but what is found must not come back.

/// Where the buffer ends at each look, if `data` comes in pieces: growing, and `data.len()` last. The data itself decides,
/// so that a file of the corpus stays what its name says.
pub fn looks(data: &[u8]) -> impl Iterator<Item = usize> {
    let mut dice = Dice::of(data);
    // Byte by byte, in small pieces or in large ones.
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
    /// FNV-1a of the data.
    pub fn of(data: &[u8]) -> Self {
        let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        Self(data.iter().fold(0xcbf2_9ce4_8422_2325, fold))
    }

    /// 0 to `bound - 1`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).unwrap_or_default()
    }
}
