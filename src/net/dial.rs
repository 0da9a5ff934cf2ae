//! Dialling one server.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream as StdTcpStream};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::LazyLock;

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpStream, UnixStream};

use super::stream::{Stream, is_passing};

/// A server that was reached, and how much of what it is to hear it has taken already.
#[derive(Debug)]
pub struct Dialled {
    /// Its socket.
    pub stream: Stream,
    /// Bytes of the request that were sent.
    pub sent: usize,
}

/// Connects over TCP, and sends the beginning of `request`: whoever is near has accepted by the time that it could be asked
/// whether it has. Dropping the future ends the attempt.
///
/// No address is bound, so the kernel counts the local ports per destination, as `IP_BIND_ADDRESS_NO_PORT` would have it do
/// for a bound one (ip(7)).
///
/// # Errors
/// Nothing was sent then.
pub async fn tcp(address: SocketAddr, request: &[u8]) -> io::Result<Dialled> {
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let socket = StdTcpStream::from(socket);
    let sent = match rustix::net::send(&socket, request, rustix::net::SendFlags::NOSIGNAL) {
        Ok(sent) => sent,
        Err(error) if is_passing(&error.into()) => 0,
        Err(error) => return Err(error.into()),
    };
    let stream = TcpStream::from_std(socket)?;
    if sent == 0 {
        stream.writable().await?;
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
    }
    if EPHEMERAL.contains(&address.port()) && stream.local_addr()? == address {
        // Linux lets a socket connect to itself when the port it picks is the one it dials and nobody listens there.
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(Dialled {
        stream: Stream::Tcp(stream),
        sent,
    })
}

/// Whether a dial failed for want of something of our own, a descriptor or memory: then no server is at fault, and no other
/// one can be dialled either.
pub fn is_out_of_room(error: &io::Error) -> bool {
    let wants = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| wants.contains(&errno))
}

/// Connects to a Unix socket.
pub async fn unix(path: &Path) -> io::Result<Dialled> {
    let stream = UnixStream::connect(path).await.map(Stream::Unix)?;
    Ok(Dialled { stream, sent: 0 })
}

/// The ports that the kernel picks from (`ip_local_port_range`, ip(7)); all, where it does not tell.
static EPHEMERAL: LazyLock<RangeInclusive<u16>> = LazyLock::new(|| {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ports = range.split_whitespace().map_while(|port| port.parse().ok());
    match (ports.next(), ports.next()) {
        (Some(first), Some(last)) => first..=last,
        _ => 0..=u16::MAX,
    }
});
