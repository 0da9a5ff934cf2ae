//! Keys that are not known: what they probably should have been.

use toml::Spanned;

use crate::config::document::planned;
use crate::config::document::table::LISTS;
use crate::config::findings::{Finding, nearest};

/// The mistake that a key of this table is, which is none of its `keys`; `schema` has every table with its keys.
pub fn mistake(table: &str, keys: &[&str], stray: &Spanned<String>, schema: &[(&str, &[&str])]) -> Finding {
    let key = stray.get_ref().as_str();
    if planned::has_key(table, key) {
        let planned = "it is planned; take it out until a version has it, it would have no effect";
        return Finding::at(stray.span(), format!("`{key}` is not in this version"))
            .hint(planned::meanwhile(key).unwrap_or(planned));
    }
    let title = match table {
        "" => format!("unknown table `{key}`"),
        _ => format!("unknown key `{key}`"),
    };
    Finding::at(stray.span(), title).hint(hint(table, keys, key, schema))
}

fn hint(table: &str, keys: &[&str], key: &str, schema: &[(&str, &[&str])]) -> String {
    if let Some(instead) = planned::meanwhile(key) {
        return instead.to_owned();
    }
    if let Some(name) = nearest(key, keys.iter().copied()) {
        return format!("did you mean `{name}`?");
    }
    let home = schema
        .iter()
        .find(|(home, known)| *home != table && !home.is_empty() && known.contains(&key));
    if let Some((home, _)) = home {
        let header = match *home {
            "limits" => "[limits] or a [zone.NAME]".to_owned(),
            list if LISTS.contains(&list) => format!("a [[{home}]]"),
            "upstream" => "an [upstream.NAME]".to_owned(),
            _ => format!("[{home}]"),
        };
        return format!("`{key}` belongs in {header}");
    }
    let known: Vec<String> = keys.iter().map(|name| format!("`{name}`")).collect();
    format!("known here: {}", known.join(", "))
}
