//! How both sides of a flow ended.

use std::io::{self, ErrorKind};

use crate::net::transport::{Transport, is_transient};

/// How one side of a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::relay) enum StreamEnd {
    /// An orderly end of stream (FIN).
    Fin,
    /// A reset (RST).
    Reset,
    /// The kernel gave up: no acknowledgement for too long.
    TimedOut,
    /// Any other socket error.
    Failed,
}

/// What a flow knows of the ends of its source and its sink.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::relay) struct FlowEnds {
    /// How the source ended. Everything that it sent has been read.
    source: Option<StreamEnd>,
    /// How the source ended, if that became known before everything was read: bytes may still be unread. Learning it
    /// can take the error from the socket, so that reading would see an orderly end.
    early: Option<StreamEnd>,
    /// How writing to the sink failed.
    sink: Option<StreamEnd>,
    /// Nothing more will be written.
    is_done: bool,
    /// The source ended in order, and the sink has yet to get a FIN.
    owes_fin: bool,
}

impl StreamEnd {
    fn of(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => Self::Reset,
            ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Failed,
        }
    }

    /// Whether the end came from the network or the kernel, and not from the peer.
    pub(in crate::relay) fn is_failure(self) -> bool {
        matches!(self, Self::TimedOut | Self::Failed)
    }
}

impl FlowEnds {
    /// How the source ended, whether or not everything that it sent has been read.
    pub(in crate::relay) fn source(self) -> Option<StreamEnd> {
        self.source.or(self.early)
    }

    /// How writing to the sink failed.
    pub(in crate::relay) fn sink(self) -> Option<StreamEnd> {
        self.sink
    }

    /// Whether nothing more will be written.
    pub(in crate::relay) fn is_done(self) -> bool {
        self.is_done
    }

    /// Whether the source has ended by an error or a reset.
    pub(in crate::relay) fn has_died(self) -> bool {
        [self.source, self.early]
            .into_iter()
            .flatten()
            .any(|end| end != StreamEnd::Fin)
    }

    /// Whether the sink is to get a FIN now. Returns true only once.
    pub(in crate::relay) fn take_owed_fin(&mut self) -> bool {
        std::mem::take(&mut self.owes_fin)
    }

    /// Notes how the source ended, if that became known by other means than reading.
    pub(in crate::relay) fn set_early(&mut self, end: StreamEnd) {
        self.early = Some(end);
    }

    /// How the source ended, if everything that it sent has been read.
    pub(super) fn read_to(self) -> Option<StreamEnd> {
        self.source
    }

    /// Whether both sides are still there, so that bytes may come.
    pub(super) fn is_open(self) -> bool {
        !self.is_done && self.source.is_none() && self.sink.is_none()
    }

    /// Asks the kernel how the source ended, even if bytes are still unread.
    pub(super) fn probe(&mut self, source: &Transport) {
        match source.end_ahead() {
            None => {}
            Some(Ok(())) => self.early = Some(StreamEnd::Fin),
            Some(Err(error)) => self.early = Some(StreamEnd::of(&error)),
        }
    }

    /// Notes the end of the source, if this read found it.
    pub(super) fn note_read(&mut self, read: io::Result<usize>) {
        match read {
            Ok(0) => self.source = self.early.or(Some(StreamEnd::Fin)),
            Err(error) if !is_transient(&error) => self.source_failed(&error),
            Ok(_) | Err(_) => {}
        }
    }

    pub(super) fn source_failed(&mut self, error: &io::Error) {
        self.source = Some(StreamEnd::of(error));
    }

    /// Notes that the sink failed, if this write found it.
    pub(super) fn note_write(&mut self, written: io::Result<()>) {
        if let Err(error) = written {
            self.sink = Some(StreamEnd::of(&error));
        }
    }

    /// Notes that nothing more can be written.
    pub(super) fn abandon(&mut self) {
        self.is_done = true;
    }

    /// Notes that everything has been written. The sink is to get the source's FIN.
    pub(super) fn finish(&mut self) {
        self.owes_fin = self.source == Some(StreamEnd::Fin);
        self.is_done = true;
    }
}
