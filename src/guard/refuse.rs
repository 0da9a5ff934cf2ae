//! What a client hears that is not admitted, and how it is made sure that it hears it.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::config::policy::RejectWith;
use crate::limit::pending::{Ended, Pending, PendingRoom};
use crate::net::client::Client;
use crate::net::fault;
use crate::net::newcomer::Newcomer;
use crate::net::stream::{Stream, is_passing};
use crate::relay::clock::Clock;
use crate::wire::answer::{Answer, accepted_then_closed};

use super::reason::Reason;
use super::stop::{Cause, Stop};

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
        let bytes = accepted_then_closed(&offer.key, offer.protocol.as_deref(), TRY_AGAIN_LATER, reason.text());
        Self::Say { status: 101, bytes }
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
            Self::Close | Self::Reset => None,
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
    pub fn deliver_at_once(self, newcomer: &mut Newcomer) -> Option<Self> {
        let (status, mut bytes) = match self {
            Self::Close => return None,
            Self::Reset => {
                newcomer.reset_on_close();
                return None;
            }
            Self::Say { status, bytes } => (status, bytes),
        };
        fault::point("deliver");
        let is_last = newcomer.ahead().is_drained() && !ends_in_close_frame(status);
        let written = if is_last {
            newcomer.write_last(&bytes)
        } else {
            newcomer.write_at_once(&bytes)
        };
        match written {
            Ok(written) => drop(bytes.drain(..written)),
            Err(error) if is_passing(&error) => {}
            Err(_) => return None,
        }
        let is_done = is_last && bytes.is_empty();
        (!is_done).then_some(Self::Say { status, bytes })
    }

    /// Gives the client what it is to get. The seat is kept until the socket is closed, so that refused sockets are
    /// bounded as pending ones are.
    pub async fn deliver(self, client: Client, seat: Option<Pending>, room: &PendingRoom, clock: &Clock) {
        match self {
            Self::Close => {}
            Self::Reset => client.stream().reset_on_close(),
            Self::Say { status, bytes } => {
                let saying = say(&client, &bytes, ends_in_close_frame(status), room, clock);
                // Past its deadline it is owed its answer all the same, and that takes no longer than the linger.
                let gives_way = std::future::poll_fn(|cx| match seat.as_ref().map(|seat| seat.poll_ended(cx)) {
                    Some(Poll::Ready(Ended::GaveWay)) => Poll::Ready(()),
                    Some(Poll::Ready(Ended::Late) | Poll::Pending) | None => Poll::Pending,
                });
                tokio::select! {
                    biased;
                    () = saying => {}
                    () = gives_way => {}
                }
            }
        }
        drop(client);
        drop(seat);
    }
}

/// Writes `bytes`. Where more of the client's may follow, a plain close would reset the connection and take the answer
/// along: then our side half-closes, and what comes is thrown away for a while.
async fn say(client: &Client, bytes: &[u8], awaits_answer: bool, room: &PendingRoom, clock: &Clock) {
    let stream = client.stream();
    fault::point("deliver");
    let deadline = Some(clock.now() + WRITES);
    let written = clock.within(deadline, pin!(stream.write_all(bytes))).await;
    if !matches!(written, Some(Ok(()))) {
        return;
    }
    if client.is_drained() && !awaits_answer {
        return;
    }
    stream.shutdown_write();
    if !room.is_half_taken() {
        let _late = tokio::time::timeout(LINGER, discard(stream)).await;
    }
}

/// A close frame is answered by one, so something does follow it.
fn ends_in_close_frame(status: u16) -> bool {
    status == 101
}

/// Reads to the end of the stream, or until more came than an honest client sends in vain.
async fn discard(stream: &Stream) {
    let mut left = LINGER_BYTES;
    while left > 0 {
        if std::future::poll_fn(|cx| stream.poll_read_ready(cx)).await.is_err() {
            return;
        }
        match read_away(stream) {
            Ok(0) => return,
            Ok(read) => left = left.saturating_sub(read),
            Err(error) if is_passing(&error) => {}
            Err(_) => return,
        }
    }
}

fn read_away(stream: &Stream) -> io::Result<usize> {
    stream.try_read(&mut [0; 4096])
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
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 * 1024;
