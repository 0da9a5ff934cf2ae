//! The notation of durations, sizes, rates and byte rates in a configuration: whole numbers with a unit, without blanks.
//!
//! The functions that read give `None` for every other text. A text from a `show` function reads as the same value.

use std::fmt::Write;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::limit::rules::Rate;

/// Reads a duration: `"250ms"`, `"10s"`, `"5m"`, `"1h30m"`. Each of h, m, s and ms occurs at most once, in this order. The
/// most is `u32::MAX` hours.
pub fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut total, mut last) = (text, 0_u64, usize::MAX);
    while !rest.is_empty() {
        let (count, after) = leading_number(rest)?;
        // "ms" is listed before "m", so the first match is right.
        let (rank, (unit, millis)) = DURATION_UNITS
            .into_iter()
            .enumerate()
            .find(|(_, (unit, _))| after.starts_with(unit))?;
        if rank >= last {
            return None;
        }
        last = rank;
        total = total.checked_add(u64::from(count).checked_mul(millis)?)?;
        rest = &after[unit.len()..];
    }
    (!text.is_empty()).then(|| Duration::from_millis(total))
}

/// The notation of `value` for [`duration`], cut to whole milliseconds.
pub fn show_duration(value: Duration) -> String {
    let mut millis = value.as_millis();
    let mut text = String::new();
    for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
        if millis >= size {
            let _ = write!(text, "{}{unit}", millis / size);
            millis %= size;
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

/// Reads a size: `"512B"`, `"64KiB"`, `"1MiB"`, `"2GiB"`. The result is in bytes; the units are powers of 1024.
pub fn size(text: &str) -> Option<u64> {
    let (count, unit) = leading_number(text)?;
    let (_, bytes) = SIZE_UNITS.into_iter().find(|(name, _)| *name == unit)?;
    u64::from(count).checked_mul(bytes)
}

/// The notation of `bytes` for [`size`], in the largest unit that gives a whole number.
pub fn show_size(bytes: u64) -> String {
    let (unit, size) = SIZE_UNITS
        .into_iter()
        .rev()
        .find(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size))
        .unwrap_or(SIZE_UNITS[0]);
    format!("{}{unit}", bytes / size)
}

/// Reads a rate: `"10/s"`, `"300/min"`, `"1000/h"`. The number is the burst too, and never zero.
pub fn rate(text: &str) -> Option<Rate> {
    let (tokens, unit) = text.split_once('/')?;
    tokens_per_time(whole_number(tokens)?, unit)
}

/// The notation of `value` for [`rate`], without its burst.
pub fn show_rate(value: Rate) -> String {
    format!("{}/{}", value.tokens, show_time(value.per))
}

/// Reads a byte rate: `"64KiB/s"`, `"1MiB/min"`, `"1GiB/h"`. A token is a byte, and the number is the burst too. The number
/// is from 1 byte to below 4 GiB.
pub fn byte_rate(text: &str) -> Option<Rate> {
    let (bytes, unit) = text.split_once('/')?;
    tokens_per_time(u32::try_from(size(bytes)?).ok()?, unit)
}

/// A whole number in TOML. From 10 000 on, its digits are in groups of three.
pub fn show_number(value: u32) -> String {
    let digits = value.to_string();
    if value < 10_000 {
        return digits;
    }
    let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join("_")
}

fn tokens_per_time(tokens: u32, unit: &str) -> Option<Rate> {
    let (_, seconds) = RATE_UNITS.into_iter().find(|(name, _)| *name == unit)?;
    let tokens = NonZeroU32::new(tokens)?;
    Some(Rate {
        tokens,
        per: Duration::from_secs(seconds),
        burst: tokens,
    })
}

fn show_time(per: Duration) -> String {
    let unit = RATE_UNITS
        .into_iter()
        .find(|(_, seconds)| per == Duration::from_secs(*seconds));
    unit.map_or_else(|| show_duration(per), |(name, _)| name.to_owned())
}

fn whole_number(text: &str) -> Option<u32> {
    leading_number(text)
        .filter(|(_, rest)| rest.is_empty())
        .map(|(number, _)| number)
}

/// The decimal number at the start, and what follows it.
pub fn leading_number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

const DURATION_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
const SIZE_UNITS: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
/// The units of time of a rate, in seconds.
pub const RATE_UNITS: [(&str, u64); 3] = [("s", 1), ("min", 60), ("h", 3600)];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_whole_numbers_with_units_in_descending_order() {
        let ms = |text| duration(text).map(|d| d.as_millis());
        for (text, millis) in [
            ("250ms", 250),
            ("10s", 10_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("0s", 0),
        ] {
            assert_eq!(ms(text), Some(millis), "{text}");
        }
        for text in [
            "",
            "10",
            "s",
            "1.5s",
            "-1s",
            "1 s",
            "1S",
            "30m1h",
            "1s1s",
            "1d",
            "5000000000s",
            "1h30",
            "off",
            "1µs",
        ] {
            assert_eq!(ms(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_go_by_powers_of_1024() {
        for (text, bytes) in [("512B", 512), ("64KiB", 65_536), ("1MiB", 1_048_576), ("0B", 0)] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "512", "64KB", "64k", "1 MiB", "1.5MiB", "KiB", "-1B"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn the_number_of_a_rate_is_its_burst_too() {
        let ten = rate("10/s").expect("a rate");
        assert_eq!(
            (ten.tokens.get(), ten.per, ten.burst.get()),
            (10, Duration::from_secs(1), 10)
        );
        let slow = rate("300/min").expect("a rate");
        assert_eq!(
            (slow.tokens.get(), slow.per, slow.burst.get()),
            (300, Duration::from_secs(60), 300)
        );
        for text in [
            "", "10", "0/s", "/s", "10/m", "10/sec", "10 /s", "1.5/s", "10/s/s", "-1/s",
        ] {
            assert_eq!(rate(text), None, "{text}");
        }
    }

    #[test]
    fn a_byte_rate_is_a_size_per_time_and_its_number_is_the_burst_too() {
        for (text, bytes, seconds) in [
            ("64KiB/s", 65_536, 1),
            ("1MiB/min", 1 << 20, 60),
            ("1GiB/h", 1 << 30, 3600),
            ("1B/h", 1, 3600),
            ("3GiB/s", 3 << 30, 1),
        ] {
            let value = byte_rate(text).expect("a byte rate");
            let expected = (bytes, Duration::from_secs(seconds), bytes);
            assert_eq!((value.tokens.get(), value.per, value.burst.get()), expected, "{text}");
        }
        for text in [
            "",
            "64KiB",
            "64/s",
            "0B/s",
            "KiB/s",
            "/s",
            "64KB/s",
            "64KiB/m",
            "64KiB /s",
            "64KiB/ s",
            "1.5MiB/s",
            "64KiB/s/s",
            "4GiB/s",
            "5GiB/s",
            "-1B/s",
            "off",
        ] {
            assert_eq!(byte_rate(text), None, "{text}");
        }
    }

    #[test]
    fn a_long_number_is_shown_in_groups() {
        for (number, text) in [
            (0, "0"),
            (9_999, "9999"),
            (10_000, "10_000"),
            (100_000_000, "100_000_000"),
        ] {
            assert_eq!(show_number(number), text);
        }
    }

    proptest! {
        #[test]
        fn a_duration_that_is_shown_reads_as_itself(millis in 0..10_000_000_000_u64) {
            let value = Duration::from_millis(millis);
            prop_assert_eq!(duration(&show_duration(value)), Some(value));
        }

        #[test]
        fn a_size_that_is_shown_reads_as_itself(bytes in 0..=u64::from(u32::MAX)) {
            prop_assert_eq!(size(&show_size(bytes)), Some(bytes));
        }

        #[test]
        fn a_rate_that_is_shown_reads_as_itself(tokens in 1..=u32::MAX, unit in 0..3_usize) {
            let text = format!("{tokens}/{}", RATE_UNITS[unit].0);
            let value = rate(&text).expect("it is a rate");
            prop_assert_eq!(show_rate(value), text);
        }

        #[test]
        fn a_byte_rate_has_the_bytes_and_the_time_that_are_written(bytes in 1..=u32::MAX, unit in 0..3_usize) {
            let text = format!("{bytes}B/{}", RATE_UNITS[unit].0);
            let value = byte_rate(&text).expect("it is a byte rate");
            prop_assert_eq!((value.tokens.get(), value.burst.get()), (bytes, bytes));
            prop_assert_eq!(value.per, Duration::from_secs(RATE_UNITS[unit].1));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,12}") {
            let _ = (duration(&text), size(&text), rate(&text), byte_rate(&text));
        }
    }
}
