//! What a client hears that is not admitted, and how it is made sure that it hears it.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::config::policy::RejectWith;
use crate::limit::pending::{Ended, Pending, PendingRoom};
use crate::net::accepted::AcceptedSocket;
use crate::net::fault;
use crate::net::transport::Unregistered;
use crate::net::transport::{Transport, is_transient};
use crate::relay::clock::Clock;
use crate::wire::http::answer::{Answer, accepted};
use crate::wire::ws::engine_io;
use crate::wire::ws::frame::close_frame;
use crate::wire::ws::header::Sender;
use crate::wire::ws::scanner::FrameScanner;

use crate::live::listener::Listener;
use crate::telemetry::reason::Reason;
use crate::walk::record::Record;
use crate::walk::stop::{Cause, Stop};

/// What to do with a socket that gets no tunnel.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// These bytes, which have this status, then close.
    Say {
        /// As the log has it.
        status: u16,
        /// What is written.
        bytes: Vec<u8>,
    },
    /// A WebSocket is opened and closed again, `held` for a while between the two: many clients come back at once from one
    /// that had opened, as often as it is closed at once.
    Closed {
        /// The 101, and what stands before the close frame.
        opening: Vec<u8>,
        /// The close frame.
        close: Vec<u8>,
        /// How long they are apart.
        held: Duration,
    },
    /// No bytes, close.
    Close,
    /// No bytes, reset.
    Reset,
}

impl Refusal {
    /// The one place that decides what a client hears of a stop.
    pub fn of(stop: &Stop) -> Self {
        let reason = match &stop.cause {
            Cause::Health { is_serving } => return Self::health(stop, *is_serving),
            Cause::Server { status, answer } => {
                return Self::Say {
                    status: *status,
                    bytes: answer.clone(),
                };
            }
            Cause::Wordless(_) | Cause::Silent(_) => return Self::Close,
            Cause::Refused(reason) => *reason,
        };
        let Some(status) = reason.status() else {
            return Self::Close;
        };
        let zone = stop.known().place.as_ref().map(|place| &place.zone.policy);
        match zone.map(|zone| zone.reject_with) {
            Some(RejectWith::Drop) if reason.may_be_restyled() => Self::Reset,
            Some(RejectWith::Close) if reason.may_be_restyled() => Self::closed(stop, reason),
            _ => Self::answered(stop, reason, status, zone.map(|zone| zone.retry_after)),
        }
    }

    fn health(stop: &Stop, is_serving: bool) -> Self {
        let (status, text) = if is_serving {
            (200, "OK")
        } else {
            (503, Reason::Draining.text())
        };
        Self::say(
            stop,
            Answer {
                status,
                headers: &[],
                text,
            },
        )
    }

    fn closed(stop: &Stop, reason: Reason) -> Self {
        let Some(offer) = &stop.known().offer else {
            return Self::Close;
        };
        let mut opening = accepted(&offer.key, offer.protocol.as_deref());
        if offer.is_engine_io {
            opening.extend(engine_io::error_frame(reason.text()));
        }
        Self::Closed {
            opening,
            close: close_frame(TRY_AGAIN_LATER, reason.text(), None),
            // A process that is about to end waits for nobody.
            held: if reason == Reason::Draining {
                Duration::ZERO
            } else {
                hold()
            },
        }
    }

    fn say(stop: &Stop, answer: Answer<'_>) -> Self {
        Self::Say {
            status: answer.status,
            bytes: if stop.known().by_head {
                answer.render_head()
            } else {
                answer.render()
            },
        }
    }

