//! Addresses as a configuration names them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fmt, fs};

/// Where a listener binds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Bind {
    /// A TCP address. An IPv6 address accepts IPv6 only.
    Tcp(SocketAddr),
    /// A Unix socket's path.
    Unix(PathBuf),
}

/// Where a server is dialled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// An address that needs no resolving.
    Tcp(SocketAddr),
    /// A host name and a port, resolved at load and every 30 s.
    Name {
        /// The host name as written.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket's path.
    Unix(PathBuf),
}

impl Bind {
    /// Whether the kernel would refuse to bind both. IPv6 sockets accept IPv6 only, so they never collide with IPv4.
    pub(crate) fn collides_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(other)) => {
                let any = |address: &SocketAddr| address.ip().is_unspecified();
                let same_family = one.is_ipv4() == other.is_ipv4();
                let overlap = one.ip() == other.ip() || (same_family && (any(one) || any(other)));
                one.port() != 0 && one.port() == other.port() && overlap && scope(one) == scope(other)
            }
            (Self::Unix(one), Self::Unix(other)) => one == other,
            _ => false,
        }
    }

    /// Whether both are the same address, or the same socket file under any path.
    pub(crate) fn is_at(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(one), Self::Unix(other)) if one != other => {
                let file = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
                file(one).is_some_and(|one| Some(one) == file(other))
            }
            (one, other) => one == other,
        }
    }
}

/// The interface of a link-local address.
fn scope(address: &SocketAddr) -> u32 {
    match address {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => v6.scope_id(),
        _ => 0,
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Whether an address is this machine's own. The check sends no packet: it asks the kernel for the source address of a
/// route there, which for such an address is the address itself.
pub(crate) fn is_of_this_machine(ip: IpAddr) -> bool {
    let any: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let source_address = || {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((ip, 1))?;
        socket.local_addr()
    };
    ip.is_loopback() || source_address().is_ok_and(|source| source.ip() == ip)
}

/// The host name of this machine.
pub(crate) fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_address_belongs_to_this_machine_or_not() {
        for (address, own) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("203.0.113.200", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_of_this_machine(address.parse().unwrap()), own, "{address}");
        }
    }
}
