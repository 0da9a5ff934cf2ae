//! Plain sockets on the loopback.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::{RecvFlags, SocketFlags, accept_with, recv};
use socket2::{Domain, SockRef, Socket, Type};

/// A non-blocking listener with a queue as long as the kernel allows.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Accepts a waiting client, if there is one.
pub fn accept(listener: &TcpListener) -> io::Result<Option<TcpStream>> {
    match accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
        Ok(socket) => Ok(Some(socket.into())),
        Err(error) => waits(error.into()),
    }
}

/// Connects from this address. On the loopback that does not block, unless the queue of the listener is full.
pub fn connect(from: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect(&to.into())?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

/// Reads the bytes that are there, even if the socket is a blocking one.
pub fn read_now(stream: &TcpStream, into: &mut [u8]) -> io::Result<Option<usize>> {
    match recv(stream.as_fd(), into, RecvFlags::DONTWAIT) {
        Ok((_, n)) => Ok(Some(n)),
        Err(error) => waits(error.into()),
    }
}

/// Takes at most this many bytes without copying them out.
pub fn swallow(stream: &TcpStream, at_most: &mut [u8]) -> io::Result<Option<usize>> {
    match recv(stream.as_fd(), at_most, RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
        Ok((_, n)) => Ok(Some(n)),
        Err(error) => waits(error.into()),
    }
}

/// Turns `WouldBlock` into `None`.
pub fn waits<T>(error: io::Error) -> io::Result<Option<T>> {
    if error.kind() == io::ErrorKind::WouldBlock {
        Ok(None)
    } else {
        Err(error)
    }
}

/// Closes with a reset, so that the connection leaves no state behind.
pub fn reset(stream: TcpStream) {
    // A socket that has been reset already needs no reset.
    let _gone = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    drop(stream);
}

/// The `nth` address of 127.`net`.0.0/16.
pub fn address(net: u8, nth: usize) -> Ipv4Addr {
    let nth = nth % (200 * 250);
    let [high, low] = [nth / 250, nth % 250 + 1].map(|part| u8::try_from(part).expect("less than 256"));
    Ipv4Addr::new(127, net, high, low)
}

const BACKLOG: i32 = 4096;
