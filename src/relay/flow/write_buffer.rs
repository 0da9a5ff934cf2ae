//! Bytes that were read and that the sink has not taken yet.

use std::io;

use crate::net::pipe::Pipe;
use crate::net::transport::Transport;

/// Bytes that wait for the sink: in a pipe, in memory, or both, the pipe first.
#[derive(Debug)]
pub(super) struct WriteBuffer {
    pipe: Option<Pipe>,
    bytes: Vec<u8>,
    /// How many of `bytes` are written.
    written: usize,
    /// How many bytes the pipe held at the last check.
    held_before: usize,
    /// The number of checks in a row at which the pipe had not become emptier.
    stalls: u8,
}

impl WriteBuffer {
    /// A buffer of bytes in memory.
    pub(super) fn bytes(bytes: Vec<u8>) -> Self {
        Self {
            pipe: None,
            bytes,
            written: 0,
            held_before: 0,
            stalls: 0,
        }
    }

    /// A buffer of bytes in a pipe.
    pub(super) fn pipe(pipe: Pipe) -> Self {
        Self {
            held_before: pipe.holds(),
            pipe: Some(pipe),
            ..Self::bytes(Vec::new())
        }
    }

    /// Adds bytes at the end.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes as many bytes as the sink takes, and returns their number.
    ///
    /// # Errors
    /// Errors of the socket, including `WouldBlock`.
    pub(super) fn try_write(&mut self, sink: &Transport) -> io::Result<usize> {
        if let Some(pipe) = &mut self.pipe {
            let written = sink.try_drain(pipe)?;
            if pipe.holds() == 0 {
                self.pipe = None;
            }
            return Ok(written);
        }
        let written = sink.try_write(&self.bytes[self.written..])?;
        self.written += written;
        Ok(written)
    }

    /// How many bytes wait.
    pub(super) fn len(&self) -> usize {
        self.pipe.as_ref().map_or(0, Pipe::holds) + self.bytes.len() - self.written
    }

    /// Whether nothing waits any more.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Must be called a few times a second. Pipes are scarce: a pipe from which the sink has taken nothing for a second
    /// is emptied into memory and returned.
    pub(super) fn check_pipe(&mut self) {
        let Some(pipe) = &self.pipe else { return };
        let is_stalled = pipe.holds() == self.held_before;
        self.held_before = pipe.holds();
        self.stalls = if is_stalled { self.stalls + 1 } else { 0 };
        if self.stalls >= MAX_STALLS
            && let Some(pipe) = self.pipe.take()
        {
            let mut bytes = pipe.empty();
            bytes.extend_from_slice(&self.bytes[self.written..]);
            (self.bytes, self.written) = (bytes, 0);
        }
    }
}

/// Checks in a second.
const MAX_STALLS: u8 = 4;
