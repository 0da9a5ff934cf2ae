//! `[limits.messages]` and `[zone.*.messages]`.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::config::document::schema::Messages;
use crate::config::document::setting::Setting;
use crate::config::document::table::Entry;
use crate::config::document::value::MOST_BYTES;
use crate::config::findings::{Finding, Findings};
use crate::limit::rules::Rate;
use crate::relay::rules::{MessageRules, OnExceed, Pong};

use super::rate;

/// What is written, over what is inherited; `strict_frames` is for [`settle`], once the zone is complete.
pub fn overlay(rules: &mut MessageRules, raw: &Messages, found: &mut Findings) {
    // Above what is inherited and below what is written beside it. For one that is not known another stands in, so that
    // a burst beside it is not a mistake as well.
    if raw.preset.is_written() {
        rules.rate = raw.preset.word(&PRESETS, found).unwrap_or(PRESETS[1].1);
        if rules.rate.is_some() {
            rules.on_exceed = OnExceed::Close;
        }
    }
    rules.rate = rate::over(rules.rate, &raw.rate, &raw.burst, found);
    rules.per_ip_rate = rate::over(rules.per_ip_rate, &raw.per_ip_rate, &raw.per_ip_burst, found);
    rules.bytes_rate = rate::bytes_over(rules.bytes_rate, &raw.bytes_rate, &raw.bytes_burst, found);
    rules.max_size = raw
        .max_size
        .size_or_off(&(1..=MOST_BYTES.into()), found)
        .or(rules.max_size);
    rules.out_rate = rate::over(rules.out_rate, &raw.out_rate, &raw.out_burst, found);
    rules.out_per_ip_rate = rate::over(
        rules.out_per_ip_rate,
        &raw.out_per_ip_rate,
        &raw.out_per_ip_burst,
        found,
    );
    rules.out_bytes_rate = rate::bytes_over(rules.out_bytes_rate, &raw.out_bytes_rate, &raw.out_bytes_burst, found);
    if let Some(on_exceed) = raw.on_exceed.word(&ON_EXCEED, found) {
        rules.on_exceed = on_exceed;
    }
    rules.notice = notice(&raw.notice, found).or(rules.notice.take());
    rules.ping = raw.ping.duration_or_off(&PING, found).or(rules.ping);
    if let Some(timeout) = raw.pong_timeout.duration(&PONG_TIMEOUT, found) {
        rules.pong_timeout = timeout;
    }
    if let Some(pong) = raw.pong.word(&PONG, found) {
        rules.pong = pong;
    }
    if let Some(replace) = raw.replace_ghosts.flag(found) {
        rules.replace_ghosts = replace;
    }
}

/// Resolves `strict_frames` of a zone that is complete; `None` is "auto", which is on: what RFC 6455 forbids helps nobody.
///
/// In an exempt zone it is only where something limits messages: a limit can be got around by frames that wsguard and the
/// server read differently.
pub fn settle(rules: &mut MessageRules, strict: Option<bool>, is_exempt: bool) {
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

/// Without what limits messages; who is asked whether it is still there stays so.
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
    let such = "the text to send to the client, or \"off\"";
    let Some(text) = entry.text(such, found) else {
        return Setting::Unwritten;
    };
    let (title, hint) = if text.text.is_empty() {
        ("`notice` is empty", such.to_owned())
    } else if text.text.len() > MOST_NOTICE {
        let hint = format!("it has {} bytes; at most {MOST_NOTICE} are allowed", text.text.len());
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

const fn a_second(tokens: u32, burst: u32) -> Rate {
    Rate {
        tokens: NonZeroU32::new(tokens).expect("a preset is not 0"),
        per: Duration::from_secs(1),
        burst: NonZeroU32::new(burst).expect("a preset is not 0"),
    }
}

/// The `rate` of each; all of them close.
const PRESETS: [(&str, Option<Rate>); 3] = [
    ("off", None),
    ("dead-chat", Some(a_second(5, 5))),
    ("discord", Some(a_second(2, 120))),
];

const ON_EXCEED: [(&str, OnExceed); 2] = [("close", OnExceed::Close), ("delay", OnExceed::Delay)];

const PONG: [(&str, Pong); 2] = [("required", Pong::Required), ("tcp", Pong::Tcp)];

const PING: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
const PONG_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

/// In bytes, `{retry_ms}` as it is written.
const MOST_NOTICE: usize = 4096;
