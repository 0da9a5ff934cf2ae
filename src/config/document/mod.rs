//! Reads a configuration: TOML text into values that know their places in the text.

pub mod planned;
pub mod schema;
pub mod setting;
pub mod syntax;
pub mod table;
mod unknown_key;
pub mod value;
