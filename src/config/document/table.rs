//! The shapes that a key of the file may have, read through serde without ever refusing: what does not fit is kept as
//! such, and told later with its place.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use toml::Spanned;

use crate::config::findings::{Finding, Findings};

/// A table of the file.
pub trait Table: Default {
    /// Where it stands, in dots; "" is the file itself.
    const PATH: &'static str;
    /// Its keys.
    const KEYS: &'static [&'static str];
    /// Takes the value of this key.
    fn set<'de, A: MapAccess<'de>>(&mut self, key: Spanned<String>, map: &mut A) -> Result<(), A::Error>;
    /// Tells what does not belong.
    fn report(&self, found: &mut Findings);
}

/// What a key of a table may be.
pub trait Field {
    /// Nothing is written.
    fn unwritten(key: &'static str) -> Self;
    /// Takes the value that comes next.
    fn read<'de, A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error>;
    /// Tells what does not belong.
    fn report(&self, _: &mut Findings) {}
}

/// A key with a value that is no table.
#[derive(Debug)]
pub struct Entry {
    /// The key.
    pub key: &'static str,
    /// What is written; `None`: nothing.
    pub value: Option<Spanned<Value>>,
}

impl Entry {
    /// Whether the key stands in the file, whatever its value.
    pub fn is_written(&self) -> bool {
        self.value.is_some()
    }

    /// A text or a number as it is written; "" where it is anything else.
    pub fn shown(&self) -> String {
        self.value
            .as_ref()
            .map(|value| value.get_ref().shown())
            .unwrap_or_default()
    }

    /// Where its value stands.
    pub fn span(&self) -> Option<Range<usize>> {
        self.value.as_ref().map(Spanned::span)
    }
}

impl Field for Entry {
    fn unwritten(key: &'static str) -> Self {
        Self { key, value: None }
    }

    fn read<'de, A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error> {
        self.value = Some(map.next_value()?);
        Ok(())
    }
}

/// A table that may be written once.
#[derive(Debug)]
pub struct Section<T> {
    key: &'static str,
    value: Option<Spanned<Shape<T>>>,
    unwritten: T,
}

impl<T> Section<T> {
    /// What is written, or a table without a key.
    pub fn get(&self) -> &T {
        match self.value.as_ref().map(Spanned::get_ref) {
            Some(Shape::Fits(table)) => table,
            _ => &self.unwritten,
        }
    }
}

impl<T: Table> Field for Section<T> {
    fn unwritten(key: &'static str) -> Self {
        Self {
            key,
            value: None,
            unwritten: T::default(),
        }
    }

    fn read<'de, A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error> {
        self.value = Some(map.next_value()?);
        Ok(())
    }

    fn report(&self, found: &mut Findings) {
        if let Some(value) = &self.value {
            report_shape(value, &format!("[{}]", self.key), found);
        }
    }
}

/// A table that may be written many times: `[[listener]]`.
#[derive(Debug)]
pub struct Sections<T> {
    key: &'static str,
    value: Option<Spanned<Shapes<T>>>,
}

impl<T> Sections<T> {
    /// Each with the span of its header.
    pub fn iter(&self) -> impl Iterator<Item = (Range<usize>, &T)> {
        let list = match self.value.as_ref().map(Spanned::get_ref) {
            Some(Shapes::List(list)) => list.as_slice(),
            _ => &[],
        };
        list.iter().filter_map(|shape| match shape.get_ref() {
            Shape::Fits(table) => Some((shape.span(), table)),
            Shape::Other => None,
        })
    }

    /// Whether the key stands in the file, whatever its value.
    pub fn is_written(&self) -> bool {
        self.value.is_some()
    }

    /// Whether it is written as a list of none: `listener = []`.
    pub fn is_empty(&self) -> bool {
        matches!(self.value.as_ref().map(Spanned::get_ref), Some(Shapes::List(list)) if list.is_empty())
    }
}

