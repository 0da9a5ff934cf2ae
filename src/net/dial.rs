//! Dialling one server.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, UnixStream};

use super::stream::Stream;
use super::sys;

/// Connects over TCP. Dropping the future ends the attempt.
pub async fn tcp(address: SocketAddr) -> io::Result<Stream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv4() {
        sys::bind_address_no_port(std::os::fd::AsFd::as_fd(&socket))?;
    }
    let stream = TcpSocket::from_std_stream(socket.into()).connect(address).await?;
    if stream.local_addr()? == address {
        // Linux lets a socket connect to itself when the port it picks is the one it dials and nobody listens there.
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(Stream::Tcp(stream))
}

/// Whether a dial failed for want of something of our own, a descriptor or memory: then no server is at fault, and no other
/// one can be dialled either.
pub fn is_out_of_room(error: &io::Error) -> bool {
    let wants = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| wants.contains(&errno))
}

/// Connects to a Unix socket.
pub async fn unix(path: &Path) -> io::Result<Stream> {
    UnixStream::connect(path).await.map(Stream::Unix)
}