    /// The status that the client hears.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Say { status, .. } => Some(*status),
            Self::Closed { .. } => Some(101),
            Self::Close | Self::Reset => None,
        }
    }

    /// Whether the client is held for a while before it hears the end of it.
    pub fn is_held(&self) -> bool {
        matches!(self, Self::Closed { held, .. } if !held.is_zero())
    }

    /// The same without holding the client, where there is no seat for it.
    #[must_use]
    pub fn at_once(self) -> Self {
        match self {
            Self::Closed { opening, close, .. } => Self::Closed {
                opening,
                close,
                held: Duration::ZERO,
            },
            other => other,
        }
    }

    fn answered(stop: &Stop, reason: Reason, status: u16, retry_after: Option<Duration>) -> Self {
        let retry_after = jittered(retry_after.unwrap_or_default()).to_string();
        let mut headers: Vec<(&str, &str)> = Vec::with_capacity(2);
        match reason {
            Reason::NotUpgrade => headers.push(("Upgrade", "websocket")),
            Reason::BadVersion => headers.push(("Sec-WebSocket-Version", "13")),
            _ if status == 429 || status == 503 => headers.push(("Retry-After", &retry_after)),
            _ => {}
        }
        headers.push(("X-Wsguard-Reason", reason.word()));
        let text = stop.known().rule.as_deref().unwrap_or(reason.text());
        Self::say(
            stop,
            Answer {
                status,
                headers: &headers,
                text,
            },
        )
    }

    /// Gives a newcomer what it is to get, as far as that takes no waiting. What remains, if anything does, is for
    /// [`Refusal::deliver`].
    pub fn deliver_at_once(self, newcomer: &mut AcceptedSocket<Unregistered>) -> Option<Self> {
        let (status, mut bytes) = match self {
            Self::Close => return None,
            Self::Reset => {
                newcomer.transport().reset_on_close();
                return None;
            }
            Self::Say { status, bytes } => (status, bytes),
            Self::Closed { .. } => return Some(self),
        };
        fault::point("deliver");
        let is_last = newcomer.read_ahead().is_drained();
        let written = if is_last {
            newcomer.transport().write_last(&bytes)
        } else {
            newcomer.transport().write_now(&bytes)
        };
        match written {
            Ok(written) => drop(bytes.drain(..written)),
            Err(error) if is_transient(&error) => {}
            Err(_) => return None,
        }
        let is_done = is_last && bytes.is_empty();
        (!is_done).then_some(Self::Say { status, bytes })
    }

    /// Gives the client what it is to get. The seat is kept until the socket is closed, so that refused sockets are
    /// bounded as pending ones are.
    pub async fn deliver(self, client: AcceptedSocket, seat: Option<Pending>, room: &PendingRoom, clock: &Clock) {
        match self {
            Self::Close => {}
            Self::Reset => client.transport().reset_on_close(),
            Self::Say { bytes, .. } => {
                let saying = async {
                    if write(&client, &bytes, clock).await && !client.is_drained() {
                        linger(&client, room).await;
                    }
                };
                tokio::select! {
                    biased;
                    () = saying => {}
                    () = gives_way(seat.as_ref()) => {}
                }
            }
            Self::Closed { opening, close, held } => {
                if let Some(seat) = &seat {
                    seat.is_answered();
                }
                let holding = async {
                    if !write(&client, &opening, clock).await {
                        return false;
                    }
                    if !held.is_zero() {
                        let _over = tokio::time::timeout(held, says_goodbye(client.transport())).await;
                    }
                    true
                };
                let is_owed = tokio::select! {
                    biased;
                    is_owed = holding => is_owed,
                    // Whoever wants the seat waits for nobody: it hears the end of it now.
                    () = gives_way(seat.as_ref()) => {
                        let _full = client.transport().try_write(&close);
                        false
                    }
                };
                if is_owed {
                    let ending = async {
                        if write(&client, &close, clock).await {
                            linger(&client, room).await;
                        }
                    };
                    tokio::select! {
                        biased;
                        () = ending => {}
                        () = gives_way(seat.as_ref()) => {}
                    }
                }
            }
        }
        drop(client);
        drop(seat);
    }
}

