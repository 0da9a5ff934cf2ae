//! The notation of addresses in a configuration: listeners, servers and networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use crate::net::address::{Bind, Target};

use super::invalid::Invalid;

/// Reads a listener's address: `"0.0.0.0:8080"`, `"[::]:8080"` or `"unix:/run/x.sock"`. With port 0 the kernel chooses the
/// port.
pub fn bind(text: &str) -> Result<Bind, Invalid> {
    if let Some(path) = text.strip_prefix("unix:") {
        return socket_path(path).map(Bind::Unix);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Bind::Tcp(address));
    }
    let why = format!("\"{text}\" is not an address to bind");
    if let Some(address) = without_brackets(text) {
        return Err(Invalid::new(why, format!("write IPv6 in brackets: \"{address}\"")));
    }
    let port = text
        .strip_prefix("*:")
        .or_else(|| text.strip_prefix(':'))
        .unwrap_or(text);
    if port.parse::<u16>().is_ok() {
        return Err(Invalid::new(
            why,
            format!("for every IPv4 address: \"0.0.0.0:{port}\"; for IPv6: \"[::]:{port}\""),
        ));
    }
    if let Some(port) = text.strip_prefix("localhost:") {
        return Err(Invalid::new(
            why,
            format!("names are not resolved here: \"127.0.0.1:{port}\" or \"[::1]:{port}\""),
        ));
    }
    match text.parse::<IpAddr>() {
        Ok(ip) => Err(Invalid::new(
            why,
            format!("add a port: \"{}\"", SocketAddr::new(ip, 8080)),
        )),
        Err(_) => Err(Invalid::new(
            why,
            "write \"ADDRESS:PORT\", \"[IPV6]:PORT\" or \"unix:/PATH\"",
        )),
    }
}

/// Reads a server's address: `"host:3000"`, `"192.0.2.1:3000"`, `"[2001:db8::1]:3000"` or `"unix:/run/x.sock"`.
pub fn target(text: &str) -> Result<Target, Invalid> {
    if let Some(path) = text.strip_prefix("unix:") {
        return socket_path(path).map(Target::Unix);
    }
    let why = format!("\"{text}\" is not a server");
    if let Some((_, rest)) = text.split_once("://") {
        let authority = rest.split('/').next().unwrap_or(rest);
        return Err(Invalid::new(
            why,
            format!("host and port only, without scheme and path: \"{authority}\""),
        ));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return match address.port() {
            0 => Err(Invalid::new(why, "a server has a port from 1 to 65535")),
            _ => Ok(Target::Tcp(address)),
        };
    }
    if let Some(address) = without_brackets(text) {
        return Err(Invalid::new(why, format!("write IPv6 in brackets: \"{address}\"")));
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Err(Invalid::new(
            why,
            format!("add its port: \"{}\"", SocketAddr::new(ip, 3000)),
        ));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(Invalid::new(
            why,
            "write \"HOST:PORT\", \"[IPV6]:PORT\" or \"unix:/PATH\"",
        ));
    };
    match port.parse::<u16>() {
        Ok(port) if port > 0 && is_host_name(host) => Ok(Target::Name {
            host: host.to_owned(),
            port,
        }),
        Ok(port) if port > 0 => Err(Invalid::new(
            why,
            format!("\"{host}\" is neither an address nor a host name"),
        )),
        _ => Err(Invalid::new(why, "a server has a port from 1 to 65535")),
    }
}

/// Reads an IPv6 address and a port without brackets, as in `::1:8080`. The same text can be an address without a port, so
/// only a number of 80 or more counts as a port.
fn without_brackets(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port >= 80)?;
    Some(SocketAddr::new(IpAddr::V6(ip.parse().ok()?), port))
}

/// Reads a network: `"198.51.100.0/24"`, or an address alone, which is a network of one address.
pub fn network(text: &str) -> Result<IpNet, Invalid> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(ip));
    }
    let Some(net) = address_and_prefix(text) else {
        let such =
            "such as \"172.18.0.0/16\", \"2001:db8::/32\" or a bare address; or \"loopback\", \"private\", \"unix\"";
        let hint = if is_host_name(text) {
            format!("names are not resolved here: its address or its network, {such}")
        } else {
            such.to_owned()
        };
        return Err(Invalid::new(format!("\"{text}\" is not a network"), hint));
    };
    if net.trunc() == net {
        return Ok(net);
    }
    let alone = IpNet::from(net.addr());
    Err(Invalid::new(
        format!("\"{text}\" has bits set after its prefix"),
        format!("the network is \"{}\"; the address alone is \"{alone}\"", net.trunc()),
    ))
}

