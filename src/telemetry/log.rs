//! Lines for operators: one a connection, at its end, and one for whatever else happens. A thread of its own writes
//! them; when it can't keep up, lines are dropped and counted, and the walk never waits.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use serde::Serialize;

use crate::config::policy::{LogAccess, LogFormat, LogLevel, LogPolicy};
use crate::limit::key::ClientKey;

use crate::engine::panics::survive;
use crate::telemetry::sample::{Class, Sampler};

/// Where lines go. Clones write to the same place.
#[derive(Clone, Debug)]
pub struct Log {
    queue: SyncSender<Item>,
    shared: Arc<Shared>,
}

/// One line. Fields that do not apply are left out; values from traffic are escaped and cut.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(default)]
#[allow(missing_docs)] // The names are the documentation: each is a column of the log.
pub struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_in: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_out: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_in: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_out: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_hits: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeats: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unlogged: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

#[derive(Serialize)]
struct Stamped<'a> {
    time: String,
    level: &'static str,
    event: &'static str,
    #[serde(flatten)]
    line: &'a Line,
}

#[derive(Debug)]
enum Item {
    Line(SystemTime, LogLevel, &'static str, Box<Line>),
    Flush(SyncSender<()>),
}

#[derive(Debug)]
struct Shared {
    policy: ArcSwap<LogPolicy>,
    dropped: AtomicU64,
    sampler: Sampler,
}

impl Log {
    /// Starts the thread that writes to standard error.
    pub fn start(policy: LogPolicy) -> io::Result<Self> {
        let (queue, lines) = sync_channel(QUEUE);
        let sampler = Sampler::new(Instant::now());
        let shared = Arc::new(Shared {
            policy: ArcSwap::from_pointee(policy),
            dropped: AtomicU64::new(0),
            sampler,
        });
        let writer = Writer {
            shared: Arc::clone(&shared),
            lines,
        };
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || writer.run())?;
        Ok(Self { queue, shared })
    }

    /// Writes a line about anything but a connection.
    pub fn event(&self, level: LogLevel, event: &'static str, line: Line) {
        if level >= self.shared.policy.load().level {
            self.send(level, event, line);
        }
    }

    /// Writes a line in plain words.
    pub fn warn(&self, event: &'static str, message: &str) {
        self.event(
            LogLevel::Warn,
            event,
            Line {
                message: Some(message.to_owned()),
                ..Line::default()
            },
        );
    }

    /// Writes a connection's line, unless lines equal to it are being summed. `line` is only built when it is written.
    pub fn access(&self, class: Class, key: Option<ClientKey>, zone: Option<&Arc<str>>, line: impl FnOnce() -> Line) {
        let policy = self.shared.policy.load();
        let is_wanted = match policy.access {
            LogAccess::All => true,
            LogAccess::Rejected => class.is_refusal(),
            LogAccess::Off => false,
        };
        if !is_wanted || class.level() < policy.level {
            return;
        }
        if self.shared.sampler.passes(class, key, zone, policy.sample) {
            self.send(class.level(), class.event(), line());
        }
    }

    /// Goes on by another policy.
    pub fn set_policy(&self, policy: LogPolicy) {
        self.shared.policy.store(Arc::new(policy));
    }

    /// Lines that nobody read in time, or that could not be written.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Relaxed)
    }

    /// Waits until what was logged so far is written, a second at most.
    pub fn flush(&self) {
        let until = Instant::now() + Duration::from_secs(1);
        let (done, waits) = sync_channel(1);
        let mut flush = Item::Flush(done);
        while let Err(TrySendError::Full(back)) = self.queue.try_send(flush) {
            if Instant::now() >= until {
                return;
            }
            flush = back;
            std::thread::sleep(Duration::from_millis(5));
        }
        let _late = waits.recv_timeout(until.saturating_duration_since(Instant::now()));
    }

    fn send(&self, level: LogLevel, event: &'static str, line: Line) {
        let item = Item::Line(SystemTime::now(), level, event, Box::new(line));
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.queue.try_send(item) {
            self.shared.dropped.fetch_add(1, Relaxed);
        }
    }
}

/// A value from traffic as a log may show it: controls and non-ASCII escaped, 256 bytes at most.
pub fn shown(value: &[u8]) -> String {
    let mut shown = value.escape_ascii().to_string();
    shown.truncate(LONGEST_VALUE);
    shown
}

