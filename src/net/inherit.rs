//! Listening sockets that the process was started with: systemd's socket activation.

use std::env;
use std::io;
use std::path::PathBuf;

use listenfd::ListenFd;
use socket2::{SockAddr, Socket};

use super::address::Bind;

/// A listening socket that the process was started with.
#[derive(Debug)]
pub struct Inherited {
    /// Its name (`FileDescriptorName=`), if it has one.
    pub name: Option<String>,
    /// Where it is bound.
    pub address: Bind,
    pub(super) socket: Socket,
}

/// A descriptor that was passed to the process is not a listening socket.
#[derive(Debug, thiserror::Error)]
#[error("descriptor {number}{} that systemd passed is not a listening stream socket: {error}", in_brackets(.name.as_deref()))]
pub struct NoListener {
    number: usize,
    name: Option<String>,
    error: io::Error,
}

/// Takes every socket that `LISTEN_FDS` announces to this process, and removes the variable.
///
/// It changes the environment, so it must be called before the first thread starts.
///
/// # Errors
/// A passed descriptor is not a listening stream socket.
pub fn take_inherited() -> Result<Vec<Inherited>, NoListener> {
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names
        .split(':')
        .map(|name| Some(name.to_owned()).filter(|name| !name.is_empty()));
    let mut passed = ListenFd::from_env();
    (0..passed.len())
        .map(|index| {
            let name = names.next().flatten();
            take(&mut passed, index)
                .map(|(socket, address)| Inherited {
                    name: name.clone(),
                    address,
                    socket,
                })
                .map_err(|error| NoListener {
                    number: FIRST + index,
                    name,
                    error,
                })
        })
        .collect()
}

fn take(passed: &mut ListenFd, index: usize) -> io::Result<(Socket, Bind)> {
    let tcp = passed.take_tcp_listener(index).ok().flatten().map(Socket::from);
    let socket = match tcp {
        Some(socket) => socket,
        None => passed.take_unix_listener(index)?.ok_or(io::ErrorKind::NotFound)?.into(),
    };
    if !socket.is_listener()? {
        // `Accept=yes` in the socket unit passes single connections.
        return Err(io::Error::other("it does not listen"));
    }
    // Not every process that passes sockets has done this, and the accept loops of all workers share the one queue.
    socket.set_nonblocking(true)?;
    let address = bound_to(&socket.local_addr()?)?;
    Ok((socket, address))
}

fn bound_to(address: &SockAddr) -> io::Result<Bind> {
    if let Some(address) = address.as_socket() {
        return Ok(Bind::Tcp(address));
    }
    if let Some(path) = address.as_pathname() {
        return Ok(Bind::Unix(path.to_path_buf()));
    }
    let name = address
        .as_abstract_namespace()
        .ok_or_else(|| io::Error::other("it is not bound"))?;
    Ok(Bind::Unix(PathBuf::from(format!("@{}", String::from_utf8_lossy(name)))))
}

fn in_brackets(name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| format!(" ({name})"))
}

/// `SD_LISTEN_FDS_START`.
const FIRST: usize = 3;
