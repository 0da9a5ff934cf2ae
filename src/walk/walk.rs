//! The life of a connection, top-down: it arrives (`arrive`), waits in the lobby for as long as it has more to say and goes
//! on from there (`go_on`), is taken to its server (`pass`) once it is admitted, and is open (`open`). Whoever is refused
//! on the way hears it from `turn_away` or `deliver`. Each stage hands what it has made to the next, and none reaches
//! back.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::limit::pending::{Ended, Pending};
use crate::net::accepted::AcceptedSocket;
use crate::net::fault;
use crate::net::options::SocketOptions;
use crate::net::transport::Unregistered;
use crate::net::transport::is_transient;
use crate::relay::clock::Clock;
use crate::relay::legs::Legs;
use crate::relay::relay::{EarlyBytes, Relay, RelayParams};

use crate::engine::context::Context;
use crate::engine::ghosts::{Found, Search};
use crate::engine::tunnel::Open;
use crate::live::in_force::InForce;
use crate::live::listener::Listener;
use crate::telemetry::reason::Reason;
use crate::walk::decide::{Admitted, Passage};
use crate::walk::identify::Client as Identified;
use crate::walk::preread::{Greeting, Unheard};
use crate::walk::record::Entry;
use crate::walk::refuse::Refusal;
use crate::walk::stop::{Numbers, Stop};
use crate::walk::upgrade::{Connected, connect};

/// An accepted socket that was given a pending seat and is not decided on yet. Its fields are dropped in this order: the
/// seat is free once the socket is closed.
#[derive(Debug)]
pub struct Arrival {
    /// The socket.
    pub newcomer: AcceptedSocket<Unregistered>,
    /// Its right to be pending.
    pub seat: Pending,
    /// What it has said so far.
    pub greeting: Greeting,
    /// Where it came in.
    pub listener: Arc<Listener>,
    /// What was in force when it came in; once its head is whole, what decides on it.
    pub in_force: Arc<InForce>,
    /// When it came in.
    pub arrived: Instant,
}

/// An arrival whose turn it is. Its fields are dropped in this order: the entry tells of what is over.
struct Turn {
    arrival: Arrival,
    entry: Entry,
}

/// Where the life of a connection begins: what it has said already is heard before the runtime knows its socket, so that
/// who is refused at once costs a few system calls and no task. Only who is admitted walks on, and who has more to say
/// waits in the lobby.
pub fn arrive(arrival: Arrival, entry: Entry, cx: &Arc<Context>) {
    let mut turn = Turn { arrival, entry };
    let heard = turn.arrival.hear(false, cx);
    turn.act_on(heard, cx);
}

/// It has waited in the lobby, and now more of it has come, its peer `has_ended`, or its seat was ended.
pub fn go_on(arrival: Arrival, has_ended: bool, cx: &Arc<Context>) {
    let entry = Entry::begin(
        &arrival.in_force.process,
        &arrival.listener,
        arrival.greeting.hop(),
        arrival.arrived,
    );
    let mut turn = Turn { arrival, entry };
    fault::point("lobby");
    let heard = match turn.arrival.seat.ended() {
        // What has come in time may not have been read in time.
        Some(Ended::Late) => Some(
            turn.arrival
                .hear(has_ended, cx)
                .unwrap_or_else(|| Err(turn.arrival.broken_off(Unheard::Late))),
        ),
        Some(Ended::GaveWay) => Some(Err(turn.arrival.broken_off(Unheard::GaveWay))),
        None => turn.arrival.hear(has_ended, cx),
    };
    turn.act_on(heard, cx);
}

impl Arrival {
    /// Hears what is there; `None`: there must come more.
    fn hear(&mut self, has_ended: bool, cx: &Context) -> Option<Result<Admitted, Stop>> {
        loop {
            match self.newcomer.read_now(self.greeting.limit(&self.listener)) {
                Ok(1..) => {}
                Err(ref error) if is_transient(error) => return None,
                Ok(0) | Err(_) => return Some(Err(self.broken_off(Unheard::Gone))),
            }
            self.seat.heard();
            let ahead = self.newcomer.read_ahead();
            let heard = self
                .greeting
                .hear(ahead, &mut self.seat, &self.listener, &cx.live, &mut self.in_force);
            // Nobody is told a second time of what has come already, nor of an end behind it.
            if heard.is_some() || !(has_ended || self.newcomer.read_ahead().more_may_wait()) {
                return heard;
            }
        }
    }

