//! No folder and no file is too large for a reader.

use std::collections::BTreeMap;

use crate::source::{SOURCES, Source};

/// A folder holds one noun, and a reader sees all of it at once.
#[test]
fn no_folder_has_more_files_than_a_reader_takes_in() {
    let crowded = crowded(&SOURCES);
    assert!(
        crowded.is_empty(),
        "folders with more than {FILES_MAX} files: {crowded:?}"
    );
}

/// Unit tests count, unless they are in a `tests.rs` of their own.
#[test]
fn no_file_is_longer_than_a_reader_takes_in() {
    let long = long(&SOURCES);
    assert!(long.is_empty(), "files with more than {LINES_MAX} lines: {long:?}");
}

#[test]
fn a_crowded_folder_is_found_and_a_full_one_is_none() {
    let files =
        |folder: &'static str, count: usize| (0..count).map(move |nth| Source::of(&format!("{folder}/{nth}.rs"), ""));
    let planted: Vec<_> = files("net", FILES_MAX)
        .chain(files("walk", FILES_MAX + 1))
        .chain(files("walk/inner", 1))
        .collect();
    assert_eq!(crowded(&planted), [("walk", FILES_MAX + 1)]);
}

#[test]
fn a_long_file_is_found_and_a_full_one_is_none() {
    let file = |name: &str, lines: usize| Source::of(name, &"\n".repeat(lines));
    let planted = [
        file("net/full.rs", LINES_MAX),
        file("net/long.rs", LINES_MAX + 1),
        file("net/long/tests.rs", LINES_MAX + 1),
    ];
    assert_eq!(long(&planted), [("net/long.rs", LINES_MAX + 1)]);
}

fn crowded(sources: &[Source]) -> Vec<(&str, usize)> {
    let mut files: BTreeMap<&str, usize> = BTreeMap::new();
    for source in sources {
        *files.entry(source.folder()).or_default() += 1;
    }
    files.into_iter().filter(|(_, count)| *count > FILES_MAX).collect()
}

fn long(sources: &[Source]) -> Vec<(&str, usize)> {
    sources
        .iter()
        .filter(|source| !source.is_test() && source.lines > LINES_MAX)
        .map(|source| (&*source.name, source.lines))
        .collect()
}

const FILES_MAX: usize = 18;
const LINES_MAX: usize = 400;