/// Whether `text` is an address and a prefix, but has bits set after the prefix, as in `10.0.0.1/8`.
pub fn has_host_bits(text: &str) -> bool {
    address_and_prefix(text).is_some_and(|network| network.trunc() != network)
}

/// Reads an address and a prefix more strictly than `IpNet`'s own parser. That one reads 010.0.0.0/8 as 10.0.0.0/8, while
/// other programs read the 010 as octal.
fn address_and_prefix(text: &str) -> Option<IpNet> {
    let (address, prefix) = text.split_once('/')?;
    let is_number = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
    IpNet::new(address.parse().ok()?, prefix.parse().ok().filter(|_| is_number)?).ok()
}

/// Whether `host` is a host name: labels of 1 to 63 letters, digits, `-` and `_`, at most 253 bytes in all. The last label
/// must not be a number: that would be a mistyped address. One final dot is allowed.
pub fn is_host_name(host: &str) -> bool {
    let labels = host.strip_suffix('.').unwrap_or(host);
    let fits = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last_is_number = labels
        .rsplit('.')
        .next()
        .is_some_and(|label| !label.is_empty() && label.bytes().all(|b| b.is_ascii_digit()));
    labels.len() <= 253 && labels.split('.').all(fits) && !last_is_number
}

/// The address that a browser reads in an unusual spelling such as `127.1`, `0x7f.0.0.1`, `0177.0.0.1` or `2130706433`. The
/// browser sends the address in its usual spelling.
pub fn odd_ipv4(host: &str) -> Option<Ipv4Addr> {
    let number = |part: &str| match part.strip_prefix("0x").or_else(|| part.strip_prefix("0X")) {
        Some("") => Some(0),
        Some(hex) => u32::from_str_radix(hex, 16).ok().filter(|_| !hex.starts_with('+')),
        None if part.len() > 1 && part.starts_with('0') => {
            u32::from_str_radix(part, 8).ok().filter(|_| !part.contains('+'))
        }
        None => part.parse().ok().filter(|_| !part.starts_with('+')),
    };
    let parts: Vec<u32> = host.split('.').map(number).collect::<Option<_>>()?;
    let (last, first) = parts.split_last()?;
    let leading: Vec<u8> = first
        .iter()
        .map(|part| u8::try_from(*part))
        .collect::<Result<_, _>>()
        .ok()?;
    let left = 4_u32
        .checked_sub(u32::try_from(leading.len()).ok()?)
        .filter(|left| *left > 0)?;
    if u64::from(*last) >= 1_u64 << (8 * left) {
        return None;
    }
    let high = leading
        .iter()
        .zip([24, 16, 8])
        .map(|(byte, shift)| u32::from(*byte) << shift);
    Some(Ipv4Addr::from_bits(high.sum::<u32>() | last))
}

/// The address in `[fe80::1%eth0]`, without the zone `eth0`: clients don't send the zone.
pub fn without_zone(bracketed: &str) -> Option<Ipv6Addr> {
    let inner = bracketed.strip_prefix('[')?.strip_suffix(']')?;
    inner.split_once('%')?.0.parse().ok()
}

/// Reads the path of a Unix socket: absolute, and at most 107 bytes, as `sun_path` requires.
fn socket_path(path: &str) -> Result<PathBuf, Invalid> {
    if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
        return Err(Invalid::new(
            format!("\"unix:{path}\" is not the path of a socket"),
            "such as \"unix:/run/app.sock\"",
        ));
    }
    if path.len() > 107 {
        return Err(Invalid::new(
            "the path of a socket has at most 107 bytes",
            "this one is longer",
        ));
    }
    Ok(PathBuf::from(path))
}

/// The networks of "loopback".
pub const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];

