//! The writing end of a flow. It buffers the bytes that the sink does not take at once.

use std::io;
use std::task::{Context, Poll, ready};

use crate::net::fault;
use crate::net::pipe::Pipe;
use crate::net::transport::{Transport, is_transient};

use super::progress::Progress;
use super::write_buffer::WriteBuffer;

/// Writes to the sink. Once a write fails, nothing is buffered any more.
#[derive(Debug)]
pub(super) struct Outlet {
    /// The buffer is boxed, because an idle connection has none.
    buffer: Option<Box<WriteBuffer>>,
}

impl Outlet {
    /// An outlet that has `first` to write.
    pub(super) fn new(first: Vec<u8>) -> Self {
        Self {
            buffer: (!first.is_empty()).then(|| Box::new(WriteBuffer::bytes(first))),
        }
    }

    /// Whether bytes wait for the sink.
    pub(super) fn has_buffered(&self) -> bool {
        self.buffer.is_some()
    }

    /// How many bytes wait for the sink.
    pub(super) fn buffered(&self) -> usize {
        self.buffer.as_ref().map_or(0, |buffer| buffer.len())
    }

    /// Adds bytes to the end of the buffer.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        match &mut self.buffer {
            Some(buffer) => buffer.append(bytes),
            None if bytes.is_empty() => {}
            None => self.buffer = Some(Box::new(WriteBuffer::bytes(bytes.to_vec()))),
        }
    }

    /// Writes the buffered bytes; `Pending` while some of them remain.
    pub(super) fn poll_flush(
        &mut self,
        sink: &Transport,
        progress: &mut Progress,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while let Some(buffer) = &mut self.buffer {
            let written = match ready!(sink.poll_write_ready(cx)) {
                Ok(()) => buffer.try_write(sink),
                Err(_) => Err(io::ErrorKind::Other.into()),
            };
            match written {
                Ok(written) => {
                    progress.written |= written > 0;
                    if buffer.is_empty() {
                        self.buffer = None;
                    }
                }
                Err(error) if is_transient(&error) => {}
                Err(error) => {
                    self.buffer = None;
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes as many of `bytes` as the sink takes, and buffers the rest. No other bytes may wait for the sink than
    /// those buffered here.
    pub(super) fn write(&mut self, bytes: &[u8], sink: &Transport, progress: &mut Progress) -> io::Result<()> {
        fault::point("relay");
        if bytes.is_empty() {
            return Ok(());
        }
        match sink.try_write(bytes) {
            Ok(written) => {
                progress.written |= written > 0;
                self.append(&bytes[written..]);
            }
            Err(error) if is_transient(&error) => self.append(bytes),
            Err(error) => {
                self.buffer = None;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Writes as much of `pipe` as the sink takes, and buffers the rest. No other bytes may wait for the sink.
    pub(super) fn drain(&mut self, mut pipe: Pipe, sink: &Transport, progress: &mut Progress) -> io::Result<()> {
        fault::point("splice");
        match sink.try_drain(&mut pipe) {
            Ok(written) => progress.written |= written > 0,
            Err(error) if is_transient(&error) => {}
            Err(error) => return Err(error),
        }
        if pipe.holds() > 0 {
            self.buffer = Some(Box::new(WriteBuffer::pipe(pipe)));
        }
        Ok(())
    }

    /// Must be called a few times a second: see [`WriteBuffer::check_pipe`].
    pub(super) fn check_pipe(&mut self) {
        if let Some(buffer) = &mut self.buffer {
            buffer.check_pipe();
        }
    }
}
