//! The fields that any log line can have, in their order. A connection's line is made in `connection_line.rs`.

use std::sync::Arc;

use serde::Serialize;

/// Defines [`Line`] from the list of its fields.
macro_rules! line {
    ($($field:ident: $type:ty,)*) => {
        /// One line, without its time, level and event. Fields that do not apply are left out. Values from traffic must be
        /// [`escaped`].
        #[derive(Clone, Debug, Default)]
        #[allow(missing_docs)] // The names are the documentation: each is a column of the log.
        pub struct Line {
            $(pub $field: Option<$type>,)*
        }

        impl Line {
            /// The fields that apply, in the order of the JSON line.
            pub(super) fn fields(&self) -> impl Iterator<Item = (&'static str, Value<'_>)> {
                let fields = [$((stringify!($field), self.$field.as_ref().map(Value::from))),*];
                fields.into_iter().filter_map(|(name, value)| Some((name, value?)))
            }
        }
    };
}

line! {
    client: String,
    key: String,
    listener: Arc<str>,
    address: String,
    route: Arc<str>,
    zone: Arc<str>,
    server: Arc<str>,
    reason: &'static str,
    status: u16,
    open: u32,
    limit: u32,
    rate: String,
    burst: u32,
    wait_ms: u64,
    host: String,
    path: String,
    bytes_in: u64,
    bytes_out: u64,
    messages_in: u64,
    messages_out: u64,
    limit_hits: u32,
    heartbeats: u32,
    duration_ms: u64,
    outcome: &'static str,
    count: u64,
    unlogged: u64,
    top_client: String,
    top_count: u64,
    message: String,
}

/// The value of a field.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Value<'a> {
    Text(&'a str),
    Number(u64),
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a Arc<str>> for Value<'a> {
    fn from(text: &'a Arc<str>) -> Self {
        Self::Text(text)
    }
}

impl From<&&'static str> for Value<'_> {
    fn from(text: &&'static str) -> Self {
        Self::Text(text)
    }
}

impl From<&u16> for Value<'_> {
    fn from(number: &u16) -> Self {
        Self::Number((*number).into())
    }
}

impl From<&u32> for Value<'_> {
    fn from(number: &u32) -> Self {
        Self::Number((*number).into())
    }
}

impl From<&u64> for Value<'_> {
    fn from(number: &u64) -> Self {
        Self::Number(*number)
    }
}

/// A value from traffic, made safe for the log: controls and non-ASCII are escaped, and it has at most 256 bytes.
pub fn escaped(value: &[u8]) -> String {
    let mut escaped = value.escape_ascii().to_string();
    escaped.truncate(LONGEST_VALUE);
    escaped
}

const LONGEST_VALUE: usize = 256;