impl<T: Table> Field for Sections<T> {
    fn unwritten(key: &'static str) -> Self {
        Self { key, value: None }
    }

    fn read<'de, A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error> {
        self.value = Some(map.next_value()?);
        Ok(())
    }

    fn report(&self, found: &mut Findings) {
        let header = format!("[[{}]]", self.key);
        match self.value.as_ref().map(|value| (value.span(), value.get_ref())) {
            None => {}
            Some((_, Shapes::List(list))) => list.iter().for_each(|shape| report_shape(shape, &header, found)),
            Some((span, Shapes::Other)) => {
                let title = format!("`{}` is a list of tables", self.key);
                found.mistake(Finding::at(span, title).hint(format!("each of them begins with {header}")));
            }
        }
    }
}

/// Tables by name: `[zone.realtime]`.
#[derive(Debug)]
pub struct Named<T> {
    key: &'static str,
    value: Option<Spanned<Shape<Members<T>>>>,
}

impl<T> Named<T> {
    /// Whether the key stands in the file with anything in it.
    pub fn is_written(&self) -> bool {
        match self.value.as_ref().map(Spanned::get_ref) {
            Some(Shape::Fits(Members(members))) => !members.is_empty(),
            other => other.is_some(),
        }
    }

    /// Each name with its table, in the order written.
    pub fn iter(&self) -> impl Iterator<Item = (&Spanned<String>, &T)> {
        let members = match self.value.as_ref().map(Spanned::get_ref) {
            Some(Shape::Fits(Members(members))) => members.as_slice(),
            _ => &[],
        };
        members.iter().filter_map(|(name, shape)| match shape.get_ref() {
            Shape::Fits(table) => Some((name, table)),
            Shape::Other => None,
        })
    }
}

impl<T: Table> Field for Named<T> {
    fn unwritten(key: &'static str) -> Self {
        Self { key, value: None }
    }

    fn read<'de, A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error> {
        let mut value: Spanned<Shape<Members<T>>> = map.next_value()?;
        if let Shape::Fits(Members(members)) = value.get_mut() {
            members.sort_by_key(|(name, _)| name.span().start);
        }
        self.value = Some(value);
        Ok(())
    }

    fn report(&self, found: &mut Findings) {
        match self.value.as_ref().map(|value| (value.span(), value.get_ref())) {
            None => {}
            Some((_, Shape::Fits(Members(members)))) => {
                let is_nameless = |(name, shape): &(Spanned<String>, Spanned<Shape<T>>)| {
                    matches!(shape.get_ref(), Shape::Other) && T::KEYS.contains(&name.get_ref().as_str())
                };
                if let Some((key, _)) = members.iter().find(|member| is_nameless(member)) {
                    let title = format!("`{}` in [{}] itself", key.get_ref(), self.key);
                    let hint = format!(
                        "each {} has a name: [{}.chat] instead of [{}]",
                        self.key, self.key, self.key
                    );
                    found.mistake(Finding::at(key.span(), title).hint(hint));
                }
                for (name, shape) in members.iter().filter(|member| !is_nameless(member)) {
                    report_shape(shape, &format!("[{}.{}]", self.key, name.get_ref()), found);
                }
            }
            Some((span, Shape::Other)) => {
                let title = format!("`{}` is no table", self.key);
                found.mistake(Finding::at(span, title).hint(format!("each begins with [{}.NAME]", self.key)));
            }
        }
    }
}

fn report_shape<T: Table>(value: &Spanned<Shape<T>>, header: &str, found: &mut Findings) {
    match value.get_ref() {
        Shape::Fits(table) => table.report(found),
        Shape::Other => {
            let title = format!("{header} is a table, and this is not");
            found.mistake(
                Finding::at(value.span(), title).hint(format!("it begins with {header} on a line of its own")),
            );
        }
    }
}

/// A table's members in the order written.
#[derive(Debug)]
struct Members<T>(Vec<(Spanned<String>, Spanned<Shape<T>>)>);

