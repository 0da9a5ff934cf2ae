//! Finds the listener of each socket from systemd.

use std::io;
use std::sync::Arc;

use crate::config::policy::{ListenerPolicy, Policy};
use crate::net::address::Bind;
use crate::net::bound::BoundSockets;
use crate::net::inherit::Inherited;

/// A socket from systemd could not be given to a listener.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// The socket could not be duplicated.
    #[error("the socket {socket} from systemd can't be shared by the workers: {error}")]
    Duplicate {
        /// The name and the address of the socket.
        socket: String,
        /// The error of the operating system.
        error: io::Error,
    },
    /// No listener has the socket's name, and none is bound to its address.
    #[error(
        "no listener takes the socket {socket} from systemd: none has this name (FileDescriptorName), and none binds \
         {address}; there are {listeners}"
    )]
    Stray {
        /// The name and the address of the socket.
        socket: String,
        /// The address of the socket.
        address: Bind,
        /// The names of the listeners in the policy.
        listeners: String,
    },
    /// The listener with the socket's name has several binds, and none has the socket's address.
    #[error("listener {listener} has several binds, and none of them is the socket {socket} from systemd")]
    WhichBind {
        /// The listener.
        listener: Arc<str>,
        /// The name and the address of the socket.
        socket: String,
    },
}

/// Shares every socket from systemd among the workers of its listener. Each result has the listener's position, the bind
/// that the socket replaces, and the shared socket.
///
/// A listener takes the sockets that have its name. Each socket replaces the bind with the same address. A single bind is
/// replaced even if the addresses differ. If no listener has the name of a socket, the socket goes to the listener that
/// binds its address.
pub fn share(
    policy: &Policy,
    sockets: Vec<Inherited>,
    workers: usize,
) -> Result<Vec<(usize, Bind, BoundSockets)>, ShareError> {
    let mut shared = Vec::new();
    for socket in sockets {
        let (at, asked) = find(&policy.listeners, socket.name.as_deref(), &socket.address)?;
        let shown = shown(socket.name.as_deref(), &socket.address);
        let bound =
            BoundSockets::share(socket, workers).map_err(|error| ShareError::Duplicate { socket: shown, error })?;
        shared.push((at, asked, bound));
    }
    Ok(shared)
}

fn find(listeners: &[Arc<ListenerPolicy>], name: Option<&str>, address: &Bind) -> Result<(usize, Bind), ShareError> {
    let named = listeners
        .iter()
        .position(|listener| name.is_some_and(|name| *listener.name == *name));
    if let Some(at) = named {
        return match listeners[at].bind.as_slice() {
            [only] => Ok((at, only.clone())),
            several if several.contains(address) => Ok((at, address.clone())),
            _ => Err(ShareError::WhichBind {
                listener: Arc::clone(&listeners[at].name),
                socket: shown(name, address),
            }),
        };
    }
    let bound = listeners.iter().position(|listener| listener.bind.contains(address));
    let at = bound.ok_or_else(|| ShareError::Stray {
        socket: shown(name, address),
        address: address.clone(),
        listeners: listeners
            .iter()
            .map(|listener| &*listener.name)
            .collect::<Vec<_>>()
            .join(", "),
    })?;
    Ok((at, address.clone()))
}

/// A socket's name and address for messages, such as "web (127.0.0.1:8080)".
fn shown(name: Option<&str>, address: &Bind) -> String {
    name.map_or_else(|| address.to_string(), |name| format!("{name} ({address})"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn the_name_counts_first_and_then_the_address() {
        let listeners = listeners();
        let taken =
            |name, address: &str| find(&listeners, name, &at(address)).map(|(at, asked)| (at, asked.to_string()));
        // A listener with one bind takes a socket with any address, even that of another listener, and IPv6 in place of
        // IPv4.
        for address in ["127.0.0.1:1", "127.0.0.1:2001", "[::1]:1000"] {
            assert_eq!(taken(Some("one"), address).unwrap(), (0, "127.0.0.1:1000".to_owned()));
        }
        // With several binds, a socket replaces the bind with its address.
        assert_eq!(taken(Some("two"), "[::1]:2000").unwrap(), (1, "[::1]:2000".to_owned()));
        let none_of_them = taken(Some("two"), "127.0.0.1:1000").unwrap_err().to_string();
        assert!(none_of_them.contains("listener two") && none_of_them.contains("two (127.0.0.1:1000)"));
        // No listener has the socket's name, or the socket has no name.
        assert_eq!(taken(Some("wsguard.socket"), "127.0.0.1:2001").unwrap().0, 1);
        assert_eq!(taken(None, "127.0.0.1:1000").unwrap().0, 0);
        let stray = taken(Some("thrre"), "127.0.0.1:9").unwrap_err().to_string();
        assert!(
            stray.contains("thrre (127.0.0.1:9)") && stray.contains("one, two"),
            "{stray}"
        );
    }

    fn listeners() -> Vec<Arc<ListenerPolicy>> {
        let text = "[[listener]]\nname = \"one\"\nbind = [\"127.0.0.1:1000\"]\n\
                    [[listener]]\nname = \"two\"\nbind = [\"127.0.0.1:2001\", \"[::1]:2000\"]\n\
                    [upstream.chat]\nservers = [\"127.0.0.1:3000\"]\n";
        config::compile(text, "test").unwrap().policy.listeners
    }

    fn at(address: &str) -> Bind {
        Bind::Tcp(address.parse().unwrap())
    }
}
