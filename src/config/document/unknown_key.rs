//! Reports unknown keys and keys that are planned for a later version, and suggests the key that was probably meant.

use toml::de::DeTable;

use crate::config::findings::{Finding, Findings, nearest};

use super::planned;
use super::table::Schema;

/// Reports each key of `table` that is not in its `schema`. `all` are the tables that it might belong in.
pub fn report(schema: &Schema, table: Option<&DeTable<'_>>, all: &[Schema], found: &mut Findings) {
    for (name, _) in table.into_iter().flatten() {
        let key = &**name.get_ref();
        if !schema.keys.contains(&key) {
            let (title, hint) = title_and_hint(schema, key, all);
            found.mistake(Finding::at(name.span(), title).hint(hint));
        }
    }
}

fn title_and_hint(schema: &Schema, key: &str, all: &[Schema]) -> (String, String) {
    let instead = planned::instead_of(key).map(str::to_owned);
    if planned::has_key(schema.path, key) {
        let title = format!("`{key}` is not in this version");
        return (title, instead.unwrap_or_else(|| PLANNED.to_owned()));
    }
    let kind = if schema.path.is_empty() { "table" } else { "key" };
    let hint = instead.unwrap_or_else(|| hint(schema, key, all));
    (format!("unknown {kind} `{key}`"), hint)
}

fn hint(schema: &Schema, key: &str, all: &[Schema]) -> String {
    if let Some(name) = nearest(key, schema.keys.iter().copied()) {
        return format!("did you mean `{name}`?");
    }
    let is_home = |other: &&Schema| other.path != schema.path && !other.path.is_empty() && other.keys.contains(&key);
    if let Some(home) = all.iter().find(is_home) {
        return format!("`{key}` belongs in {}", home.place);
    }
    let known: Vec<String> = schema.keys.iter().map(|name| format!("`{name}`")).collect();
    format!("known keys: {}", known.join(", "))
}

const PLANNED: &str = "it is planned for a later version; remove it, it would have no effect";
