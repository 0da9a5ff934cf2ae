//! The life of a connection, top-down. Each stage takes the output of the one before and returns a value. None of them
//! waits, spawns or parks: a [`Step`] says what the connection needs next, and `engine::drive` carries it out.
//!
//! 1. [`accept`]: the socket gets a pending seat.
//! 2. [`Preread`](super::preread): its bytes become a request head; until then it is parked, and [`resume`]d.
//! 3. [`identify`](super::identify) and [`decide`](mod@super::decide): the request is admitted or refused.
//! 4. [`admit`]: the permit goes to the record.
//! 5. [`upgrade`](super::upgrade::upgrade): a server is dialled, gets the request and answers 101.
//! 6. [`open`](super::open::open): the tunnel relays; nothing of the handshake is kept.
//! 7. [`refuse`], or [`refuse_admitted`] after stage 4: the client gets an answer in place of a tunnel; if it can't be
//!    sent at once, [`deliver`](super::deliver::deliver) delivers it.
//!
//! From stage 1 on there is a [record](super::record): when it is dropped it is counted and written.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::limit::key::ClientKey;
use crate::limit::pending::{Ended, Pending};
use crate::live::in_force::{InForce, Live};
use crate::live::listener::Listener;
use crate::live::zone::ZoneState;
use crate::net::accepted::AcceptedSocket;
use crate::net::fault;
use crate::net::random::Random;
use crate::net::transport::Unregistered;
use crate::net::transport::is_transient;
use crate::reason::reject::RejectReason;
use crate::wire::Step as Parsed;
use crate::wire::http::head::{Head, HeadFault, HeadScan};

use crate::walk::decide::{Admitted, Handshake, decide};
use crate::walk::deliver::deliver_now;
use crate::walk::identify::Hop;
use crate::walk::pending_conn::{BrokenOff, PendingConn};
use crate::walk::preread::{Part, Preread, PrereadFault};
use crate::walk::record::Record;
use crate::walk::refuse::Refusal;
use crate::walk::stop::Stop;

/// A pending connection and its record. While it is parked it has no record. The fields are dropped in this order: the
/// record is written last.
#[derive(Debug)]
pub struct RecordedConn {
    /// The connection.
    pub conn: PendingConn,
    /// Its record.
    pub record: Record,
}

/// What a connection needs next.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // It lives for a moment, and a box would be an allocation for each refusal.
pub enum Step {
    /// Nothing: it is closed.
    Done,
    /// More bytes have to come; until then the connection is parked.
    Park(RecordedConn),
    /// It is admitted, and has to be connected to a server.
    Connect(RecordedConn, Admitted),
    /// It is refused.
    Refuse(RecordedConn, Stop),
    /// It is refused at its client's cap, unless one of the client's old connections turns out to be dead.
    AwaitSlot(RecordedConn, AtCap),
}

/// The outcome of a request.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // As above.
pub enum Decision {
    /// It is admitted.
    Admit(Admitted),
    /// It is refused.
    Refuse(Stop),
    /// It is refused at its client's cap, in a zone whose dead connections may be replaced.
    AtCap(AtCap),
}

/// A refusal that is decided again if a slot of the client becomes free.
#[derive(Debug)]
pub struct AtCap {
    /// The refusal.
    pub stop: Stop,
    /// The zone.
    pub zone: Arc<ZoneState>,
    /// The client.
    pub client: ClientKey,
    /// The bytes of the request head.
    head: Box<[u8]>,
}

