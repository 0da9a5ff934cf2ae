//! Values to what they mean: one method a kind. What is written wrong is noted as a mistake, and counts as not written.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;

use crate::limit::rules::Rate;

use crate::config::document::planned;
use crate::config::document::setting::Switched;
use crate::config::document::table::{Entry, Value};
use crate::config::findings::{Finding, Findings, list, suggest};
use crate::config::notation::guess;
use crate::config::notation::units;

/// A string with its place.
#[derive(Clone, Debug)]
pub struct Text<'a> {
    /// What it says.
    pub text: &'a str,
    /// Where.
    pub span: Range<usize>,
}

impl Entry {
    /// A whole number in this range.
    pub fn number<N: TryFrom<u32>>(&self, range: &RangeInclusive<u32>, found: &mut Findings) -> Option<N> {
        self.number_beside("", range, found)
    }

    /// A whole number in this range, or this word, which switches it off.
    pub fn number_or<N: TryFrom<u32>>(
        &self,
        word: &str,
        range: &RangeInclusive<u32>,
        found: &mut Findings,
    ) -> Switched<N> {
        if self.says(word) {
            Switched::Off
        } else {
            Switched::on(self.number_beside(word, range, found))
        }
    }

    /// A duration in this range.
    pub fn duration(&self, range: &RangeInclusive<Duration>, found: &mut Findings) -> Option<Duration> {
        self.duration_beside("", range, found)
    }

    /// A duration in this range, or "off".
    pub fn duration_or_off(&self, range: &RangeInclusive<Duration>, found: &mut Findings) -> Switched<Duration> {
        if self.says("off") {
            Switched::Off
        } else {
            Switched::on(self.duration_beside("off", range, found))
        }
    }

    /// A size in this range, in bytes.
    pub fn size<N: TryFrom<u64>>(&self, range: &RangeInclusive<u64>, found: &mut Findings) -> Option<N> {
        self.size_beside("", range, found)
    }

    /// A size in this range, in bytes, or "off".
    pub fn size_or_off<N: TryFrom<u64>>(&self, range: &RangeInclusive<u64>, found: &mut Findings) -> Switched<N> {
        if self.says("off") {
            Switched::Off
        } else {
            Switched::on(self.size_beside("off", range, found))
        }
    }

    fn size_beside<N: TryFrom<u64>>(&self, word: &str, range: &RangeInclusive<u64>, found: &mut Findings) -> Option<N> {
        let value = self.value.as_ref()?;
        let (least, most) = (units::show_size(*range.start()), units::show_size(*range.end()));
        let Some(size) = text_of(value).and_then(units::size) else {
            let is_taken = |text: &str| units::size(text).is_some_and(|size| range.contains(&size));
            let hint = "such as \"512B\", \"64KiB\" or \"1MiB\", a whole number and its unit, in quotes".to_owned()
                + &or(word);
            let hint = guessed(value, guess::size, is_taken).unwrap_or(hint);
            found.mistake(Finding::at(value.span(), format!("`{}` is not a size", self.key)).hint(hint));
            return None;
        };
        if range.contains(&size) {
            N::try_from(size).ok()
        } else {
            self.out_of_range(value, &least, &most, &or(word), found)
        }
    }

    /// A rate, or "off". Its burst is the number in it.
    pub fn rate_or_off(&self, found: &mut Findings) -> Switched<Rate> {
        if self.says("off") {
            Switched::Off
        } else {
            Switched::on(self.rate(found))
        }
    }

    fn rate(&self, found: &mut Findings) -> Option<Rate> {
        let value = self.value.as_ref()?;
        let Some(rate) = text_of(value).and_then(units::rate) else {
            let is_taken = |text: &str| units::rate(text).is_some_and(|rate| rate.tokens.get() <= MOST_TOKENS);
            let hint = "such as \"10/s\", \"300/min\" or \"1000/h\", a whole number from 1 and its unit, in quotes; \
                        or \"off\"";
            let hint = guessed(value, guess::rate, is_taken).unwrap_or_else(|| hint.to_owned());
            found.mistake(Finding::at(value.span(), format!("`{}` is not a rate", self.key)).hint(hint));
            return None;
        };
        if rate.tokens.get() > MOST_TOKENS {
            return self.out_of_range(value, "1/h", &format!("{MOST_TOKENS}/s"), &or("off"), found);
        }
        Some(rate)
    }

    /// A byte rate, or "off". Its burst is the number of bytes in it.
    pub fn byte_rate_or_off(&self, found: &mut Findings) -> Switched<Rate> {
        if self.says("off") {
            Switched::Off
        } else {
            Switched::on(self.byte_rate(found))
        }
    }

