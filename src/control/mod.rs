//! Operating the process: start and stop, reload, drain, systemd, descriptors, and resolving the names of servers.

mod bind;
pub(crate) mod config_watch;
pub mod descriptors;
pub(crate) mod drain;
mod drain_schedule;
mod file_view;
pub mod guard;
pub(crate) mod inherited;
mod memory;
pub(crate) mod notifier;
mod policy_diff;
pub(crate) mod reload;
pub(crate) mod resolver;
pub(crate) mod systemd;
