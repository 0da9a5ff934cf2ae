//! Tables with known keys, read from the tree that the TOML parser makes. A value keeps its place in the text.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use toml::map::Map;

use crate::config::findings::{Finding, Findings};

/// A table of the configuration. Implemented by the types of [`super::schema`].
pub trait Table<'t>: Sized {
    /// The table's name and keys.
    const SCHEMA: Schema;

    /// Reads the known keys of a table; `None` if the table is not in the file. An unknown key is a mistake, and so is a
    /// plain value where a table belongs.
    fn read(table: Option<&'t DeTable<'t>>, found: &mut Findings) -> Self;

    /// A table without any key.
    fn empty() -> Self {
        Self::read(None, &mut Findings::default())
    }
}

/// The name of a table and the names of its keys.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// The table's name in dots; "" is the file itself.
    pub path: &'static str,
    /// The table's header with an article, for hints: "a `[[listener]]`".
    pub place: &'static str,
    /// The names of its keys.
    pub keys: &'static [&'static str],
}

/// A value of the parser's tree with its place.
pub type Value<'t> = Spanned<DeValue<'t>>;

/// A key whose value is not a table, with that value.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'t> {
    /// The key's name.
    pub key: &'static str,
    /// The value, of any type; `None` if the key is not in the file.
    pub value: Option<&'t Value<'t>>,
}

impl Entry<'_> {
    /// Whether the key is in the file, whatever its value.
    pub fn is_written(&self) -> bool {
        self.value.is_some()
    }

    /// The place of its value.
    pub fn span(&self) -> Option<Range<usize>> {
        self.value.map(Spanned::span)
    }
}

/// A text of the file with its place.
#[derive(Clone, Debug)]
pub struct Text<'t> {
    /// The text, without quotes and escapes.
    pub text: &'t str,
    /// The place of the text, with its quotes.
    pub span: Range<usize>,
}

/// A key whose value is one or more tables.
pub trait Field<'t> {
    /// Reads the value of this key. A value that should be a table and isn't one is a mistake.
    fn read(key: &'static str, value: Option<&'t Value<'t>>, found: &mut Findings) -> Self;
}

/// A table that occurs once, such as `[server]`.
impl<'t, T: Table<'t>> Field<'t> for T {
    fn read(key: &'static str, value: Option<&'t Value<'t>>, found: &mut Findings) -> Self {
        let table = value.and_then(|value| read_table(value, &format!("[{key}]"), found));
        table.unwrap_or_else(T::empty)
    }
}

/// A list of tables, such as `[[listener]]`.
#[derive(Debug)]
pub struct List<T> {
    /// The tables, each with the place of its header.
    pub tables: Vec<(Range<usize>, T)>,
    /// Whether the key is not in the file, or its list is empty.
    pub is_missing: bool,
}

impl<'t, T: Table<'t>> Field<'t> for List<T> {
    fn read(key: &'static str, value: Option<&'t Value<'t>>, found: &mut Findings) -> Self {
        let header = format!("[[{key}]]");
        let array = value.and_then(|value| value.get_ref().as_array());
        if let Some(value) = value.filter(|_| array.is_none()) {
            let title = format!("`{key}` must be a list of tables");
            found.mistake(Finding::at(value.span(), title).hint(format!("each one begins with {header}")));
        }
        let items = array.into_iter().flat_map(|array| array.iter());
        Self {
            tables: items
                .filter_map(|item| Some((item.span(), read_table(item, &header, found)?)))
                .collect(),
            is_missing: value.is_none() || array.is_some_and(|array| array.is_empty()),
        }
    }
}

/// Tables with names, such as `[zone.NAME]`.
#[derive(Debug)]
pub struct Named<'t, T> {
    /// The tables, each with its name, in the order written.
    pub tables: Vec<(Text<'t>, T)>,
    /// Whether the key is not in the file, or its table is empty.
    pub is_missing: bool,
}

impl<'t, T: Table<'t>> Field<'t> for Named<'t, T> {
    fn read(key: &'static str, value: Option<&'t Value<'t>>, found: &mut Findings) -> Self {
        let table = value.and_then(|value| value.get_ref().as_table());
        if let Some(value) = value.filter(|_| table.is_none()) {
            let title = format!("`{key}` must be a table");
            found.mistake(Finding::at(value.span(), title).hint(format!("each one begins with [{key}.NAME]")));
        }
        let mut members: Vec<_> = table.into_iter().flatten().collect();
        // The parser sorts tables by name. This restores the order of the file.
        members.sort_by_key(|(name, _)| name.span().start);
        // Whether this is a key without a table name, such as `per_ip = 5` directly under `[zone]`.
        let is_nameless = |name: &str, value: &Value<'_>| !value.get_ref().is_table() && T::SCHEMA.keys.contains(&name);
        let mut is_told = false;
        let mut tables = Vec::with_capacity(members.len());
        for (name, value) in members {
            let text = &**name.get_ref();
            if !is_nameless(text, value) {
                let read = read_table(value, &format!("[{key}.{text}]"), found);
                let span = name.span();
                tables.extend(read.map(|table| (Text { text, span }, table)));
            } else if !is_told {
                is_told = true;
                let title = format!("`{text}` directly in [{key}]");
                let hint = format!("each {key} has a name: [{key}.chat] instead of [{key}]");
                found.mistake(Finding::at(name.span(), title).hint(hint));
            }
        }
        Self {
            tables,
            is_missing: value.is_none() || table.is_some_and(Map::is_empty),
        }
    }
}

fn read_table<'t, T: Table<'t>>(value: &'t Value<'t>, header: &str, found: &mut Findings) -> Option<T> {
    let table = value.get_ref().as_table();
    if table.is_none() {
        let title = format!("{header} must be a table");
        let mistake = Finding::at(value.span(), title);
        found.mistake(mistake.hint(format!("write {header} on a line of its own, and its keys below it")));
    }
    table.map(|table| T::read(Some(table), found))
}