/// Gives an accepted socket its pending seat, and reads what it has sent already. The socket is not registered with the
/// runtime yet, so a client that is refused at once costs a few system calls and no task.
pub fn accept(
    socket: AcceptedSocket<Unregistered>,
    peer: Option<IpAddr>,
    listener: Arc<Listener>,
    in_force: Arc<InForce>,
    live: &Live,
    now: Instant,
) -> Step {
    let identity = &in_force.policy.identity;
    let hop = Hop {
        address: peer,
        may_forward: true,
    };
    let mut record = Record::begin(&listener, hop, now);
    listener.accepted.inc();
    let accept_proxy_protocol = listener.policy.accept_proxy_protocol;
    if accept_proxy_protocol && !identity.trusts(peer) {
        let stranger = Stop::seen(RejectReason::ProxyHeader, b"the peer is not in trusted_proxies");
        record.stopped(&stranger, None);
        drop(socket);
        return Step::Done;
    }
    fault::point(if accept_proxy_protocol { "proxy_header" } else { "head" });
    let charged = (!identity.trusts(peer)).then(|| identity.key(peer));
    let seat = match listener.room.enter(charged, in_force.process.clock.read(now)) {
        Ok(seat) => seat,
        Err(full) => {
            record.stopped(&Stop::pending_per_ip(full), None);
            drop(socket);
            return Step::Done;
        }
    };
    fault::point("accept");
    let mut conn = PendingConn {
        socket,
        seat,
        preread: Preread::new(accept_proxy_protocol),
        hop,
        listener,
        in_force,
        arrived: now,
    };
    let decision = read(&mut conn, false, live);
    next(RecordedConn { conn, record }, decision)
}

/// Continues a connection that was parked: more bytes have come, its peer `has_ended`, or its seat was ended.
pub fn resume(conn: PendingConn, has_ended: bool, live: &Live) -> Step {
    let record = Record::begin(&conn.listener, conn.hop, conn.arrived);
    let mut recorded = RecordedConn { conn, record };
    fault::point("lobby");
    let conn = &mut recorded.conn;
    let decision = match conn.seat.ended() {
        // Bytes that came before the deadline may not have been read before it.
        Some(Ended::Late) => {
            read(conn, has_ended, live).or_else(|| Some(Decision::Refuse(conn.broken_off(BrokenOff::Late))))
        }
        Some(Ended::GaveWay) => Some(Decision::Refuse(conn.broken_off(BrokenOff::GaveWay))),
        None => read(conn, has_ended, live),
    };
    next(recorded, decision)
}

/// The step after a decision. `None` means that more bytes have to come.
fn next(mut recorded: RecordedConn, decision: Option<Decision>) -> Step {
    recorded.record.set_hop(recorded.conn.hop);
    match decision {
        None => Step::Park(recorded),
        Some(Decision::Admit(admitted)) => Step::Connect(recorded, admitted),
        Some(Decision::Refuse(stop)) => Step::Refuse(recorded, stop),
        Some(Decision::AtCap(at_cap)) => Step::AwaitSlot(recorded, at_cap),
    }
}

/// Reads what has come, and decides once the head is complete. `None` means that more bytes have to come.
fn read(conn: &mut PendingConn, has_ended: bool, live: &Live) -> Option<Decision> {
    loop {
        match conn.socket.read_now(conn.preread.limit(conn.caps())) {
            Ok(1..) => {}
            Err(ref error) if is_transient(error) => return None,
            Ok(0) | Err(_) => return Some(Decision::Refuse(conn.broken_off(BrokenOff::Gone))),
        }
        conn.seat.heard();
        let decision = preread(conn, live);
        // The kernel reports bytes that have come, or an end behind them, only once. So they are read to their end
        // here.
        if decision.is_some() || !(has_ended || conn.socket.read_ahead().more_may_wait()) {
            return decision;
        }
    }
}

/// Parses what was read: first the PROXY header, then the head.
fn preread(conn: &mut PendingConn, live: &Live) -> Option<Decision> {
    loop {
        let caps = conn.caps();
        let bytes = conn.socket.read_ahead().bytes();
        match conn.preread.feed(bytes, caps) {
            Ok(Parsed::More) => return None,
            Err(fault) => return Some(Decision::Refuse(stop_for(fault))),
            Ok(Parsed::Done {
                value: Part::ProxyHeader(source),
                used,
            }) => {
                conn.socket.read_ahead().consume(used);
                if let Err(stop) = conn.named_by_proxy_header(source) {
                    return Some(Decision::Refuse(stop));
                }
                fault::point("head");
            }
            Ok(Parsed::Done {
                value: Part::Head(head),
                used,
            }) => {
                let decision = decide_now(&head, &bytes[..used], conn.hop, &conn.listener, live);
                let has_body = head.announces_body();
                conn.socket.read_ahead().consume(used);
                if has_body {
                    conn.socket.read_ahead().expect_more();
                }
                return Some(decision);
            }
        }
    }
}

