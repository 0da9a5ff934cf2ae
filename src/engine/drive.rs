//! Carries out the steps that the walk returns: it parks, spawns, dials and opens.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::live::listener::Listener;
use crate::net::accepted::AcceptedSocket;
use crate::net::clock::Clock;
use crate::net::transport::Unregistered;
use crate::reason::reject::RejectReason;
use crate::walk::decide::{Admitted, Handshake};
use crate::walk::deliver::deliver;
use crate::walk::open::open;
use crate::walk::pending_conn::PendingConn;
use crate::walk::record::Record;
use crate::walk::stop::Stop;
use crate::walk::upgrade::upgrade;
use crate::walk::walk::{AtCap, Decision, RecordedConn, Step, admit, decide_again, refuse_admitted};

use crate::engine::conn::NewConn;
use crate::engine::context::Context;
use crate::engine::ghosts::search::GhostSearch;
use crate::engine::ghosts::suspects::Found;
use crate::engine::tunnel;

/// Carries out the next step of a connection.
pub fn drive(next: Step, cx: &Arc<Context>) {
    match next {
        Step::Done => {}
        Step::Park(recorded) => park(recorded, cx),
        Step::Connect(recorded, admitted) => connect(recorded, admitted, cx),
        Step::Refuse(recorded, stop) => refuse(recorded, &stop, cx),
        Step::AwaitSlot(recorded, at_cap) => {
            match GhostSearch::begin(
                &at_cap.zone,
                at_cap.client,
                &cx.registry,
                &cx.search_permits,
                Instant::now(),
            ) {
                Some(search) => drop(tokio::spawn(wait_for_slot(recorded, at_cap, search, Arc::clone(cx)))),
                None => refuse(recorded, &at_cap.stop, cx),
            }
        }
    }
}

/// Parks a connection until more bytes come.
fn park(recorded: RecordedConn, cx: &Context) {
    let RecordedConn { mut conn, mut record } = recorded;
    if conn.socket.read_ahead().is_silent() {
        conn.seat.is_silent();
    }
    match cx.parked().park_pending(conn) {
        Ok(()) => record.parked(),
        Err((conn, error)) => {
            record.stopped(&no_room(&error), None);
            drop(conn);
            drop(record);
        }
    }
}

/// Registers the socket of an admitted client with the runtime, and connects it to a server.
fn connect(recorded: RecordedConn, admitted: Admitted, cx: &Arc<Context>) {
    let RecordedConn { conn, mut record } = recorded;
    let PendingConn {
        socket,
        seat,
        listener,
        in_force,
        ..
    } = conn;
    let handshake = admit(admitted, &mut record);
    match register(socket, cx) {
        Ok(client) => {
            drop(seat);
            let clock = Arc::clone(&in_force.process.clock);
            tokio::spawn(connect_and_open(
                handshake,
                client,
                listener,
                clock,
                record,
                Arc::clone(cx),
            ));
        }
        Err(error) => record.stopped(&no_room(&error), None),
    }
}

/// Connects an admitted client to a server and opens the tunnel, or refuses it. The relay is a small future of its own.
#[allow(clippy::manual_async_fn)] // An `async fn` would hold each of its arguments twice.
fn connect_and_open(
    handshake: Handshake,
    mut client: AcceptedSocket,
    listener: Arc<Listener>,
    clock: Arc<Clock>,
    mut record: Record,
    cx: Arc<Context>,
) -> impl Future<Output = ()> {
    async move {
        match upgrade(&handshake, &client, record.dials()).await {
            Ok(upgraded) => {
                let now = Instant::now();
                let server = Arc::clone(upgraded.lease.server());
                let (open, handle) = open(&handshake, upgraded, client, record, cx.index(), now);
                let process = cx.live.process();
                debug_assert_eq!(
                    process.key(handshake.client.address),
                    handshake.client.key,
                    "the registry and the limits know the client by the same key"
                );
                let conn = NewConn {
                    handle,
                    address: handshake.client.address,
                    destination: handshake.destination,
                    server,
                };
                let zone_client = cx.registry.insert(conn, cx.index(), now, &process.random);
                cx.search_permits.opened(zone_client, now);
                tunnel::spawn(open, &cx);
            }
            Err(stop) => {
                let process = cx.live.process();
                let (refusal, seat) =
                    refuse_admitted(&stop, &handshake, &mut client, &listener, &mut record, &process.random);
                tokio::spawn(deliver(refusal, client, seat, listener, clock, record));
            }
        }
    }
}

/// Refuses a pending connection. If the answer can't be sent at once, a task delivers it.
fn refuse(recorded: RecordedConn, stop: &Stop, cx: &Context) {
    let Some((recorded, rest)) = crate::walk::walk::refuse(recorded, stop) else {
        return;
    };
    let RecordedConn { conn, record } = recorded;
    let PendingConn {
        socket,
        seat,
        listener,
        in_force,
        ..
    } = conn;
    // If there is no room for the task, the client may get only a part of its refusal; the machine then has worse
    // problems.
    if let Ok(client) = register(socket, cx) {
        let clock = Arc::clone(&in_force.process.clock);
        tokio::spawn(deliver(rest, client, Some(seat), listener, clock, record));
    }
}

/// Keeps a connection at its client's cap on its pending seat, until the search has shown whether one of the client's
/// old connections is dead.
async fn wait_for_slot(mut recorded: RecordedConn, mut at_cap: AtCap, mut search: GhostSearch, cx: Arc<Context>) {
    let stop = loop {
        tokio::time::sleep(GhostSearch::PAUSE).await;
        if let Some(why) = recorded.conn.is_broken_off() {
            break recorded.conn.broken_off(why);
        }
        match search.look(Instant::now()) {
            Found::NotYet => continue,
            Found::Nothing => break at_cap.stop,
            Found::Slot => {}
        }
        // A connection that is refused in the end gets the answer of the last decision, under the policy in force then.
        match decide_again(&recorded.conn, &at_cap, &cx.live) {
            Decision::Admit(admitted) => return connect(recorded, admitted, &cx),
            Decision::Refuse(stop) => break stop,
            Decision::AtCap(again) => at_cap = again,
        }
        // The search goes on if it is still for this client and zone: the slot is not free yet, or another connection
        // got it.
        if !search.is_for(&at_cap.zone, at_cap.client) {
            break at_cap.stop;
        }
    };
    refuse(recorded, &stop, &cx);
}

/// Moves a socket from the parked set to the runtime.
fn register(mut socket: AcceptedSocket<Unregistered>, cx: &Context) -> io::Result<AcceptedSocket> {
    cx.parked().deregister(&mut socket);
    socket.register()
}

/// The stop for a connection whose socket does not fit: the machine has no room for another one.
fn no_room(error: &io::Error) -> Stop {
    Stop::because(RejectReason::ProcessFull, error.to_string())
}
