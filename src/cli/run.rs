//! `wsguard run`: serves in the foreground.

use std::io::{self, IsTerminal};
use std::net::TcpListener;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::{self, AdminServer};
use crate::config::policy::LogLevel;
use crate::config::{self, Checked, QuickOptions, Rejected};
use crate::guard::Guard;
use crate::guard::log::Line;

use super::{ConfigFile, Exit, done};

/// `run [-c FILE]`, or `run --listen A --upstream B …` without a file.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    config: ConfigFile,
    /// Serve without a file: where to listen, e.g. 0.0.0.0:8080
    #[arg(long, value_name = "ADDRESS", requires = "upstream")]
    listen: Vec<String>,
    /// Serve without a file: the server to guard, e.g. 127.0.0.1:3000
    #[arg(long, value_name = "ADDRESS", requires = "listen")]
    upstream: Vec<String>,
    /// Connections one client may have open at once: a number, or off
    #[arg(long, value_name = "N", requires = "listen")]
    per_ip: Option<String>,
    /// Connections in all: a number, or off
    #[arg(long, value_name = "N", requires = "listen")]
    connections: Option<String>,
    /// Whose forwarding headers to believe: a network, or "loopback", "private", "unix"
    #[arg(long, value_name = "WHOM", requires = "listen")]
    trust: Vec<String>,
}

/// Serves until a signal ends it.
pub fn run(options: &Options) -> Exit {
    let in_color = io::stderr().is_terminal();
    let checked = match configured(options) {
        Ok(checked) => checked,
        Err(rejected) => {
            eprintln!("{}", rejected.render(in_color));
            return Exit::Config;
        }
    };
    if !checked.warnings.is_empty() {
        eprintln!("{}", checked.render_warnings(in_color));
    }
    done(serve(checked))
}

fn configured(options: &Options) -> Result<Checked, Rejected> {
    if options.listen.is_empty() {
        return config::load(&options.config.config);
    }
    config::quick(&QuickOptions {
        listen: options.listen.clone(),
        upstream: options.upstream.clone(),
        per_ip: options.per_ip.clone(),
        connections: options.connections.clone(),
        trust: options.trust.clone(),
    })
}

fn serve(checked: Checked) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (guard, _admin) = start(checked)?;
    runtime.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        io::Result::Ok(())
    })?;
    guard.log().event(LogLevel::Info, "stopping", Line::default());
    guard.stop();
    Ok(())
}

/// Starts a guard and its admin server, and says in the log where they are.
pub fn start(checked: Checked) -> anyhow::Result<(Arc<Guard>, Option<AdminServer>)> {
    let admin = checked.policy.admin.clone();
    // Bound before anything is served, so that a guard which nobody can watch does not start.
    let listener = admin
        .listen
        .map(|address| TcpListener::bind(address).with_context(|| format!("admin: cannot bind {address}")))
        .transpose()?;
    let guard = Guard::start(checked.policy)?;
    let log = guard.log();
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
    Ok((guard, server))
}