    fn byte_rate(&self, found: &mut Findings) -> Option<Rate> {
        let value = self.value.as_ref()?;
        let most = units::show_size(MOST_BYTES.into());
        let Some(rate) = text_of(value).and_then(units::byte_rate) else {
            let is_taken = |text: &str| units::byte_rate(text).is_some_and(|rate| rate.tokens.get() <= MOST_BYTES);
            let hint = format!(
                "such as \"64KiB/s\", \"1MiB/min\" or \"1GiB/h\", a size from 1B to {most} and its time, in quotes; \
                 or \"off\""
            );
            let hint = guessed(value, guess::byte_rate, is_taken).unwrap_or(hint);
            found.mistake(Finding::at(value.span(), format!("`{}` is not a byte rate", self.key)).hint(hint));
            return None;
        };
        if rate.tokens.get() > MOST_BYTES {
            return self.out_of_range(value, "1B/h", &format!("{most}/s"), &or("off"), found);
        }
        Some(rate)
    }

    /// `true` or `false`.
    pub fn flag(&self, found: &mut Findings) -> Option<bool> {
        self.flag_beside("", found)
    }

    /// `true`, `false`, or this word, which leaves it open.
    pub fn flag_or(&self, word: &str, found: &mut Findings) -> Switched<bool> {
        if self.says(word) {
            Switched::Off
        } else {
            Switched::on(self.flag_beside(word, found))
        }
    }

    fn flag_beside(&self, word: &str, found: &mut Findings) -> Option<bool> {
        let value = self.value.as_ref()?;
        if let Value::Flag(flag) = value.get_ref() {
            return Some(*flag);
        }
        let title = format!("`{}` is either true or false", self.key);
        found.mistake(Finding::at(value.span(), title).hint(format!("without quotes{}", or(word))));
        None
    }

    /// One of these words.
    pub fn word<T: Copy>(&self, words: &[(&str, T)], found: &mut Findings) -> Option<T> {
        let text = self.text(&list(words.iter().map(|(word, _)| *word)), found)?;
        match words.iter().find(|(word, _)| *word == text.text) {
            Some((_, meant)) => Some(*meant),
            None => self.unknown(&text, words, found),
        }
    }