impl<T> Default for Members<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Table> Table for Members<T> {
    const PATH: &'static str = "";
    const KEYS: &'static [&'static str] = &[];

    fn set<'de, A: MapAccess<'de>>(&mut self, key: Spanned<String>, map: &mut A) -> Result<(), A::Error> {
        self.0.push((key, map.next_value()?));
        Ok(())
    }

    fn report(&self, _: &mut Findings) {}
}

/// A table, or something else where one should be.
#[derive(Debug)]
pub enum Shape<T> {
    /// A table.
    Fits(T),
    /// Anything else.
    Other,
}

/// A list of tables, or something else where one should be.
#[derive(Debug)]
enum Shapes<T> {
    List(Vec<Spanned<Shape<T>>>),
    Other,
}

/// The tables of which there may be several, each in double brackets.
pub const LISTS: [&str; 3] = ["listener", "network", "route"];

/// A value as TOML has it.
#[derive(Debug)]
pub enum Value {
    /// A string.
    Text(String),
    /// An integer.
    Number(i128),
    /// `true` or `false`.
    Flag(bool),
    /// A list.
    List(Vec<Spanned<Value>>),
    /// A float, a date, a table: no key takes these.
    Other,
}

impl Value {
    /// A text or a number as it is written; "" where it is anything else.
    pub fn shown(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            _ => String::new(),
        }
    }
}

/// What every visitor here says to what it did not expect: not an error, but a value that is told later.
macro_rules! visit_as_other {
    ($other:expr; $($name:ident: $kind:ty),*) => {
        $(fn $name<E>(self, _: $kind) -> Result<Self::Value, E> { Ok($other) })*
    };
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reads;
        impl<'de> Visitor<'de> for Reads {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_str<E>(self, text: &str) -> Result<Value, E> {
                Ok(Value::Text(text.to_owned()))
            }
            fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
                Ok(Value::Flag(flag))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
                Ok(Value::Number(number.into()))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
                Ok(Value::Number(number.into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = seq.next_element()? {
                    list.push(item);
                }
                Ok(Value::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
                skip_map(map)?;
                Ok(Value::Other)
            }
            visit_as_other!(Value::Other; visit_f64: f64);
            visit_as_other!(Value::Number(i128::MAX); visit_i128: i128, visit_u128: u128);
        }
        deserializer.deserialize_any(Reads)
    }
}

impl<'de, T: Table> Deserialize<'de> for Shapes<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reads<T>(PhantomData<T>);
        impl<'de, T: Table> Visitor<'de> for Reads<T> {
            type Value = Shapes<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of tables")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shapes<T>, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = seq.next_element()? {
                    list.push(item);
                }
                Ok(Shapes::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Shapes<T>, A::Error> {
                skip_map(map)?;
                Ok(Shapes::Other)
            }
            visit_as_other!(Shapes::Other; visit_str: &str, visit_bool: bool, visit_f64: f64);
            visit_as_other!(Shapes::Other; visit_i64: i64, visit_u64: u64, visit_i128: i128, visit_u128: u128);
        }
        deserializer.deserialize_any(Reads(PhantomData))
    }
}

impl<'de, T: Table> Deserialize<'de> for Shape<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reads<T>(PhantomData<T>);
        impl<'de, T: Table> Visitor<'de> for Reads<T> {
            type Value = Shape<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape<T>, A::Error> {
                let mut table = T::default();
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    table.set(key, &mut map)?;
                }
                Ok(Shape::Fits(table))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape<T>, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Shape::Other)
            }
            visit_as_other!(Shape::Other; visit_str: &str, visit_bool: bool, visit_f64: f64);
            visit_as_other!(Shape::Other; visit_i64: i64, visit_u64: u64, visit_i128: i128, visit_u128: u128);
        }
        deserializer.deserialize_any(Reads(PhantomData))
    }
}

fn skip_map<'de, A: MapAccess<'de>>(mut map: A) -> Result<(), A::Error> {
    while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(())
}
