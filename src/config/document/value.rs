//! Reads the value of a key: one method per kind of value.
//!
//! A value that can't be read is a mistake and then counts as not written, so that reading goes on.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::de::{DeInteger, DeValue};

use crate::config::findings::{Finding, Findings, list, suggest};
use crate::config::notation::{guess, units};
use crate::limit::rules::Rate;

use super::planned;
use super::setting::Setting;
use super::table::{Entry, Text, Value};

impl<'t> Entry<'t> {
    /// A whole number in this range.
    pub fn number<N: TryFrom<u32>>(&self, range: &RangeInclusive<u32>, found: &mut Findings) -> Option<N> {
        self.number_beside("", range, found)
    }

    /// A whole number in this range, or this word.
    pub fn number_or<N: TryFrom<u32>>(
        &self,
        word: &str,
        range: &RangeInclusive<u32>,
        found: &mut Findings,
    ) -> Setting<N> {
        self.unless(word, |entry| entry.number_beside(word, range, found))
    }

    /// A duration in this range.
    pub fn duration(&self, range: &RangeInclusive<Duration>, found: &mut Findings) -> Option<Duration> {
        self.duration_beside("", range, found)
    }

    /// A duration in this range, or "off".
    pub fn duration_or_off(&self, range: &RangeInclusive<Duration>, found: &mut Findings) -> Setting<Duration> {
        self.unless("off", |entry| entry.duration_beside("off", range, found))
    }

    /// A size in this range, in bytes.
    pub fn size<N: TryFrom<u64>>(&self, range: &RangeInclusive<u64>, found: &mut Findings) -> Option<N> {
        self.size_beside("", range, found)
    }

    /// A size in this range, in bytes, or "off".
    pub fn size_or_off<N: TryFrom<u64>>(&self, range: &RangeInclusive<u64>, found: &mut Findings) -> Setting<N> {
        self.unless("off", |entry| entry.size_beside("off", range, found))
    }

    /// A rate, or "off". Its burst is the number in it.
    pub fn rate_or_off(&self, found: &mut Findings) -> Setting<Rate> {
        let kind = Kind {
            name: "a rate",
            examples: "\"10/s\", \"300/min\" or \"1000/h\", a whole number from 1 and its unit",
            parse: units::rate,
            guess: guess::rate,
            range: ("1/h", &format!("{MAX_TOKENS}/s")),
            fits: &|rate| rate.tokens.get() <= MAX_TOKENS,
        };
        self.unless("off", |entry| entry.quantity(&kind, "off", found))
    }

    /// A byte rate, or "off". Its burst is the number of bytes in it.
    pub fn byte_rate_or_off(&self, found: &mut Findings) -> Setting<Rate> {
        let most = units::show_size(MAX_BYTES.into());
        let kind = Kind {
            name: "a byte rate",
            examples: &format!("\"64KiB/s\", \"1MiB/min\" or \"1GiB/h\", a size from 1B to {most} and its time"),
            parse: units::byte_rate,
            guess: guess::byte_rate,
            range: ("1B/h", &format!("{most}/s")),
            fits: &|rate| rate.tokens.get() <= MAX_BYTES,
        };
        self.unless("off", |entry| entry.quantity(&kind, "off", found))
    }

    /// `true` or `false`.
    pub fn flag(&self, found: &mut Findings) -> Option<bool> {
        self.flag_beside("", found)
    }

    /// `true`, `false`, or this word.
    pub fn flag_or(&self, word: &str, found: &mut Findings) -> Setting<bool> {
        self.unless(word, |entry| entry.flag_beside(word, found))
    }

    /// One of these words, each with what it means.
    pub fn word<T: Copy>(&self, words: &[(&str, T)], found: &mut Findings) -> Option<T> {
        let text = self.text(&list(words.iter().map(|(word, _)| *word)), found)?;
        match words.iter().find(|(word, _)| *word == text.text) {
            Some((_, meaning)) => Some(*meaning),
            None => self.unknown_word(&text, words, found),
        }
    }

