//! Listening sockets: bound once for each address, then one sibling a worker; or given, and shared by duplicates.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use rustix::event::EventfdFlags;
use rustix::io::Errno;
use rustix::net::SocketFlags;
use socket2::{Domain, Protocol, SockAddr, SockFilter, SockRef, Socket, Type};
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

use super::address::Bind;
use super::inherit::Inherited;
use super::newcomer::Newcomer;
use super::stream::prepare_listening;
use super::sys;

/// A bound address: one listening socket for each worker, not yet known to any runtime.
#[derive(Debug)]
pub struct Bound {
    /// Where it is bound; a port 0 has become the real one.
    pub address: Bind,
    /// Somebody else bound it, and holds it too: its file, if it has one, is not ours to remove.
    pub is_inherited: bool,
    /// The file that it made, where it is a Unix socket.
    pub file: Option<SocketFile>,
    sockets: Vec<Socket>,
    /// It does not listen yet, and will hold so many ready.
    to_listen: Option<i32>,
}

/// The file of a Unix socket of ours, known by who it is: another one may stand at its path by now.
#[derive(Clone, Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    number: u64,
}

/// A worker's listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: AsyncFd<OwnedFd>,
    is_tcp: bool,
    /// Bound, and prepared, before anybody could come: who comes has what stands on it.
    is_ours: bool,
}

/// That somebody waits at a [`Listener`], as far as the runtime knows.
#[derive(Debug)]
pub struct Knock<'a>(AsyncFdReadyGuard<'a, OwnedFd>);

impl Bound {
    /// Binds `address` with `workers` sockets (at least one).
    ///
    /// The first is bound without `SO_REUSEPORT`, so that a second wsguard on the same address fails with "in use"
    /// rather than quietly taking half of the connections; the flag is set after, and the siblings join.
    pub fn bind(address: &Bind, backlog: u32, workers: usize) -> io::Result<Self> {
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        match address {
            Bind::Tcp(address) => bind_tcp(*address, backlog, workers, false),
            Bind::Unix(path) => bind_unix(path, backlog, workers),
        }
    }

    /// Binds `address` beside another one of ours that covers it, or that it covers, and that is about to close. For the moment
    /// in which both are there the kernel gives each connection to the narrower one.
    ///
    /// It hears nobody before [`Bound::listen`]: whoever was heard would be reset where the other one stays after all.
    pub fn join(address: &Bind, backlog: u32, workers: usize) -> io::Result<Self> {
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        match address {
            Bind::Tcp(address) => bind_tcp(*address, backlog, workers, true),
            Bind::Unix(path) => bind_unix(path, backlog, workers),
        }
    }

    /// Listens, where it does not yet.
    pub fn listen(&mut self) -> io::Result<()> {
        if let Some(backlog) = self.to_listen.take() {
            for socket in &self.sockets {
                socket.listen(backlog)?;
            }
        }
        Ok(())
    }

    /// Shares a socket that the process was started with among `workers`, through duplicates: others can't be bound beside
    /// it. Its backlog is what it was made with.
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

impl Drop for Bound {
    /// Whoever binds and then gives up leaves no file behind at which nobody listens.
    fn drop(&mut self) {
        if let Some(file) = self.file.as_ref().filter(|_| !self.sockets.is_empty()) {
            file.remove();
        }
    }
}

impl SocketFile {
    /// What stands at `path`, which was bound a moment ago.
    fn of(path: &Path) -> Option<Self> {
        let (device, number) = id_at(path)?;
        Some(Self {
            path: path.to_path_buf(),
            device,
            number,
        })
    }

    /// Whether it still stands at its path: whoever connects there comes to us. Its number is not used again as long as the
    /// socket is open.
    pub fn is_there(&self) -> bool {
        id_at(&self.path) == Some((self.device, self.number))
    }