struct Writer {
    shared: Arc<Shared>,
    lines: Receiver<Item>,
}

impl Writer {
    fn run(self) {
        let mut next_sum = Instant::now() + EVERY;
        loop {
            match self
                .lines
                .recv_timeout(next_sum.saturating_duration_since(Instant::now()))
            {
                Ok(Item::Line(time, level, event, line)) => {
                    survive(|| self.write(time, level, event, &line));
                }
                Ok(Item::Flush(done)) => {
                    self.write_sums();
                    let _nobody_waits = done.try_send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= next_sum {
                next_sum = Instant::now() + EVERY;
                self.write_sums();
            }
        }
    }

    fn write_sums(&self) {
        for sum in self.shared.sampler.sums(Instant::now()) {
            let line = Line {
                zone: sum.zone.clone(),
                reason: Some(sum.class.reason()),
                outcome: Some(sum.class.event()),
                count: Some(sum.lines),
                unlogged: Some(sum.left_out),
                top_client: sum.top.map(|(key, _)| key.to_string()),
                top_count: sum.top.map(|(_, count)| count),
                message: Some(sum.text()),
                ..Line::default()
            };
            self.write(SystemTime::now(), sum.class.level(), "summed", &line);
        }
    }

    fn write(&self, time: SystemTime, level: LogLevel, event: &'static str, line: &Line) {
        let Some(json) = json(time, level, event, line) else {
            return;
        };
        let mut text = if is_json(self.shared.policy.load().format) {
            json
        } else {
            for_people(&json)
        };
        text.push('\n');
        // Where standard error is gone, or its disk is full, there is nobody to tell.
        if io::stderr().write_all(text.as_bytes()).is_err() {
            self.shared.dropped.fetch_add(1, Relaxed);
        }
    }
}

fn json(time: SystemTime, level: LogLevel, event: &'static str, line: &Line) -> Option<String> {
    let stamped = Stamped {
        time: stamp(time),
        level: word(level),
        event,
        line,
    };
    serde_json::to_string(&stamped).ok()
}

/// `time level event key=value …`, from the same fields as the JSON line, the message last.
fn for_people(json: &str) -> String {
    let Ok(serde_json::Value::Object(fields)) = serde_json::from_str(json) else {
        return json.to_owned();
    };
    let text = |name: &str| fields.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
    let mut out = format!("{} {:5} {}", text("time"), text("level"), text("event"));
    let (messages, others): (Vec<_>, Vec<_>) = fields
        .iter()
        .filter(|(name, _)| !["time", "level", "event"].contains(&name.as_str()))
        .partition(|(name, _)| *name == "message");
    for (name, value) in others.into_iter().chain(messages) {
        out.extend([" ", name, "="]);
        match value.as_str() {
            Some(value) => quote(value, &mut out),
            None => out.push_str(&value.to_string()),
        }
    }
    out
}

/// A value as it stands behind `=`: in quotes where anything in it could be taken for the end of the value or for another
/// field; in them `"`, `\`, controls and what else can't be seen are escaped as in Rust.
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

/// Writes a line at once: for what is to be told while there is no [`Log`], at start say.
pub fn say(format: LogFormat, level: LogLevel, event: &'static str, message: String) {
    let line = Line {
        message: Some(message),
        ..Line::default()
    };
    let Some(json) = json(SystemTime::now(), level, event, &line) else {
        return;
    };
    let mut text = if is_json(format) { json } else { for_people(&json) };
    text.push('\n');
    // Where it can't be written there is nobody to tell.
    let _unheard = io::stderr().write_all(text.as_bytes());
}

/// Whether lines are JSON, each of them.
pub fn is_json(format: LogFormat) -> bool {
    match format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    }
}

/// RFC 3339 in UTC, to the millisecond.
fn stamp(time: SystemTime) -> String {
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

const QUEUE: usize = 8192;
const EVERY: Duration = Duration::from_secs(1);
const LONGEST_VALUE: usize = 256;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Reads a line of the text log as a collector does: three words, then `name=value`, a value in quotes up to the next
    /// quote that is not escaped.
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
        let json = json(SystemTime::UNIX_EPOCH, LogLevel::Info, "rejected", line).unwrap();
        let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&json).unwrap();
        let fields = fields.into_iter().map(|(name, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (name, value)
        });
        (for_people(&json), fields.collect())
    }

    #[test]
    fn what_needs_no_quotes_has_none() {
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
