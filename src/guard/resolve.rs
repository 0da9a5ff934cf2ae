//! Names of servers become addresses in the background, never on the walk.

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::config::policy::LogLevel;
use crate::net::address::Target;
use crate::upstream::server::Server;

use super::Guard;
use super::log::Line;
use super::running::Running;

/// Resolves every name once, in the calling thread, then every 30 s on one of its own, for as long as the guard lives.
pub fn start(guard: &Arc<Guard>) -> io::Result<()> {
    resolve(guard, true);
    let guard = Arc::downgrade(guard);
    std::thread::Builder::new()
        .name("resolver".into())
        .spawn(move || keep_resolving(&guard))?;
    Ok(())
}

/// Resolves the names that a policy brings and nobody has resolved yet, in the calling thread.
pub fn resolve_new(running: &Running) {
    each_name(running, |server, host, port| {
        if !server.is_up()
            && let Ok(addresses) = look_up(host, port)
        {
            server.resolved(addresses);
        }
    });
}

fn keep_resolving(guard: &Weak<Guard>) {
    loop {
        std::thread::sleep(EVERY);
        let Some(guard) = guard.upgrade() else { return };
        resolve(&guard, false);
    }
}

fn resolve(guard: &Guard, is_first: bool) {
    let running = guard.running();
    each_name(&running, |server, host, port| {
        let was_up = server.is_up();
        match look_up(host, port) {
            // A name server that is away takes no server down that is up: its last addresses stand.
            Ok(addresses) if addresses.is_empty() && was_up => {}
            Ok(addresses) => {
                if server.resolved(addresses) && !is_first {
                    tell(guard, LogLevel::Info, server, "resolves to new addresses".to_owned());
                }
            }
            Err(error) if was_up => tell(guard, LogLevel::Warn, server, format!("no longer resolves: {error}")),
            Err(error) if is_first => tell(guard, LogLevel::Warn, server, format!("does not resolve: {error}")),
            Err(_) => {}
        }
    });
}

fn each_name(running: &Running, with: impl Fn(&Server, &str, u16)) {
    for server in running.upstreams.iter().flat_map(|upstream| upstream.servers()) {
        if let Target::Name { host, port } = server.target() {
            with(server, host, *port);
        }
    }
}

/// Sorted, so that a resolver that shuffles its answers changes nothing.
fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let addresses: BTreeSet<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    Ok(addresses.into_iter().collect())
}

fn tell(guard: &Guard, level: LogLevel, server: &Server, message: String) {
    let line = Line {
        server: Some(Arc::clone(server.label())),
        message: Some(message),
        ..Line::default()
    };
    guard.running().shared.log.event(level, "resolve", line);
}

const EVERY: Duration = Duration::from_secs(30);
