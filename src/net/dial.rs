//! Dialling one server.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::SendFlags;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpStream, UnixStream};

use super::transport::Transport;

/// A connection to a server, and how much of the request it has taken already.
#[derive(Debug)]
pub struct Dialled {
    /// The connection.
    pub transport: Transport,
    /// Bytes of the request that were sent.
    pub sent: usize,
}

/// Connects over TCP and sends the beginning of `request`: a server nearby has accepted before the runtime could report it.
/// Dropping the future ends the attempt.
///
/// No local address is bound, so the kernel counts the local ports per destination, as `IP_BIND_ADDRESS_NO_PORT` makes it do
/// for a bound one (ip(7)).
///
/// # Errors
/// An error of the connection attempt; nothing was sent then.
pub async fn tcp(address: SocketAddr, request: &[u8]) -> io::Result<Dialled> {
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let stream = TcpStream::from_std(socket.into())?;
    if stream.local_addr()? == address {
        // Linux lets a socket connect to itself when the port it picks is the one it dials and nobody listens there.
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    let sent = match rustix::net::send(&stream, request, SendFlags::NOSIGNAL) {
        Ok(sent) => sent,
        Err(Errno::AGAIN) => {
            stream.writable().await?;
            stream.take_error()?.map_or(Ok(0), Err)?
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Dialled {
        transport: stream.into(),
        sent,
    })
}

/// Whether a dial failed for want of a descriptor, memory or room in epoll: then the server is not at fault, and no other can
/// be dialled either.
pub fn is_out_of_room(error: &io::Error) -> bool {
    let wants = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::NOSPC];
    Errno::from_io_error(error).is_some_and(|errno| wants.contains(&errno))
}

/// Connects to a Unix socket.
pub async fn unix(path: &Path) -> io::Result<Dialled> {
    let stream = UnixStream::connect(path).await?;
    Ok(Dialled {
        transport: stream.into(),
        sent: 0,
    })
}