/// Decides by the policy in force now.
fn decide_now(head: &Head<'_>, bytes: &[u8], hop: Hop, listener: &Listener, live: &Live) -> Decision {
    let decided = decide(head, hop, listener, &live.in_force(), Instant::now());
    match decided {
        Ok(admitted) => Decision::Admit(admitted),
        Err(stop) => match replaceable(&stop) {
            Some((zone, client)) => Decision::AtCap(AtCap {
                stop,
                zone,
                client,
                head: bytes.into(),
            }),
            None => Decision::Refuse(stop),
        },
    }
}

/// Decides once more on a request that was refused at its client's cap.
pub fn decide_again(conn: &PendingConn, at_cap: &AtCap, live: &Live) -> Decision {
    match HeadScan::default().parse(&at_cap.head, conn.caps()) {
        Ok(Parsed::Done { value, .. }) => decide_now(&value, &at_cap.head, conn.hop, &conn.listener, live),
        // The head was complete the first time, under the same limits.
        Ok(Parsed::More) => Decision::Refuse(Stop::new(RejectReason::BadRequest)),
        Err(fault) => Decision::Refuse(stop_for(PrereadFault::Head(fault))),
    }
}

/// The zone and the client whose dead connections may be replaced, if the request was stopped at the client's cap.
fn replaceable(stop: &Stop) -> Option<(Arc<ZoneState>, ClientKey)> {
    let zone = &stop.details().destination.as_ref()?.zone;
    let messages = &zone.policy.messages;
    let is_meant = stop.reason() == Some(RejectReason::PerIp) && messages.replace_ghosts && messages.ping.is_some();
    if !is_meant {
        return None;
    }
    Some((Arc::clone(&zone.state), stop.details().client?.key))
}

fn stop_for(fault: PrereadFault) -> Stop {
    match fault {
        PrereadFault::ProxyHeader(fault) => Stop::because(RejectReason::ProxyHeader, fault.to_string()),
        PrereadFault::SecondProxyHeader => Stop::seen(RejectReason::ProxyHeader, b"a PROXY header where none may be"),
        PrereadFault::Head(fault) => {
            let reason = match fault {
                HeadFault::TooLarge | HeadFault::TooManyHeaders => RejectReason::HeadTooLarge,
                HeadFault::Bad(_) => RejectReason::BadRequest,
            };
            Stop::rule(reason, fault.to_string())
        }
    }
}

/// Gives the permit of an admitted client to the record, which gives it back at the end.
pub fn admit(admitted: Admitted, record: &mut Record) -> Handshake {
    let Admitted {
        mut granted,
        mut handshake,
    } = admitted;
    handshake.shares = granted.shares.take();
    record.admitted(&handshake, granted);
    handshake
}

/// Refuses a pending connection, as far as possible without waiting. Returns what remains for
/// [`deliver`](super::deliver::deliver), if anything.
pub fn refuse(mut recorded: RecordedConn, stop: &Stop) -> Option<(RecordedConn, Refusal)> {
    let refusal = Refusal::of(stop, &recorded.conn.in_force.process.random);
    recorded.record.stopped(stop, refusal.status());
    let rest = deliver_now(refusal, &mut recorded.conn.socket)?;
    Some((recorded, rest))
}

/// Refuses a client that was admitted, but for which no server was found. A client that is held gives its slot back, so
/// it takes a pending seat for the hold. If there is no seat for it, it is not held.
pub fn refuse_admitted(
    stop: &Stop,
    handshake: &Handshake,
    client: &mut AcceptedSocket,
    listener: &Listener,
    record: &mut Record,
    random: &Random,
) -> (Refusal, Option<Pending>) {
    client.check_unread();
    let refusal = Refusal::of(stop, random);
    record.stopped(stop, refusal.status());
    if !refusal.is_held() {
        return (refusal, None);
    }
    let charged = (!handshake.client.hop_is_trusted).then_some(handshake.client.key);
    match listener.room.enter(charged, Instant::now()) {
        Ok(seat) => (refusal, Some(seat)),
        Err(_) => (refusal.at_once(), None),
    }
}