    /// A list of at least one of these header names, in any case as in HTTP. `empty` is the hint for an empty list.
    pub fn header_names<T: Copy>(&self, names: &[(&str, T)], empty: &str, found: &mut Findings) -> Option<Vec<T>> {
        let texts = self.texts(empty, found)?;
        let header = |text: &Text<'_>| match names.iter().find(|(name, _)| name.eq_ignore_ascii_case(text.text)) {
            Some((_, header)) => Some(*header),
            None => self.unknown_word(text, names, found),
        };
        Some(texts.iter().filter_map(header).collect())
    }

    /// A text. `hint` says what it may be.
    pub fn text(&self, hint: &str, found: &mut Findings) -> Option<Text<'t>> {
        let value = self.value?;
        let text = text_of(value);
        if text.is_none() {
            self.mistake(value.span(), "must be a text in quotes", hint, found);
        }
        text
    }

    /// A list of at least one text. `empty` is the hint for an empty list.
    pub fn texts(&self, empty: &str, found: &mut Findings) -> Option<Vec<Text<'t>>> {
        let texts = self.texts_or_none(found)?;
        let value = self.value?;
        if value.get_ref().as_array().is_some_and(|array| array.is_empty()) {
            self.mistake(value.span(), "is empty", empty, found);
        }
        (!texts.is_empty()).then_some(texts)
    }

    /// A list of texts, or an empty one.
    pub fn texts_or_none(&self, found: &mut Findings) -> Option<Vec<Text<'t>>> {
        let value = self.value?;
        let Some(array) = value.get_ref().as_array() else {
            let hint = match value.get_ref().as_str() {
                Some(text) => format!("write [\"{text}\"]"),
                None => "such as [\"one\", \"two\"]".to_owned(),
            };
            self.mistake(value.span(), "must be a list of texts", &hint, found);
            return None;
        };
        let mut texts = Vec::with_capacity(array.len());
        for item in &**array {
            if let Some(text) = text_of(item) {
                texts.push(text);
            } else {
                let title = format!("`{}` may hold only texts in quotes", self.key);
                found.mistake(Finding::at(item.span(), title));
            }
        }
        Some(texts)
    }

    /// Whether the value is this word.
    pub fn is(&self, word: &str) -> bool {
        self.value.is_some_and(|value| value.get_ref().as_str() == Some(word))
    }

    /// A text or a number as it is written, the number in decimal; "" for any other value.
    pub fn shown(&self) -> String {
        self.value.map(shown).unwrap_or_default()
    }

    fn unless<T>(&self, word: &str, read: impl FnOnce(&Self) -> Option<T>) -> Setting<T> {
        if self.is(word) {
            Setting::Off
        } else {
            read(self).map_or(Setting::Unwritten, Setting::Value)
        }
    }

    fn flag_beside(&self, word: &str, found: &mut Findings) -> Option<bool> {
        let value = self.value?;
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            let hint = format!("without quotes{}", or(word));
            self.mistake(value.span(), "must be true or false", &hint, found);
        }
        flag
    }

    fn number_beside<N: TryFrom<u32>>(
        &self,
        word: &str,
        range: &RangeInclusive<u32>,
        found: &mut Findings,
    ) -> Option<N> {
        let value = self.value?;
        let (least, most) = (units::show_number(*range.start()), units::show_number(*range.end()));
        let Some(integer) = value.get_ref().as_integer() else {
            let is_quoted = value.get_ref().as_str().is_some_and(|text| text.parse::<u32>().is_ok());
            let hint = if is_quoted {
                "write it without quotes".to_owned()
            } else {
                format!("from {least} to {most}{}", or(word))
            };
            self.mistake(value.span(), "is not a whole number", &hint, found);
            return None;
        };
        let number = decimal(integer);
        let fits = number.and_then(|number| u32::try_from(number).ok());
        if let Some(number) = fits.filter(|number| range.contains(number)) {
            return N::try_from(number).ok();
        }
        let or = if number == Some(0) && word == "off" {
            LIFTED.to_owned()
        } else {
            or(word)
        };
        self.out_of_range(value, &least, &most, &or, found);
        None
    }

    fn size_beside<N: TryFrom<u64>>(&self, word: &str, range: &RangeInclusive<u64>, found: &mut Findings) -> Option<N> {
        let kind = Kind {
            name: "a size",
            examples: "\"512B\", \"64KiB\" or \"1MiB\", a whole number and its unit",
            parse: units::size,
            guess: guess::size,
            range: (&units::show_size(*range.start()), &units::show_size(*range.end())),
            fits: &|size| range.contains(size),
        };
        N::try_from(self.quantity(&kind, word, found)?).ok()
    }

    fn duration_beside(&self, word: &str, range: &RangeInclusive<Duration>, found: &mut Findings) -> Option<Duration> {
        let kind = Kind {
            name: "a duration",
            examples: "\"250ms\", \"10s\", \"5m\" or \"1h30m\"",
            parse: units::duration,
            guess: guess::duration,
            range: (
                &units::show_duration(*range.start()),
                &units::show_duration(*range.end()),
            ),
            fits: &|duration| range.contains(duration),
        };
        self.quantity(&kind, word, found)
    }

    fn quantity<T>(&self, kind: &Kind<'_, T>, word: &str, found: &mut Findings) -> Option<T> {
        let value = self.value?;
        let Some(quantity) = value.get_ref().as_str().and_then(kind.parse) else {
            let is_taken = |text: &String| (kind.parse)(text).is_some_and(|quantity| (kind.fits)(&quantity));
            let hint = match (kind.guess)(&shown(value)).filter(is_taken) {
                Some(guess) => format!("did you mean \"{guess}\"?"),
                None => format!("such as {}, in quotes{}", kind.examples, or(word)),
            };
            self.mistake(value.span(), &format!("is not {}", kind.name), &hint, found);
            return None;
        };
        if (kind.fits)(&quantity) {
            return Some(quantity);
        }
        let (least, most) = kind.range;
        self.out_of_range(value, least, most, &or(word), found);
        None
    }

    fn out_of_range(&self, value: &Value<'_>, least: &str, most: &str, or: &str, found: &mut Findings) {
        let hint = format!("from {least} to {most}{or}");
        self.mistake(value.span(), "is out of range", &hint, found);
    }

    fn unknown_word<T>(&self, text: &Text<'_>, words: &[(&str, T)], found: &mut Findings) -> Option<T> {
        let (key, word) = (self.key, text.text);
        let finding = |title| Finding::at(text.span.clone(), title);
        found.mistake(if planned::has_value(key, word) {
            finding(format!("`{key} = \"{word}\"` is not in this version")).hint("it is planned for a later version")
        } else {
            finding(format!("`{key}` can't be \"{word}\""))
                .maybe_hint(suggest(word, words.iter().map(|(word, _)| *word)))
        });
        None
    }

    fn mistake(&self, span: Range<usize>, what: &str, hint: &str, found: &mut Findings) {
        found.mistake(Finding::at(span, format!("`{}` {what}", self.key)).hint(hint));
    }
}