    /// A list of these names of headers that has at least one, in any case as HTTP has it. `empty` is the hint where it
    /// has none.
    pub fn header_names<T: Copy>(&self, names: &[(&str, T)], empty: &str, found: &mut Findings) -> Option<Vec<T>> {
        let texts = self.texts(empty, found)?;
        let header = |text: &Text<'_>| match names.iter().find(|(name, _)| name.eq_ignore_ascii_case(text.text)) {
            Some((_, header)) => Some(*header),
            None => self.unknown(text, names, found),
        };
        Some(texts.iter().filter_map(header).collect())
    }

    fn unknown<T>(&self, text: &Text<'_>, words: &[(&str, T)], found: &mut Findings) -> Option<T> {
        let finding = if planned::has_value(self.key, text.text) {
            Finding::at(
                text.span.clone(),
                format!("`{} = \"{}\"` is not in this version", self.key, text.text),
            )
            .hint("it is planned; take it out until a version has it")
        } else {
            Finding::at(
                text.span.clone(),
                format!("`{}` does not know \"{}\"", self.key, text.text),
            )
            .maybe_hint(suggest(text.text, words.iter().map(|(word, _)| *word)))
        };
        found.mistake(finding);
        None
    }

    /// A string. `such` is the hint where it is something else.
    pub fn text(&self, such: &str, found: &mut Findings) -> Option<Text<'_>> {
        let value = self.value.as_ref()?;
        if let Some(text) = text_of(value) {
            return Some(Text {
                text,
                span: value.span(),
            });
        }
        found.mistake(Finding::at(value.span(), format!("`{}` is a text in quotes", self.key)).hint(such));
        None
    }

    /// A list of strings that has at least one. `empty` is the hint where it has none.
    pub fn texts(&self, empty: &str, found: &mut Findings) -> Option<Vec<Text<'_>>> {
        let texts = self.texts_or_none(found)?;
        if !texts.is_empty() {
            return Some(texts);
        }
        if self
            .value
            .as_ref()
            .is_some_and(|value| matches!(value.get_ref(), Value::List(list) if list.is_empty()))
        {
            found.mistake(Finding::at(self.span().unwrap_or_default(), format!("`{}` is empty", self.key)).hint(empty));
        }
        None
    }

    /// A list of strings.
    pub fn texts_or_none(&self, found: &mut Findings) -> Option<Vec<Text<'_>>> {
        let value = self.value.as_ref()?;
        let Value::List(list) = value.get_ref() else {
            let hint = match text_of(value) {
                Some(text) => format!("write [\"{text}\"]"),
                None => "such as [\"one\", \"two\"]".to_owned(),
            };
            found.mistake(Finding::at(value.span(), format!("`{}` is a list of texts", self.key)).hint(hint));
            return None;
        };
        let mut texts = Vec::with_capacity(list.len());
        for item in list {
            match text_of(item) {
                Some(text) => texts.push(Text {
                    text,
                    span: item.span(),
                }),
                None => found.mistake(Finding::at(
                    item.span(),
                    format!("`{}` has texts in quotes only", self.key),
                )),
            }
        }
        Some(texts)
    }

    /// Whether the value is this word, and the word is not "".
    pub fn says(&self, word: &str) -> bool {
        !word.is_empty() && self.value.as_ref().and_then(text_of) == Some(word)
    }

    fn number_beside<N: TryFrom<u32>>(
        &self,
        word: &str,
        range: &RangeInclusive<u32>,
        found: &mut Findings,
    ) -> Option<N> {
        let value = self.value.as_ref()?;
        let (least, most) = (units::show_number(*range.start()), units::show_number(*range.end()));
        let Value::Number(number) = value.get_ref() else {
            let quoted = text_of(value).is_some_and(|text| text.parse::<u32>().is_ok());
            let hint = if quoted {
                "write it without quotes".to_owned()
            } else {
                format!("from {least} to {most}{}", or(word))
            };
            found.mistake(Finding::at(value.span(), format!("`{}` is not a whole number", self.key)).hint(hint));
            return None;
        };
        let fits = u32::try_from(*number).ok().filter(|number| range.contains(number));
        if let Some(number) = fits.and_then(|number| N::try_from(number).ok()) {
            return Some(number);
        }
        let lifted = *number == 0 && word == "off";
        let or = if lifted { LIFTED.to_owned() } else { or(word) };
        self.out_of_range(value, &least, &most, &or, found)
    }

    fn duration_beside(&self, word: &str, range: &RangeInclusive<Duration>, found: &mut Findings) -> Option<Duration> {
        let value = self.value.as_ref()?;
        let Some(duration) = text_of(value).and_then(units::duration) else {
            let is_taken = |text: &str| units::duration(text).is_some_and(|duration| range.contains(&duration));
            let hint = format!("such as \"250ms\", \"10s\", \"5m\" or \"1h30m\", in quotes{}", or(word));
            let hint = guessed(value, guess::duration, is_taken).unwrap_or(hint);
            found.mistake(Finding::at(value.span(), format!("`{}` is not a duration", self.key)).hint(hint));
            return None;
        };
        if range.contains(&duration) {
            return Some(duration);
        }
        let (least, most) = (units::show_duration(*range.start()), units::show_duration(*range.end()));
        self.out_of_range(value, &least, &most, &or(word), found)
    }

    fn out_of_range<T>(
        &self,
        value: &Spanned<Value>,
        least: &str,
        most: &str,
        or: &str,
        found: &mut Findings,
    ) -> Option<T> {
        let finding = Finding::at(value.span(), format!("`{}` is out of range", self.key));
        found.mistake(finding.hint(format!("from {least} to {most}{or}")));
        None
    }
}

/// Of 0, which one writes who means "without a limit", and another who means "nobody".
const LIFTED: &str = "; \"off\" lifts the limit, and who may come at all is what a route's `allow` says";

fn or(word: &str) -> String {
    if word.is_empty() {
        String::new()
    } else {
        format!("; or \"{word}\"")
    }
}

/// "did you mean" for a value that can't be read, where a key would take what was meant.
fn guessed(
    value: &Spanned<Value>,
    meant: fn(&str) -> Option<String>,
    is_taken: impl Fn(&str) -> bool,
) -> Option<String> {
    let meant = meant(&value.get_ref().shown()).filter(|text| is_taken(text))?;
    Some(format!("did you mean \"{meant}\"?"))
}

fn text_of(value: &Spanned<Value>) -> Option<&str> {
    match value.get_ref() {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

/// A token of such a rate is a microsecond; a burst of as many at one an hour still fits a `u64` of nanoseconds.
pub const MOST_TOKENS: u32 = 1_000_000;

/// The most that a byte rate has in its time, and its burst; as many fit a `u32`.
pub const MOST_BYTES: u32 = 1 << 30;
