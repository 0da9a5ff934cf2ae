//! System calls that no crate wraps safely. This is the only file with unsafe code.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use libc::c_int;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The number of bytes written to `socket` that its peer has not acknowledged (`SIOCOUTQ`, tcp(7)).
///
/// It works for a dead socket too: bytes that were never acknowledged stay counted.
pub fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut waiting: c_int = 0;
    // SAFETY: SIOCOUTQ (the same number as TIOCOUTQ) writes one int through the pointer, which lives for the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut waiting) };
    if done == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(u32::try_from(waiting).unwrap_or(0))
}

/// The kernel's state of a TCP connection (`TCP_INFO`, tcp(7)). Fields that an older kernel does not have are 0.
pub fn tcp_info(socket: BorrowedFd<'_>) -> io::Result<libc::tcp_info> {
    // SAFETY: it consists of integers only, for which zero is a valid value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of_val(&info)).unwrap_or_default();
    // SAFETY: TCP_INFO writes at most `length` bytes through the first pointer and their number through the second; both
    // live for the call.
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

/// Registers `fd` with the runtime of the calling thread, which reports when it is readable.
pub fn watch_readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd keeps the same descriptor open until it is dropped, and AsyncFd deregisters it before that.
    let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    watched.map_err(|refused| refused.into_parts().1)
}
