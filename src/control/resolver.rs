//! Resolves the names of servers in the background, so that no connection waits for DNS.

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::config::policy::LogLevel;
use crate::net::address::Target;
use crate::upstream::server::Server;

use crate::live::in_force::{InForce, Live};
use crate::telemetry::log::Line;
use crate::telemetry::survive::survive;

/// Resolves every name: once in the calling thread, then every 30 s on a thread of its own. The thread ends when nothing
/// else holds `live` any more.
pub fn start(live: &Arc<Live>) -> io::Result<()> {
    resolve(live, true);
    let live = Arc::downgrade(live);
    std::thread::Builder::new()
        .name("resolver".into())
        .spawn(move || keep_resolving(&live))?;
    Ok(())
}

/// Resolves the names in a policy that have not been resolved yet, in the calling thread.
pub fn resolve_new(in_force: &InForce) {
    for_each_name(in_force, |server, host, port| {
        if !server.is_up()
            && let Ok(addresses) = look_up(host, port)
        {
            server.resolved(addresses);
        }
    });
}

fn keep_resolving(live: &Weak<Live>) {
    loop {
        std::thread::sleep(INTERVAL);
        let Some(live) = live.upgrade() else { return };
        survive(|| resolve(&live, false));
    }
}

fn resolve(live: &Live, is_first: bool) {
    let in_force = live.in_force();
    for_each_name(&in_force, |server, host, port| {
        if let Some((level, message)) = apply(server, look_up(host, port), is_first) {
            log_change(live, level, server, message);
        }
    });
}

/// Applies the result of a look-up, and returns the level and the text to log, if any. If the look-up fails, the server
/// keeps its last addresses: a name server that does not answer must not take servers down.
fn apply(server: &Server, found: io::Result<Vec<SocketAddr>>, is_first: bool) -> Option<(LogLevel, String)> {
    let was_up = server.is_up();
    match found {
        Ok(addresses) if addresses.is_empty() => {
            was_up.then(|| (LogLevel::Warn, "no longer resolves: no address".to_owned()))
        }
        Ok(addresses) => {
            let has_changed = server.resolved(addresses) && !is_first;
            has_changed.then(|| (LogLevel::Info, "resolves to new addresses".to_owned()))
        }
        Err(error) if was_up => Some((LogLevel::Warn, format!("no longer resolves: {error}"))),
        Err(error) => is_first.then(|| (LogLevel::Warn, format!("does not resolve: {error}"))),
    }
}

fn for_each_name(in_force: &InForce, with: impl Fn(&Server, &str, u16)) {
    for server in in_force.upstreams.iter().flat_map(|upstream| upstream.servers()) {
        if let Target::Name { host, port } = server.target() {
            with(server, host, *port);
        }
    }
}

/// Looks up a name. The addresses are sorted, so that a new order of the same addresses is no change.
fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let addresses: BTreeSet<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    Ok(addresses.into_iter().collect())
}

fn log_change(live: &Live, level: LogLevel, server: &Server, message: String) {
    let change = Line {
        server: Some(Arc::clone(server.label())),
        message: Some(message),
        ..Line::default()
    };
    live.log().event(level, "resolve", change);
}

const INTERVAL: Duration = Duration::from_secs(30);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn unresolved() -> Server {
        Server::new(Target::Name {
            host: "chat.example.org".into(),
            port: 3000,
        })
    }

    fn at(last: u8) -> Vec<SocketAddr> {
        vec![SocketAddr::from(([203, 0, 113, last], 3000))]
    }

    fn away() -> io::Result<Vec<SocketAddr>> {
        Err(io::Error::other("name server away"))
    }

    #[test]
    fn a_name_that_stops_resolving_keeps_its_last_addresses() {
        let server = unresolved();
        assert_eq!(apply(&server, Ok(at(1)), true), None);
        for gone in [away(), Ok(Vec::new())] {
            let (level, message) = apply(&server, gone, false).unwrap();
            assert_eq!(level, LogLevel::Warn);
            assert!(message.starts_with("no longer resolves: "), "{message}");
            assert!(server.is_up());
            assert_eq!(*server.addresses(), at(1));
        }
        assert_eq!(
            apply(&server, Ok(at(1)), false),
            None,
            "it is back, and nothing has changed"
        );
    }

    #[test]
    fn a_server_takes_the_new_addresses_of_its_name() {
        let server = unresolved();
        assert_eq!(apply(&server, Ok(at(1)), true), None);
        let (level, _) = apply(&server, Ok(at(2)), false).unwrap();
        assert_eq!((level, server.addresses().to_vec()), (LogLevel::Info, at(2)));
    }

    #[test]
    fn a_name_that_never_resolved_is_logged_once_and_its_server_is_down_until_it_resolves() {
        let server = unresolved();
        let (level, message) = apply(&server, away(), true).unwrap();
        assert_eq!(level, LogLevel::Warn);
        assert!(message.starts_with("does not resolve: "), "{message}");
        assert_eq!(apply(&server, away(), false), None);
        assert!(!server.is_up());
        assert!(apply(&server, Ok(at(1)), false).is_some());
        assert!(server.is_up());
    }
}
