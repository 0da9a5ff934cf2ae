//! Where a warning is shown.

use std::ops::Range;

use crate::config::document::table::Entry;
use crate::config::findings::Finding;

/// The place of the first entry that is written.
pub fn first_span<'a>(entries: impl IntoIterator<Item = &'a Entry<'a>>) -> Option<Range<usize>> {
    entries.into_iter().find_map(Entry::span)
}

/// Whether this is the first warning at its place: zones that inherit the same number share one warning.
pub fn is_first(warning: &Finding, shown: &mut Vec<Range<usize>>) -> bool {
    match &warning.span {
        Some(span) if shown.contains(span) => false,
        Some(span) => {
            shown.push(span.clone());
            true
        }
        None => true,
    }
}
