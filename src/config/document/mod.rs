//! A configuration as text: TOML to values with their places in it.

pub mod planned;
pub mod schema;
pub mod setting;
pub mod syntax;
pub mod table;
mod unknown_key;
pub mod value;
