//! A connected socket, TCP or Unix, as the walk and the relay use it.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

use super::options::{self, SocketOptions};
use super::pipe::Pipe;
use super::sys;

/// A connected socket that does not block. It is [`Registered`] with the runtime, or [`Unregistered`] while it only
/// waits, which costs no more than the kernel's own memory.
#[derive(Debug)]
pub struct Transport<S = Registered>(S);

/// A socket that the runtime watches.
#[derive(Debug)]
pub enum Registered {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

/// A socket that is not registered with the runtime.
#[derive(Debug)]
pub struct Unregistered {
    fd: OwnedFd,
    is_tcp: bool,
}

impl<S> Transport<S>
where
    Self: AsFd,
{
    /// Whether bytes wait to be read.
    pub fn has_unread(&self) -> bool {
        rustix::net::recv(self, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT).is_ok_and(|(read, _)| read > 0)
    }

    /// Ends our direction: the peer reads the end of the stream after the bytes written so far.
    pub fn shutdown_write(&self) {
        // This fails only if the connection is gone already.
        let _gone = SockRef::from(self).shutdown(std::net::Shutdown::Write);
    }

    /// Makes the following close a reset, which discards unsent bytes.
    pub fn reset_on_close(&self) {
        options::reset_on_close(self);
    }
}

impl Transport<Unregistered> {
    /// Wraps a connected socket that does not block: TCP (`is_tcp`) or a Unix socket.
    pub(super) fn unregistered(fd: OwnedFd, is_tcp: bool) -> Self {
        Self(Unregistered { fd, is_tcp })
    }

    /// Registers it with the runtime of the calling thread.
    pub fn register(self) -> io::Result<Transport> {
        let Unregistered { fd, is_tcp } = self.0;
        Ok(if is_tcp {
            TcpStream::from_std(fd.into())?.into()
        } else {
            UnixStream::from_std(fd.into())?.into()
        })
    }

    /// Reads the bytes that have arrived. 0 is the end of the stream; the error "would block" means that none have
    /// arrived.
    pub(super) fn read_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (read, _) = rustix::net::recv(self, buffer, RecvFlags::empty())?;
        Ok(read)
    }

    /// Whether the peer has ended or reset the connection, and nothing is left to read before that.
    pub fn has_ended(&self) -> bool {
        let mut byte = [0];
        let peeked = rustix::net::recv(self, byte.as_mut_slice(), RecvFlags::PEEK);
        !matches!(peeked, Ok((1.., _)) | Err(Errno::AGAIN | Errno::INTR))
    }

    /// Writes as many of `bytes` as the socket takes.
    pub fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self, bytes, SendFlags::NOSIGNAL)?)
    }

    /// Writes as many of `bytes` as the socket takes. They are the last ones: if the socket takes all of them, they go
    /// out in one segment with the end of our direction. So they are sent before the close, which is a reset if unread
    /// bytes have arrived.
    pub fn write_last(&self, bytes: &[u8]) -> io::Result<usize> {
        let written = rustix::net::send(self, bytes, SendFlags::NOSIGNAL | SendFlags::MORE)?;
        if written == bytes.len() {
            rustix::net::shutdown(self, Shutdown::Write)?;
        }
        Ok(written)
    }
}

impl Transport {
    /// Reads the bytes that have arrived, at most `buffer.len()`; 0 is the end of the stream.
    ///
    /// A short read clears the readiness. The kernel's queue was empty a moment ago, so this saves the call that would
    /// only return `WouldBlock`. Bytes that arrive later set it again, since the sockets are registered edge-triggered.
    /// (A read also stops short at TCP's urgent mark. WebSocket peers send no urgent data. If one does, the bytes after
    /// the mark are read with the next ones.)
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

    /// Writes as many of `bytes` as the socket takes. A short write clears the readiness, as a short read does.
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

