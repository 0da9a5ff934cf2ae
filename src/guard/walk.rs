//! The life of a connection, top-down.

use std::net::IpAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use crate::limit::pending::{Ended, Pending};
use crate::net::client::Client;
use crate::net::fault;
use crate::net::newcomer::Newcomer;
use crate::net::stream::{LegOptions, is_passing};
use crate::relay::tunnel::{Relay, Tunnel};

use super::Guard;
use super::decide::{Admitted, Passage};
use super::greeting::{Greeting, Unheard};
use super::handshake::{Connected, connect};
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
pub fn arrive(arrival: Arrival, mut running: Arc<Running>, worker: &Arc<Worker>) {
    let Arrival {
        mut newcomer,
        peer,
        mut seat,
        listener,
        mut entry,
    } = arrival;
    let mut greeting = Greeting::begin(peer, &listener, &running);
    let heard = match newcomer.read_at_once(greeting.limit(&listener)) {
        Ok(1..) => {
            seat.heard();
            greeting.hear(newcomer.ahead(), &mut seat, &listener, worker.guard(), &mut running)
        }
        Err(ref error) if is_passing(error) => None,
        Ok(0) | Err(_) => Some(Err(greeting.broken_off(Unheard::Gone, false))),
    };
    entry.came_from(greeting.hop());
    let said = match heard {
        Some(Ok(admitted)) => Said::All(admit(admitted, &mut entry, &running)),
        None => Said::Part(greeting, seat),
        Some(Err(stop)) => return turn_away(&stop, newcomer, seat, listener, entry, &running),
    };
    if let Some(client) = register(newcomer, &mut entry, &running) {
        tokio::spawn(serve(client, said, listener, entry, running, Arc::clone(worker)));
    }
}

/// How much of its greeting a socket has said.
enum Said {
    /// It was admitted on it.
    All(Passage),
    /// There must come more, for which it has a seat.
    Part(Greeting, Pending),
}

/// The life of a connection until its tunnel is open, or until it has heard why there is none.
async fn serve(
    mut client: Client,
    said: Said,
    listener: Arc<Listener>,
    mut entry: Entry,
    mut running: Arc<Running>,
    worker: Arc<Worker>,
) {
    let mut seat = None;
    let guard = worker.guard();
    let stop = match walk(&mut client, said, &listener, guard, &mut seat, &mut running, &mut entry).await {
        Ok((passage, connected)) => return open(&passage, connected, client, entry, &running, &worker),
        Err(stop) => stop,
    };
    let refusal = Refusal::of(&stop, &running);
    entry.stopped(&stop, refusal.status(), &running);
    refusal.deliver(client, seat, &listener.room).await;
}

/// Each line's output is the next one's input, and the first that says no ends the walk.
async fn walk(
    client: &mut Client,
    said: Said,
    listener: &Listener,
    guard: &Guard,
    kept: &mut Option<Pending>,
    running: &mut Arc<Running>,
    entry: &mut Entry,
) -> Result<(Passage, Connected), Stop> {
    let passage = match said {
        Said::All(passage) => passage,
        Said::Part(greeting, seat) => {
            let seat = kept.insert(seat);
            let admitted = hear_out(greeting, client, seat, listener, guard, running, entry).await?;
            admit(admitted, entry, running)
        }
    };
    *kept = None;
    // Boxed, so that the many that are still pending do not pay for what only an admitted one needs.
    match Box::pin(connect(&passage, client, running, entry)).await {
        Ok(connected) => Ok((passage, connected)),
        Err(stop) => {
            client.look_again();
            Err(stop)
        }
    }
}

/// Listens until the greeting is whole, and decided on.
async fn hear_out(
    mut greeting: Greeting,
    client: &mut Client,
    seat: &mut Pending,
    listener: &Listener,
    guard: &Guard,
    running: &mut Arc<Running>,
    entry: &mut Entry,
) -> Result<Admitted, Stop> {
    loop {
        let has_begun = !client.ahead().bytes().is_empty();
        read_on(client, seat, greeting.limit(listener))
            .await
            .map_err(|why| greeting.broken_off(why, has_begun))?;
        let heard = greeting.hear(client.ahead(), seat, listener, guard, running);
        entry.came_from(greeting.hop());
        if let Some(heard) = heard {
            return heard;
        }
    }
}

/// Reads on while the seat lasts.
async fn read_on(client: &mut Client, seat: &Pending, limit: usize) -> Result<(), Unheard> {
    std::future::poll_fn(|cx| {
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
    })
    .await
}

/// From here on its permit is the entry's to give back.
fn admit(admitted: Admitted, entry: &mut Entry, running: &Running) -> Passage {
    let Admitted { granted, passage } = admitted;
    entry.admitted(&passage, granted, running);
    passage
}

/// Refuses a newcomer; where what it is owed takes waiting, a task sees to that.
fn turn_away(
    stop: &Stop,
    mut newcomer: Newcomer,
    seat: Pending,
    listener: Arc<Listener>,
    mut entry: Entry,
    running: &Running,
) {
    let refusal = Refusal::of(stop, running);
    entry.stopped(stop, refusal.status(), running);
    let Some(rest) = refusal.deliver_at_once(&mut newcomer) else {
        // In this order: the seat is free once the socket is closed, and the entry tells of what is over.
        drop(newcomer);
        drop(seat);
        drop(entry);
        return;
    };
    if let Some(client) = register(newcomer, &mut entry, running) {
        tokio::spawn(async move {
            rest.deliver(client, Some(seat), &listener.room).await;
            drop(entry);
        });
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
    client.prepare_accepted(LegOptions {
        keepalive: pace.keepalive,
        user_timeout: pace.stalled,
    });
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
    let mode = running.policy.upstreams[passage.place.upstream].relay;
    let tally = Arc::clone(&zone.state.tallies[worker.index()]);
    let pulse = Arc::default();
    let mut relay = Relay::new(tunnel, mode, pace, Arc::clone(&pulse), tally);
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
