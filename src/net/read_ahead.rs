//! Bytes that were read from a socket but not consumed yet.

use std::cell::RefCell;
use std::io;

/// Bytes that were read from a socket but not consumed yet.
#[derive(Debug)]
pub struct ReadAhead {
    /// Empty until something arrives: a silent socket holds no buffer.
    bytes: Vec<u8>,
    /// The last read filled its buffer, so the kernel may have more.
    more_may_wait: bool,
    is_silent: bool,
}

impl ReadAhead {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, for the next reader of the socket.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Whether nothing has arrived yet.
    pub fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// Whether the kernel may have more bytes, or more are known to follow.
    pub fn more_may_wait(&self) -> bool {
        self.more_may_wait
    }

    /// Consumes the first `count` bytes.
    pub fn consume(&mut self, count: usize) {
        if count == self.bytes.len() {
            self.bytes = Vec::new();
        } else {
            self.bytes.drain(..count);
        }
    }

    /// Notes that more follows the bytes read so far, such as a request's body, whether it has arrived or not.
    pub fn expect_more(&mut self) {
        self.more_may_wait = true;
    }

    /// Whether every byte is consumed and nothing is known to follow.
    pub fn is_drained(&self) -> bool {
        self.bytes.is_empty() && !self.more_may_wait
    }

    /// Adds the bytes of one call to `read`, up to `limit` unconsumed bytes in all.
    ///
    /// # Panics
    /// If there are `limit` unconsumed bytes already.
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

impl Default for ReadAhead {
    /// The value for a socket from which nothing was read yet.
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            more_may_wait: false,
            is_silent: true,
        }
    }
}

thread_local! {
    /// It is borrowed only within one synchronous read, so no pending socket needs a buffer of its own.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_SIZE].into_boxed_slice());
}

const SCRATCH_SIZE: usize = 16 * 1024;
