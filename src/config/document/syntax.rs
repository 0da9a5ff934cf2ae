//! Explains syntax errors: where the text is not TOML, and how the line is probably meant.

use std::ops::Range;

use toml::de::{DeTable, Error};

use crate::config::findings::Finding;

use super::schema::{LISTS, SCHEMAS};

/// The mistakes in a text that is not TOML; `first` is the parser's first error.
pub fn mistakes(text: &str, first: &Error) -> Vec<Finding> {
    let mut found = if begins_as_toml(text) {
        by_line(text, first)
    } else {
        vec![as_parsed(first).title("this is not TOML").hint(BEGINNING)]
    };
    if let Some(last) = found.last_mut() {
        last.note = Some("the rest of the file is checked once it is TOML".to_owned());
    }
    found
}

/// One mistake for each wrong line that can be explained. The list ends at the first one that can't be explained, and at a
/// broken header: the lines after it may be misread.
fn by_line(text: &str, first: &Error) -> Vec<Finding> {
    let (mut rest, mut found) = (text.to_owned(), Vec::new());
    while found.len() < MAX_SHOWN {
        let (_, errors) = DeTable::parse_recoverable(&rest);
        let Some(error) = errors.into_iter().min_by_key(start) else {
            break;
        };
        let Some(span) = error.span() else {
            // The error has no place: it may be about any line.
            found.push(as_parsed(&error));
            break;
        };
        let line = line_at(&rest, span.start);
        let Some(finding) = explained(&error, &rest, &line) else {
            let is_open = error.message().starts_with("missing comma between array") && header(&rest[line]).is_some();
            found.push(
                as_parsed(&error).maybe_hint(is_open.then(|| "the list before it is missing its `]`".to_owned())),
            );
            break;
        };
        found.push(finding);
        if header(&rest[line.clone()]).is_some() {
            break;
        }
        // The parser does not always go on after an error: the next round parses the text without this line.
        rest.replace_range(line.clone(), &" ".repeat(line.len()));
    }
    if found.is_empty() {
        found.push(as_parsed(first));
    }
    found
}

/// Errors without a place come last.
fn start(error: &Error) -> usize {
    error.span().map_or(usize::MAX, |span| span.start)
}

const TOO_DEEP: &str = "cannot recurse further; max recursion depth met";

/// The most lines that are explained at once.
const MAX_SHOWN: usize = 20;

/// A mistake in the parser's own words, if they are clear.
fn as_parsed(error: &Error) -> Finding {
    let title = match error.message().lines().next() {
        Some("recursion limit") => "a key has too many parts between its dots",
        Some(TOO_DEEP) => "lists and tables are nested too deeply",
        Some(title) => title,
        None => "not TOML",
    };
    Finding {
        span: error.span(),
        ..Finding::nowhere(title)
    }
}

/// A better explanation than the parser's, if there is one.
fn explained(error: &Error, text: &str, line: &Range<usize>) -> Option<Finding> {
    if error.message().starts_with(TOO_DEEP) {
        return None;
    }
    let finding = as_parsed(error);
    if error.message() == "duplicate key" {
        return Some(twice(finding, text, line));
    }
    if without_comment(&text[line.clone()]).trim_end().ends_with('=') {
        let hint = "write a value after `=`, or remove the line";
        return Some(finding.title("a key without a value").hint(hint));
    }
    let (title, right) = repaired(&text[line.clone()])?;
    Some(finding.title(title).hint(format!("in TOML: `{right}`")))
}

/// Something that may be wrong with a line, and the function that repairs it. The function gives `None` if it changes
/// nothing.
struct Repair(&'static str, fn(&str) -> Option<String>);

/// All repairs. They are applied in this order, each to the result of the one before it.
const REPAIRS: [Repair; 4] = [
    Repair("a key and its value need `=` between them", with_equals),
    Repair("TOML needs straight quotes", with_straight_quotes),
    Repair("a line has no comma or semicolon at its end", without_end),
    Repair("a value must be a number, true, false, or a text in quotes", in_quotes),
];

/// What is wrong with a line, and the line as TOML; `None`: no repair helps, or the line is right by itself.
fn repaired(line: &str) -> Option<(&'static str, String)> {
    let mut line = without_comment(line).trim().to_owned();
    let mut title = None;
    for Repair(what, repair) in REPAIRS {
        if is_toml(&line) {
            break;
        }
        if let Some(right) = repair(&line) {
            title = title.or(Some(what));
            line = right;
        }
    }
    title.filter(|_| is_toml(&line)).map(|title| (title, line))
}

/// Repairs `per_ip: 5` and `per_ip 5`, but only for known keys: in a list over many lines, an address can look like a key.
fn with_equals(line: &str) -> Option<String> {
    let (key, value) = line.split_once([':', ' '])?;
    let is_known = SCHEMAS.iter().any(|schema| schema.keys.contains(&key));
    (is_known && !value.trim_start().starts_with('=')).then(|| format!("{key} = {}", value.trim()))
}

/// Replaces curly quotes, which come from word processors and web pages.
fn with_straight_quotes(line: &str) -> Option<String> {
    let right = line
        .replace(['“', '”', '„', '‟'], "\"")
        .replace(['‘', '’', '‚', '‛'], "'");
    (right != line).then_some(right)
}

fn without_end(line: &str) -> Option<String> {
    let right = line.trim_end_matches([',', ';', ' ']);
    (right != line).then(|| right.to_owned())
}

fn in_quotes(line: &str) -> Option<String> {
    let (key, value) = line.split_once('=')?;
    let value = value.trim();
    let right = match value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(items) => {
            let items = items.split(',').map(str::trim).filter(|item| !item.is_empty());
            format!("[{}]", items.map(quoted).collect::<Vec<_>>().join(", "))
        }
        None => quoted(value),
    };
    Some(format!("{} = {right}", key.trim()))
}

