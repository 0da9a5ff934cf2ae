//! The client's socket on its way in, with the bytes that were read ahead of what was asked for.

use std::cell::RefCell;
use std::io;

use super::newcomer::Newcomer;
use super::stream::{LegOptions, Stream};

/// A socket and what was read from it but not consumed yet.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    ahead: Ahead,
    /// It has what stands on its listening socket.
    inherits: bool,
}

/// What was read of a socket and not consumed yet.
#[derive(Debug)]
pub struct Ahead {
    /// Empty until something arrives: a silent socket holds no buffer.
    bytes: Vec<u8>,
    /// The last read filled all the room it had: more may wait in the kernel.
    more_may_wait: bool,
    /// Nothing has come yet.
    is_silent: bool,
}

impl Client {
    /// A newcomer, from here on known to the runtime of the calling thread.
    pub fn register(newcomer: Newcomer) -> io::Result<Self> {
        let (stream, ahead, inherits) = newcomer.register()?;
        Ok(Self {
            stream,
            ahead,
            inherits,
        })
    }

    /// Looks whether something has come since the last read.
    pub fn look_again(&mut self) {
        self.ahead.more_may_wait |= self.stream.has_unread();
    }

    /// Whether the request was read to its last byte and nothing is known to follow it.
    pub fn is_drained(&self) -> bool {
        self.ahead.is_drained()
    }

    /// Readies it for hours of small messages.
    pub fn prepare(&self, options: LegOptions) {
        self.stream.prepare_accepted(options, self.inherits);
    }

    /// The socket, to write to or to watch.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The socket and what was read ahead, for the one that takes over.
    pub fn into_parts(self) -> (Stream, Vec<u8>) {
        (self.stream, self.ahead.bytes)
    }
}

impl Ahead {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether nothing has come yet.
    pub fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// Whether more may wait in the kernel, or is known to follow.
    pub fn more_may_wait(&self) -> bool {
        self.more_may_wait
    }

    /// Consumes the first `count` of them.
    pub fn consume(&mut self, count: usize) {
        if count == self.bytes.len() {
            self.bytes = Vec::new();
        } else {
            self.bytes.drain(..count);
        }
    }

    /// Something is known to follow what was read, whether it is here yet or not: a request's body.
    pub fn expect_more(&mut self) {
        self.more_may_wait = true;
    }

    /// Whether everything that was read is consumed, and nothing is known to follow it.
    pub fn is_drained(&self) -> bool {
        self.bytes.is_empty() && !self.more_may_wait
    }

    /// Takes what one call of `read` brings, so that at most `limit` bytes are ahead.
    ///
    /// # Panics
    /// When they are already.
    pub(super) fn fill(
        &mut self,
        limit: usize,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let room = limit - self.bytes.len();
        assert!(room > 0, "asked to read past the limit");
        SCRATCH.with_borrow_mut(|scratch| {
            let room = room.min(scratch.len());
            let read = read(&mut scratch[..room])?;
            self.more_may_wait = read == room;
            self.is_silent = false;
            self.bytes.extend_from_slice(&scratch[..read]);
            Ok(read)
        })
    }
}

impl Default for Ahead {
    /// Of a socket from which nothing was read yet.
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            more_may_wait: false,
            is_silent: true,
        }
    }
}

thread_local! {
    /// Borrowed within one synchronous read only, so that no pending socket needs a buffer of its own.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_SIZE].into_boxed_slice());
}

const SCRATCH_SIZE: usize = 16 * 1024;
