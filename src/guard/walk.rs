//! The life of a connection, top-down.

use std::net::IpAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use crate::limit::pending::{Ended, Pending};
use crate::net::client::Client;
use crate::net::fault;
use crate::net::stream::{LegOptions, Stream};
use crate::relay::tunnel::{Relay, Tunnel};
use crate::wire::Step;
use crate::wire::head::{HeadCaps, HeadFault, HeadScan};
use crate::wire::proxy::{Announces, MAX_PROXY_HEADER, Source, announces, parse_proxy};

use super::Guard;
use super::decide::{Admitted, Passage, Peer, decide};
use super::handshake::{Connected, connect};
use super::identify::Hop;
use super::ledger::Entry;
use super::reason::Reason;
use super::refuse::Refusal;
use super::running::{Listener, Running};
use super::stop::Stop;
use super::worker::Worker;

/// An accepted socket that was given a pending seat.
#[derive(Debug)]
pub struct Arrival {
    /// The socket.
    pub stream: Stream,
    /// The socket's peer; `None` for a Unix peer.
    pub peer: Option<IpAddr>,
    /// Its right to be pending.
    pub seat: Pending,
    /// Where it came in.
    pub listener: Arc<Listener>,
    /// Its line in the ledger.
    pub entry: Entry,
}

/// The life of a connection until its tunnel is open, or until it has heard why there is none.
pub async fn serve(arrival: Arrival, mut running: Arc<Running>, worker: Arc<Worker>) {
    let Arrival {
        stream,
        peer,
        seat,
        listener,
        mut entry,
    } = arrival;
    let mut client = Client::new(stream);
    let mut seat = Some(seat);
    let door = Door {
        peer,
        listener: &listener,
        guard: worker.guard(),
    };
    let stop = match walk(&mut client, door, &mut seat, &mut running, &mut entry).await {
        Ok((passage, connected)) => return open(&passage, connected, client, entry, &running, &worker),
        Err(stop) => stop,
    };
    let refusal = Refusal::of(&stop, &running);
    entry.stopped(&stop, refusal.status(), &running);
    refusal.deliver(client, seat, &listener.room).await;
}

/// By which way a socket came in.
#[derive(Clone, Copy)]
struct Door<'a> {
    peer: Option<IpAddr>,
    listener: &'a Listener,
    guard: &'a Guard,
}

/// Each line's output is the next one's input, and the first that says no ends the walk. `running` is what was in force
/// when the socket came in; once it has sent its head, it is what decided on it.
async fn walk(
    client: &mut Client,
    door: Door<'_>,
    seat: &mut Option<Pending>,
    running: &mut Arc<Running>,
    entry: &mut Entry,
) -> Result<(Passage, Connected), Stop> {
    let pending = seat.as_mut().expect("whoever arrives has a seat");
    let hop = proxy_header(client, door, pending, running).await?;
    entry.came_from(hop);
    let Admitted { granted, passage } = head(client, hop, pending, door, running).await?;
    entry.admitted(&passage, granted, running);
    *seat = None;
    // Boxed, so that the many that are still pending do not pay for what only an admitted one needs.
    match Box::pin(connect(&passage, client, running, entry)).await {
        Ok(connected) => Ok((passage, connected)),
        Err(stop) => {
            client.look_again();
            Err(stop)
        }
    }
}

/// The near end of the connection: the peer, or whom a PROXY header of a trusted one names.
async fn proxy_header(client: &mut Client, door: Door<'_>, seat: &mut Pending, running: &Running) -> Result<Hop, Stop> {
    let Door { peer, listener, .. } = door;
    let identity = &running.policy.identity;
    if !listener.policy.accept_proxy_protocol || !identity.trusts(peer) {
        return Ok(Hop {
            address: peer,
            may_forward: true,
        });
    }
    fault::point("proxy_header");
    let source = loop {
        match parse_proxy(client.ahead()) {
            Ok(Step::Done { value, used }) => {
                client.consume(used);
                break value;
            }
            Ok(Step::More) => {}
            Err(fault) => return Err(Stop::seen(Reason::ProxyHeader, fault.to_string().as_bytes())),
        }
        // Nothing that comes here late or not at all is part of a head: no answer is owed.
        read_on(client, seat, MAX_PROXY_HEADER).await.map_err(|why| match why {
            Unread::Late => Stop::seen(Reason::ProxyHeader, b"unfinished at the deadline"),
            other => other.stop(),
        })?;
    };
    let hop = match source {
        Source::Address(address) => Hop {
            address: Some(address.ip().to_canonical()),
            may_forward: true,
        },
        Source::Socket => {
            return Ok(Hop {
                address: peer,
                may_forward: false,
            });
        }
    };
    let charged = (!identity.trusts(hop.address)).then(|| identity.key(hop.address));
    seat.rekey(charged).map_err(|_| Stop::new(Reason::PendingPerIp))?;
    Ok(hop)
}

