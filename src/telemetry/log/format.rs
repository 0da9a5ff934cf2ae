//! A line as JSON or as text.

use std::io::{self, IsTerminal, Write};
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use crate::config::policy::{LogFormat, LogLevel};

use super::line::{Line, Value};

/// A line with its time, level and event.
#[derive(Debug)]
pub(super) struct StampedLine {
    pub(super) time: SystemTime,
    pub(super) level: LogLevel,
    pub(super) event: &'static str,
    pub(super) line: Line,
}

impl StampedLine {
    /// The line in the format of the policy, with a line feed; `None` if it can't be rendered.
    pub(super) fn render(&self, format: LogFormat) -> Option<String> {
        let mut text = if is_json(format) {
            serde_json::to_string(self).ok()?
        } else {
            self.text()
        };
        text.push('\n');
        Some(text)
    }

    /// The line as text: `time level event key=value …`. The keys are in the order of their names, and the message is last.
    fn text(&self) -> String {
        let mut fields: Vec<_> = self.line.fields().collect();
        fields.sort_unstable_by_key(|(name, _)| (*name == "message", *name));
        let mut out = format!("{} {:5} {}", timestamp(self.time), word(self.level), self.event);
        for (name, value) in fields {
            out.extend([" ", name, "="]);
            match value {
                Value::Text(value) => quote(value, &mut out),
                Value::Number(value) => out.push_str(&value.to_string()),
            }
        }
        out
    }
}

impl Serialize for StampedLine {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let time = timestamp(self.time);
        let stamp = [("time", &*time), ("level", word(self.level)), ("event", self.event)];
        let stamp = stamp.map(|(name, text)| (name, Value::Text(text)));
        serializer.collect_map(stamp.into_iter().chain(self.line.fields()))
    }
}

/// Writes a value as it stands after `=`. The value gets quotes if a part of it could be taken for the end of the value or
/// for another field. In quotes, `"`, `\`, controls and other invisible characters are escaped as in Rust.
fn quote(value: &str, out: &mut String) {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !br#""'=\"#.contains(&byte);
    if !value.is_empty() && value.bytes().all(is_plain) {
        out.push_str(value);
        return;
    }
    out.push('"');
    for char in value.chars() {
        match char {
            '\'' => out.push('\''),
            _ => out.extend(char.escape_debug()),
        }
    }
    out.push('"');
}

/// Writes a line to standard error at once. Used when there is no [`Log`](super::Log), for example at the start.
pub fn write_now(format: LogFormat, level: LogLevel, event: &'static str, message: String) {
    let line = StampedLine {
        time: SystemTime::now(),
        level,
        event,
        line: Line {
            message: Some(message),
            ..Line::default()
        },
    };
    if let Some(text) = line.render(format) {
        // If the line can't be written, there is nowhere else to report that.
        let _lost = io::stderr().write_all(text.as_bytes());
    }
}

/// Whether lines are JSON under this format. `Auto` depends on standard error.
pub fn is_json(format: LogFormat) -> bool {
    match format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    }
}

/// The time as in RFC 3339, in UTC, to the millisecond.
fn timestamp(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| String::from("-"), |time| format!("{time:.3}"))
}

