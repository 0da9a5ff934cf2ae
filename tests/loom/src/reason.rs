//! The reasons for which a handle closes its connection.

#[path = "../../../src/reason/close.rs"]
pub mod close;
#[path = "../../../src/reason/table_macro.rs"]
mod table_macro;
