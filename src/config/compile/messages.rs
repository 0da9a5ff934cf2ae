//! Compiles `[limits.messages]` and `[zone.*.messages]`.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::config::document::schema::Messages;
use crate::config::document::setting::Setting;
use crate::config::document::table::Entry;
use crate::config::document::value::MAX_BYTES;
use crate::config::findings::{Finding, Findings};
use crate::limit::rules::Rate;
use crate::relay::rules::{MessageRules, OnExceed, Pong};

use super::rate;

/// Applies the written keys to the inherited `rules`; `strict_frames` is left to [`resolve_strict_frames`].
pub fn apply(rules: &mut MessageRules, written: &Messages, found: &mut Findings) {
    // A preset overrides inherited rules, and the keys of the same table override the preset. A known preset takes the place
    // of an unknown one, so that a burst in the same table is not a second mistake.
    if written.preset.is_written() {
        rules.rate = written.preset.word(&PRESETS, found).unwrap_or(PRESETS[1].1);
        if rules.rate.is_some() {
            rules.on_exceed = OnExceed::Close;
        }
    }
    rules.rate = rate::apply(rules.rate, &written.rate, &written.burst, found);
    rules.per_ip_rate = rate::apply(rules.per_ip_rate, &written.per_ip_rate, &written.per_ip_burst, found);
    rules.bytes_rate = rate::apply_bytes(rules.bytes_rate, &written.bytes_rate, &written.bytes_burst, found);
    rules.max_size = written
        .max_size
        .size_or_off(&(1..=MAX_BYTES.into()), found)
        .or(rules.max_size);
    rules.out_rate = rate::apply(rules.out_rate, &written.out_rate, &written.out_burst, found);
    rules.out_per_ip_rate = rate::apply(
        rules.out_per_ip_rate,
        &written.out_per_ip_rate,
        &written.out_per_ip_burst,
        found,
    );
    rules.out_bytes_rate = rate::apply_bytes(
        rules.out_bytes_rate,
        &written.out_bytes_rate,
        &written.out_bytes_burst,
        found,
    );
    if let Some(on_exceed) = written.on_exceed.word(&ON_EXCEED, found) {
        rules.on_exceed = on_exceed;
    }
    rules.notice = notice(&written.notice, found).or(rules.notice.take());
    rules.ping = written.ping.duration_or_off(&PING, found).or(rules.ping);
    if let Some(timeout) = written.pong_timeout.duration(&PONG_TIMEOUT, found) {
        rules.pong_timeout = timeout;
    }
    if let Some(pong) = written.pong.word(&PONG, found) {
        rules.pong = pong;
    }
    if let Some(replace) = written.replace_ghosts.flag(found) {
        rules.replace_ghosts = replace;
    }
}

/// Resolves `strict_frames` of a zone whose other rules are complete. `None` is "auto", which is on except in some exempt
/// zones.
///
/// In an exempt zone "auto" is on only if the zone limits messages: frames that wsguard and the server read differently
/// could evade that limit.
pub fn resolve_strict_frames(rules: &mut MessageRules, strict: Option<bool>, is_exempt: bool) {
    let limited = [
        rules.rate,
        rules.per_ip_rate,
        rules.bytes_rate,
        rules.out_rate,
        rules.out_per_ip_rate,
        rules.out_bytes_rate,
    ];
    let is_limited = rules.max_size.is_some() || limited.iter().any(Option::is_some);
    rules.strict_frames = strict.unwrap_or(!is_exempt || is_limited);
}

/// The rules without limits on messages. Pings stay.
pub fn unlimited(rules: MessageRules) -> MessageRules {
    MessageRules {
        rate: None,
        per_ip_rate: None,
        bytes_rate: None,
        max_size: None,
        out_rate: None,
        out_per_ip_rate: None,
        out_bytes_rate: None,
        strict_frames: false,
        ..rules
    }
}

fn notice(entry: &Entry, found: &mut Findings) -> Setting<Arc<str>> {
    if entry.is("off") {
        return Setting::Off;
    }
    let example = "the text to send to the client, or \"off\"";
    let Some(text) = entry.text(example, found) else {
        return Setting::Unwritten;
    };
    let (title, hint) = if text.text.is_empty() {
        ("`notice` is empty", example.to_owned())
    } else if text.text.len() > MAX_NOTICE {
        let hint = format!("it has {} bytes; at most {MAX_NOTICE} are allowed", text.text.len());
        ("`notice` is too long", hint)
    } else if text.text.contains(char::is_control) {
        let hint = "write one line without tabs or other control characters".to_owned();
        ("`notice` has control characters", hint)
    } else {
        return Setting::Value(text.text.into());
    };
    found.mistake(Finding::at(text.span, title).hint(hint));
    Setting::Unwritten
}

const fn per_second(tokens: u32, burst: u32) -> Rate {
    Rate {
        tokens: NonZeroU32::new(tokens).expect("a preset is not 0"),
        per: Duration::from_secs(1),
        burst: NonZeroU32::new(burst).expect("a preset is not 0"),
    }
}

/// The `rate` of each preset. Every preset but "off" closes connections that exceed its rate.
const PRESETS: [(&str, Option<Rate>); 3] = [
    ("off", None),
    ("dead-chat", Some(per_second(5, 5))),
    ("discord", Some(per_second(2, 120))),
];

const ON_EXCEED: [(&str, OnExceed); 2] = [("close", OnExceed::Close), ("delay", OnExceed::Delay)];

const PONG: [(&str, Pong); 2] = [("required", Pong::Required), ("tcp", Pong::Tcp)];

const PING: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
const PONG_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

/// The longest notice, in bytes, before `{retry_ms}` is replaced.
const MAX_NOTICE: usize = 4096;