    /// Why it need not wait any longer, whatever it waits for.
    fn is_over(&self) -> Option<Unheard> {
        match self.seat.ended() {
            Some(Ended::Late) => Some(Unheard::Late),
            Some(Ended::GaveWay) => Some(Unheard::GaveWay),
            None => self.newcomer.transport().has_ended().then_some(Unheard::Gone),
        }
    }

    fn broken_off(&mut self, why: Unheard) -> Stop {
        let has_begun = !self.newcomer.read_ahead().bytes().is_empty();
        let stop = self.greeting.broken_off(why, has_begun);
        match why {
            Unheard::GaveWay => stop.counting(Numbers::Open {
                open: self.listener.room.taken(),
                of: self.listener.room.rules().max,
            }),
            Unheard::Late | Unheard::Gone => stop,
        }
    }
}

impl Turn {
    fn act_on(mut self, heard: Option<Result<Admitted, Stop>>, cx: &Arc<Context>) {
        self.entry.came_from(self.arrival.greeting.hop());
        match heard {
            None => stay(self, cx),
            Some(Ok(admitted)) => let_in(admitted, self, cx),
            Some(Err(stop)) => match Search::begin(&stop, &cx.registry, &cx.claims, Instant::now()) {
                Some(search) => drop(tokio::spawn(hope(self, stop, search, Arc::clone(cx)))),
                None => turn_away(&stop, self, cx),
            },
        }
    }
}

/// Refused for its client's cap, it waits on its seat for the slot of an old connection that may be dead.
async fn hope(mut turn: Turn, mut stop: Stop, mut search: Search, cx: Arc<Context>) {
    loop {
        tokio::time::sleep(Search::PAUSE).await;
        let arrival = &mut turn.arrival;
        if let Some(why) = arrival.is_over() {
            stop = arrival.broken_off(why);
            break;
        }
        match search.look() {
            Found::NotYet => continue,
            Found::Nothing => break,
            Found::Slot => {}
        }
        let again = arrival
            .greeting
            .decide_again(&mut stop, &arrival.listener, &cx.live, &mut arrival.in_force);
        match again {
            Some(Ok(admitted)) => return let_in(admitted, turn, &cx),
            // Whatever it hears in the end is what was decided last, by the policy in force then.
            Some(Err(again)) => stop = again,
            None => break,
        }
        // Otherwise the slot is not free yet, or another one was quicker.
        if !search.is_for(&stop) {
            break;
        }
    }
    turn_away(&stop, turn, &cx);
}

/// Waits for more in the lobby.
fn stay(turn: Turn, cx: &Context) {
    let Turn { mut arrival, mut entry } = turn;
    if arrival.newcomer.read_ahead().is_silent() {
        arrival.seat.is_silent();
    }
    match cx.lobby().keep(arrival) {
        Ok(()) => entry.parked(),
        Err((arrival, error)) => {
            entry.stopped(&no_room(&error), None);
            drop(arrival);
            drop(entry);
        }
    }
}

/// Gives an admitted client to the runtime, and sends it on its way to its server.
fn let_in(admitted: Admitted, turn: Turn, cx: &Arc<Context>) {
    let Turn { arrival, mut entry } = turn;
    let Arrival {
        newcomer,
        seat,
        listener,
        in_force,
        ..
    } = arrival;
    let passage = admit(admitted, &mut entry);
    match register(newcomer, cx) {
        Ok(client) => {
            drop(seat);
            tokio::spawn(pass(passage, client, listener, entry, in_force, Arc::clone(cx)));
        }
        Err(error) => entry.stopped(&no_room(&error), None),
    }
}

/// From here on its permit is the entry's to give back.
fn admit(admitted: Admitted, entry: &mut Entry) -> Passage {
    let Admitted {
        mut granted,
        mut passage,
    } = admitted;
    passage.shares = granted.shares.take();
    entry.admitted(&passage, granted);
    passage
}

