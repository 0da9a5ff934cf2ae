//! The client's socket on its way in, with the bytes that were read ahead of what was asked for.

use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll};

use super::stream::{Stream, is_passing};

/// A socket and what was read from it but not consumed yet.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    /// Empty until something arrives: a silent socket holds no buffer.
    ahead: Vec<u8>,
    /// The last read filled all the room it had: more may wait in the kernel.
    more_may_wait: bool,
    /// Nothing has come yet.
    is_silent: bool,
}

impl Client {
    /// A socket from which nothing was read yet.
    pub fn new(stream: Stream) -> Self {
        Self {
            stream,
            ahead: Vec::new(),
            more_may_wait: false,
            is_silent: true,
        }
    }

    /// What was read and not consumed.
    pub fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Consumes the first `count` bytes of [`Client::ahead`].
    pub fn consume(&mut self, count: usize) {
        if count == self.ahead.len() {
            self.ahead = Vec::new();
        } else {
            self.ahead.drain(..count);
        }
    }

    /// Reads on, until `limit` bytes are ahead at most; says how many bytes came, 0 at the end of the stream.
    ///
    /// # Panics
    /// When `limit` bytes are ahead already: reading nothing would look like an end.
    pub fn poll_fill(&mut self, limit: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let room = limit - self.ahead.len();
        assert!(room > 0, "asked to read past the limit");
        loop {
            std::task::ready!(self.stream.poll_read_ready(cx))?;
            let read = SCRATCH.with_borrow_mut(|scratch| {
                let room = room.min(scratch.len());
                let read = self.stream.try_read(&mut scratch[..room])?;
                self.more_may_wait = read == room;
                self.is_silent = false;
                self.ahead.extend_from_slice(&scratch[..read]);
                Ok(read)
            });
            match read {
                Err(ref error) if is_passing(error) => {}
                other => return Poll::Ready(other),
            }
        }
    }

    /// Whether it has not sent a byte yet.
    pub fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// Something is known to follow what was read, whether it is here yet or not: a request's body.
    pub fn expect_more(&mut self) {
        self.more_may_wait = true;
    }

    /// Looks whether something has come since the last read.
    pub fn look_again(&mut self) {
        self.more_may_wait |= self.stream.has_unread();
    }

    /// Whether the request was read to its last byte and nothing is known to follow it.
    pub fn is_drained(&self) -> bool {
        self.ahead.is_empty() && !self.more_may_wait
    }

    /// The socket, to write to or to watch.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The socket and what was read ahead, for the one that takes over.
    pub fn into_parts(self) -> (Stream, Vec<u8>) {
        (self.stream, self.ahead)
    }
}

thread_local! {
    /// Borrowed within one synchronous read only, so that no pending socket needs a buffer of its own.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_SIZE].into_boxed_slice());
}

const SCRATCH_SIZE: usize = 16 * 1024;