/// A kind of quantity: its notation, and the range that a key takes.
struct Kind<'a, T> {
    /// The name of the kind, with its article: "a duration".
    name: &'a str,
    /// Examples of its notation.
    examples: &'a str,
    parse: fn(&str) -> Option<T>,
    /// Translates the notation of other programs into ours.
    guess: fn(&str) -> Option<String>,
    /// The least and the most that the key takes, in our notation.
    range: (&'a str, &'a str),
    /// Whether a quantity is in that range.
    fits: &'a dyn Fn(&T) -> bool,
}

/// The hint for a 0: its writer may have meant "without a limit" or "none".
const LIFTED: &str = "; \"off\" removes the limit; to admit only some clients, use a route's `allow`";

fn or(word: &str) -> String {
    if word.is_empty() {
        String::new()
    } else {
        format!("; or \"{word}\"")
    }
}

fn text_of<'t>(value: &'t Value<'t>) -> Option<Text<'t>> {
    Some(Text {
        text: value.get_ref().as_str()?,
        span: value.span(),
    })
}

fn shown(value: &Value<'_>) -> String {
    match value.get_ref() {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(integer) => decimal(integer).map(|number| number.to_string()).unwrap_or_default(),
        _ => String::new(),
    }
}

/// The value of an integer; `None` if it is larger than any key takes.
fn decimal(integer: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// The most tokens of a rate, and of its burst. At this many tokens per second, one token comes each microsecond. At one
/// token per hour, the time for this burst still fits a `u64` of nanoseconds.
pub const MAX_TOKENS: u32 = 1_000_000;

/// The most bytes of a byte rate, of its burst, and of a message: 1 GiB.
pub const MAX_BYTES: u32 = 1 << 30;