/// Delivers a refusal to a client that the runtime knows. The record is dropped last: it is written when all is over. That of
/// a client that is held is dropped first, since all is decided and the slot is not to be held with it.
pub async fn deliver(
    refusal: Refusal,
    client: AcceptedSocket,
    seat: Option<Pending>,
    listener: Arc<Listener>,
    clock: Arc<Clock>,
    record: Record,
) {
    let record = (!refusal.is_held()).then_some(record);
    refusal.deliver(client, seat, &listener.room, &clock).await;
    drop(record);
}

/// Writes `bytes`; says whether they could be.
async fn write(client: &AcceptedSocket, bytes: &[u8], clock: &Clock) -> bool {
    fault::point("deliver");
    let deadline = Some(clock.now() + WRITES);
    let written = clock.within(deadline, pin!(client.transport().write_all(bytes))).await;
    matches!(written, Some(Ok(())))
}

/// Where more of the client's may follow, a plain close would reset the connection and take the answer along: then our side
/// half-closes, and what comes is thrown away for a while.
async fn linger(client: &AcceptedSocket, room: &PendingRoom) {
    client.transport().shutdown_write();
    if !room.is_half_taken() {
        let _late = tokio::time::timeout(LINGER, discard(client.transport())).await;
    }
}

/// Waits until its seat is wanted. Past its deadline it is owed its answer all the same, and that takes no longer than the
/// hold and the linger.
async fn gives_way(seat: Option<&Pending>) {
    std::future::poll_fn(|cx| match seat.map(|seat| seat.poll_ended(cx)) {
        Some(Poll::Ready(Ended::GaveWay)) => Poll::Ready(()),
        Some(Poll::Ready(Ended::Late) | Poll::Pending) | None => Poll::Pending,
    })
    .await;
}

/// Waits until the client ends by itself, by a close frame or without; what else it says is thrown away, and too much of it
/// is an end as well.
async fn says_goodbye(stream: &Transport) {
    let (mut scanner, mut left) = (FrameScanner::new(Sender::Client), LINGER_BYTES);
    while left > 0 && !scanner.saw_close() {
        if std::future::poll_fn(|cx| stream.poll_read_ready(cx)).await.is_err() {
            return;
        }
        let mut room = [0; 512];
        match stream.try_read(&mut room) {
            Ok(0) => return,
            Ok(read) => {
                scanner.scan(&room[..read]);
                left = left.saturating_sub(read);
            }
            Err(error) if is_transient(&error) => {}
            Err(_) => return,
        }
    }
}

/// Reads to the end of the stream, or until more came than an honest client sends in vain.
async fn discard(stream: &Transport) {
    let mut left = LINGER_BYTES;
    while left > 0 {
        if std::future::poll_fn(|cx| stream.poll_read_ready(cx)).await.is_err() {
            return;
        }
        match read_away(stream) {
            Ok(0) => return,
            Ok(read) => left = left.saturating_sub(read),
            Err(error) if is_transient(&error) => {}
            Err(_) => return,
        }
    }
}

fn read_away(stream: &Transport) -> io::Result<usize> {
    stream.try_read(&mut [0; 4096])
}

/// How long a client is held that hears its refusal by close frame. By chance, so that those refused together do not return
/// together.
fn hold() -> Duration {
    HOLD + Duration::from_millis(RandomState::new().hash_one(()) % 1000)
}

/// Seconds for Retry-After: up to as much again is added, so that those refused together do not return together.
fn jittered(retry_after: Duration) -> u64 {
    let base = retry_after.as_secs().max(1);
    base + RandomState::new().hash_one(()) % (base + 1)
}

/// 1013, "try again later" (the registry of close codes of RFC 6455 section 11.7).
const TRY_AGAIN_LATER: u16 = 1013;
/// A server's answer that is passed on may be some 100 KiB, and the client slow.
const WRITES: Duration = Duration::from_secs(10);
/// As long at least, and as much again at most.
const HOLD: Duration = Duration::from_secs(1);
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 * 1024;
