//! No files import each other in a circle.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{SOURCES, Source};

/// Each file is a node, and each path from it into another file is an edge. A file in a circle can't be read without
/// the others.
#[test]
fn no_files_import_each_other_in_a_circle() {
    let circles: Vec<String> = circles(&SOURCES).into_iter().map(|circle| circle.join(" ")).collect();
    assert!(
        circles.is_empty(),
        "files that import each other in a circle:\n{}",
        circles.join("\n")
    );
}

#[test]
fn a_circle_is_found_and_a_chain_is_none() {
    let chain = [
        Source::of("net/mod.rs", "pub mod a; pub mod b; pub mod c;"),
        Source::of("net/a.rs", "use super::b::B; mod tests { use super::*; }"),
        Source::of("net/b.rs", "use crate::net::c::{C, D};"),
        Source::of(
            "net/c.rs",
            "pub(super) struct C; #[cfg(test)] mod tests { use crate::net::a::A; }",
        ),
    ];
    assert!(circles(&chain).is_empty());
    let circle = [
        Source::of("net/mod.rs", "pub mod a; pub mod b; pub mod c; use c::C;"),
        Source::of("net/a.rs", "fn f() { super::b::g() }"),
        Source::of("net/b.rs", "use super::c::C;"),
        Source::of("net/c.rs", "use crate::net::{a::A, a::d};"),
    ];
    assert_eq!(
        circles(&circle),
        [["net/a.rs", "net/b.rs", "net/c.rs"].map(String::from).to_vec()]
    );
    let with_parent = [
        Source::of("net/mod.rs", "pub mod a; use self::a::A; pub struct B;"),
        Source::of("net/a.rs", "use super::B;"),
    ];
    assert_eq!(
        circles(&with_parent),
        [["net/a.rs", "net/mod.rs"].map(String::from).to_vec()]
    );
}

/// The groups of files that lead back to themselves. Each group is sorted.
fn circles(sources: &[Source]) -> Vec<Vec<String>> {
    let modules: BTreeMap<Vec<String>, &str> = sources
        .iter()
        .filter(|source| !source.is_test())
        .map(|source| (source.module(), &*source.name))
        .collect();
    let edges: BTreeMap<&str, BTreeSet<&str>> = sources
        .iter()
        .filter(|source| !source.is_test())
        .map(|source| (&*source.name, imports(source, &modules)))
        .collect();
    let reached = |from: &str| {
        let (mut reached, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(file) = next.pop() {
            for &to in &edges[file] {
                if reached.insert(to) {
                    next.push(to);
                }
            }
        }
        reached
    };
    let reached: BTreeMap<&str, BTreeSet<&str>> = edges.keys().map(|file| (*file, reached(file))).collect();
    let groups: BTreeSet<Vec<String>> = edges
        .keys()
        .filter(|file| reached[*file].contains(*file))
        .map(|file| {
            let both_ways = |other: &&&str| reached[*file].contains(**other) && reached[**other].contains(file);
            edges.keys().filter(both_ways).map(|&other| other.to_owned()).collect()
        })
        .collect();
    groups.into_iter().collect()
}

/// The other files that the paths of `source` lead into, except the paths in tests.
fn imports<'a>(source: &Source, modules: &BTreeMap<Vec<String>, &'a str>) -> BTreeSet<&'a str> {
    let body = Source {
        name: source.name.clone(),
        lines: source.lines,
        tokens: source.without_tests().to_vec(),
    };
    let begins_a_path = |at: usize| {
        let is_behind_one = at > 0 && body.tokens[at - 1] == ":";
        !is_behind_one && body.tokens.len() > at + 2 && body.tokens[at + 1] == ":" && body.tokens[at + 2] == ":"
    };
    let mut paths = body.paths();
    for at in (0..body.tokens.len()).filter(|at| begins_a_path(*at)) {
        let mut child = body.module();
        child.push(body.tokens[at].clone());
        if modules.contains_key(&child) {
            paths.push(child);
        }
    }
    paths
        .iter()
        .filter_map(|path| {
            (1..=path.len())
                .rev()
                .find_map(|len| modules.get(&path[..len]).copied())
        })
        .filter(|file| *file != source.name)
        .collect()
}