/// Takes an admitted client to its server, and opens the tunnel; or has it hear why there is none.
#[allow(clippy::manual_async_fn)] // An `async fn` would hold each of its arguments twice.
fn pass(
    passage: Passage,
    mut client: AcceptedSocket,
    listener: Arc<Listener>,
    mut entry: Entry,
    in_force: Arc<InForce>,
    cx: Arc<Context>,
) -> impl Future<Output = ()> {
    async move {
        let stop = match connect(&passage, &client, &mut entry).await {
            Ok(connected) => return open(&passage, connected, client, entry, &cx),
            Err(stop) => stop,
        };
        client.check_unread();
        let refusal = Refusal::of(&stop);
        entry.stopped(&stop, refusal.status());
        let (refusal, seat) = seated(refusal, passage.client, &listener);
        let clock = Arc::clone(&in_force.process.clock);
        tokio::spawn(deliver(refusal, client, seat, listener, clock, entry));
    }
}

/// Opens the tunnel: from here on a small future of its own relays, and nothing of the handshake is kept.
fn open(passage: &Passage, connected: Connected, client: AcceptedSocket, mut entry: Entry, cx: &Arc<Context>) {
    let zone = &passage.place.zone;
    let limits = Arc::clone(&zone.limits);
    let Connected {
        server,
        lease,
        reply,
        reply_size,
        extensions,
    } = connected;
    client.set_options(SocketOptions {
        keepalive: limits.timeouts.keepalive,
        user_timeout: limits.timeouts.stalled,
    });
    let (client, from_client) = client.into_parts();
    server.set_dialled_options();
    let now = Instant::now();
    entry.opened(now);
    let early = EarlyBytes {
        from_client,
        from_server: reply,
        reply_size,
        extensions,
    };
    let params = RelayParams {
        mode: passage.place.relay,
        limits: Arc::clone(&limits),
        shares: passage.shares.clone(),
        handle: Arc::default(),
        counters: Arc::clone(&zone.state.relay_counters[cx.index()]),
    };
    let zone_client = cx.registry.zone_client(zone.state.counts.id(), passage.client.key);
    cx.shard().watch(Arc::clone(&params.handle), zone_client, limits, now);
    let relay = Relay::new(early, params);
    fault::point("open");
    Open {
        legs: Legs { client, server },
        relay,
        lease: Some(lease),
        entry,
    }
    .spawn(cx);
}

/// A client that is held after its admission takes a pending seat for it, as it gives its slot back; where there is none
/// for it, it is not held.
fn seated(refusal: Refusal, client: Identified, listener: &Listener) -> (Refusal, Option<Pending>) {
    if !refusal.is_held() {
        return (refusal, None);
    }
    let charged = (!client.hop_is_trusted).then_some(client.key);
    match listener.room.enter(charged, Instant::now()) {
        Ok(seat) => (refusal, Some(seat)),
        Err(_) => (refusal.at_once(), None),
    }
}

/// Has a client hear a refusal. The entry is dropped last: it tells of what is over. That of a client that is held is
/// dropped first, since all is decided and the slot is not to be held with it.
async fn deliver(
    refusal: Refusal,
    client: AcceptedSocket,
    seat: Option<Pending>,
    listener: Arc<Listener>,
    clock: Arc<Clock>,
    entry: Entry,
) {
    let entry = (!refusal.is_held()).then_some(entry);
    refusal.deliver(client, seat, &listener.room, &clock).await;
    drop(entry);
}

/// Refuses a newcomer; where what it is owed takes waiting, a task sees to that.
fn turn_away(stop: &Stop, mut turn: Turn, cx: &Context) {
    let refusal = Refusal::of(stop);
    turn.entry.stopped(stop, refusal.status());
    let Some(rest) = refusal.deliver_at_once(&mut turn.arrival.newcomer) else {
        return;
    };
    let Turn { arrival, entry } = turn;
    let Arrival {
        newcomer,
        seat,
        listener,
        in_force,
        ..
    } = arrival;
    // Where there is no room for it the machine has other troubles than one that hears half of its refusal.
    if let Ok(client) = register(newcomer, cx) {
        let clock = Arc::clone(&in_force.process.clock);
        tokio::spawn(deliver(rest, client, Some(seat), listener, clock, entry));
    }
}

/// Makes a socket known to the runtime, and to nobody else.
fn register(mut newcomer: AcceptedSocket<Unregistered>, cx: &Context) -> io::Result<AcceptedSocket> {
    cx.lobby().forget(&mut newcomer);
    newcomer.register()
}

/// The machine has no room for one more.
fn no_room(error: &io::Error) -> Stop {
    Stop::because(Reason::ProcessFull, error.to_string())
}
