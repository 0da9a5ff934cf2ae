//! Guesses the meaning of a value that can't be read: a value without its unit, or in the notation of another program.
//!
//! Each function gives `None` if the meaning is not clear. [`super::units`] can read a guess, unless its number is too
//! large.

use std::time::Duration;

use crate::config::notation::units::{RATE_UNITS, leading_number, show_duration, show_size};

/// Understands `5 minutes` and `1d`; a number alone counts seconds.
pub fn duration(written: &str) -> Option<String> {
    let text = plain(written);
    let (mut rest, mut total) = (text.as_str(), 0_u64);
    while !rest.is_empty() {
        let (count, after) = leading_number(rest)?;
        let unit = &after[..after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len())];
        let is_alone = unit.is_empty() && rest.len() == text.len();
        let millis = if is_alone { 1000 } else { millis(unit)? };
        total = total.checked_add(u64::from(count).checked_mul(millis)?)?;
        rest = &after[unit.len()..];
    }
    (!text.is_empty()).then(|| show_duration(Duration::from_millis(total)))
}

/// Understands `64KB`, `10m` and `65536`.
pub fn size(written: &str) -> Option<String> {
    bytes(&plain(written)).map(show_size)
}

/// Understands `5r/s` and `10r/m` as in nginx, and `1/10s` as in `HAProxy`. A rate without a time is per second.
pub fn rate(written: &str) -> Option<String> {
    let text = plain(written).replace("per", "/");
    let (count, time) = text.split_once('/').unwrap_or((&text, "s"));
    let (count, things) = leading_number(count)?;
    let is_count = ["", "r", "req", "requests", "messages"].contains(&things);
    let (count, unit) = in_one(count.into(), time).filter(|_| is_count)?;
    Some(format!("{count}/{unit}"))
}

/// Understands `1MB/s`. A byte rate without a time is per second.
pub fn byte_rate(written: &str) -> Option<String> {
    let text = plain(written).replace("per", "/");
    let (size, time) = text.split_once('/').unwrap_or((&text, "s"));
    let (count, unit) = in_one(bytes(size)?, time)?;
    Some(format!("{}/{unit}", show_size(count)))
}

/// The same rate per second, minute or hour. It keeps its own unit of time if that is one of the three; else it gets the
/// shortest one that gives a whole number.
fn in_one(count: u64, time: &str) -> Option<(u64, &'static str)> {
    let (times, unit) = leading_number(time).unwrap_or((1, time));
    let seconds = u64::from(times).checked_mul(millis(unit)?)? / 1000;
    let in_unit = |(name, unit): (&'static str, u64)| {
        let count = count.checked_mul(unit)?;
        (seconds > 0 && count.is_multiple_of(seconds)).then(|| (count / seconds, name))
    };
    let own = RATE_UNITS.into_iter().find(|(_, unit)| *unit == seconds);
    own.into_iter().chain(RATE_UNITS).find_map(in_unit)
}

/// The number of bytes. Units are powers of 1024 in every spelling. A number below 1024 without a unit gives `None`: it may
/// count anything.
fn bytes(text: &str) -> Option<u64> {
    let (count, unit) = leading_number(text)?;
    let shift = match unit {
        "" if count >= 1024 => 0,
        "b" | "bytes" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return None,
    };
    Some(u64::from(count) << shift)
}

fn millis(unit: &str) -> Option<u64> {
    Some(match unit {
        "ms" | "milliseconds" => 1,
        "s" | "sec" | "secs" | "second" | "seconds" => 1000,
        "m" | "min" | "mins" | "minute" | "minutes" => 60_000,
        "h" | "hour" | "hours" => 3_600_000,
        "d" | "day" | "days" => 86_400_000,
        _ => return None,
    })
}

/// The text without blanks, in lower case.
fn plain(written: &str) -> String {
    let text: String = written.chars().filter(|c| !c.is_whitespace()).collect();
    text.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::notation::units;
    use proptest::prelude::*;

    #[test]
    fn the_notation_of_other_programs_is_understood_where_it_is_clear() {
        for (guess, written, expected) in [
            (duration as fn(&str) -> Option<String>, "1d", Some("24h")),
            (duration, "5 minutes", Some("5m")),
            (duration, "1H 30M", Some("1h30m")),
            (duration, "5", Some("5s")),
            (duration, "1h30", None),
            (duration, "1 month", None),
            (duration, "", None),
            (size, "10m", Some("10MiB")),
            (size, "64KB", Some("64KiB")),
            (size, "65536", Some("64KiB")),
            (size, "10", None),
            (size, "1.5MiB", None),
            (rate, "5r/s", Some("5/s")),
            (rate, "10r/m", Some("10/min")),
            (rate, "60/m", Some("60/min")),
            (rate, "5/sec", Some("5/s")),
            (rate, "1/10s", Some("6/min")),
            (rate, "24/d", Some("1/h")),
            (rate, "5 messages per second", Some("5/s")),
            (rate, "5", Some("5/s")),
            (rate, "1/d", None),
            (rate, "5s", None),
            (rate, "64KiB/s", None),
            (rate, "1/0s", None),
            (byte_rate, "1MB/s", Some("1MiB/s")),
            (byte_rate, "64k", Some("64KiB/s")),
            (byte_rate, "65536", Some("64KiB/s")),
            (byte_rate, "1GB/d", None),
            (byte_rate, "10/s", None),
        ] {
            assert_eq!(guess(written).as_deref(), expected, "{written}");
        }
    }

    proptest! {
        #[test]
        fn a_guess_can_be_read(
            count in 1..=1_000_000_u32,
            blank in "[ ]?",
            kind in "[a-zA-Z]{0,4}",
            time in "(/[0-9]{0,2}[a-zA-Z]{1,3})?",
        ) {
            let written = format!("{count}{blank}{kind}{time}");
            let reads = |text: Option<String>, reads: fn(&str) -> bool| text.is_none_or(|text| reads(&text));
            prop_assert!(reads(duration(&written), |text| units::duration(text).is_some()));
            prop_assert!(reads(size(&written), |text| units::size(text).is_some()));
            prop_assert!(reads(rate(&written), |text| units::rate(text).is_some()));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,12}") {
            let _ = (duration(&text), size(&text), rate(&text), byte_rate(&text));
        }
    }
}