/// A value as TOML. It gets two new quotes, because one of the old ones may be missing.
fn quoted(value: &str) -> String {
    if is_toml(&format!("value = {value}")) {
        return value.to_owned();
    }
    match value.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => "true".to_owned(),
        "false" | "no" => "false".to_owned(),
        _ => format!("\"{}\"", value.trim_matches(['"', '\''])),
    }
}

fn is_toml(line: &str) -> bool {
    DeTable::parse(line).is_ok()
}

/// The finding about a key or a table that is written twice, with the place of the first.
fn twice(finding: Finding, text: &str, line: &Range<usize>) -> Finding {
    let before = lines(&text[..line.start]);
    let written = &text[line.clone()];
    let Some(name) = header(written) else {
        let mut in_its_table = before.iter().rev().take_while(|(_, line)| header(line).is_none());
        let first = in_its_table.find(|(_, line)| key(line) == key(written));
        let key = finding.span.clone().and_then(|span| text.get(span)).unwrap_or("a key");
        let title = format!("`{key}` is written twice");
        return beside(finding.title(title).hint("remove one of the two"), first);
    };
    let (title, hint) = if LISTS.contains(&name) {
        (
            format!("there may be several of `{name}`"),
            format!("each one begins with [[{name}]]"),
        )
    } else {
        (
            format!("[{name}] is written twice"),
            format!("put its keys under one [{name}]"),
        )
    };
    let first = before.iter().find(|(_, line)| header(line) == Some(name));
    beside(finding.title(title).hint(hint), first)
}

fn beside(finding: Finding, first: Option<&(usize, &str)>) -> Finding {
    match first {
        Some((start, line)) => finding.beside(*start..start + line.len(), "the first"),
        None => finding,
    }
}

/// The name in `[name]` and `[[name]]`.
fn header(line: &str) -> Option<&str> {
    let inner = line.trim_start().strip_prefix('[')?.trim_start_matches('[');
    inner.split(']').next().map(str::trim)
}

fn key(line: &str) -> &str {
    line.split('=').next().unwrap_or(line).trim()
}

/// Whether the first line with content is a header or sets a value, as in every TOML file.
fn begins_as_toml(text: &str) -> bool {
    let has_content = |line: &&str| !line.is_empty() && !line.starts_with('#');
    let first = text
        .trim_start_matches('\u{feff}')
        .lines()
        .map(str::trim)
        .find(has_content);
    first.is_none_or(|line| line.starts_with('[') || line.contains('='))
}

/// Cuts a comment off. A `#` inside quotes does not begin one.
fn without_comment(line: &str) -> &str {
    match line.rfind(" #") {
        Some(at) if line[..at].matches('"').count().is_multiple_of(2) => &line[..at],
        _ => line,
    }
}

/// The line that contains this byte, without its line end.
fn line_at(text: &str, at: usize) -> Range<usize> {
    let is_end = |byte: &u8| *byte == b'\n';
    let bytes = text.as_bytes();
    let at = at.min(bytes.len());
    let start = bytes[..at].iter().rposition(is_end).map_or(0, |end| end + 1);
    let len = bytes[at..].iter().position(is_end).unwrap_or(bytes.len() - at);
    start..at + len
}

/// Each line without the blanks around it, and the byte where it begins.
fn lines(text: &str) -> Vec<(usize, &str)> {
    let mut lines = Vec::new();
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        end += line.len();
        lines.push((end - line.trim_start().len(), line.trim()));
    }
    lines
}

const BEGINNING: &str =
    "it begins with [[listener]] and on the next line: bind = [\"0.0.0.0:8080\"]; conf/minimal.toml is a complete one";
