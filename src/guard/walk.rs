//! The life of a connection, top-down: it arrives, is listened to for as long as it has more to say
//! (`Listening`), is taken to its server (`pass`) once it is admitted, and is open (`Open`). Whoever is refused on
//! the way hears it from `turn_away` or `deliver`. Each stage hands what it has made to the next, and none reaches
//! back.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::limit::pending::{Ended, Pending};
use crate::net::client::Client;
use crate::net::fault;
use crate::net::newcomer::Newcomer;
use crate::net::stream::{LegOptions, is_passing};
use crate::relay::tunnel::{Conditions, Relay, Tunnel};
use crate::upstream::lease::Lease;

use super::decide::{Admitted, Passage};
use super::greeting::{Greeting, Unheard};
use super::handshake::{Connected, connect};
use super::ledger::Entry;
use super::reason::Reason;
use super::refuse::Refusal;
use super::running::{Listener, Running};
use super::stop::Stop;
use super::worker::Worker;

/// An accepted socket that was given a pending seat. Its fields are dropped in this order: the seat is free once the socket
/// is closed, and the entry tells of what is over.
#[derive(Debug)]
pub struct Arrival {
    /// The socket.
    pub newcomer: Newcomer,
    /// The socket's peer; `None` for a Unix peer without an address.
    pub peer: Option<IpAddr>,
    /// Its right to be pending.
    pub seat: Pending,
    /// Where it came in.
    pub listener: Arc<Listener>,
    /// Its line in the ledger.
    pub entry: Entry,
}

/// Where the life of a connection begins: what it has said already is heard before the runtime knows its socket, so that
/// who is refused at once costs a few system calls and no task. Only who is admitted, or has more to say, walks on.
pub fn arrive(mut arrival: Arrival, mut running: Arc<Running>, worker: &Arc<Worker>) {
    let mut greeting = Greeting::begin(arrival.peer, &arrival.listener, &running);
    let heard = match arrival.newcomer.read_at_once(greeting.limit(&arrival.listener)) {
        Ok(1..) => {
            arrival.seat.heard();
            greeting.hear(
                arrival.newcomer.ahead(),
                &mut arrival.seat,
                &arrival.listener,
                worker.guard(),
                &mut running,
            )
        }
        Err(ref error) if is_passing(error) => None,
        Ok(0) | Err(_) => Some(Err(greeting.broken_off(Unheard::Gone, false))),
    };
    arrival.entry.came_from(greeting.hop());
    let passage = match heard {
        Some(Err(stop)) => return turn_away(&stop, arrival, &running),
        Some(Ok(admitted)) => Some(admit(admitted, &mut arrival.entry, &running)),
        None => None,
    };
    let Arrival {
        newcomer,
        seat,
        listener,
        mut entry,
        ..
    } = arrival;
    let Some(client) = register(newcomer, &mut entry, &running) else {
        return;
    };
    let worker = Arc::clone(worker);
    if let Some(passage) = passage {
        drop(seat);
        tokio::spawn(pass(passage, client, listener, entry, running, worker));
    } else {
        tokio::spawn(Listening(Some(Listened {
            client,
            greeting,
            seat,
            listener,
            entry,
            running,
            worker,
        })));
    }
}

/// A socket that has more to say. There may be thousands, so this is a future by hand: one that the compiler makes holds
/// most of it twice.
struct Listening(Option<Listened>);

struct Listened {
    client: Client,
    greeting: Greeting,
    seat: Pending,
    listener: Arc<Listener>,
    entry: Entry,
    running: Arc<Running>,
    worker: Arc<Worker>,
}

impl Future for Listening {
    type Output = ();

    /// Listens until the greeting is whole and decided on, and has another task do what is to be done then.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(listened) = &mut self.0 else {
            return Poll::Ready(());
        };
        let heard = std::task::ready!(listened.poll_heard(cx));
        if let Some(listened) = self.0.take() {
            listened.go_on(heard);
        }
        Poll::Ready(())
    }
}

impl Listened {
    fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<Result<Admitted, Stop>> {
        loop {
            let has_begun = !self.client.ahead().bytes().is_empty();
            let limit = self.greeting.limit(&self.listener);
            if let Err(why) = std::task::ready!(poll_more(&mut self.client, &self.seat, limit, cx)) {
                return Poll::Ready(Err(self.greeting.broken_off(why, has_begun)));
            }
            let heard = self.greeting.hear(
                self.client.ahead(),
                &mut self.seat,
                &self.listener,
                self.worker.guard(),
                &mut self.running,
            );
            self.entry.came_from(self.greeting.hop());
            if let Some(heard) = heard {
                return Poll::Ready(heard);
            }
        }
    }

    fn go_on(self, heard: Result<Admitted, Stop>) {
        let Self {
            client,
            seat,
            listener,
            mut entry,
            running,
            worker,
            ..
        } = self;
        match heard {
            Ok(admitted) => {
                let passage = admit(admitted, &mut entry, &running);
                drop(seat);
                tokio::spawn(pass(passage, client, listener, entry, running, worker));
            }
            Err(stop) => {
                let refusal = Refusal::of(&stop, &running);
                entry.stopped(&stop, refusal.status(), &running);
                if refusal == Refusal::Close {
                    // In this order, as ever.
                    drop(client);
                    drop(seat);
                    drop(entry);
                } else {
                    tokio::spawn(deliver(refusal, client, Some(seat), listener, entry));
                }
            }
        }
    }
}

