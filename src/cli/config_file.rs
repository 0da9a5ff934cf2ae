//! The option `--config`, which several commands take.

use std::path::PathBuf;

use clap::Args;

use crate::config::defaults;

/// The path of the configuration file.
#[derive(Debug, Args)]
pub(super) struct ConfigFile {
    /// The configuration file
    #[arg(
        short = 'c',
        long = "config",
        value_name = "FILE",
        env = "WSGUARD_CONFIG",
        hide_env_values = true,
        default_value = defaults::FILE
    )]
    pub(super) path: PathBuf,
}