    /// Removes it, and no other one: whoever finds it would find nobody behind it.
    pub fn remove(&self) {
        if self.is_there() {
            // Where it is gone already, all the better.
            let _gone = std::fs::remove_file(&self.path);
        }
    }
}

fn id_at(path: &Path) -> Option<(u64, u64)> {
    let found = std::fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

impl Listener {
    /// Hands a bound socket to the runtime of the calling thread. On one that was `inherited` some may have come before we
    /// did.
    pub fn register(socket: Socket, inherited: bool) -> io::Result<Self> {
        let is_tcp = socket.local_addr()?.domain() != Domain::UNIX;
        let socket = sys::watch_readable(socket.into())?;
        Ok(Self {
            socket,
            is_tcp,
            is_ours: !inherited,
        })
    }

    /// Waits until somebody waits.
    pub async fn knock(&self) -> io::Result<Knock<'_>> {
        Ok(Knock(self.socket.readable().await?))
    }

    /// The next connection that is queued already, `None` when none is. Asks the kernel and not the runtime, which may not
    /// have heard of it yet.
    /// Its peer has no address where it came by a Unix socket.
    pub fn accept_queued(&self) -> io::Result<Option<(Newcomer, Option<SocketAddr>)>> {
        // The peer is asked for in the same call: of a socket that was reset while it waited nobody could tell it later.
        match rustix::net::acceptfrom_with(&self.socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            // A Unix peer has an address of another kind, or none.
            Ok((socket, peer)) => Ok(Some((
                Newcomer::new(socket, self.is_tcp, self.is_ours),
                peer.and_then(|peer| peer.try_into().ok()),
            ))),
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Hears nobody who begins to connect from now on; who has begun may finish, and be accepted. Whoever connected between
    /// the last accept and the close would be reset, where one whose first packet is lost sends it again, and is refused.
    pub fn turn_away(&self) -> io::Result<()> {
        if self.is_tcp {
            return SockRef::from(self.socket.get_ref()).attach_filter(&NO_NEWCOMERS);
        }
        // Of a Unix connection there is no beginning to tell from the end; what keeps newcomers away is that the file is gone.
        Ok(())
    }
}

impl Knock<'_> {
    /// Nobody waits any more; whoever comes knocks again.
    pub fn answered(mut self) {
        self.0.clear_ready();
    }
}

/// Drops a TCP segment with SYN and without ACK, passes every other one (classic BPF, linux/filter.h; a socket's filter sees
/// a segment from its TCP header on, whose byte 13 holds the flags, RFC 9293 section 3.1).
const NO_NEWCOMERS: [SockFilter; 5] = [
    SockFilter::new(BPF_LOAD_BYTE, 0, 0, 13),
    SockFilter::new(BPF_AND, 0, 0, TCP_SYN | TCP_ACK),
    SockFilter::new(BPF_JUMP_IF_EQUAL, 0, 1, TCP_SYN),
    SockFilter::new(BPF_RETURN, 0, 0, 0),
    SockFilter::new(BPF_RETURN, 0, 0, u32::MAX),
];
const BPF_LOAD_BYTE: u16 = 0x30;
const BPF_AND: u16 = 0x54;
const BPF_JUMP_IF_EQUAL: u16 = 0x15;
const BPF_RETURN: u16 = 0x06;
const PLAIN_BACKLOG: i32 = 128;
const TCP_SYN: u32 = 0x02;
const TCP_ACK: u32 = 0x10;

/// A descriptor that is kept for the time when there is none left: with it one more socket can be accepted, and closed, so
/// that its peer learns at once that there is no room.
#[derive(Debug)]
pub struct Spare(Option<OwnedFd>);

impl Spare {
    /// Takes one; without one there is nothing to give up later.
    pub fn new() -> Self {
        Self(rustix::event::eventfd(0, EventfdFlags::CLOEXEC).ok())
    }

    /// Takes one again where somebody was quicker than the last [`Spare::refuse_one`].
    pub fn replenish(&mut self) {
        if self.0.is_none() {
            *self = Self::new();
        }
    }

    /// Gives the spare up for as long as it takes to turn one socket away.
    pub fn refuse_one(&mut self, door: &Listener) {
        self.0 = None;
        // Closed before the spare is taken again: the two are one descriptor.
        drop(door.accept_queued());
        *self = Self::new();
    }
}

impl Default for Spare {
    fn default() -> Self {
        Self::new()
    }
}

/// What a failed accept says of the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptFault {
    /// It was about one connection, and took it from the queue: the next one is another.
    Connection,
    /// This process, or the machine, has no descriptor left.
    Descriptors,
    /// No memory, or whatever else the next accept would most likely meet too.
    Machine,
}

impl AcceptFault {
    /// Of the error of an accept. A kind that is not known here counts as the machine's: of the two mistakes to make,
    /// waiting for nothing is the smaller one. EPERM is such a kind, as a sandbox that forbids the call answers so for good.
    pub fn of(error: &io::Error) -> Self {
        let Some(errno) = Errno::from_io_error(error) else {
            return Self::Machine;
        };
        match errno {
            Errno::MFILE | Errno::NFILE => Self::Descriptors,
            // Linux passes errors that wait on the new socket as those of the accept (accept(2), error handling).
            Errno::CONNABORTED
            | Errno::CONNRESET
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::INTR
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::NONET
            | Errno::NOPROTOOPT
            | Errno::OPNOTSUPP
            | Errno::PROTO
            | Errno::TIMEDOUT => Self::Connection,
            _ => Self::Machine,
        }
    }
}

/// With `joins` beside another socket of ours, and still to listen.
fn bind_tcp(address: SocketAddr, backlog: i32, workers: usize, joins: bool) -> io::Result<Bound> {
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
    Ok(Bound {
        address: Bind::Tcp(bound),
        is_inherited: false,
        file: None,
        sockets,
        to_listen: joins.then_some(backlog),
    })
}

/// Lets siblings join, which only several workers need.
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

/// What the kernel refuses to set on it is told by [`refused_options`](super::stream::refused_options), and done without.
fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    let _refused = socket.set_reuse_address(true);
    if address.is_ipv6() {
        let _refused = socket.set_only_v6(true);
    }
    prepare_listening(&socket);
    Ok(socket)
}

