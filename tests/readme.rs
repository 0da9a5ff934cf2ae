//! The README and the documents of conf/deploy as a map: what they name is there, and what is there the README names. The
//! README's commands and blocks are run by `tests/clients/readme.test.mjs`, and so is the table of what a server hears.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use wsguard::config::{compile, keys, later};
use wsguard::telemetry::reason::{CloseReason, Reason};

#[test]
fn it_explains_every_reason_once_and_no_other_with_the_status_and_text_that_a_client_hears() {
    let text = readme();
    let rows = table_after(&text, "These were not let in:");
    let words: Vec<&str> = rows.iter().map(|row| in_ticks(row[0])).collect();
    assert_eq!(sorted(&words), sorted(&Reason::ALL.map(Reason::word)));
    for reason in Reason::ALL {
        let heard = &rows[words.iter().position(|word| *word == reason.word()).unwrap()][1];
        match reason.status() {
            // The rule that was broken says it better than the reason's text.
            Some(status) if heard.ends_with("naming the rule") => {
                assert!(heard.starts_with(&status.to_string()), "{heard}");
            }
            Some(status) => assert_eq!(*heard, format!("{status} {}", reason.text())),
            None => assert!(!heard.starts_with(|first: char| first.is_ascii_digit()), "{heard}"),
        }
    }
}

#[test]
fn it_explains_every_end_of_an_open_connection_once_and_no_other() {
    let text = readme();
    let words: Vec<String> = table_after(&text, "These were open, and are over.")
        .iter()
        .map(|row| in_ticks(row[0]).to_owned())
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert_eq!(sorted(&words), sorted(&CloseReason::ALL.map(CloseReason::word)));
}

#[test]
fn it_says_of_everything_that_is_promised_and_not_built_that_it_is_not() {
    let text = readme();
    let section = section(&text, "What it does not do yet");
    let keys = later::KEYS.iter().flat_map(|(_, keys)| keys.iter().copied());
    let values = later::VALUES.iter().map(|(_, value)| *value);
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
fn every_file_that_it_names_is_there() {
    let text = readme();
    let top = ["src/", "tests/", "benches/", "conf/", "systemd/", ".ci/"];
    let named = spans(&text).filter(|span| top.iter().any(|top| span.starts_with(top)) && !span.contains(' '));
    let linked = links(&text).filter(|to| !to.starts_with('#') && !to.contains("://"));
    let files: BTreeSet<&str> = named.chain(linked).collect();
    assert!(files.len() > 40, "{files:?}");
    let missing: Vec<_> = files.iter().filter(|file| !root().join(file).exists()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_heading_that_it_links_to_is_there() {
    let text = readme();
    let anchors: BTreeSet<String> = headings(&text).map(anchor).collect();
    let missing: Vec<_> = links(&text)
        .filter_map(|to| to.strip_prefix('#'))
        .filter(|to| !anchors.contains(*to))
        .collect();
    assert!(missing.is_empty(), "{missing:?} in {anchors:?}");
}

#[test]
fn every_configuration_in_the_documents_has_neither_mistakes_nor_warnings() {
    let minimal = fs::read_to_string(root().join("conf/minimal.toml")).unwrap();
    for (name, text) in documents() {
        for block in text
            .split("\n```toml\n")
            .skip(1)
            .map(|rest| rest.split("\n```").next().unwrap())
        {
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
    let (_, migration) = documents().find(|(name, _)| name.contains("from-nginx")).unwrap();
    assert_eq!(migration.matches("\n```toml\n").count(), 2);
}

#[test]
fn every_key_that_the_words_of_nginx_and_haproxy_lead_to_is_one() {
    let (_, text) = documents().find(|(name, _)| name.contains("from-nginx")).unwrap();
    let mut checked = 0;
    for heading in ["nginx, word by word", "HAProxy, word by word"] {
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
fn what_the_documents_link_to_is_there() {
    let readme = readme();
    let anchors: BTreeSet<String> = headings(&readme).map(anchor).collect();
    for (name, text) in documents() {
        let own: BTreeSet<String> = headings(&text).map(anchor).collect();
        for to in links(&text).filter(|to| !to.contains("://")) {
            let (file, heading) = to.split_once('#').unwrap_or((to, ""));
            let folder = root().join("conf/deploy");
            assert!(file.is_empty() || folder.join(file).exists(), "{name}: {to}");
            let known = if file.is_empty() { &own } else { &anchors };
            assert!(heading.is_empty() || known.contains(heading), "{name}: {to}");
        }
        assert!(
            readme.contains(&format!("](conf/deploy/{name})")),
            "the README links to {name}"
        );
    }
}

#[test]
fn every_metric_that_it_names_is_one() {
    let text = readme();
    let sources: String = ["telemetry/metrics.rs", "admin/scrape.rs"]
        .map(|file| fs::read_to_string(root().join("src").join(file)).unwrap())
        .concat();
    let is_of_a_name = |byte: char| byte.is_ascii_lowercase() || byte == '_';
    let named: BTreeSet<&str> = text
        .match_indices("wsguard_")
        .map(|(at, _)| &text[at..])
        .map(|rest| &rest[..rest.find(|byte| !is_of_a_name(byte)).unwrap_or(rest.len())])
        .collect();
    assert!(!named.is_empty());
    for name in named {
        assert!(sources.contains(&format!("\"{name}\"")), "{name}");
    }
}

#[test]
fn it_names_the_oldest_rust_that_the_manifest_allows() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let version = manifest
        .split("\nrust-version = \"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    assert!(
        readme().contains(&format!("needs Rust {version} or newer")),
        "{version}"
    );
}

#[test]
fn the_picture_is_one_and_not_too_large() {
    let picture = fs::read(root().join("tests/demo/flood.png")).unwrap();
    assert!(picture.starts_with(b"\x89PNG\r\n\x1a\n"));
    assert!(picture.len() < 200 * 1024, "{} bytes", picture.len());
    let text = readme();
    let first_screen: String = text.lines().take(25).collect();
    assert!(first_screen.contains("tests/demo/flood.png") && first_screen.contains("cargo run --release -- demo"));
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
}

/// Name and text of each document of conf/deploy.
fn documents() -> impl Iterator<Item = (String, String)> {
    let folder = fs::read_dir(root().join("conf/deploy")).unwrap();
    folder.map(|file| {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        (name, fs::read_to_string(file.path()).unwrap())
    })
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

fn headings(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.strip_prefix("## "))
}

/// As GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading
        .chars()
        .filter(|byte| byte.is_alphanumeric() || " -_".contains(*byte));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// What stands in ticks within a line.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.starts_with("```"))
        .flat_map(|line| line.split('`').skip(1).step_by(2))
}

fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap())
}

fn in_ticks(cell: &str) -> &str {
    cell.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')).unwrap()
}

fn sorted<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let mut words = words.to_vec();
    words.sort_unstable();
    words
}
