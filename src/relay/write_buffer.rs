//! What was read, and the peer has not taken yet.

use std::io;

use crate::net::pipe::Pipe;
use crate::net::transport::Transport;

/// Bytes that wait for the sink, in a pipe, in memory, or in that order in both.
#[derive(Debug)]
pub(super) struct WriteBuffer {
    pipe: Option<Pipe>,
    bytes: Vec<u8>,
    /// How many of the bytes were taken.
    taken: usize,
    /// What the last look found in the pipe.
    seen: usize,
    /// Looks in a row that found it as the one before had.
    stalls: u8,
}

impl WriteBuffer {
    /// Bytes in memory.
    pub(super) fn bytes(bytes: Vec<u8>) -> Self {
        Self {
            pipe: None,
            bytes,
            taken: 0,
            seen: 0,
            stalls: 0,
        }
    }

    /// Bytes in a pipe.
    pub(super) fn pipe(pipe: Pipe) -> Self {
        Self {
            seen: pipe.holds(),
            pipe: Some(pipe),
            ..Self::bytes(Vec::new())
        }
    }

    /// Puts bytes behind all others.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes what the sink takes of what is first.
    pub(super) fn try_write(&mut self, sink: &Transport) -> io::Result<usize> {
        if let Some(pipe) = &mut self.pipe {
            let written = sink.try_drain(pipe)?;
            if pipe.holds() == 0 {
                self.pipe = None;
            }
            return Ok(written);
        }
        let written = sink.try_write(&self.bytes[self.taken..])?;
        self.taken += written;
        Ok(written)
    }

    /// How many bytes wait.
    pub(super) fn len(&self) -> usize {
        self.pipe.as_ref().map_or(0, Pipe::holds) + self.bytes.len() - self.taken
    }

    /// Whether all of it was taken.
    pub(super) fn is_taken(&self) -> bool {
        self.len() == 0
    }

    /// To be called a few times a second. Pipes are few: one that nobody takes from for long is emptied into memory, and
    /// given to others.
    pub(super) fn look(&mut self) {
        let Some(pipe) = &self.pipe else { return };
        let is_stalled = pipe.holds() == self.seen;
        self.seen = pipe.holds();
        self.stalls = if is_stalled { self.stalls + 1 } else { 0 };
        if self.stalls >= STALLS
            && let Some(pipe) = self.pipe.take()
        {
            let mut bytes = pipe.empty();
            bytes.extend_from_slice(&self.bytes[self.taken..]);
            (self.bytes, self.taken) = (bytes, 0);
        }
    }
}

/// A second, at four looks a second.
const STALLS: u8 = 4;
