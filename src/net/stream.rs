//! One connected socket, TCP or Unix, as the walk and the relay see it.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, SockRef, TcpKeepalive, Type};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

use super::pipe::Pipe;
use super::socket::Socket;
use super::sys;

/// A connected socket.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

/// What is set on a leg of an open connection. `None` is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LegOptions {
    /// Idle time before the first keepalive probe; 4 probes 15 s apart follow.
    pub keepalive: Option<Duration>,
    /// How long sent bytes may stay unacknowledged, a closed window included (`TCP_USER_TIMEOUT`, tcp(7)).
    pub user_timeout: Option<Duration>,
}

impl LegOptions {
    /// What every listening socket has, and so every socket that is accepted on it. They are the defaults of a
    /// configuration, so that most clients' legs take no call at all.
    pub const INHERITED: Self = Self {
        keepalive: Some(Duration::from_secs(60)),
        user_timeout: Some(Duration::from_secs(60)),
    };

    /// Sets them. One that is refused leaves the others as they are to be, and is no reason to do without the socket.
    fn set_on(self, socket: &SockRef<'_>) {
        self.set_keepalive(socket);
        // It also decides when keepalive gives up: shorter than all probes together it would end an idle peer for the loss
        // of a single one.
        let probed = self
            .keepalive
            .map_or(Duration::ZERO, |idle| idle + PROBE_INTERVAL * PROBES);
        let user_timeout = self.user_timeout.map(|user_timeout| user_timeout.max(probed));
        let _refused = socket.set_tcp_user_timeout(user_timeout);
    }

    fn set_keepalive(self, socket: &SockRef<'_>) {
        let Some(idle) = self.keepalive else {
            let _refused = socket.set_keepalive(false);
            return;
        };
        let time = TcpKeepalive::new().with_time(idle);
        let all = time.clone().with_interval(PROBE_INTERVAL).with_retries(PROBES);
        if socket.set_tcp_keepalive(&all).is_err() {
            // All of them end at the first that is refused.
            let interval = TcpKeepalive::new().with_interval(PROBE_INTERVAL);
            for one in [time, interval, TcpKeepalive::new().with_retries(PROBES)] {
                let _refused = socket.set_tcp_keepalive(&one);
            }
        }
    }
}

/// Sets on a listening TCP socket what those that are accepted on it inherit: no Nagle, little that is unsent in the kernel,
/// so that a slow reader is felt soon, and [`LegOptions::INHERITED`].
pub(super) fn prepare_listening(socket: &impl AsFd) {
    prepare_small_messages(socket);
    LegOptions::INHERITED.set_on(&SockRef::from(socket));
}

fn prepare_small_messages(socket: &impl AsFd) {
    let socket = SockRef::from(socket);
    let _refused = socket.set_tcp_nodelay(true);
    let _refused = socket.set_tcp_notsent_lowat(NOTSENT_LOWAT);
}

/// A socket option that the kernel refuses: one without network tuning, a sandbox.
#[derive(Debug, thiserror::Error)]
#[error("the kernel refuses {option} ({error}): {means}")]
pub struct Refused {
    option: &'static str,
    means: &'static str,
    error: io::Error,
}