/// A listening TCP socket of the plain sort: for operators, and not for clients.
pub fn plain(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Where the kernel refuses it, it has been told of.
    let _refused = socket.set_reuse_address(true);
    socket.bind(&address.into())?;
    socket.listen(PLAIN_BACKLOG)?;
    Ok(socket.into())
}

/// One socket, shared by duplicates: Unix sockets have no siblings.
fn bind_unix(path: &Path, backlog: i32, workers: usize) -> io::Result<Bound> {
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
    Ok(Bound {
        address: Bind::Unix(path.to_path_buf()),
        is_inherited: false,
        file,
        sockets: duplicates(first, workers)?,
        to_listen: None,
    })
}

/// As many descriptors of one socket as there are workers (at least one); all of them accept from its one queue.
fn duplicates(first: Socket, workers: usize) -> io::Result<Vec<Socket>> {
    let mut sockets = Vec::with_capacity(workers);
    for _ in 1..workers {
        sockets.push(first.try_clone()?);
    }
    sockets.push(first);
    Ok(sockets)
}

/// Whether a socket file belongs to nobody: a guard that was killed leaves its own. A file of another kind refuses
/// connections just the same, and is somebody's.
fn is_left_behind(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    is_socket && matches!(StdUnixStream::connect(path), Err(error) if error.kind() == ErrorKind::ConnectionRefused)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_a_connections_own_error_lets_the_next_accept_follow_at_once() {
        let of = |errno: Errno| AcceptFault::of(&errno.into());
        for errno in [Errno::CONNABORTED, Errno::PROTO, Errno::NETUNREACH, Errno::INTR] {
            assert_eq!(of(errno), AcceptFault::Connection, "{errno}");
        }
        for errno in [Errno::MFILE, Errno::NFILE] {
            assert_eq!(of(errno), AcceptFault::Descriptors, "{errno}");
        }
        for errno in [Errno::NOMEM, Errno::NOBUFS, Errno::NOSPC, Errno::PERM, Errno::INVAL] {
            assert_eq!(of(errno), AcceptFault::Machine, "{errno}");
        }
        assert_eq!(AcceptFault::of(&ErrorKind::Other.into()), AcceptFault::Machine);
    }

    #[tokio::test]
    async fn a_socket_that_was_reset_in_the_queue_is_accepted_like_any_other() {
        let bound = Bound::bind(&Bind::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))), 8, 1).unwrap();
        let Bind::Tcp(address) = bound.address else {
            panic!("a TCP address")
        };
        let door = Listener::register(bound.into_sockets().remove(0), false).unwrap();
        let gone = std::net::TcpStream::connect(address).unwrap();
        let gone_from = gone.local_addr().unwrap();
        socket2::SockRef::from(&gone)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
        drop(gone);
        let there = std::net::TcpStream::connect(address).unwrap();
        let peer = || door.accept_queued().unwrap().unwrap().1;
        assert_eq!(peer(), Some(gone_from));
        assert_eq!(peer(), Some(there.local_addr().unwrap()));
        assert!(door.accept_queued().unwrap().is_none());
    }
}
