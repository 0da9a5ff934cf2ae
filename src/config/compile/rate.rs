//! Compiles a rate and its burst. A rate that is written without a burst has its own number as burst, not the inherited
//! burst.

use std::num::NonZeroU32;

use crate::config::document::table::Entry;
use crate::config::document::value::{MAX_BYTES, MAX_TOKENS};
use crate::config::findings::{Finding, Findings};
use crate::limit::rules::Rate;

/// The rate in force if `base` is inherited.
pub fn apply(base: Option<Rate>, rate: &Entry, burst: &Entry, found: &mut Findings) -> Option<Rate> {
    let most = burst.number(&(1..=MAX_TOKENS), found);
    needs_a_rate(base, rate, burst, most.map(|_| "10/s"), found);
    with_burst(rate.rate_or_off(found).or(base), most)
}

/// The byte rate in force if `base` is inherited; its burst is a size.
pub fn apply_bytes(base: Option<Rate>, rate: &Entry, burst: &Entry, found: &mut Findings) -> Option<Rate> {
    let most = burst.size(&(1..=MAX_BYTES.into()), found);
    needs_a_rate(base, rate, burst, most.map(|_| "64KiB/s"), found);
    with_burst(rate.byte_rate_or_off(found).or(base), most)
}

/// Adds a mistake for a burst without a rate. `example` is a rate to propose. It is `None`, and no mistake is added, if
/// there is no valid burst.
fn needs_a_rate(base: Option<Rate>, rate: &Entry, burst: &Entry, example: Option<&str>, found: &mut Findings) {
    if let Some(example) = example.filter(|_| base.is_none() && !rate.is_written()) {
        let title = format!("`{}` has no rate: none is set here or inherited", burst.key);
        let mistake = Finding::at(burst.span().unwrap_or_default(), title);
        found.mistake(mistake.hint(format!("set {} = \"{example}\" in the same table", rate.key)));
    }
}

fn with_burst(rate: Option<Rate>, burst: Option<u32>) -> Option<Rate> {
    let burst = burst.and_then(NonZeroU32::new);
    rate.map(|rate| Rate {
        burst: burst.unwrap_or(rate.burst),
        ..rate
    })
}