/// The options of TCP sockets that the kernel refuses, each once: tried on sockets that serve nobody, so that it need not be
/// told of each that does.
pub fn refused_options() -> Vec<Refused> {
    let Ok(socket) = socket2::Socket::new(Domain::IPV4, Type::STREAM, None) else {
        return Vec::new();
    };
    let v6 = socket2::Socket::new(Domain::IPV6, Type::STREAM, None);
    let keepalive = TcpKeepalive::new();
    [
        (
            "SO_REUSEADDR",
            "an address may be in use for a minute after a restart",
            socket.set_reuse_address(true),
        ),
        (
            "SO_REUSEPORT",
            "a reload can't put one address in place of another that covers it",
            socket.set_reuse_port(true),
        ),
        (
            "IPV6_V6ONLY",
            "an IPv6 address may take IPv4 too",
            v6.map_or(Ok(()), |v6| v6.set_only_v6(true)),
        ),
        (
            "TCP_NODELAY",
            "small messages may be held back",
            socket.set_tcp_nodelay(true),
        ),
        (
            "TCP_NOTSENT_LOWAT",
            "a slow reader is felt later",
            socket.set_tcp_notsent_lowat(NOTSENT_LOWAT),
        ),
        (
            "TCP_USER_TIMEOUT",
            "`stalled` has no effect",
            socket.set_tcp_user_timeout(Some(PROBE_INTERVAL)),
        ),
        ("SO_KEEPALIVE", "`keepalive` has no effect", socket.set_keepalive(true)),
        (
            "TCP_KEEPIDLE",
            "`keepalive` begins when the kernel likes",
            socket.set_tcp_keepalive(&keepalive.clone().with_time(PROBE_INTERVAL)),
        ),
        (
            "TCP_KEEPINTVL",
            "its probes come when the kernel likes",
            socket.set_tcp_keepalive(&keepalive.clone().with_interval(PROBE_INTERVAL)),
        ),
        (
            "TCP_KEEPCNT",
            "their number is what the kernel likes",
            socket.set_tcp_keepalive(&keepalive.with_retries(PROBES)),
        ),
        (
            "SO_LINGER",
            "a connection that is to be reset ends in order",
            socket.set_linger(Some(Duration::ZERO)),
        ),
    ]
    .into_iter()
    .filter_map(|(option, means, outcome)| outcome.err().map(|error| Refused { option, means, error }))
    .collect()
}

