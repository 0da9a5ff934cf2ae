//! Where a warning is shown.

use std::ops::Range;

use crate::config::document::table::Entry;
use crate::config::findings::Finding;

/// The place of the first that is written.
pub fn first_span<'a>(entries: impl IntoIterator<Item = &'a Entry<'a>>) -> Option<Range<usize>> {
    entries.into_iter().find_map(Entry::span)
}

/// Whether nothing was said about this place: zones that inherit one number need not all be told of it.
pub fn is_news(warning: &Finding, told: &mut Vec<Range<usize>>) -> bool {
    match &warning.span {
        Some(span) if told.contains(span) => false,
        Some(span) => {
            told.push(span.clone());
            true
        }
        None => true,
    }
}