fn word(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Reads a line of the text log as a collector does: three words, then fields `name=value`. A value in quotes ends at
    /// the next quote that is not escaped.
    fn read(line: &str) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        let mut rest = line;
        for name in ["time", "level", "event"] {
            let (word, behind) = rest.split_once(' ').unwrap_or((rest, ""));
            fields.insert(name.to_owned(), word.to_owned());
            rest = behind.trim_start_matches(' ');
        }
        while !rest.is_empty() {
            let (name, behind) = rest.split_once('=').unwrap();
            let (value, behind) = match behind.strip_prefix('"') {
                None => {
                    let (value, behind) = behind.split_once(' ').unwrap_or((behind, ""));
                    (value.to_owned(), behind)
                }
                Some(quoted) => read_quoted(quoted),
            };
            assert_eq!(fields.insert(name.to_owned(), value), None, "{name} twice in {line}");
            rest = behind;
        }
        fields
    }

    fn read_quoted(quoted: &str) -> (String, &str) {
        let mut value = String::new();
        let mut chars = quoted.chars();
        loop {
            match chars.next().unwrap() {
                '"' => break,
                '\\' => value.push(match chars.next().unwrap() {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    '0' => '\0',
                    'u' => {
                        let (code, _) = chars.as_str().split_once('}').unwrap();
                        chars.nth(code.len()).unwrap();
                        char::from_u32(u32::from_str_radix(&code[1..], 16).unwrap()).unwrap()
                    }
                    other => other,
                }),
                other => value.push(other),
            }
        }
        let behind = chars.as_str();
        assert!(behind.is_empty() || behind.starts_with(' '), "{quoted}");
        (value, behind.trim_start_matches(' '))
    }

    fn written(line: &Line) -> (String, BTreeMap<String, String>) {
        let line = StampedLine {
            time: SystemTime::UNIX_EPOCH,
            level: LogLevel::Info,
            event: "rejected",
            line: line.clone(),
        };
        let json = line.render(LogFormat::Json).unwrap();
        let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&json).unwrap();
        let fields = fields.into_iter().map(|(name, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (name, value)
        });
        let text = line.render(LogFormat::Text).unwrap();
        (text.strip_suffix('\n').unwrap().to_owned(), fields.collect())
    }

    #[test]
    fn a_json_line_has_the_fields_that_apply_in_the_order_of_the_columns() {
        let line = StampedLine {
            time: SystemTime::UNIX_EPOCH,
            level: LogLevel::Warn,
            event: "failed",
            line: Line {
                message: Some("\"quoted\"".into()),
                zone: Some("games".into()),
                reason: Some("upstream_down"),
                status: Some(503),
                duration_ms: Some(u64::MAX),
                ..Line::default()
            },
        };
        assert_eq!(
            line.render(LogFormat::Json).unwrap(),
            concat!(
                r#"{"time":"1970-01-01T00:00:00.000Z","level":"warn","event":"failed","zone":"games","#,
                r#""reason":"upstream_down","status":503,"duration_ms":18446744073709551615,"message":"\"quoted\""}"#,
                "\n"
            )
        );
    }

    #[test]
    fn a_text_line_has_its_fields_in_the_order_of_their_names_and_the_message_last() {
        let line = Line {
            message: Some("m".into()),
            zone: Some("z".into()),
            status: Some(101),
            bytes_in: Some(7),
            client: Some("c".into()),
            ..Line::default()
        };
        assert_eq!(
            written(&line).0,
            "1970-01-01T00:00:00.000Z info  rejected bytes_in=7 client=c status=101 zone=z message=m"
        );
    }

    #[test]
    fn only_values_that_need_quotes_have_them() {
        let line = Line {
            client: Some("2001:db8::1".into()),
            key: Some("2001:db8::/64".into()),
            status: Some(429),
            message: Some("origin https://a.example zone=exempt \\\" it's".into()),
            ..Line::default()
        };
        assert_eq!(
            written(&line).0,
            r#"1970-01-01T00:00:00.000Z info  rejected client=2001:db8::1 key=2001:db8::/64 status=429 message="origin https://a.example zone=exempt \\\" it's""#
        );
    }

    fn text() -> impl Strategy<Value = String> {
        let telling = prop::collection::vec(
            prop::sample::select(vec![
                " ", "  ", "=", "\"", "\\", "'", "\n", "\r", "\t", "\u{1b}", "\u{202e}", "\u{301}", "é", "a",
                "reason=", " zone=x", "\\u{41}", "\u{0}",
            ]),
            0..12,
        );
        prop_oneof![telling.prop_map(|parts| parts.concat()), any::<String>()]
    }

    proptest! {
        #[test]
        fn the_text_log_reads_back_as_the_fields_that_were_written(
            client in prop::option::of(text()),
            key in prop::option::of(text()),
            route in prop::option::of(text()),
            zone in prop::option::of(text()),
            message in prop::option::of(text()),
            status in prop::option::of(any::<u16>()),
            bytes_in in prop::option::of(any::<u64>()),
        ) {
            let line = Line {
                client,
                key,
                route: route.map(Into::into),
                zone: zone.map(Into::into),
                status,
                bytes_in,
                message,
                ..Line::default()
            };
            let (text, fields) = written(&line);
            prop_assert_eq!(read(&text), fields);
            prop_assert!(!text.contains(char::is_control), "{}", text);
        }
    }
}
