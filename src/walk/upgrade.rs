//! The handshake with a server: wsguard dials it, sends the request, and verifies its 101.

use std::io;
use std::pin::pin;
use std::time::Instant;

use crate::live::destination::Destination;
use crate::net::accepted::AcceptedSocket;
use crate::net::clock::Clock;
use crate::net::fault;
use crate::net::transport::{Transport, is_transient};
use crate::reason::reject::RejectReason;
use crate::upstream::connect::{self as upstream, ConnectError, Connection, Demand};
use crate::upstream::lease::Lease;
use crate::upstream::outcome::Outcome;
use crate::wire::Step;
use crate::wire::http::body::{BodyRead, BodyState};
use crate::wire::http::server_reply::{Reply, ReplyScan};
use crate::wire::ws::extensions::Extensions;

use crate::walk::decide::Handshake;
use crate::walk::dials::Dials;
use crate::walk::stop::Stop;

/// A server that has switched protocols.
#[derive(Debug)]
pub struct Upgraded {
    /// Its socket.
    pub server: Transport,
    /// The lease on the server.
    pub lease: Lease,
    /// Its 101, and the bytes behind it.
    pub reply: Vec<u8>,
    /// How many of those bytes are the 101.
    pub reply_size: usize,
    /// The extensions that it agreed to.
    pub extensions: Extensions,
}

/// A server's answer to the request.
enum Answer {
    /// Its 101.
    Switched {
        bytes: Vec<u8>,
        size: usize,
        extensions: Extensions,
    },
    /// Another reply, which is passed on to the client. Its body is not read yet.
    Other(Other),
}

struct Other {
    status: u16,
    head: Vec<u8>,
    body: BodyRead,
    first: Vec<u8>,
}

/// Dials a server and makes the handshake, all within the zone's `upgrade` timeout. If the client ends first, the
/// handshake ends at once.
pub async fn upgrade(handshake: &Handshake, client: &AcceptedSocket, mut dials: Dials<'_>) -> Result<Upgraded, Stop> {
    let upgraded = tokio::select! {
        biased;
        upgraded = upgrade_in_time(handshake, &mut dials) => upgraded,
        () = client.transport().ended() => Err(Stop::new(RejectReason::ClientGone)),
    };
    upgraded.map_err(|stop| {
        stop.by(handshake.client)
            .at(&handshake.destination)
            .offering(handshake.offer.as_ref())
    })
}

async fn upgrade_in_time(handshake: &Handshake, dials: &mut Dials<'_>) -> Result<Upgraded, Stop> {
    let zone = &handshake.destination.zone.policy;
    let clock = &handshake.destination.zone.limits.clock;
    let deadline = zone.upgrade.map(|upgrade| clock.now() + upgrade);
    let dialled = {
        let dialling = pin!(dial(handshake, dials));
        clock.within(deadline, dialling).await
    };
    let Connection { transport, sent, lease } =
        dialled.unwrap_or_else(|| Err(Stop::new(RejectReason::UpstreamTimeout)))?;
    let answered = {
        let asking = pin!(ask(handshake, &transport, sent));
        clock.within(deadline, asking).await
    };
    lease.report(match &answered {
        None => Outcome::TimedOut,
        Some(Err(_)) => Outcome::BadReply,
        Some(Ok(Answer::Other(other))) => Outcome::of_status(other.status),
        Some(Ok(Answer::Switched { .. })) => Outcome::Switched,
    });
    match answered {
        None => Err(Stop::new(RejectReason::UpstreamTimeout)),
        Some(Err(fault)) => Err(Stop::because(RejectReason::UpstreamBadReply, fault)),
        Some(Ok(Answer::Switched {
            bytes,
            size,
            extensions,
        })) => Ok(Upgraded {
            server: transport,
            lease,
            reply: bytes,
            reply_size: size,
            extensions,
        }),
        // Boxed, because few connections get this far.
        Some(Ok(Answer::Other(other))) => Err(Box::pin(pass_on(other, &transport, deadline, clock)).await),
    }
}

