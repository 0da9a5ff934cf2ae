//! The documents as a map: what they name and link to exists, each is linked from the README or from another one, and the
//! tables of reasons match the program. `tests/clients/readme.test.mjs` runs their commands and blocks, and compares the
//! table of the headers that a server gets.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use wsguard::config::{compile, keys, planned};
use wsguard::reason::close::CloseReason;
use wsguard::reason::reject::RejectReason;

#[test]
fn the_tables_of_reasons_are_those_of_the_program() {
    let before = document("conf/reasons.md").text;
    let rejected = RejectReason::ALL.map(RejectReason::row).map(|row| {
        format!(
            "| `{}` | {} | {} | {} |",
            row.word,
            row.client_gets(),
            row.meaning,
            row.advice
        )
    });
    let closed = CloseReason::ALL.map(CloseReason::row).map(|row| {
        format!(
            "| `{}` | {} | {} | {} |",
            row.word,
            row.client_gets(),
            row.meaning,
            row.advice
        )
    });
    let after = with_rows(&with_rows(&before, "Refused", &rejected), "Ended", &closed);
    if after != before && env::var_os("UPDATE_DOCS").is_some() {
        fs::write(root().join("conf/reasons.md"), &after).unwrap();
    } else {
        assert!(
            after == before,
            "conf/reasons.md differs from the program: `UPDATE_DOCS=1 cargo test --test docs` rewrites its tables"
        );
    }
}

/// The text with these rows in the first table below a heading.
fn with_rows(text: &str, heading: &str, rows: &[String]) -> String {
    let start = text.find(&format!("\n## {heading}\n")).unwrap();
    let separator = start + text[start..].find("\n|---").unwrap() + 1;
    let first = separator + text[separator..].find('\n').unwrap() + 1;
    let end = first + text[first..].find("\n\n").unwrap() + 1;
    format!("{}{}\n{}", &text[..first], rows.join("\n"), &text[end..])
}

#[test]
fn the_readme_lists_every_planned_key_as_missing() {
    let text = document("README.md").text;
    let section = section(&text, "What it does not do yet");
    let keys = planned::KEYS.iter().flat_map(|(_, keys)| keys.iter().copied());
    let values = planned::VALUES.iter().map(|(_, value)| *value);
    for word in keys.chain(values) {
        let is_named = spans(section).any(|span| {
            span.split(|byte: char| !(byte.is_alphanumeric() || "_-".contains(byte)))
                .any(|part| part == word)
        });
        assert!(
            is_named,
            "`{word}` is not in this version, and the README does not say so"
        );
    }
}

