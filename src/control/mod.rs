//! Operating the process: start and stop, reload, drain, systemd, descriptors and names.

mod bind;
pub mod config_watch;
pub mod descriptors;
pub mod drain;
mod drain_schedule;
mod file_view;
pub mod guard;
pub mod inherited;
mod memory;
pub mod notifier;
mod policy_diff;
pub mod reload;
pub mod resolver;
pub mod systemd;
