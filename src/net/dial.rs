//! Dialling one server.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::SendFlags;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpStream, UnixStream};

use super::transport::Transport;

/// A connection to a server, and how much of the request was sent on it already.
#[derive(Debug)]
pub struct Dialled {
    /// The connection.
    pub transport: Transport,
    /// Bytes of the request that were sent.
    pub sent: usize,
}

/// Connects over TCP, and sends as much of `request` as the socket takes at once: a server nearby accepts before the
/// runtime can report it. Dropping the future ends the attempt.
///
/// No local address is bound, so the kernel chooses a local port per destination, as with `IP_BIND_ADDRESS_NO_PORT`
/// (ip(7)). The number of ports then limits the connections to each destination, and not all of them together.
///
/// # Errors
/// The error of the attempt to connect. Nothing was sent then.
pub async fn tcp(address: SocketAddr, request: &[u8]) -> io::Result<Dialled> {
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let stream = TcpStream::from_std(socket.into())?;
    if stream.local_addr()? == address {
        // On Linux a socket connects to itself if it gets the local port that it dials and nothing listens there.
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

/// Whether a dial failed because there was no descriptor, memory or room in epoll. Then the server is not at fault, and
/// dialling another one would fail too.
pub fn is_out_of_room(error: &io::Error) -> bool {
    let wants = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::NOSPC];
    Errno::from_io_error(error).is_some_and(|errno| wants.contains(&errno))
}

/// Whether a dial failed because no local port is free for this address: the server is not at fault.
pub fn lacks_local_port(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::ADDRNOTAVAIL)
}

/// Connects to a Unix socket. While its queue is full this tries again every few milliseconds, as the kernel does not
/// report when there is a place (`EAGAIN`, unix(7)).
pub async fn unix(path: &Path) -> io::Result<Dialled> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(QUEUE_FULL).await,
            connected => {
                return Ok(Dialled {
                    transport: connected?.into(),
                    sent: 0,
                });
            }
        }
    }
}

/// The wait for a place in a full queue.
const QUEUE_FULL: Duration = Duration::from_millis(3);