/// Makes the close that follows a reset, without the bytes that wait.
pub(super) fn reset_on_close(socket: &impl AsFd) {
    // Where it fails the close is an orderly one: less telling, and no harm.
    let _orderly = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

impl Stream {
    /// Reads what is there, at most `buffer.len()` bytes; 0 is the end of the stream.
    ///
    /// A short read clears the readiness: the queue was empty a moment ago, and the call that would only say
    /// `WouldBlock` is saved. What arrives later raises it again, the sockets being registered edge-triggered. (A read
    /// also stops short at TCP's urgent mark. Nobody sends urgent data to a WebSocket; what stands behind it then comes
    /// with the next bytes.)
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut short = None;
        let whole = self.try_io(Interest::READABLE, |fd| {
            let (read, _) = rustix::net::recv(fd, &mut *buffer, RecvFlags::empty())?;
            if read > 0 && read < buffer.len() {
                short = Some(read);
                return Err(ErrorKind::WouldBlock.into());
            }
            Ok(read)
        });
        short.map_or(whole, Ok)
    }

    /// Writes what the socket takes of `bytes`; a short write clears the readiness, as a short read does.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut short = None;
        let whole = self.try_io(Interest::WRITABLE, |fd| {
            let written = rustix::net::send(fd, bytes, SendFlags::NOSIGNAL)?;
            if written < bytes.len() {
                short = Some(written);
                return Err(ErrorKind::WouldBlock.into());
            }
            Ok(written)
        });
        short.map_or(whole, Ok)
    }

    /// Looks at what is there, and leaves it there; 0 is the end of the stream.
    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.try_io(Interest::READABLE, |fd| {
            let (seen, _) = rustix::net::recv(fd, &mut *buffer, RecvFlags::PEEK)?;
            Ok(seen)
        })
    }

    /// Moves at most `most` bytes that are there into an empty pipe; 0 says that there are none to move, and only reading
    /// tells why: it clears the readiness too. Nor does a short move: a full pipe is as good a cause for it.
    pub fn try_fill(&self, pipe: &mut Pipe, most: usize) -> io::Result<usize> {
        self.try_io(Interest::READABLE, |fd| match pipe.fill(fd, most) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            other => other,
        })
    }

    /// Moves what the socket takes out of a pipe; a short move clears the readiness, as a short write does.
    pub fn try_drain(&self, pipe: &mut Pipe) -> io::Result<usize> {
        let mut short = None;
        let whole = self.try_io(Interest::WRITABLE, |fd| {
            let moved = pipe.drain(fd)?;
            if pipe.holds() > 0 {
                short = Some(moved);
                return Err(ErrorKind::WouldBlock.into());
            }
            Ok(moved)
        });
        short.map_or(whole, Ok)
    }

    /// Ready when a read would not block, be it for bytes, an end or an error.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Ready when a write would not block.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(cx),
            Self::Unix(stream) => stream.poll_write_ready(cx),
        }
    }

    /// Writes all of `bytes`, as the peer takes them.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            std::future::poll_fn(|cx| self.poll_write_ready(cx)).await?;
            match self.try_write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until the peer has ended or reset the connection, and reads nothing: bytes that wait stay in the kernel.
    pub async fn ended(&self) {
        // This waits for urgent data, which nobody registered for, or for the end. What is readable stays marked so: the
        // event that told of it will not come again, and whoever reads next relies on the mark.
        let _ended = match self {
            Self::Tcp(stream) => stream.ready(Interest::PRIORITY).await,
            Self::Unix(stream) => stream.ready(Interest::PRIORITY).await,
        };
    }

    /// Whether bytes wait to be read.
    pub fn has_unread(&self) -> bool {
        rustix::net::recv(self, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT).is_ok_and(|(read, _)| read > 0)
    }

    /// How the peer has ended the connection, even behind bytes that were not read yet; `None`: it has not. An error that
    /// tells of it is taken, so that reading and writing do not tell of it again.
    pub fn end_ahead(&self) -> Option<io::Result<()>> {
        let mut polled = [PollFd::new(self, PollFlags::RDHUP)];
        rustix::event::poll(&mut polled, Some(&Timespec::default())).ok()?;
        let seen = polled[0].revents();
        if seen.contains(PollFlags::ERR)
            && let Ok(Some(error)) = SockRef::from(self).take_error()
        {
            return Some(Err(error));
        }
        seen.intersects(PollFlags::RDHUP | PollFlags::HUP).then_some(Ok(()))
    }

    /// Ends our direction: the peer reads an end of stream behind what was written.
    pub fn shutdown_write(&self) {
        // An error says that the connection is gone already, which is what was asked for.
        let _gone = SockRef::from(self).shutdown(std::net::Shutdown::Write);
    }

    /// Makes the close that follows a reset, without the bytes that wait.
    pub fn reset_on_close(&self) {
        reset_on_close(self);
    }

    /// Bytes that were written and not acknowledged; a Unix socket hands over at once.
    pub fn unacknowledged(&self) -> u32 {
        match self {
            Self::Tcp(stream) => sys::unacknowledged(stream.as_fd()).unwrap_or(0),
            Self::Unix(_) => 0,
        }
    }

    /// Whether the peer's host owes an answer, be it to bytes that are on their way or to a probe of its closed window, and has
    /// acknowledged nothing at all for `span`. A window that stays closed is no silence, as long as its probes are answered.
    ///
    /// Where the kernel does not tell, and over a Unix socket, nobody is silent.
    pub fn is_unanswered_for(&self, span: Duration) -> bool {
        let Self::Tcp(stream) = self else { return false };
        sys::tcp_info(stream.as_fd()).is_ok_and(|info| {
            let owes = info.tcpi_unacked > 0 || info.tcpi_probes > 0;
            owes && Duration::from_millis(info.tcpi_last_ack_recv.into()) >= span
        })
    }

    /// Whether everything written has been acknowledged.
    pub fn is_acknowledged(&self) -> bool {
        self.unacknowledged() == 0
    }

    /// Readies a client's leg, which was accepted, for hours of small messages. Where it `inherits` what stands on its
    /// listening socket, that takes no call with the defaults.
    pub(super) fn prepare_accepted(&self, options: LegOptions, inherits: bool) {
        let Self::Tcp(_) = self else { return };
        // A socket that refuses an option may have died meanwhile; its next read or write says so.
        if !inherits {
            prepare_small_messages(self);
        }
        if !inherits || options != LegOptions::INHERITED {
            options.set_on(&SockRef::from(self));
        }
    }

    /// Readies a server's leg, which was dialled, as far as the first messages ask for it.
    pub fn prepare_dialled(&self) {
        if let Self::Tcp(stream) = self {
            let _dead = stream.set_nodelay(true);
        }
    }

    /// Readies a server's leg for staying: what nobody asks for who leaves again at once.
    pub fn prepare_to_stay(&self, keepalive: Option<Duration>) {
        if let Self::Tcp(_) = self {
            let socket = SockRef::from(self);
            let _dead = socket.set_tcp_notsent_lowat(NOTSENT_LOWAT);
            let options = LegOptions {
                keepalive,
                user_timeout: None,
            };
            options.set_on(&socket);
        }
    }

    /// Takes it away from the runtime. Bytes that wait stay in the kernel.
    pub fn unregister(self) -> io::Result<Socket> {
        Ok(match self {
            Self::Tcp(stream) => Socket::new(stream.into_std()?.into(), true),
            Self::Unix(stream) => Socket::new(stream.into_std()?.into(), false),
        })
    }

    fn try_io<T>(&self, interest: Interest, io: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        match self {
            Self::Tcp(stream) => stream.try_io(interest, || io(stream.as_fd())),
            Self::Unix(stream) => stream.try_io(interest, || io(stream.as_fd())),
        }
    }
}

