//! The architecture as a test: folders are floors, and only the edges of this table exist. Reads the sources; what it
//! finds is every place that names another folder, be it in a `use` or in the middle of an expression.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Floor, folder, and the folders it may use. The same table stands in `src/lib.rs`.
const FLOORS: &[(u8, &str, &str)] = &[
    (
        11,
        "cli",
        "demo admin control engine live telemetry config relay upstream net limit wire",
    ),
    (10, "demo", "admin control live telemetry config reason net limit wire"),
    (
        9,
        "admin",
        "control live telemetry config relay upstream reason net limit wire",
    ),
    (
        8,
        "control",
        "engine walk live telemetry config relay upstream reason net limit",
    ),
    (
        7,
        "engine",
        "walk live telemetry config relay upstream reason net limit",
    ),
    (6, "walk", "live telemetry config relay upstream reason net limit wire"),
    (5, "live", "telemetry config relay upstream reason net limit wire"),
    (4, "telemetry", "config relay upstream reason net limit wire"),
    (3, "config", "relay upstream net limit wire"),
    (2, "relay", "reason net limit wire"),
    (2, "upstream", "net limit wire"),
    (1, "net", ""),
    (1, "limit", ""),
    (1, "reason", ""),
    (1, "wire", ""),
];

#[test]
fn no_file_names_a_folder_that_its_own_may_not_use() {
    let mut wrong = Vec::new();
    for file in &*SOURCES {
        for path in file.paths() {
            let Some(to) = path.first().filter(|to| is_floor(to)) else {
                continue;
            };
            let own = file.floor();
            if own != *to && !may_use(&own, to) && !EDGES_TO_CUT.contains(&(&*file.name, &**to)) {
                wrong.push(format!("{}: {own} -> {to} (crate::{})", file.name, path.join("::")));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "edges that the table does not have:\n{}",
        wrong.join("\n")
    );
}

/// Each file is a node, and each path that leads into another file an edge. A circle is several files that none can be
/// read without the others.
#[test]
fn no_files_import_each_other_in_a_circle() {
    let new: Vec<String> = circles(&SOURCES)
        .into_iter()
        .map(|circle| {
            circle
                .into_iter()
                .filter(|file| !CIRCLES_TO_CUT.contains(&&**file))
                .collect::<Vec<_>>()
        })
        .filter(|circle| !circle.is_empty())
        .map(|circle| circle.join(" "))
        .collect();
    assert!(
        new.is_empty(),
        "files that import each other in a circle:\n{}",
        new.join("\n")
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

#[test]
fn every_folder_is_a_floor_and_every_file_stands_on_one() {
    for file in &*SOURCES {
        let floor = file.floor();
        assert!(is_floor(&floor) || floor == ROOF, "{} is on no floor", file.name);
    }
    for (_, folder, _) in FLOORS {
        assert!(source_dir().join(folder).is_dir(), "there is no src/{folder}");
    }
}

#[test]
fn the_table_in_the_map_is_this_table() {
    let map = fs::read_to_string(source_dir().join("lib.rs")).unwrap();
    for (floor, folder, may_use) in FLOORS {
        let begins = format!("//! | {floor} | `{folder}/` | ");
        let row = map
            .lines()
            .find(|line| line.starts_with(&begins))
            .unwrap_or_else(|| panic!("no row {begins:?}"));
        let cell = row.trim_end_matches(['|', ' ']).rsplit('|').next().unwrap();
        let cell = if may_use.is_empty() {
            row.trim_end().trim_end_matches('|').rsplit('|').next().unwrap()
        } else {
            cell
        };
        assert_eq!(cell.trim(), *may_use, "what {folder} may use");
    }
    let rows = map
        .lines()
        .filter(|line| line.starts_with("//! | ") && line.contains("/` | "))
        .count();
    assert_eq!(rows, FLOORS.len(), "a row for each floor and no other");
}

#[test]
fn lower_floors_never_use_higher_ones_and_neighbours_never_each_other() {
    for (floor, folder, may_use) in FLOORS {
        for used in may_use.split_whitespace() {
            let (below, ..) = FLOORS.iter().find(|(_, name, _)| *name == used).unwrap();
            assert!(below < floor, "{folder} on {floor} uses {used} on {below}");
        }
    }
}

/// A folder holds one noun, and a reader sees all of it at once.
#[test]
fn no_folder_has_more_files_than_a_reader_takes_in() {
    let mut files: BTreeMap<String, usize> = BTreeMap::new();
    for source in &*SOURCES {
        let folder = source.name.rsplit_once('/').map_or(ROOF, |(folder, _)| folder);
        *files.entry(folder.to_owned()).or_default() += 1;
    }
    let crowded: Vec<_> = files
        .into_iter()
        .filter(|(folder, count)| *count > FILES_MAX && !FOLDERS_TO_CUT.contains(&&**folder))
        .collect();
    assert!(
        crowded.is_empty(),
        "folders with more than {FILES_MAX} files: {crowded:?}"
    );
}

/// Unit tests count, unless they are in a `tests.rs` of their own.
#[test]
fn no_file_is_longer_than_a_reader_takes_in() {
    let long: Vec<_> = SOURCES
        .iter()
        .filter(|source| !source.is_test() && source.lines > LINES_MAX)
        .filter(|source| !FILES_TO_CUT.contains(&&*source.name))
        .map(|source| (&*source.name, source.lines))
        .collect();
    assert!(long.is_empty(), "files with more than {LINES_MAX} lines: {long:?}");
}

#[test]
fn unsafe_code_lives_in_one_file() {
    for file in &*SOURCES {
        let has = file
            .tokens
            .iter()
            .any(|token| token == "unsafe" || token == "unsafe_code");
        let may = ["net/sys.rs", "net/mod.rs", "lib.rs"].contains(&file.name.as_str());
        assert!(!has || may, "unsafe code in {}", file.name);
        let word = file.tokens.iter().any(|token| token == "unsafe");
        assert!(!word || file.name == "net/sys.rs", "unsafe code in {}", file.name);
    }
}

/// The parsers are pure: no clock, socket, lock or log; and admission has no clock of its own.
#[test]
fn what_is_said_to_be_pure_is_pure() {
    let of_the_world: &[&str] = &[
        "SystemTime",
        "TcpStream",
        "UdpSocket",
        "TcpListener",
        "UnixStream",
        "tokio",
        "thread",
        "println",
        "eprintln",
        "rustix",
        "libc",
    ];
    for file in &*SOURCES {
        let (is_wire, is_limit) = (file.floor() == "wire", file.floor() == "limit");
        if !is_wire && !is_limit || file.is_test() {
            continue;
        }
        let body = file.without_tests();
        for word in of_the_world {
            assert!(!body.iter().any(|token| token == word), "{} names {word}", file.name);
        }
        let reads_the_clock = body.windows(4).any(|four| four == ["Instant", ":", ":", "now"]);
        assert!(!reads_the_clock, "{} reads the clock", file.name);
        let locks = body.iter().any(|token| token == "Mutex" || token == "RwLock");
        assert!(!locks || is_limit, "{} locks", file.name);
    }
}

/// A relay's clock can be set by a test, so nothing but that clock reads the time.
#[test]
fn a_relay_reads_no_clock_but_its_own() {
    for file in sources() {
        let body = file.without_tests();
        let reads_the_clock = body.windows(4).any(|four| four == ["Instant", ":", ":", "now"]);
        let may = file.floor() != "relay" || file.is_test() || file.name == "relay/clock.rs";
        assert!(!reads_the_clock || may, "{} reads the clock", file.name);
    }
}

/// The wall clock may jump, so nothing is timed by it: it stamps lines and says when something happened.
#[test]
fn the_wall_clock_is_shown_and_never_reckoned_with() {
    let shows = [
        "telemetry/log/format.rs",
        "telemetry/log/queue.rs",
        "control/reload.rs",
        "live/process.rs",
        "live/reloads.rs",
        "admin/scrape.rs",
    ];
    for file in &*SOURCES {
        let names_it = file.without_tests().iter().any(|token| token == "SystemTime");
        assert!(
            !names_it || shows.contains(&file.name.as_str()),
            "{} asks for the time of day",
            file.name
        );
    }
}

const ROOF: &str = "";

/// Edges that are still to be cut: a file, and a folder above it.
const EDGES_TO_CUT: &[(&str, &str)] = &[];

/// Files that are still to be taken out of the circle they are in.
const CIRCLES_TO_CUT: &[&str] = &["demo/flood.rs", "demo/shapes.rs"];

const FILES_MAX: usize = 18;

/// Folders with more files than that, still to be cut.
const FOLDERS_TO_CUT: &[&str] = &[];

const LINES_MAX: usize = 400;

/// Files with more lines than that, still to be cut.
const FILES_TO_CUT: &[&str] = &[];

struct Source {
    /// Below `src/`.
    name: String,
    lines: usize,
    tokens: Vec<String>,
}

impl Source {
    fn of(name: &str, text: &str) -> Self {
        Self {
            name: name.to_owned(),
            lines: text.lines().count(),
            tokens: tokens(text),
        }
    }

    /// The folder, or nothing for a file right in `src/`.
    fn floor(&self) -> String {
        self.name
            .split_once('/')
            .map_or(ROOF.to_owned(), |(folder, _)| folder.to_owned())
    }

    fn is_test(&self) -> bool {
        self.name.ends_with("/tests.rs") || self.name.contains("/tests/")
    }

    /// Its module path: `net/sys.rs` is `net::sys`, `net/mod.rs` is `net`.
    fn module(&self) -> Vec<String> {
        let mut module: Vec<String> = self
            .name
            .trim_end_matches(".rs")
            .split('/')
            .map(str::to_owned)
            .collect();
        if module
            .last()
            .is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str()))
        {
            module.pop();
        }
        module
    }

    /// Up to the first module of tests.
    fn without_tests(&self) -> &[String] {
        let begins = self
            .tokens
            .windows(4)
            .position(|four| four == ["cfg", "(", "test", ")"]);
        &self.tokens[..begins.unwrap_or(self.tokens.len())]
    }

    /// The other files that its paths lead into, tests aside.
    fn imports<'a>(&self, modules: &BTreeMap<Vec<String>, &'a str>) -> BTreeSet<&'a str> {
        let body = Self {
            name: self.name.clone(),
            lines: self.lines,
            tokens: self.without_tests().to_vec(),
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
            .filter(|file| *file != self.name)
            .collect()
    }

    /// Every path in it that begins at the crate's root, at `super` or (in the binary) at the library, as from the root.
    /// Of a group, each member.
    fn paths(&self) -> Vec<Vec<String>> {
        let mut paths = Vec::new();
        let mut modules = Inner {
            module: self.module(),
            ..Inner::default()
        };
        let mut at = 0;
        while at < self.tokens.len() {
            modules.step(&self.tokens, at);
            let is_behind = |before: &[&str]| at >= before.len() && self.tokens[at - before.len()..at] == *before;
            // `pub(super)` says who may use an item; it uses nothing.
            if is_behind(&["pub", "("]) {
                at += 1;
                continue;
            }
            let follows_a_path = is_behind(&[":"]);
            let base = match self.tokens[at].as_str() {
                "crate" | "wsguard" if !follows_a_path => Some(Vec::new()),
                "self" if !follows_a_path => Some(modules.module.clone()),
                "super" if !follows_a_path => {
                    let mut module = modules.module.clone();
                    module.pop();
                    Some(module)
                }
                _ => None,
            };
            if let Some(base) = base {
                collect(&self.tokens, at + 1, base, &mut paths);
            }
            at += 1;
        }
        paths
    }
}

/// Which module a token stands in: `mod tests {` opens one more.
#[derive(Default)]
struct Inner {
    module: Vec<String>,
    depth: usize,
    opened: Vec<usize>,
}

impl Inner {
    fn step(&mut self, tokens: &[String], at: usize) {
        match tokens[at].as_str() {
            "{" => {
                self.depth += 1;
                if at >= 2 && tokens[at - 2] == "mod" {
                    self.module.push(tokens[at - 1].clone());
                    self.opened.push(self.depth);
                }
            }
            "}" => {
                if self.opened.last() == Some(&self.depth) {
                    self.opened.pop();
                    self.module.pop();
                }
                self.depth = self.depth.saturating_sub(1);
            }
            _ => {}
        }
    }
}

/// Follows `::name`, `::super`, `::*` and `::{…}` behind a base; says where it ended.
fn collect(tokens: &[String], mut at: usize, mut base: Vec<String>, paths: &mut Vec<Vec<String>>) -> usize {
    while tokens.get(at).is_some_and(|t| t == ":") && tokens.get(at + 1).is_some_and(|t| t == ":") {
        match tokens.get(at + 2).map(String::as_str) {
            Some("{") => {
                at += 3;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    if tokens[at] == "," {
                        at += 1;
                        continue;
                    }
                    let mut member = base.clone();
                    member.push(tokens[at].clone());
                    at = collect(tokens, at + 1, member, paths);
                    // `as name`
                    while tokens.get(at).is_some_and(|token| token != "," && token != "}") {
                        at += 1;
                    }
                }
                return at + 1;
            }
            Some("super") => {
                base.pop();
            }
            Some(name) => base.push(name.to_owned()),
            None => break,
        }
        at += 3;
    }
    paths.push(base);
    at
}

