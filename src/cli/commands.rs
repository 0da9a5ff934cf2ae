//! The definition of the command line: every command with its options.

use std::sync::LazyLock;

use clap::{Parser, Subcommand};

#[cfg(feature = "packaging")]
use super::completions;
use super::{check, probe, run};
#[cfg(feature = "demo")]
use crate::demo;

/// A guard for WebSocket servers: exact per-client limits and budgets before the handshake, near zero cost after it.
#[derive(Debug, Parser)]
#[command(
    name = "wsguard",
    version = VERSION.as_str(),
    propagate_version = true,
    arg_required_else_help = true,
    after_help = EXIT_CODES
)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the real guard in front of an embedded chat server, with a chat page and live numbers; needs nothing else
    #[cfg(feature = "demo")]
    Demo(demo::DemoArgs),
    /// Serve in the foreground
    Run(run::Options),
    /// Check a configuration: every mistake, with its place and a hint
    Check(check::Options),
    /// Attack your own guard from outside: its limit, forged headers, path tricks, fake upgrades, silent sockets
    Probe(probe::Options),
    /// Print the manual page, for packagers: `wsguard man | man -l -` shows it
    #[cfg(feature = "packaging")]
    #[command(hide = true)]
    Man,
    /// Print the completions of a shell, for packagers
    #[cfg(feature = "packaging")]
    #[command(hide = true)]
    Completions(completions::Options),
}

/// The version and the features of this build, so that a bug report identifies the program exactly.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let built_in: Vec<_> = FEATURES
        .iter()
        .filter(|(_, is_in)| *is_in)
        .map(|(name, _)| *name)
        .collect();
    let features = if built_in.is_empty() {
        "none".to_owned()
    } else {
        built_in.join(", ")
    };
    format!("{} (features: {features})", env!("CARGO_PKG_VERSION"))
});

/// Every feature of `Cargo.toml`, and whether this build has it.
const FEATURES: &[(&str, bool)] = &[
    ("demo", cfg!(feature = "demo")),
    ("jemalloc", cfg!(feature = "jemalloc")),
    ("packaging", cfg!(feature = "packaging")),
    ("faults", cfg!(feature = "faults")),
];

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 usage, 3 configuration refused or missing";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;
    use toml::de::DeTable;

    use super::*;

    #[test]
    fn the_definition_of_the_command_line_has_no_contradictions() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_version_names_the_features_of_the_build() {
        let version = Cli::command().render_version();
        let features = FEATURES.iter().filter(|(_, is_in)| *is_in).map(|(name, _)| *name);
        let features = features.collect::<Vec<_>>().join(", ");
        let features = if features.is_empty() { "none" } else { &features };
        assert_eq!(
            version,
            format!("wsguard {} (features: {features})\n", env!("CARGO_PKG_VERSION"))
        );
    }

    #[test]
    fn every_feature_of_the_manifest_is_in_the_version() {
        let manifest = DeTable::parse(include_str!("../../Cargo.toml")).expect("a manifest");
        let features = manifest.get_ref()["features"]
            .get_ref()
            .as_table()
            .expect("a table")
            .keys();
        let features: BTreeSet<_> = features
            .map(|name| &**name.get_ref())
            .filter(|name| *name != "default")
            .collect();
        assert_eq!(features, FEATURES.iter().map(|(name, _)| *name).collect());
    }
}
