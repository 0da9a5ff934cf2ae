//! What neither the standard library nor a crate wraps safely. The only file with unsafe code.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use libc::c_int;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Bytes that were written to `socket` and that its peer has not acknowledged (`SIOCOUTQ`, tcp(7)).
///
/// It also answers for a socket that has died: what was never acknowledged stays in the count.
pub fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut waiting: c_int = 0;
    // SAFETY: SIOCOUTQ (the same number as TIOCOUTQ) writes one int through the pointer, which lives for the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut waiting) };
    if done == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(u32::try_from(waiting).unwrap_or(0))
}

/// What the kernel knows of a TCP connection (`TCP_INFO`, tcp(7)). What an older kernel does not tell is 0.
pub fn tcp_info(socket: BorrowedFd<'_>) -> io::Result<libc::tcp_info> {
    // SAFETY: it consists of integers alone, for which zeros are a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of_val(&info)).unwrap_or_default();
    // SAFETY: TCP_INFO writes at most `length` bytes through the first pointer, and how many it has written through the
    // second one; both live for the call.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if done == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(info)
}

/// Has the runtime of the calling thread tell when what `fd` names is readable.
pub fn watch_readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd names the same descriptor, open, until it is dropped, which AsyncFd does after it has deregistered
    // it.
    let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    watched.map_err(|refused| refused.into_parts().1)
}
