//! The handshake with a server: wsguard dials it, sends the request, and verifies its 101.

use std::io;
use std::pin::pin;
use std::time::{Duration, Instant};

use crate::net::accepted::AcceptedSocket;
use crate::net::address::Target;
use crate::net::clock::Clock;
use crate::net::dial::{self, Dialled};
use crate::net::fault;
use crate::net::transport::{Transport, is_transient};
use crate::upstream::lease::Lease;
use crate::upstream::server::Server;
use crate::wire::Step;
use crate::wire::http::body::{BodyRead, BodyState};
use crate::wire::http::server_reply::{Reply, ReplyScan};
use crate::wire::ws::extensions::Extensions;

use crate::reason::reject::RejectReason;
use crate::walk::decide::Handshake;
use crate::walk::dials::Dials;
use crate::walk::stop::Stop;

/// A server that has switched protocols.
#[derive(Debug)]
pub struct Connected {
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

/// A server's answer.
enum Answered {
    Switched(Connected),
    /// Something else, which the client gets.
    Other(Other),
}

/// An answer that opens no tunnel. Its body is not read yet.
struct Other {
    server: Transport,
    _lease: Lease,
    status: u16,
    head: Vec<u8>,
    body: BodyRead,
    first: Vec<u8>,
}

/// Dials a server and makes the handshake, all within the zone's `upgrade` timeout. If the client ends first, the
/// handshake ends at once.
pub async fn connect(handshake: &Handshake, client: &AcceptedSocket, mut dials: Dials<'_>) -> Result<Connected, Stop> {
    let connected = tokio::select! {
        biased;
        connected = connect_patiently(handshake, &mut dials) => connected,
        () = client.transport().ended() => Err(Stop::new(RejectReason::ClientGone)),
    };
    connected.map_err(|stop| {
        stop.by(handshake.client)
            .at(&handshake.destination)
            .offering(handshake.offer.as_ref())
    })
}

async fn connect_patiently(handshake: &Handshake, dials: &mut Dials<'_>) -> Result<Connected, Stop> {
    let zone = &handshake.destination.zone.policy;
    let clock = &handshake.destination.zone.limits.clock;
    let deadline = zone.upgrade.map(|upgrade| clock.now() + upgrade);
    let asking = pin!(ask(handshake, dials, zone.dial));
    match clock.within(deadline, asking).await {
        None => Err(Stop::new(RejectReason::UpstreamTimeout)),
        Some(Err(stop)) => Err(stop),
        Some(Ok(Answered::Switched(connected))) => Ok(connected),
        // Boxed, because few connections get this far.
        Some(Ok(Answered::Other(other))) => Err(Box::pin(pass_on(other, deadline, clock)).await),
    }
}

/// Sends the request to a server and reads its reply.
async fn ask(handshake: &Handshake, dials: &mut Dials<'_>, dial: Option<Duration>) -> Result<Answered, Stop> {
    let (server, sent, lease) = dial_any(handshake, dials, dial).await?;
    server
        .write_all(&handshake.request[sent..])
        .await
        .map_err(|_| bad_reply("the server ended the connection at once"))?;
    let mut bytes = Vec::new();
    for _ in 0..=MAX_INTERIMS {
        let (reply, used) = read_reply(&server, &mut bytes, &handshake.accept).await?;
        match reply {
            Reply::Switched(extensions) => {
                return Ok(Answered::Switched(Connected {
                    server,
                    lease,
                    reply: bytes,
                    reply_size: used,
                    extensions,
                }));
            }
            Reply::PassOn { status, head, body } => {
                bytes.drain(..used);
                let other = Other {
                    server,
                    _lease: lease,
                    status,
                    head,
                    body,
                    first: bytes,
                };
                return Ok(Answered::Other(other));
            }
            Reply::Interim => drop(bytes.drain(..used)),
        }
    }
    Err(bad_reply("too many interim replies"))
}

async fn read_reply(server: &Transport, bytes: &mut Vec<u8>, accept: &str) -> Result<(Reply, usize), Stop> {
    let mut scan = ReplyScan::default();
    loop {
        match scan.parse(bytes, accept) {
            Ok(Step::Done { value, used }) => {
                fault::point("reply");
                return Ok((value, used));
            }
            Ok(Step::More) => {}
            Err(fault) => return Err(bad_reply(fault.to_string())),
        }
        if !matches!(read_more(server, bytes).await, Ok(1..)) {
            return Err(bad_reply("the server ended the connection within its reply"));
        }
    }
}

fn bad_reply(what: impl Into<String>) -> Stop {
    Stop::because(RejectReason::UpstreamBadReply, what.into())
}

/// Dials the servers, each once, best first. A server that can't be reached was sent nothing, so the next one is tried.
/// Returns the socket, the number of bytes of the request that were sent with the dial, and the lease.
async fn dial_any(
    handshake: &Handshake,
    dials: &mut Dials<'_>,
    limit: Option<Duration>,
) -> Result<(Transport, usize, Lease), Stop> {
    let attempts = handshake.destination.upstream.attempts(handshake.client.key);
    let mut reason = RejectReason::UpstreamDown;
    for mut lease in attempts {
        dials.begin(lease.server());
        match dial_within(
            limit,
            lease.server(),
            &handshake.request,
            &handshake.destination.zone.limits.clock,
        )
        .await
        {
            Some(Ok(Dialled {
                transport: stream,
                sent,
            })) => {
                fault::point("dial");
                dials.succeeded();
                return Ok((stream, sent, lease));
            }
            Some(Err(error)) if dial::is_out_of_room(&error) => {
                return Err(Stop::because(RejectReason::ProcessFull, error.to_string()));
            }
            Some(Err(error)) => {
                dials.failed(RejectReason::UpstreamRefused, error.to_string());
                if reason != RejectReason::UpstreamTimeout {
                    reason = RejectReason::UpstreamRefused;
                }
            }
            None => {
                dials.failed(RejectReason::UpstreamTimeout, "no answer within `dial`".to_owned());
                reason = RejectReason::UpstreamTimeout;
            }
        }
        lease.failed();
    }
    Err(Stop::new(reason))
}

/// [`dial_one`]; `None` when `limit` was over first.
async fn dial_within(
    limit: Option<Duration>,
    server: &Server,
    request: &[u8],
    clock: &Clock,
) -> Option<io::Result<Dialled>> {
    let dialling = pin!(dial_one(server, request));
    let deadline = limit.map(|limit| clock.now() + limit);
    clock.within(deadline, dialling).await
}

/// One attempt at one server. Its addresses are tried in turn, since a name may have addresses where nothing listens.
async fn dial_one(server: &Server, request: &[u8]) -> io::Result<Dialled> {
    if let Target::Unix(path) = server.target() {
        return dial::unix(path).await;
    }
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for address in server.addresses().iter() {
        match dial::tcp(*address, request).await {
            Ok(dialled) => return Ok(dialled),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The server's own answer, with as much of its body as comes and fits. The client can see if it is not complete.
async fn pass_on(mut other: Other, deadline: Option<Instant>, clock: &Clock) -> Stop {
    let mut content = Vec::new();
    let cut = match clock.within(deadline, pin!(read_body(&mut other, &mut content))).await {
        Some(Ok(())) => None,
        Some(Err(cut)) => Some(cut),
        None => Some("the server's reply did not come to its end in time"),
    };
    content.truncate(MAX_BODY);
    let mut answer = other.head;
    other.body.write(&content, cut.is_none(), &mut answer);
    Stop::server(other.status, answer, cut)
}

/// Reads a body to its end. An error says why it is not complete.
async fn read_body(other: &mut Other, content: &mut Vec<u8>) -> Result<(), &'static str> {
    let mut bytes = std::mem::take(&mut other.first);
    loop {
        // With room for one byte more than fits, a body that just fits is read to its end.
        match other.body.feed(&bytes, content, MAX_BODY + 1) {
            Ok(BodyState::Done) if content.len() > MAX_BODY => return Err("the server's reply has more than 64 KiB"),
            Ok(BodyState::Done) => return Ok(()),
            Ok(BodyState::More) => {}
            Err(_) => return Err("the server's reply is malformed"),
        }
        bytes.clear();
        match read_more(&other.server, &mut bytes).await {
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
