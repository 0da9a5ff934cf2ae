//! `wsguard run`: serves in the foreground.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use tokio::runtime::Runtime;

use crate::admin::{self, AdminServer};
use crate::config::policy::{LogFormat, LogLevel, LogPolicy};
use crate::config::{self, Checked, QuickOptions, Rejected};
use crate::control::config_watch::ConfigWatch;
use crate::control::descriptors;
use crate::control::guard::{Environment, Guard};
use crate::control::notifier::Notifier;
use crate::control::reload::{Reloader, finding_line, is_world_writable};
use crate::control::systemd::{self, Reloading};
use crate::net::bound::plain;
use crate::net::inherit::take_inherited;
use crate::telemetry::log::{self, Line};
use crate::telemetry::panics;

use super::config_file::ConfigFile;
use super::exit::Exit;
use super::grace::Stopper;
use super::signals::{Ends, Hangups, Ignored};
use super::stderr::{fail_in, print_line};

/// `run [-c FILE]`, or `run --listen A --upstream B …` without a file.
#[derive(Debug, Args)]
#[command(after_help = SIGNALS)]
pub(crate) struct Options {
    #[command(flatten)]
    config: ConfigFile,
    /// Serve without a file: where to listen, e.g. 0.0.0.0:8080
    #[arg(long, value_name = "ADDRESS", requires = "upstream")]
    listen: Vec<String>,
    /// Serve without a file: the server to guard, e.g. 127.0.0.1:3000
    #[arg(long, value_name = "ADDRESS", requires = "listen")]
    upstream: Vec<String>,
    /// Connections one client may have open at once: a number, or off [default: 50]
    #[arg(long, value_name = "N", requires = "listen")]
    per_ip: Option<String>,
    /// Connections in all: a number, or off [default: 10000]
    #[arg(long, value_name = "N", requires = "listen")]
    connections: Option<String>,
    /// Proxies whose forwarding headers are believed: a network, or "loopback", "private", "unix" [default: none]
    #[arg(long, value_name = "NETWORK", requires = "listen")]
    trust: Vec<String>,
    /// Where to serve /metrics and /stats: an address with port, or off [default: 127.0.0.1:9191]
    #[arg(long, value_name = "ADDRESS", requires = "listen")]
    admin: Option<String>,
}

const SIGNALS: &str = "\
HUP reloads the file. TERM, INT and QUIT drain: the listeners close, and open connections are closed one after the other. A \
second one ends wsguard at once. USR1, USR2, ALRM and similar signals are ignored.";

/// Serves until a signal ends it.
pub(crate) fn run(options: &Options) -> Exit {
    panics::write_at_once(LogFormat::Auto);
    // This comes first, while the process has only one thread.
    let environment = environment();
    let signals = Signals::catch();
    let file = options.listen.is_empty().then(|| File::of(&options.config.path));
    let checked = match configured(options) {
        Ok(checked) => checked,
        Err(rejected) => {
            print_mistakes(&rejected);
            return Exit::Config;
        }
    };
    let format = checked.policy.log.format;
    panics::write_at_once(format);
    print_warnings(&checked);
    environment
        .and_then(|environment| serve(checked, environment, signals?, file))
        .unwrap_or_else(|error| fail_in(format, &error))
}

/// Prints mistakes: for people, with line and caret; with a JSON log, as one log line each.
fn print_mistakes(rejected: &Rejected) {
    if !log::is_json(rejected.log_format) {
        return print_line(rejected.render(io::stderr().is_terminal()));
    }
    for mistake in &rejected.mistakes {
        let message = finding_line(&rejected.source, mistake);
        log::write_now(rejected.log_format, LogLevel::Error, "config_refused", message);
    }
}

/// Prints warnings in the same way as mistakes, if the log level includes warnings.
fn print_warnings(checked: &Checked) {
    let LogPolicy { format, level, .. } = checked.policy.log;
    if checked.warnings.is_empty() || level > LogLevel::Warn {
        return;
    }
    if !log::is_json(format) {
        return print_line(checked.render_warnings(io::stderr().is_terminal()));
    }
    for warning in &checked.warnings {
        log::write_now(
            format,
            LogLevel::Warn,
            "config_warning",
            finding_line(&checked.source, warning),
        );
    }
}

/// The file that wsguard was started with, and the watch on it.
struct File<'a> {
    path: &'a Path,
    watch: ConfigWatch,
}

impl<'a> File<'a> {
    /// Begins to watch the file. Must come before the file is read, so that no later change is missed.
    fn of(path: &'a Path) -> Self {
        Self {
            path,
            watch: ConfigWatch::begin(path),
        }
    }
}

/// The environment of the guard: all descriptors that this process may have, and, if systemd started it, the sockets that
/// systemd passed.
fn environment() -> anyhow::Result<Environment> {
    Ok(Environment {
        descriptors: descriptors::raise_limit(),
        sockets: take_inherited()?,
        notifier: Notifier::from_env()?,
    })
}