    /// Copies the bytes that have arrived, and leaves them in the kernel. 0 is the end of the stream.
    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.try_io(Interest::READABLE, |fd| {
            let (seen, _) = rustix::net::recv(fd, &mut *buffer, RecvFlags::PEEK)?;
            Ok(seen)
        })
    }

    /// Moves at most `most` of the bytes that have arrived into an empty pipe. 0 means that there are none to move.
    /// Only a read finds out why, and only a read clears the readiness. A short move does not clear it, since the pipe
    /// may be full.
    pub fn try_fill(&self, pipe: &mut Pipe, most: usize) -> io::Result<usize> {
        self.try_io(Interest::READABLE, |fd| match pipe.fill(fd, most) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            other => other,
        })
    }

    /// Moves as many bytes from a pipe as the socket takes. A short move clears the readiness, as a short write does.
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

    /// Ready when a read would not block, because of bytes, the end of the stream or an error.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.0 {
            Registered::Tcp(stream) => stream.poll_read_ready(cx),
            Registered::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Ready when a write would not block.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.0 {
            Registered::Tcp(stream) => stream.poll_write_ready(cx),
            Registered::Unix(stream) => stream.poll_write_ready(cx),
        }
    }

    /// Writes all of `bytes`, waiting until the socket has taken them.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            std::future::poll_fn(|cx| self.poll_write_ready(cx)).await?;
            match self.try_write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if is_transient(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until the peer has ended or reset the connection. It reads nothing: bytes that have arrived stay in the
    /// kernel.
    pub async fn ended(&self) {
        // This waits for urgent data, for which the socket is not registered, or for the end. It must not clear the
        // readable flag: its event does not come again, and the next read relies on it.
        let _ended = match &self.0 {
            Registered::Tcp(stream) => stream.ready(Interest::PRIORITY).await,
            Registered::Unix(stream) => stream.ready(Interest::PRIORITY).await,
        };
    }

    /// How the peer has ended the connection, possibly with unread bytes before the end; `None` if it has not ended it.
    /// An error is consumed: reading and writing do not report it again.
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

    /// The number of bytes that were written but not acknowledged; 0 for a Unix socket, which delivers at once.
    pub fn unacknowledged(&self) -> u32 {
        match &self.0 {
            Registered::Tcp(stream) => sys::unacknowledged(stream.as_fd()).unwrap_or(0),
            Registered::Unix(_) => 0,
        }
    }

    /// Whether the peer's host has to acknowledge something (bytes in flight, or a probe of its closed window), and has
    /// acknowledged nothing at all for `span`. A closed window does not count as long as its probes are answered.
    ///
    /// False if the kernel does not report it, and over a Unix socket.
    pub fn is_unanswered_for(&self, span: Duration) -> bool {
        let Registered::Tcp(stream) = &self.0 else { return false };
        sys::tcp_info(stream.as_fd()).is_ok_and(|info| {
            let owes = info.tcpi_unacked > 0 || info.tcpi_probes > 0;
            owes && Duration::from_millis(info.tcpi_last_ack_recv.into()) >= span
        })
    }

    /// Whether every byte written has been acknowledged.
    pub fn is_acknowledged(&self) -> bool {
        self.unacknowledged() == 0
    }

    /// Sets the options of an accepted connection. The default ones need no system call if the socket `inherits` those
    /// of its listening socket.
    pub(super) fn set_accepted_options(&self, options: SocketOptions, inherits: bool) {
        let Registered::Tcp(_) = self.0 else { return };
        // If a socket refuses an option, it may be dead. Its next read or write reports that.
        if !inherits {
            options::set_for_small_messages(self);
        }
        if !inherits || options != SocketOptions::INHERITED {
            options.set_on(&SockRef::from(self));
        }
    }

    /// Sets the options that a dialled connection needs for its first messages.
    pub fn set_dialled_options(&self) {
        if let Registered::Tcp(stream) = &self.0 {
            let _dead = stream.set_nodelay(true);
        }
    }

    /// Sets the options that only long-lived connections need.
    pub fn set_lasting_options(&self, keepalive: Option<Duration>) {
        if let Registered::Tcp(_) = self.0 {
            options::limit_unsent(self);
            let options = SocketOptions {
                keepalive,
                user_timeout: None,
            };
            options.set_on(&SockRef::from(self));
        }
    }

    /// Removes it from the runtime. Bytes that have arrived stay in the kernel.
    pub fn unregister(self) -> io::Result<Transport<Unregistered>> {
        Ok(match self.0 {
            Registered::Tcp(stream) => Transport::unregistered(stream.into_std()?.into(), true),
            Registered::Unix(stream) => Transport::unregistered(stream.into_std()?.into(), false),
        })
    }

    fn try_io<T>(&self, interest: Interest, io: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        match &self.0 {
            Registered::Tcp(stream) => stream.try_io(interest, || io(stream.as_fd())),
            Registered::Unix(stream) => stream.try_io(interest, || io(stream.as_fd())),
        }
    }
}

/// Whether an error only means "try again".
pub fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

impl From<TcpStream> for Transport {
    fn from(stream: TcpStream) -> Self {
        Self(Registered::Tcp(stream))
    }
}

impl From<UnixStream> for Transport {
    fn from(stream: UnixStream) -> Self {
        Self(Registered::Unix(stream))
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Registered::Tcp(stream) => stream.as_fd(),
            Registered::Unix(stream) => stream.as_fd(),
        }
    }
}

impl AsFd for Transport<Unregistered> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;
    use std::net::{Shutdown, TcpListener};

    use super::*;

    /// A peer over TCP and a peer over a Unix socket, each with our end.
    fn pairs() -> [(Box<dyn Peer>, Transport); 2] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (unix_peer, unix_ours) = std::os::unix::net::UnixStream::pair().unwrap();
        unix_ours.set_nonblocking(true).unwrap();
        [
            (Box::new(peer), TcpStream::from_std(ours).unwrap().into()),
            (Box::new(unix_peer), UnixStream::from_std(unix_ours).unwrap().into()),
        ]
    }

    trait Peer: Write + AsFd {}
    impl<T: Write + AsFd> Peer for T {}

    #[tokio::test]
    async fn an_end_is_seen_before_the_unread_bytes_which_stay() {
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
    async fn a_reset_differs_from_an_end_also_after_an_end() {
        for ends_first in [false, true] {
            for (mut peer, ours) in pairs() {
                peer.write_all(b"unread").unwrap();
                // Closing before it has read this makes it reset the connection.
                ours.write_all(b"nobody reads it").await.unwrap();
                if ends_first {
                    SockRef::from(&peer).shutdown(Shutdown::Write).unwrap();
                    assert!(ours.end_ahead().unwrap().is_ok());
                }
                drop(peer);
                assert_eq!(
                    ours.end_ahead().unwrap().unwrap_err().kind(),
                    if ends_first && matches!(ours.0, Registered::Tcp(_)) {
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