async fn dial(handshake: &Handshake, dials: &mut Dials<'_>) -> Result<Connection, Stop> {
    let Destination { zone, upstream, .. } = &*handshake.destination;
    let demand = Demand {
        client: handshake.client.key,
        request: &handshake.request,
        dial: zone.policy.dial,
    };
    let connected = upstream::connect(upstream, demand, &zone.limits.clock, |server, event| {
        dials.record(server, event);
    });
    connected.await.map_err(|error| match error {
        ConnectError::NoneUp => Stop::new(RejectReason::UpstreamDown),
        ConnectError::Unreachable(causes) => Stop::because(RejectReason::UpstreamRefused, causes.to_string()),
        ConnectError::TimedOut(causes) => Stop::because(RejectReason::UpstreamTimeout, causes.to_string()),
        ConnectError::NoLocalPort | ConnectError::OutOfRoom(_) => {
            Stop::because(RejectReason::ProcessFull, error.to_string())
        }
    })
}

/// Sends what is left of the request, and reads the server's answer. The error is a text that says what is wrong with
/// it.
async fn ask(handshake: &Handshake, server: &Transport, sent: usize) -> Result<Answer, String> {
    let rest = server.write_all(&handshake.request[sent..]).await;
    rest.map_err(|_| "the server ended the connection at once")?;
    let mut bytes = Vec::new();
    for _ in 0..=MAX_INTERIMS {
        let (reply, size) = read_reply(server, &mut bytes, &handshake.accept).await?;
        match reply {
            Reply::Switched(extensions) => {
                return Ok(Answer::Switched {
                    bytes,
                    size,
                    extensions,
                });
            }
            Reply::PassOn { status, head, body } => {
                bytes.drain(..size);
                return Ok(Answer::Other(Other {
                    status,
                    head,
                    body,
                    first: bytes,
                }));
            }
            Reply::Interim => drop(bytes.drain(..size)),
        }
    }
    Err("too many interim replies".to_owned())
}

async fn read_reply(server: &Transport, bytes: &mut Vec<u8>, accept: &str) -> Result<(Reply, usize), String> {
    let mut scan = ReplyScan::default();
    loop {
        match scan.parse(bytes, accept) {
            Ok(Step::Done { value, used }) => {
                fault::point("reply");
                return Ok((value, used));
            }
            Ok(Step::More) => {}
            Err(fault) => return Err(fault.to_string()),
        }
        if !matches!(read_more(server, bytes).await, Ok(1..)) {
            return Err("the server ended the connection within its reply".to_owned());
        }
    }
}

/// Passes on the server's own answer, with as much of its body as comes and fits. The client can see if it is not
/// complete.
async fn pass_on(mut other: Other, server: &Transport, deadline: Option<Instant>, clock: &Clock) -> Stop {
    let mut content = Vec::new();
    let cut = match clock
        .within(deadline, pin!(read_body(&mut other, server, &mut content)))
        .await
    {
        Some(Ok(())) => None,
        Some(Err(cut)) => Some(cut),
        None => Some("the server's reply did not come to its end in time"),
    };
    content.truncate(MAX_BODY);
    let mut answer = other.head;
    other.body.write(&content, cut.is_none(), &mut answer);
    Stop::server(other.status, answer, cut)
}

/// Reads a body to its end. The error is a text that says why the body is not complete.
async fn read_body(other: &mut Other, server: &Transport, content: &mut Vec<u8>) -> Result<(), &'static str> {
    let mut bytes = std::mem::take(&mut other.first);
    loop {
        // There is room for one byte above the limit, so that a body of exactly the limit is still read to its end.
        match other.body.feed(&bytes, content, MAX_BODY + 1) {
            Ok(BodyState::Done) if content.len() > MAX_BODY => return Err("the server's reply has more than 64 KiB"),
            Ok(BodyState::Done) => return Ok(()),
            Ok(BodyState::More) => {}
            Err(_) => return Err("the server's reply is malformed"),
        }
        bytes.clear();
        match read_more(server, &mut bytes).await {
            Ok(1..) => {}
            Ok(0) if other.body.at_end_of_stream() => return Ok(()),
            Ok(0) | Err(_) => return Err("the server ended the connection within its reply"),
        }
    }
}

async fn read_more(server: &Transport, into: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        std::future::poll_fn(|cx| server.poll_read_ready(cx)).await?;
        match read_now(server, into) {
            Err(error) if is_transient(&error) => {}
            other => return other,
        }
    }
}

fn read_now(server: &Transport, into: &mut Vec<u8>) -> io::Result<usize> {
    let mut room = [0; READ_SIZE];
    let read = server.try_read(&mut room)?;
    into.extend_from_slice(&room[..read]);
    Ok(read)
}

const MAX_INTERIMS: usize = 8;
const MAX_BODY: usize = 64 * 1024;
const READ_SIZE: usize = 4096;
