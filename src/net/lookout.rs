//! Many sockets behind one descriptor: whoever only waits costs the runtime nothing.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use tokio::io::unix::AsyncFd;

use super::sys;

/// Tells which of the sockets it watches have something to read.
///
/// Each is told of once for all that has come by then: whoever is told has to read until nothing is left, or waits for
/// ever. In return a socket is watched with one call, however often more of it comes.
#[derive(Debug)]
pub struct Lookout {
    /// An epoll instance, which the runtime watches like any other descriptor.
    epoll: AsyncFd<OwnedFd>,
}

/// What a watched socket is told by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark(u64);

/// A watched socket of which something has come. It may be none that is still watched, or nothing may be left of what came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Which it is.
    pub mark: Mark,
    /// Its peer has ended or reset the connection, be it behind bytes that are still to be read.
    pub has_ended: bool,
}

impl Lookout {
    /// The most that is seen at one look.
    pub const AT_ONCE: usize = 64;

    /// One that the runtime of the calling thread watches.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: sys::watch_readable(epoll::create(CreateFlags::CLOEXEC)?)?,
        })
    }

    /// Watches a socket from here on; what has come already is told of too.
    pub fn watch(&self, socket: impl AsFd, mark: Mark) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(mark.0), flags)?)
    }

    /// Watches it no more. One that is closed is forgotten without this.
    pub fn forget(&self, socket: impl AsFd) {
        // It can only fail for one that is not watched.
        let _unknown = epoll::delete(&self.epoll, socket);
    }

    /// Waits until something has come, and adds who that is to `sightings`, at most [`Lookout::AT_ONCE`].
    pub async fn look(&self, sightings: &mut Vec<Sighting>) -> io::Result<()> {
        let mut knock = self.epoll.readable().await?;
        let mut events = [MaybeUninit::<Event>::uninit(); Self::AT_ONCE];
        let (seen, _) = epoll::wait(&self.epoll, &mut events, Some(&Timespec::default()))?;
        sightings.extend(seen.iter().map(|event| {
            let (flags, data) = (event.flags, event.data);
            Sighting {
                mark: Mark(data.u64()),
                has_ended: flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR),
            }
        }));
        if seen.len() < Self::AT_ONCE {
            // Nobody is left to be seen, so whoever comes next knocks again. To look until nobody is seen would be a call more.
            knock.clear_ready();
        }
        Ok(())
    }
}

impl Mark {
    /// The mark of `socket`, which no other one has as long as it is open.
    pub fn of(socket: impl AsFd) -> Self {
        Self(u64::try_from(socket.as_fd().as_raw_fd()).unwrap_or_default())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;
    use std::net::{Shutdown, SocketAddr, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::net::address::Bind;
    use crate::net::listen::{Bound, Listener};
    use crate::net::newcomer::Newcomer;

    struct Rig {
        lookout: Lookout,
        door: Listener,
        address: SocketAddr,
    }

    impl Rig {
        fn new() -> Self {
            let bound = Bound::bind(&Bind::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))), 128, 1).unwrap();
            let Bind::Tcp(address) = bound.address else {
                panic!("a TCP address")
            };
            Self {
                lookout: Lookout::new().unwrap(),
                door: Listener::register(bound.into_sockets().remove(0), false).unwrap(),
                address,
            }
        }

        fn watched(&self) -> (TcpStream, Newcomer) {
            let client = TcpStream::connect(self.address).unwrap();
            let (mut newcomer, _) = self.door.accept_queued().unwrap().unwrap();
            newcomer.be_watched(&self.lookout).unwrap();
            (client, newcomer)
        }

        async fn seen(&self) -> Vec<Sighting> {
            let mut seen = Vec::new();
            let look = self.lookout.look(&mut seen);
            let _nobody = tokio::time::timeout(Duration::from_millis(50), look).await;
            seen
        }
    }

    fn of(newcomer: &Newcomer, has_ended: bool) -> Vec<Sighting> {
        vec![Sighting {
            mark: newcomer.mark(),
            has_ended,
        }]
    }

    #[tokio::test]
    async fn who_says_something_is_seen_once_for_all_of_it() {
        let rig = Rig::new();
        let (mut client, mut newcomer) = rig.watched();
        let (_silent, _other) = rig.watched();
        assert_eq!(rig.seen().await, []);
        client.write_all(b"GET").unwrap();
        assert_eq!(rig.seen().await, of(&newcomer, false));
        assert_eq!(rig.seen().await, [], "whether it was read or not");
        assert_eq!(newcomer.read_at_once(99).unwrap(), 3);
        client.write_all(b" /").unwrap();
        assert_eq!(rig.seen().await, of(&newcomer, false));
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rig.seen().await, of(&newcomer, true));
        assert_eq!(rig.seen().await, [], "an end is no reason to look for ever");
    }

    #[tokio::test]
    async fn what_came_before_it_was_watched_is_seen() {
        let rig = Rig::new();
        let mut client = TcpStream::connect(rig.address).unwrap();
        client.write_all(b"GET").unwrap();
        drop(client);
        let (mut newcomer, _) = rig.door.accept_queued().unwrap().unwrap();
        newcomer.be_watched(&rig.lookout).unwrap();
        newcomer.be_watched(&rig.lookout).unwrap();
        assert_eq!(rig.seen().await, of(&newcomer, true));
    }

    #[tokio::test]
    async fn who_is_closed_or_forgotten_is_not_seen() {
        let rig = Rig::new();
        let (mut first, mut forgotten) = rig.watched();
        let (mut second, closed) = rig.watched();
        forgotten.be_forgotten(&rig.lookout);
        forgotten.be_forgotten(&rig.lookout);
        drop(closed);
        first.write_all(b"GET").unwrap();
        second.write_all(b"GET").unwrap();
        assert_eq!(rig.seen().await, []);
        forgotten.be_watched(&rig.lookout).unwrap();
        assert_eq!(rig.seen().await, of(&forgotten, false));
    }

    #[tokio::test]
    async fn more_than_fit_into_one_look_are_seen_at_the_next() {
        let rig = Rig::new();
        let mut crowd: Vec<_> = (0..Lookout::AT_ONCE + 9).map(|_| rig.watched()).collect();
        for (client, _) in &mut crowd {
            client.write_all(b"GET").unwrap();
        }
        assert_eq!(rig.seen().await.len(), Lookout::AT_ONCE);
        assert_eq!(rig.seen().await.len(), 9);
        assert_eq!(rig.seen().await, []);
    }
}
