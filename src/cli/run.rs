//! `wsguard run`: serves in the foreground.

use std::io::{self, IsTerminal};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::admin::{self, AdminServer};
use crate::config::policy::LogLevel;
use crate::config::{self, Checked, QuickOptions, Rejected};
use crate::guard::log::Line;
use crate::guard::notify::{self, Notifier, Reloading};
use crate::guard::reload::is_writable_by_others;
use crate::guard::{Guard, Systemd, watch};
use crate::net::inherit::take_inherited;

use super::{ConfigFile, Exit, failed, tell};

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
    // First of all, while there is one thread.
    let systemd = from_systemd();
    let in_color = io::stderr().is_terminal();
    let checked = match configured(options) {
        Ok(checked) => checked,
        Err(rejected) => {
            tell(rejected.render(in_color));
            return Exit::Config;
        }
    };
    if !checked.warnings.is_empty() {
        tell(checked.render_warnings(in_color));
    }
    let file = options.listen.is_empty().then_some(options.config.config.as_path());
    systemd
        .and_then(|systemd| serve(checked, systemd, file))
        .unwrap_or_else(|error| failed(&error))
}

/// What systemd gave us, if it was systemd that started us.
fn from_systemd() -> anyhow::Result<Systemd> {
    Ok(Systemd {
        sockets: take_inherited()?,
        notifier: Notifier::from_env()?,
    })
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

fn serve(checked: Checked, systemd: Systemd, file: Option<&Path>) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Heard from the first moment on: a signal that comes while the guard starts must not end it the kernel's way.
    let (mut hangup, mut ends) =
        runtime.block_on(async { io::Result::Ok((signal(SignalKind::hangup())?, Ends::new()?)) })?;
    let text = checked.source.text.clone();
    let (guard, _admin) = start(checked, systemd)?;
    guard.began_with(text);
    if let Some(file) = file {
        look_after(file, &guard);
    }
    let exit = runtime.block_on(async {
        loop {
            tokio::select! {
                _ = hangup.recv() => reload(&guard, file),
                () = ends.next() => break,
            }
        }
        tokio::select! {
            () = guard.drain() => Exit::Done,
            () = ends.next() => Exit::Failed,
        }
    });
    guard.log().event(LogLevel::Info, "stopped", Line::default());
    guard.stop();
    Ok(exit)
}

/// The signals that end the process.
struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Ends {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next TERM or INT.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Says what is odd about the file itself, and has it watched.
fn look_after(file: &Path, guard: &Arc<Guard>) {
    let log = guard.log();
    if is_writable_by_others(file).unwrap_or(false) {
        log.warn(
            "config_warning",
            &format!("{} may be written by anybody on this machine", file.display()),
        );
    }
    if let Err(error) = watch::start(Arc::downgrade(guard), file.to_path_buf()) {
        log.warn(
            "watch",
            &format!("{} is not watched, HUP applies it: {error}", file.display()),
        );
    }
}

/// On a thread of its own: reading a file and resolving names may take their time, and the next signal must be heard.
fn reload(guard: &Arc<Guard>, file: Option<&Path>) {
    let Some(file) = file.map(Path::to_path_buf) else {
        let _told = Reloading::begin(guard);
        guard.log().warn(
            "reload_refused",
            "wsguard was started without a file: there is nothing to reload",
        );
        return;
    };
    let reloads = Arc::clone(guard);
    // It tells the log what came of it, and so it does where no thread can be had.
    let started = std::thread::Builder::new()
        .name("reload".into())
        .spawn(move || reloads.reload_file(&file));
    if let Err(error) = started {
        let _told = Reloading::begin(guard);
        guard.log().warn("reload_refused", &error.to_string());
    }
}

/// Starts a guard and its admin server, and says in the log where they are.
pub fn start(checked: Checked, systemd: Systemd) -> anyhow::Result<(Arc<Guard>, Option<AdminServer>)> {
    let admin = checked.policy.admin.clone();
    // Bound before anything is served, so that a guard which nobody can watch does not start.
    let listener = admin
        .listen
        .map(|address| TcpListener::bind(address).with_context(|| format!("admin: cannot bind {address}")))
        .transpose()?;
    let guard = Guard::start(checked.policy, systemd)?;
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
    notify::start(&guard)?;
    Ok((guard, server))
}