#[test]
fn every_file_that_the_documents_name_exists() {
    let top = ["src/", "tests/", "benches/", "conf/", "systemd/", ".ci/"];
    let mut named = 0;
    let mut missing = Vec::new();
    for document in documents() {
        for span in
            spans(&document.text).filter(|span| top.iter().any(|top| span.starts_with(top)) && !span.contains(' '))
        {
            named += 1;
            if !root().join(span).exists() {
                missing.push(format!("{}: {span}", document.path));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(named > 40, "{named}");
}

#[test]
fn every_link_in_the_documents_leads_to_a_file_and_a_heading_that_exist() {
    let all = documents();
    let mut missing = Vec::new();
    for document in &all {
        for to in links(&document.text).filter(|to| !to.contains("://")) {
            let (file, heading) = to.split_once('#').unwrap_or((to, ""));
            let path = document.beside(file);
            let has_heading = || {
                let target = all.iter().find(|target| target.path == path);
                target.is_some_and(|target| headings(&target.text).any(|known| anchor(known) == heading))
            };
            if !root().join(&path).exists() || !(heading.is_empty() || has_heading()) {
                missing.push(format!("{}: {to}", document.path));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_document_is_linked_from_the_readme() {
    let readme = document("README.md");
    let linked: BTreeSet<String> = links(&readme.text)
        .map(|to| to.split('#').next().unwrap().to_owned())
        .collect();
    let missing: Vec<String> = documents()
        .into_iter()
        .map(|document| document.path)
        .filter(|path| path != "README.md" && !linked.contains(path))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_configuration_in_the_documents_has_neither_mistakes_nor_warnings() {
    let minimal = fs::read_to_string(root().join("conf/minimal.toml")).unwrap();
    for Document { path: name, text } in documents() {
        for block in text.split("\n```toml").skip(1) {
            // Behind the title.
            let block = block.split_once('\n').unwrap().1.split("\n```").next().unwrap();
            let whole = if block.contains("[[listener]]") {
                block.to_owned()
            } else {
                format!("{minimal}\n{block}")
            };
            match compile(&whole, &name) {
                Ok(checked) => assert_eq!(checked.render_warnings(false), "", "{name}:\n{block}"),
                Err(rejected) => panic!("{name}:\n{block}\n{rejected}"),
            }
        }
    }
    let migration = document("conf/deploy/from-nginx-and-haproxy.md").text;
    assert_eq!(migration.matches("\n```toml\n").count(), 2);
}

#[test]
fn every_key_on_the_page_on_migration_exists() {
    let text = document("conf/deploy/from-nginx-and-haproxy.md").text;
    let mut checked = 0;
    for heading in ["nginx, directive by directive", "HAProxy, keyword by keyword"] {
        for row in table_after(&text, &format!("## {heading}")) {
            assert_eq!(row.len(), 3, "{row:?}");
            let there: Vec<&str> = spans(row[1]).collect();
            let mut tables: Vec<&str> = there
                .iter()
                .filter_map(|span| span.strip_prefix('['))
                .map(|span| span.trim_matches(['[', ']']).split(".NAME").next().unwrap())
                .collect();
            if row[1].contains("route") {
                tables.push("route");
            }
            for span in there.iter().filter(|span| !span.starts_with(['[', '"'])) {
                let key = span.split(' ').next().unwrap();
                let is_there =
                    keys().any(|(table, known)| known == key && (tables.is_empty() || tables.contains(&table)));
                assert!(is_there, "`{key}` of {tables:?} for {}", row[0]);
                checked += 1;
            }
            for table in tables {
                assert!(keys().any(|(known, _)| known == table), "[{table}] for {}", row[0]);
            }
        }
    }
    assert!(checked > 80, "{checked}");
}

#[test]
fn every_metric_that_the_documents_name_exists() {
    let sources = sources(&root().join("src"));
    let is_of_a_name = |byte: char| byte.is_ascii_lowercase() || byte == '_';
    let mut named = BTreeSet::new();
    let manual = fs::read_to_string(root().join("conf/wsguard.toml")).unwrap();
    for text in documents().into_iter().map(|document| document.text).chain([manual]) {
        let starts = text.match_indices("wsguard_").map(|(at, _)| &text[at..]);
        named.extend(starts.map(|rest| rest[..rest.find(|byte| !is_of_a_name(byte)).unwrap_or(rest.len())].to_owned()));
    }
    assert!(named.len() > 5, "{named:?}");
    for name in named {
        assert!(sources.contains(&format!("\"{name}\"")), "{name}");
    }
}

#[test]
fn the_readme_names_the_oldest_rust_that_the_manifest_allows() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let version = manifest
        .split("\nrust-version = \"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    assert!(
        document("README.md")
            .text
            .contains(&format!("needs Rust {version} or newer")),
        "{version}"
    );
}

#[test]
fn the_readme_is_short_and_shows_the_commands_and_a_picture_first() {
    let picture = fs::read(root().join("tests/clients/flood.png")).unwrap();
    assert!(picture.starts_with(b"\x89PNG\r\n\x1a\n"));
    assert!(picture.len() < 200 * 1024, "{} bytes", picture.len());
    let text = document("README.md").text;
    assert!(
        text.lines().count() <= 160,
        "what has more to say is a document of its own"
    );
    let first_screen: String = text.lines().take(25).collect();
    assert!(first_screen.contains("tests/clients/flood.png") && first_screen.contains("cargo run --release -- demo"));
}

/// A document for people: its path from the root, and its text.
struct Document {
    path: String,
    text: String,
}

impl Document {
    /// The path from the root of a file that this document names relative to itself; its own for an empty name.
    fn beside(&self, name: &str) -> String {
        if name.is_empty() {
            return self.path.clone();
        }
        let mut parts: Vec<&str> = self.path.split('/').collect();
        parts.pop();
        for part in name.split('/') {
            match part {
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        parts.join("/")
    }
}

/// Every document, by path.
fn documents() -> Vec<Document> {
    let mut documents = Vec::new();
    for folder in ["", "benches/", "conf/", "conf/deploy/", "src/"] {
        for file in fs::read_dir(root().join(folder)).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            if Path::new(&name).extension().is_some_and(|ending| ending == "md") {
                documents.push(document(&format!("{folder}{name}")));
            }
        }
    }
    documents.sort_by(|a, b| a.path.cmp(&b.path));
    documents
}

fn document(path: &str) -> Document {
    let text = fs::read_to_string(root().join(path)).unwrap();
    Document {
        path: path.to_owned(),
        text,
    }
}

/// The text of every source file below a folder.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text += &sources(&path);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            text += &fs::read_to_string(path).unwrap();
        }
    }
    text
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The rows of the first table behind a line that begins so, without its head.
fn table_after<'a>(text: &'a str, begins: &str) -> Vec<Vec<&'a str>> {
    let (_, behind) = text.split_once(&format!("\n{begins}")).unwrap();
    let lines = behind.lines().skip_while(|line| !line.starts_with('|'));
    let rows = lines.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, behind) = text.split_once(&format!("\n## {heading}\n")).unwrap();
    behind.split("\n## ").next().unwrap()
}

/// Headings of every level, without comments in code blocks.
fn headings(text: &str) -> impl Iterator<Item = &str> {
    let prose = text.split("\n```").step_by(2).flat_map(str::lines);
    let is_heading = |line: &&str| line.trim_start_matches('#').starts_with(' ') && line.starts_with('#');
    prose.filter(is_heading).map(|line| line.trim_start_matches(['#', ' ']))
}

/// The anchor that GitHub makes of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading
        .chars()
        .filter(|byte| byte.is_alphanumeric() || " -_".contains(*byte));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// The code spans of each line.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.starts_with("```"))
        .flat_map(|line| line.split('`').skip(1).step_by(2))
}

fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap())
}