/// Reads the request head and decides on it, by the policy that is in force when the head is whole: a slow one must not be
/// let in by limits, or into a zone, that a reload has removed meanwhile.
async fn head(
    client: &mut Client,
    hop: Hop,
    seat: &Pending,
    door: Door<'_>,
    running: &mut Arc<Running>,
) -> Result<Admitted, Stop> {
    let Door { listener, guard, .. } = door;
    let policy = &listener.policy;
    let caps = HeadCaps {
        max_size: policy.max_head_size,
        max_headers: policy.max_headers,
    };
    let mut scan = HeadScan::default();
    fault::point("head");
    loop {
        let proxy = if policy.accept_proxy_protocol {
            announces(client.ahead())
        } else {
            Announces::No
        };
        match proxy {
            // A second header, or one from a peer that has no business to send it.
            Announces::Yes => return Err(Stop::seen(Reason::ProxyHeader, b"a PROXY header where none may be")),
            Announces::Maybe => {}
            Announces::No => match scan.parse(client.ahead(), caps) {
                Ok(Step::Done { value: head, used }) => {
                    *running = guard.running();
                    let decided = decide(&head, Peer { hop, listener }, running, Instant::now());
                    let has_body = head.announces_body();
                    client.consume(used);
                    if has_body {
                        client.expect_more();
                    }
                    return decided;
                }
                Ok(Step::More) => {}
                Err(fault) => return Err(faulty(fault)),
            },
        }
        let has_begun = !client.ahead().is_empty();
        read_on(client, seat, caps.max_size + 1)
            .await
            .map_err(|why| match why {
                Unread::Late if has_begun => Stop::new(Reason::HeadTimeout),
                other => other.stop(),
            })?;
    }
}

fn faulty(fault: HeadFault) -> Stop {
    let reason = match fault {
        HeadFault::TooLarge | HeadFault::TooManyHeaders => Reason::HeadTooLarge,
        HeadFault::Bad(_) => Reason::BadRequest,
    };
    Stop::rule(reason, fault.to_string())
}

/// Why no more could be read of a pending socket.
enum Unread {
    Late,
    GaveWay,
    Gone,
}

impl Unread {
    /// The stop that says nothing to the client.
    fn stop(self) -> Stop {
        match self {
            Self::Late => Stop::silent(Reason::HeadTimeout),
            Self::GaveWay => Stop::new(Reason::PendingFull),
            Self::Gone => Stop::new(Reason::ClientGone),
        }
    }
}

/// Reads on while the seat lasts.
async fn read_on(client: &mut Client, seat: &Pending, limit: usize) -> Result<(), Unread> {
    std::future::poll_fn(|cx| {
        if let Poll::Ready(ended) = seat.poll_ended(cx) {
            return Poll::Ready(Err(match ended {
                Ended::Late => Unread::Late,
                Ended::GaveWay => Unread::GaveWay,
            }));
        }
        match client.poll_fill(limit, cx) {
            Poll::Pending => {
                if client.is_silent() {
                    seat.is_silent();
                }
                Poll::Pending
            }
            Poll::Ready(Ok(1..)) => {
                seat.heard();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Err(Unread::Gone)),
        }
    })
    .await
}

/// Opens the tunnel: from here on a small future of its own relays, and nothing of the handshake is kept.
fn open(passage: &Passage, connected: Connected, client: Client, mut entry: Entry, running: &Running, worker: &Worker) {
    let zone = &running.zones[passage.place.zone];
    let pace = zone.policy.pace;
    let Connected {
        server,
        lease,
        reply,
        reply_size,
    } = connected;
    let (client, from_client) = client.into_parts();
    client.prepare(LegOptions {
        keepalive: pace.keepalive,
        user_timeout: pace.stalled,
    });
    server.prepare(LegOptions {
        keepalive: pace.keepalive,
        user_timeout: None,
    });
    let now = Instant::now();
    entry.opened(now);
    let tunnel = Tunnel {
        client,
        server,
        from_client,
        from_server: reply,
        reply_size,
    };
    let tally = Arc::clone(&zone.state.tallies[worker.index()]);
    let pulse = Arc::default();
    let mut relay = Relay::new(tunnel, pace.half_close, Arc::clone(&pulse), tally);
    worker.watch(pulse, pace, now);
    fault::point("open");
    tokio::spawn(async move {
        // By reference: awaited by value it would stand in the future twice.
        let totals = (&mut relay).await;
        // The slot is free once the sockets are closed, and not before.
        drop(relay);
        drop(lease);
        entry.over(totals);
    });
}
