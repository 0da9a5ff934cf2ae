//! The life of a connection, from its first byte to its record. Read [`walk`] first.

mod counted_permit;
pub mod decide;
pub mod deliver;
pub mod dials;
pub mod identify;
pub mod open;
pub mod pending_conn;
pub mod preread;
pub mod record;
pub mod refuse;
pub mod stop;
pub mod upgrade;
#[allow(clippy::module_inception)]
pub mod walk;