/// The files that lead back to themselves, each group sorted.
fn circles(sources: &[Source]) -> Vec<Vec<String>> {
    let modules: BTreeMap<Vec<String>, &str> = sources
        .iter()
        .filter(|source| !source.is_test())
        .map(|source| (source.module(), &*source.name))
        .collect();
    let edges: BTreeMap<&str, BTreeSet<&str>> = sources
        .iter()
        .filter(|source| !source.is_test())
        .map(|source| (&*source.name, source.imports(&modules)))
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

fn may_use(from: &str, to: &str) -> bool {
    match FLOORS.iter().find(|(_, folder, _)| *folder == from) {
        Some((_, _, may_use)) => may_use.split_whitespace().any(|used| used == to),
        None => to == "cli",
    }
}

fn is_floor(name: &str) -> bool {
    FLOORS.iter().any(|(_, folder, _)| *folder == name)
}

fn source_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Read once for all tests.
static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(sources);

fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    let mut folders = vec![source_dir()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(source_dir()).unwrap().to_str().unwrap().to_owned();
                if name != "build.rs" {
                    files.push(Source::of(&name, &fs::read_to_string(&path).unwrap()));
                }
            }
        }
    }
    assert!(files.len() > 20, "the sources are where this test looks for them");
    files
}

/// Words and single signs; comments, strings, characters and lifetimes are left out.
fn tokens(text: &str) -> Vec<String> {
    let bytes = text.as_bytes();
    let (mut tokens, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let rest = &bytes[at..];
        at += match rest[0] {
            b'/' if rest.starts_with(b"//") => rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with(b"/*") => block_comment(rest),
            b'"' => quoted(rest),
            b'r' | b'b' | b'c' if let Some(len) = prefixed_string(rest) => len,
            b'\'' => character_or_lifetime(rest),
            byte if is_word(byte) => {
                let len = rest.iter().position(|byte| !is_word(*byte)).unwrap_or(rest.len());
                let word = text[at..at + len].trim_start_matches("r#");
                tokens.push(word.to_owned());
                len
            }
            byte if byte.is_ascii_whitespace() => 1,
            byte => {
                tokens.push(char::from(byte).to_string());
                1
            }
        };
    }
    tokens
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// From one `"` to the next that is not escaped.
fn quoted(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// `b"…"`, `c"…"`, `r"…"`, `br#"…"#`, `b'…'`.
fn prefixed_string(rest: &[u8]) -> Option<usize> {
    let word = rest.iter().position(|byte| !is_word(*byte))?;
    let prefix = &rest[..word];
    let behind = &rest[word..];
    if prefix == b"b" && behind[0] == b'\'' {
        return Some(1 + character_or_lifetime(behind));
    }
    if [&b"b"[..], b"c"].contains(&prefix) && behind[0] == b'"' {
        return Some(1 + quoted(behind));
    }
    if ![&b"r"[..], b"br", b"cr"].contains(&prefix) {
        return None;
    }
    let hashes = behind.iter().position(|byte| *byte != b'#')?;
    if behind[hashes] != b'"' {
        return None;
    }
    let end = [b"\"", "#".repeat(hashes).as_bytes()].concat();
    let inside = &behind[hashes + 1..];
    let len = inside.windows(end.len()).position(|window| window == end)?;
    Some(word + hashes + 1 + len + end.len())
}

fn character_or_lifetime(rest: &[u8]) -> usize {
    if rest.get(1) == Some(&b'\\') {
        return 3 + rest[3..].iter().position(|byte| *byte == b'\'').unwrap_or(0) + 1;
    }
    let text = std::str::from_utf8(&rest[1..rest.len().min(6)]);
    let first = match text {
        Ok(text) => text.chars().next(),
        Err(error) => std::str::from_utf8(&rest[1..=error.valid_up_to()])
            .ok()
            .and_then(|text| text.chars().next()),
    };
    let len = first.map_or(1, char::len_utf8);
    if rest.get(1 + len) == Some(&b'\'') { 2 + len } else { 1 }
}

#[test]
fn this_test_finds_what_it_is_looking_for() {
    let edges = |name: &str, text: &str| -> BTreeSet<String> {
        Source::of(name, text)
            .paths()
            .into_iter()
            .map(|path| path.join("::"))
            .collect()
    };
    let found = edges(
        "limit/client_table.rs",
        r##"
        //! crate::commented::out
        use crate::{net::{a, b as c}, wire};
        use super::super::guard::walk;
        use super::key::ClientKey;
        pub(crate) fn f<'a>(x: &'a str) -> char {
            let text = "crate::quoted::out \" crate::still"; let raw = r#"crate::raw"::out"#;
            let c = '"'; let d = '\''; let e = b'"';
            crate::relay::relay::go(x); /* crate::block /* nested */ ::out */
            'x'
        }
        mod tests { use super::super::key; use super::*; fn g() { super::super::super::cli::main() } }
        fn h() { super::bucket::take() }
        "##,
    );
    let expected = [
        "cli::main",
        "guard::walk",
        "limit::bucket::take",
        "limit::key",
        "limit::key::ClientKey",
        "limit::client_table::*",
        "net::a",
        "net::b",
        "relay::relay::go",
        "wire",
    ];
    assert_eq!(found, expected.map(String::from).into());
    assert!(may_use("cli", "wire") && !may_use("wire", "net") && !may_use("walk", "engine"));
    assert!(
        Source::of("wire/a.rs", "let unsafe_name = \"unsafe\"; // unsafe")
            .tokens
            .iter()
            .all(|token| token != "unsafe")
    );
}