fn configured(options: &Options) -> Result<Checked, Rejected> {
    if options.listen.is_empty() {
        return config::load(&options.config.path);
    }
    config::quick(&QuickOptions {
        listen: options.listen.clone(),
        upstream: options.upstream.clone(),
        per_ip: options.per_ip.clone(),
        connections: options.connections.clone(),
        trust: options.trust.clone(),
        admin: options.admin.clone(),
    })
}

/// The signals that do not end the process, and the runtime that receives them. Before they are caught, they would end the
/// process. Reading the file may take seconds, so they are caught before that.
struct Signals {
    runtime: Runtime,
    hangups: Hangups,
    ignored: Ignored,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (hangups, ignored) = runtime.block_on(async { io::Result::Ok((Hangups::new()?, Ignored::new()?)) })?;
        Ok(Self {
            runtime,
            hangups,
            ignored,
        })
    }
}

fn serve(checked: Checked, environment: Environment, signals: Signals, file: Option<File<'_>>) -> anyhow::Result<Exit> {
    let Signals {
        runtime,
        mut hangups,
        mut ignored,
    } = signals;
    // Up to this point, TERM ends the process at once, because no connection is open.
    let mut ends = runtime.block_on(async { Ends::new() })?;
    let text = checked.source.text.clone();
    let (guard, _admin) = start(checked, environment)?;
    guard.set_initial_text(text);
    let stopper = Stopper::of_this_machine();
    if let Some(note) = stopper
        .note(&guard.in_force().policy.server)
        .filter(|_| stopper.is_container())
    {
        let line = Line {
            message: Some(note),
            ..Line::default()
        };
        guard.log().event(LogLevel::Info, "note", line);
    }
    let reloader = file
        .as_ref()
        .map(|file| Reloader::start(&guard, file.path))
        .transpose()?;
    if let Some(file) = file {
        look_after(file, &guard);
    }
    let exit = runtime.block_on(async {
        loop {
            tokio::select! {
                () = hangups.next() => reload(&guard, reloader.as_ref()),
                () = ends.next() => break,
                said = ignored.next() => guard.log().warn("signal", &said),
            }
        }
        let mut drain = pin!(guard.drain());
        loop {
            tokio::select! {
                () = &mut drain => return Exit::Done,
                () = ends.next() => return Exit::Failed,
                said = ignored.next() => guard.log().warn("signal", &said),
            }
        }
    });
    guard.log().event(LogLevel::Info, "stopped", Line::default());
    guard.stop();
    Ok(exit)
}

/// Warns if the file's permissions are too wide, and starts to watch the file for changes.
fn look_after(file: File<'_>, guard: &Arc<Guard>) {
    let log = guard.log();
    let path = file.path.display();
    if is_world_writable(file.path).unwrap_or(false) {
        log.warn(
            "config_warning",
            &format!("{path} may be written by anybody on this machine"),
        );
    }
    if let Err(error) = file.watch.start(Arc::downgrade(guard)) {
        log.warn("watch", &format!("{path} is not watched, HUP applies it: {error}"));
    }
}

/// Reloads after HUP. The reload has a thread of its own, so the next signal is not delayed.
fn reload(guard: &Arc<Guard>, reloader: Option<&Reloader>) {
    if let Some(reloader) = reloader {
        return reloader.request();
    }
    let _reloading = Reloading::begin(guard);
    guard.log().warn(
        "reload_refused",
        "wsguard was started without a file: there is nothing to reload",
    );
}

/// Starts a guard and its admin server, and logs their addresses.
pub(crate) fn start(checked: Checked, environment: Environment) -> anyhow::Result<(Arc<Guard>, Option<AdminServer>)> {
    let admin = checked.policy.admin.clone();
    // The admin address is bound first, so a guard never serves without its metrics.
    let listener = admin
        .listen
        .map(|address| {
            plain(address).with_context(|| {
                format!("admin: cannot bind {address} (`listen` in [admin], or --admin, takes another)")
            })
        })
        .transpose()?;
    let guard = Guard::start(checked.policy, environment)?;
    let log = guard.log();
    panics::count_and_log(&guard.in_force().process.metrics, log.clone());
    let server = match listener {
        None => None,
        Some(listener) => {
            let line = Line {
                address: Some(listener.local_addr()?.to_string()),
                ..Line::default()
            };
            let server = admin::start(listener, admin.hosts, Arc::clone(&guard))?;
            log.event(LogLevel::Info, "admin", line);
            Some(server)
        }
    };
    log.event(LogLevel::Info, "ready", Line::default());
    systemd::start(&guard)?;
    Ok((guard, server))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::commands::Cli;
    use crate::config::defaults;

    #[test]
    fn the_help_of_run_names_the_defaults_that_are_in_force() {
        let zone = defaults::zone("default");
        let mut commands = Cli::command();
        let help = commands.find_subcommand_mut("run").expect("a command").render_help();
        let help = help.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        for (what, default) in [
            ("one client may have open at once", zone.client.per_ip),
            ("in all", zone.rules.connections),
        ] {
            let default = default.expect("a limit");
            let told = format!("Connections {what}: a number, or off [default: {default}]");
            assert!(help.contains(&told), "{told} in {help}");
        }
        let admin = format!("or off [default: {}]", defaults::ADMIN_LISTEN);
        assert!(help.contains(&admin), "{admin} in {help}");
    }
}
