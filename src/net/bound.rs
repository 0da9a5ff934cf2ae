//! Binding listening sockets: one for each worker, or one shared by duplicates.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::address::Bind;
use super::inherit::Inherited;
use super::options::set_on_listening;

/// A bound address: one listening socket for each worker, not yet known to any runtime.
#[derive(Debug)]
pub struct BoundSockets {
    /// Where it is bound. A configured port 0 is replaced by the real port.
    pub address: Bind,
    /// It was bound by the process that started us, which still holds it. So its file, if it has one, must not be
    /// removed.
    pub is_inherited: bool,
    /// The file that binding made, if it is a Unix socket.
    pub file: Option<SocketFile>,
    sockets: Vec<Socket>,
    /// The backlog to listen with; `None` once it listens.
    to_listen: Option<i32>,
}

/// The file of our Unix socket. It is identified by its inode, since another file may be at its path by now.
#[derive(Clone, Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    number: u64,
}

impl BoundSockets {
    /// Binds `address` with `workers` sockets (at least one).
    ///
    /// The first socket is bound without `SO_REUSEPORT`, so that a second wsguard on the same address fails with "in
    /// use" instead of taking half of the connections unnoticed. Then the flag is set, and the other sockets are bound
    /// beside it.
    pub fn bind(address: &Bind, backlog: u32, workers: usize) -> io::Result<Self> {
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        match address {
            Bind::Tcp(address) => bind_tcp(*address, backlog, workers, false),
            Bind::Unix(path) => bind_unix(path, backlog, workers),
        }
    }

    /// Binds `address` beside another of our addresses that covers it or is covered by it, and that will be closed
    /// soon. While both are bound, the kernel gives each connection to the more specific one.
    ///
    /// It listens only after [`BoundSockets::listen`]. Otherwise its connections would be reset if the other address
    /// has to stay.
    pub fn join(address: &Bind, backlog: u32, workers: usize) -> io::Result<Self> {
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        match address {
            Bind::Tcp(address) => bind_tcp(*address, backlog, workers, true),
            Bind::Unix(path) => bind_unix(path, backlog, workers),
        }
    }

    /// Starts to listen, unless it listens already.
    pub fn listen(&mut self) -> io::Result<()> {
        if let Some(backlog) = self.to_listen.take() {
            for socket in &self.sockets {
                socket.listen(backlog)?;
            }
        }
        Ok(())
    }

    /// Shares a socket that the process was started with among `workers`, by duplicating it: no other socket can be
    /// bound beside it. It keeps its own backlog.
    pub fn share(inherited: Inherited, workers: usize) -> io::Result<Self> {
        Ok(Self {
            address: inherited.address,
            is_inherited: true,
            file: None,
            sockets: duplicates(inherited.socket, workers)?,
            to_listen: None,
        })
    }

    /// The sockets, one for each worker.
    pub fn into_sockets(mut self) -> Vec<Socket> {
        std::mem::take(&mut self.sockets)
    }
}

impl Drop for BoundSockets {
    /// Removes the file of a socket that was never used, so that no file is left without a listener.
    fn drop(&mut self) {
        if let Some(file) = self.file.as_ref().filter(|_| !self.sockets.is_empty()) {
            file.remove();
        }
    }
}

impl SocketFile {
    /// The file at `path`, which binding has just made.
    fn of(path: &Path) -> Option<Self> {
        let (device, number) = id_at(path)?;
        Some(Self {
            path: path.to_path_buf(),
            device,
            number,
        })
    }

    /// Whether it is still at its path, so that connections to the path reach us. Its inode can't be reused while the
    /// socket is open.
    pub fn is_there(&self) -> bool {
        id_at(&self.path) == Some((self.device, self.number))
    }

    /// Removes it, but no other file at its path.
    pub fn remove(&self) {
        if self.is_there() {
            let _gone = std::fs::remove_file(&self.path);
        }
    }
}

fn id_at(path: &Path) -> Option<(u64, u64)> {
    let found = std::fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// With `joins` the socket is bound beside another of ours, and does not listen yet.
fn bind_tcp(address: SocketAddr, backlog: i32, workers: usize, joins: bool) -> io::Result<BoundSockets> {
    let first = tcp_socket(address)?;
    if joins {
        first.set_reuse_port(true)?;
    }
    first.bind(&address.into())?;
    share_port(&first, workers)?;
    if !joins {
        first.listen(backlog)?;
    }
    let bound = first.local_addr()?.as_socket().ok_or(ErrorKind::InvalidData)?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        let sibling = tcp_socket(bound)?;
        sibling.set_reuse_port(true)?;
        sibling.bind(&bound.into())?;
        if !joins {
            sibling.listen(backlog)?;
        }
        sockets.push(sibling);
    }
    Ok(BoundSockets {
        address: Bind::Tcp(bound),
        is_inherited: false,
        file: None,
        sockets,
        to_listen: joins.then_some(backlog),
    })
}

/// Lets other sockets of ours bind the same port. One worker does not need that.
fn share_port(socket: &Socket, workers: usize) -> io::Result<()> {
    match socket.set_reuse_port(true) {
        Err(error) if workers > 1 => Err(io::Error::new(
            error.kind(),
            format!(
                "several workers need SO_REUSEPORT, and the kernel refuses it ({error}); `workers = 1` does without"
            ),
        )),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Options that the kernel refuses stay unset; [`refused_options`](super::options::refused_options) reports them.
fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    let _refused = socket.set_reuse_address(true);
    if address.is_ipv6() {
        let _refused = socket.set_only_v6(true);
    }
    set_on_listening(&socket);
    Ok(socket)
}

/// A plain listening TCP socket, for the admin server and not for clients.
pub fn plain(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    let _refused = socket.set_reuse_address(true);
    socket.bind(&address.into())?;
    socket.listen(PLAIN_BACKLOG)?;
    Ok(socket.into())
}

/// Binds one socket and shares it by duplicates, since a second Unix socket can't be bound to the same path.
fn bind_unix(path: &Path, backlog: i32, workers: usize) -> io::Result<BoundSockets> {
    let first = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    first.set_nonblocking(true)?;
    let name = SockAddr::unix(path)?;
    match first.bind(&name) {
        Err(error) if error.raw_os_error() == Some(Errno::ADDRINUSE.raw_os_error()) && is_left_behind(path) => {
            std::fs::remove_file(path)?;
            first.bind(&name)?;
        }
        other => other?,
    }
    let file = SocketFile::of(path);
    first.listen(backlog)?;
    Ok(BoundSockets {
        address: Bind::Unix(path.to_path_buf()),
        is_inherited: false,
        file,
        sockets: duplicates(first, workers)?,
        to_listen: None,
    })
}

/// One descriptor of the same socket for each worker (at least one). All accept from its one queue.
fn duplicates(first: Socket, workers: usize) -> io::Result<Vec<Socket>> {
    let mut sockets = Vec::with_capacity(workers);
    for _ in 1..workers {
        sockets.push(first.try_clone()?);
    }
    sockets.push(first);
    Ok(sockets)
}

/// Whether a socket file has lost its listener, for example because a guard was killed. A file of another kind refuses
/// connections too, but must not be removed.
fn is_left_behind(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    is_socket && matches!(StdUnixStream::connect(path), Err(error) if error.kind() == ErrorKind::ConnectionRefused)
}

const PLAIN_BACKLOG: i32 = 128;