/// The networks of "private": RFC 1918, unique local and link-local IPv6. Loopback is not among them. Neither is
/// 100.64.0.0/10: behind a carrier or in a mesh VPN those addresses are other people's machines.
pub const PRIVATE: [&str; 5] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fe80::/10"];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_listener_has_an_ip_address_with_a_port_or_a_unix_path() {
        for text in ["0.0.0.0:8080", "[::]:8080", "127.0.0.1:0", "unix:/run/wsguard/in.sock"] {
            assert_eq!(bind(text).map(|bind| bind.to_string()), Ok(text.to_owned()));
        }
        for text in [
            "8080",
            ":8080",
            "*:8080",
            "localhost:80",
            "1.2.3.4",
            "::1",
            "[::1]",
            "unix:x",
            "unix:/",
            "",
            "a:b",
        ] {
            assert!(bind(text).is_err(), "{text}");
        }
        let long = format!("unix:/{}", "x".repeat(107));
        assert!(bind(&long).is_err());
    }

    #[test]
    fn a_server_has_a_host_with_a_port_or_a_unix_path() {
        for text in [
            "127.0.0.1:3000",
            "[2001:db8::1]:80",
            "chat:3000",
            "a-b.c_d.example.:1",
            "unix:/run/app.sock",
        ] {
            assert_eq!(target(text).map(|target| target.to_string()), Ok(text.to_owned()));
        }
        for text in [
            "chat",
            "chat:0",
            "chat:65536",
            "1.2.3.4:0",
            "http://a:1",
            "ws://a:1/x",
            "10.0.0.300:80",
            "1:2:3",
            ":80",
            "a..b:1",
            "-a:1",
            "é:1",
            "::1",
            "",
            "a b:1",
            "unix:",
        ] {
            assert!(target(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_ipv6_address_with_a_port_needs_brackets() {
        for (text, meant) in [
            ("::1:8080", "write IPv6 in brackets: \"[::1]:8080\""),
            ("2001:db8::1:3000", "write IPv6 in brackets: \"[2001:db8::1]:3000\""),
            (
                "2001:db8:0:0:0:0:0:1:443",
                "write IPv6 in brackets: \"[2001:db8::1]:443\"",
            ),
            (":::8080", "write IPv6 in brackets: \"[::]:8080\""),
        ] {
            assert_eq!(bind(text).map_err(|invalid| invalid.hint), Err(meant.to_owned()));
            assert_eq!(target(text).map_err(|invalid| invalid.hint), Err(meant.to_owned()));
        }
        for text in ["::1", "fd00::a:1", "2001:db8::ff", "::"] {
            let hint = bind(text).map_err(|invalid| invalid.hint);
            assert_eq!(hint, Err(format!("add a port: \"[{text}]:8080\"")));
        }
    }

    #[test]
    fn an_odd_spelling_is_read_as_browsers_read_it() {
        for (text, meant) in [
            ("127.1", Some("127.0.0.1")),
            ("127.0.1", Some("127.0.0.1")),
            ("0x7f.1", Some("127.0.0.1")),
            ("0X7F000001", Some("127.0.0.1")),
            ("0177.0.0.01", Some("127.0.0.1")),
            ("2130706433", Some("127.0.0.1")),
            ("1.65536", Some("1.1.0.0")),
            ("1.2.65535", Some("1.2.255.255")),
            ("0x", Some("0.0.0.0")),
            ("4294967296", None),
            ("256.1", None),
            ("1.2.3.256", None),
            ("1.2.65536", None),
            ("1.2.3.4.5", None),
            ("08.1", None),
            ("+1", None),
            ("0x+1", None),
            ("0+1", None),
            ("1..2", None),
            ("a.1", None),
            ("", None),
        ] {
            let meant = meant.map(|meant| meant.parse().unwrap());
            assert_eq!(odd_ipv4(text), meant, "{text}");
        }
    }

    #[test]
    fn a_network_has_a_prefix_or_is_one_address() {
        for (text, net) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.1", "10.0.0.1/32"),
            ("::1", "::1/128"),
        ] {
            assert_eq!(network(text).map(|net| net.to_string()), Ok(net.to_owned()));
        }
        let hint = network("10.0.0.1/8").map_err(|invalid| invalid.hint);
        assert_eq!(
            hint,
            Err("the network is \"10.0.0.0/8\"; the address alone is \"10.0.0.1/32\"".to_owned())
        );
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "010.0.0.0/8",
            "10.0.0.0/255.0.0.0",
            "fe80::1%eth0",
            "x",
        ] {
            assert!(network(text).is_err(), "{text}");
        }
        for text in LOOPBACK.into_iter().chain(PRIVATE) {
            assert!(network(text).is_ok(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,20}") {
            let _ = (bind(&text), target(&text), network(&text), odd_ipv4(&text));
        }
    }
}