/// Reads on while the seat lasts.
fn poll_more(client: &mut Client, seat: &Pending, limit: usize, cx: &mut Context<'_>) -> Poll<Result<(), Unheard>> {
    if let Poll::Ready(ended) = seat.poll_ended(cx) {
        return Poll::Ready(Err(match ended {
            Ended::Late => Unheard::Late,
            Ended::GaveWay => Unheard::GaveWay,
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
        Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Err(Unheard::Gone)),
    }
}

/// From here on its permit is the entry's to give back.
fn admit(admitted: Admitted, entry: &mut Entry, running: &Running) -> Passage {
    let Admitted {
        mut granted,
        mut passage,
    } = admitted;
    passage.shares = granted.shares.take();
    entry.admitted(&passage, granted, running);
    passage
}

/// Takes an admitted client to its server, and opens the tunnel; or has it hear why there is none.
#[allow(clippy::manual_async_fn)] // An `async fn` would hold each of its arguments twice.
fn pass(
    passage: Passage,
    mut client: Client,
    listener: Arc<Listener>,
    mut entry: Entry,
    running: Arc<Running>,
    worker: Arc<Worker>,
) -> impl Future<Output = ()> {
    async move {
        let stop = match connect(&passage, &client, &running, &mut entry).await {
            Ok(connected) => return open(&passage, connected, client, entry, &running, &worker),
            Err(stop) => stop,
        };
        client.look_again();
        let refusal = Refusal::of(&stop, &running);
        entry.stopped(&stop, refusal.status(), &running);
        tokio::spawn(deliver(refusal, client, None, listener, entry));
    }
}

/// Opens the tunnel: from here on a small future of its own relays, and nothing of the handshake is kept.
fn open(passage: &Passage, connected: Connected, client: Client, mut entry: Entry, running: &Running, worker: &Worker) {
    let zone = &running.zones[passage.place.zone];
    let terms = Arc::clone(&zone.terms);
    let Connected {
        server,
        lease,
        reply,
        reply_size,
    } = connected;
    client.prepare(LegOptions {
        keepalive: terms.pace.keepalive,
        user_timeout: terms.pace.stalled,
    });
    let (client, from_client) = client.into_parts();
    server.prepare_dialled();
    let now = Instant::now();
    entry.opened(now);
    let tunnel = Tunnel {
        client,
        server,
        from_client,
        from_server: reply,
        reply_size,
    };
    let conditions = Conditions {
        mode: running.policy.upstreams[passage.place.upstream].relay,
        terms: Arc::clone(&terms),
        shares: passage.shares.clone(),
        pulse: Arc::default(),
        tally: Arc::clone(&zone.state.tallies[worker.index()]),
    };
    worker.watch(Arc::clone(&conditions.pulse), terms, now);
    let relay = Relay::new(tunnel, conditions);
    fault::point("open");
    tokio::spawn(Open {
        relay,
        _lease: lease,
        entry,
    });
}

/// An open connection. Its fields are dropped in this order: the slot is free once the sockets are closed, and not before.
struct Open {
    relay: Relay,
    _lease: Lease,
    entry: Entry,
}

impl Future for Open {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let totals = std::task::ready!(Pin::new(&mut self.relay).poll(cx));
        self.entry.over(totals);
        Poll::Ready(())
    }
}

/// Has a client hear a refusal. The entry is dropped last: it tells of what is over.
async fn deliver(refusal: Refusal, client: Client, seat: Option<Pending>, listener: Arc<Listener>, entry: Entry) {
    refusal.deliver(client, seat, &listener.room).await;
    drop(entry);
}

/// Refuses a newcomer; where what it is owed takes waiting, a task sees to that.
fn turn_away(stop: &Stop, mut arrival: Arrival, running: &Running) {
    let refusal = Refusal::of(stop, running);
    arrival.entry.stopped(stop, refusal.status(), running);
    let Some(rest) = refusal.deliver_at_once(&mut arrival.newcomer) else {
        return;
    };
    let Arrival {
        newcomer,
        seat,
        listener,
        entry,
        ..
    } = arrival;
    // Where there is no room for it the machine has other troubles than one that hears half of its refusal.
    if let Ok(client) = Client::register(newcomer) {
        tokio::spawn(deliver(rest, client, Some(seat), listener, entry));
    }
}

/// Makes a socket known to the runtime. Where that fails the machine has no room for one more.
fn register(newcomer: Newcomer, entry: &mut Entry, running: &Running) -> Option<Client> {
    Client::register(newcomer)
        .inspect_err(|error| {
            let stop = Stop::seen(Reason::ProcessFull, error.to_string().as_bytes());
            entry.stopped(&stop, None, running);
        })
        .ok()
}