/// Whether an error only says "not now".
pub fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

const NOTSENT_LOWAT: u32 = 128 * 1024;
const PROBE_INTERVAL: Duration = Duration::from_secs(15);
const PROBES: u32 = 4;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;
    use std::net::{Shutdown, TcpListener};

    use super::*;

    /// A peer over TCP and one over a Unix socket, each with our side.
    fn pairs() -> [(Box<dyn Peer>, Stream); 2] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (unix_peer, unix_ours) = std::os::unix::net::UnixStream::pair().unwrap();
        unix_ours.set_nonblocking(true).unwrap();
        [
            (Box::new(peer), Stream::Tcp(TcpStream::from_std(ours).unwrap())),
            (
                Box::new(unix_peer),
                Stream::Unix(UnixStream::from_std(unix_ours).unwrap()),
            ),
        ]
    }

    trait Peer: Write + AsFd {}
    impl<T: Write + AsFd> Peer for T {}

    #[tokio::test]
    async fn an_end_is_seen_ahead_of_bytes_that_were_not_read_and_they_stay() {
        for (mut peer, ours) in pairs() {
            peer.write_all(b"unread").unwrap();
            assert!(ours.end_ahead().is_none());
            SockRef::from(&peer).shutdown(Shutdown::Write).unwrap();
            assert!(ours.end_ahead().unwrap().is_ok());
            assert!(ours.end_ahead().unwrap().is_ok(), "as often as it is asked for");
            assert!(ours.has_unread());
            ours.shutdown_write();
            assert!(ours.end_ahead().unwrap().is_ok(), "two ends are no reset");
        }
    }

    #[tokio::test]
    async fn a_reset_is_told_from_an_end_be_it_the_first_or_after_one() {
        for ends_first in [false, true] {
            for (mut peer, ours) in pairs() {
                peer.write_all(b"unread").unwrap();
                // It resets by closing before it has read this.
                ours.write_all(b"nobody reads it").await.unwrap();
                if ends_first {
                    SockRef::from(&peer).shutdown(Shutdown::Write).unwrap();
                    assert!(ours.end_ahead().unwrap().is_ok());
                }
                drop(peer);
                assert_eq!(
                    ours.end_ahead().unwrap().unwrap_err().kind(),
                    if ends_first && matches!(ours, Stream::Tcp(_)) {
                        ErrorKind::BrokenPipe
                    } else {
                        ErrorKind::ConnectionReset
                    }
                );
                assert!(ours.has_unread(), "what was sent before it is still there");
            }
        }
    }
}
