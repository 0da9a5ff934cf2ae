//! Edge-triggered epoll. The relay, the backend and the clients wait with it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

/// Waits for many sockets.
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

/// An event of one socket.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub token: usize,
    /// There may be bytes, or an end.
    pub readable: bool,
    pub writable: bool,
    /// The other side has ended or is gone. A short read then does not mean that nothing is left to read.
    pub ended: bool,
}

impl Poller {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(512),
        })
    }

    /// Reports each change of a socket once, for as long as the socket is open.
    pub fn add(&self, socket: impl AsFd, token: usize) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, socket, data(token), flags)?)
    }

    /// Reports a listener for as long as a client waits to be accepted.
    pub fn add_listener(&self, listener: impl AsFd, token: usize) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, listener, data(token), epoll::EventFlags::IN)?)
    }

    /// Fills `into` with the next events. It stays empty if `patience` has passed, or if a signal came.
    pub fn wait(&mut self, patience: Option<Duration>, into: &mut Vec<Event>) -> io::Result<()> {
        into.clear();
        self.events.clear();
        let patience = patience.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), patience.as_ref()) {
            Ok(_) => {}
            // strace interrupts this call when it begins to count system calls.
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        into.extend(self.events.iter().map(|event| {
            let flags = event.flags;
            let ended = flags.intersects(epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR);
            Event {
                token: usize::try_from({ event.data }.u64()).expect("it was a usize"),
                readable: ended || flags.contains(epoll::EventFlags::IN),
                writable: flags.contains(epoll::EventFlags::OUT),
                ended,
            }
        }));
        Ok(())
    }
}

fn data(token: usize) -> epoll::EventData {
    epoll::EventData::new_u64(token as u64)
}
