//! Delivers a refusal so that the client really gets it.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::limit::pending::{Ended, Pending};
use crate::live::listener::Listener;
use crate::net::accepted::AcceptedSocket;
use crate::net::clock::Clock;
use crate::net::fault;
use crate::net::transport::{Transport, Unregistered, is_transient};
use crate::wire::ws::header::Sender;
use crate::wire::ws::scanner::FrameScanner;

use crate::walk::record::Record;
use crate::walk::refuse::Refusal;

/// Delivers a refusal to a socket that is not registered with the runtime, as far as possible without waiting. Returns
/// what remains for [`deliver`], if anything.
pub fn deliver_now(refusal: Refusal, socket: &mut AcceptedSocket<Unregistered>) -> Option<Refusal> {
    let (status, mut bytes) = match refusal {
        Refusal::Close => return None,
        Refusal::Reset => {
            socket.transport().reset_on_close();
            return None;
        }
        Refusal::Answer { status, bytes } => (status, bytes),
        Refusal::CloseFrame { .. } => return Some(refusal),
    };
    fault::point("deliver");
    let is_last = socket.read_ahead().is_drained();
    let written = if is_last {
        socket.transport().write_last(&bytes)
    } else {
        socket.transport().write_now(&bytes)
    };
    match written {
        Ok(written) => drop(bytes.drain(..written)),
        Err(error) if is_transient(&error) => {}
        Err(_) => return None,
    }
    let is_done = is_last && bytes.is_empty();
    (!is_done).then_some(Refusal::Answer { status, bytes })
}

/// Delivers a refusal to a client whose socket is registered with the runtime. The seat is kept until the socket is
/// closed, so that the bound on pending sockets covers refused ones too.
#[allow(clippy::manual_async_fn)] // An `async fn` would hold each of its arguments twice.
pub fn deliver(
    refusal: Refusal,
    client: AcceptedSocket,
    seat: Option<Pending>,
    listener: Arc<Listener>,
    clock: Arc<Clock>,
    record: Record,
) -> impl Future<Output = ()> {
    // The outcome of a client that is held is settled. Its record is written now, so that the client does not hold its
    // slot during the hold.
    let record = (!refusal.is_held()).then_some(record);
    let delivery = Delivery {
        client,
        seat,
        _record: record,
        listener,
        clock,
    };
    async move {
        delivery.run(&refusal).await;
    }
}

/// A delivery under way. Its fields are dropped in this order: the seat is free once the socket is closed, and the record is
/// written when all is over.
struct Delivery {
    client: AcceptedSocket,
    seat: Option<Pending>,
    _record: Option<Record>,
    listener: Arc<Listener>,
    clock: Arc<Clock>,
}

impl Delivery {
    async fn run(&self, refusal: &Refusal) {
        match refusal {
            Refusal::Close => {}
            Refusal::Reset => self.client.transport().reset_on_close(),
            Refusal::Answer { bytes, .. } => {
                let answering = async {
                    if self.write(bytes).await && !self.client.is_drained() {
                        self.linger().await;
                    }
                };
                self.until_seat_is_needed(pin!(answering)).await;
            }
            Refusal::CloseFrame { opening, close, held } => self.open_and_close(opening, close, *held).await,
        }
    }

    async fn open_and_close(&self, opening: &[u8], close: &[u8], held: Duration) {
        if let Some(seat) = &self.seat {
            seat.is_answered();
        }
        let holding = async {
            let is_written = self.write(opening).await;
            if is_written && !held.is_zero() {
                let closes = pin!(client_closes(self.client.transport()));
                let _over = tokio::time::timeout(held, closes).await;
            }
            is_written
        };
        match self.until_seat_is_needed(pin!(holding)).await {
            Some(false) => {}
            Some(true) => {
                let closing = async {
                    if self.write(close).await {
                        self.linger().await;
                    }
                };
                self.until_seat_is_needed(pin!(closing)).await;
            }
            // The seat is needed at once. The client gets only as much of the close frame as its socket takes now.
            None => {
                let _full = self.client.transport().try_write(close);
            }
        }
    }

    /// Waits for the output of `future`; `None` if the seat is needed first. The client gets its answer even past the
    /// seat's deadline, since that takes no longer than the hold and the linger.
    async fn until_seat_is_needed<T>(&self, future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        let needed = std::future::poll_fn(|cx| match self.seat.as_ref().map(|seat| seat.poll_ended(cx)) {
            Some(Poll::Ready(Ended::GaveWay)) => Poll::Ready(()),
            Some(Poll::Ready(Ended::Late) | Poll::Pending) | None => Poll::Pending,
        });
        tokio::select! {
            biased;
            value = future => Some(value),
            () = needed => None,
        }
    }

    /// Writes `bytes`. False if the client does not take them in time.
    async fn write(&self, bytes: &[u8]) -> bool {
        fault::point("deliver");
        let deadline = Some(self.clock.now() + WRITE_TIMEOUT);
        let writing = self.client.transport().write_all(bytes);
        matches!(self.clock.within(deadline, pin!(writing)).await, Some(Ok(())))
    }

    /// Half-closes, and for a while discards what comes: if the client has sent more than was read, a plain close would
    /// reset the connection and destroy the answer.
    async fn linger(&self) {
        self.client.transport().shutdown_write();
        if !self.listener.room.is_half_taken() {
            let _late = tokio::time::timeout(LINGER, pin!(discard(self.client.transport()))).await;
        }
    }
}

/// Waits until the client ends the connection, with a close frame or without. Anything else that it sends is discarded;
/// too much of it also ends the wait.
async fn client_closes(transport: &Transport) {
    let mut scanner = FrameScanner::new(Sender::Client);
    read_until(transport, |bytes| {
        scanner.scan(bytes);
        scanner.saw_close()
    })
    .await;
}

/// Reads to the end of the stream, or until more has come than an honest client would send.
async fn discard(transport: &Transport) {
    read_until(transport, |_| false).await;
}

async fn read_until(transport: &Transport, mut is_end: impl FnMut(&[u8]) -> bool) {
    let mut left = LINGER_BYTES;
    while left > 0 {
        if std::future::poll_fn(|cx| transport.poll_read_ready(cx)).await.is_err() {
            return;
        }
        match read_once(transport, &mut is_end) {
            Ok((0, _) | (_, true)) => return,
            Ok((read, false)) => left = left.saturating_sub(read),
            Err(error) if is_transient(&error) => {}
            Err(_) => return,
        }
    }
}

/// Reads once. The buffer is on the stack, so that no future holds it.
fn read_once(transport: &Transport, is_end: &mut impl FnMut(&[u8]) -> bool) -> io::Result<(usize, bool)> {
    let mut buffer = [0; 4096];
    let read = transport.try_read(&mut buffer)?;
    Ok((read, is_end(&buffer[..read])))
}

/// The time for a client to take its answer. A server's answer that is passed on may have some 100 KiB, and the client
/// may be slow.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 * 1024;
