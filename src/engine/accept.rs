//! Accepts sockets, and starts each on its walk.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::config::policy::LogLevel;
use crate::net::accept_socket::{AcceptFault, AcceptSocket, Readiness, SpareDescriptor};
use crate::net::accepted::AcceptedSocket;
use crate::net::transport::Unregistered;
use crate::telemetry::log::Line;
use crate::telemetry::survive::survive;
use crate::walk::walk;

use crate::engine::bound_listener::BoundListener;
use crate::engine::context::Context;
use crate::engine::drive::drive;

/// Accepts connections on one socket until its listener closes. Then it accepts the connections that are still queued,
/// so that no connected client is reset, and closes the socket.
pub async fn accept(
    socket: AcceptSocket,
    bound: Arc<BoundListener>,
    mut closes: watch::Receiver<bool>,
    cx: Arc<Context>,
) {
    let mut spare = SpareDescriptor::new();
    let mut back_off = FIRST_BACK_OFF;
    // The loop checks `closes` on every turn: while connections are waiting, the select below never looks at it.
    while !*closes.borrow() {
        let readiness = tokio::select! {
            biased;
            readiness = socket.readable() => readiness,
            _ = closes.wait_for(|closes| *closes) => break,
        };
        let (accepted, fault) = match readiness {
            Ok(readiness) => accept_batch(&socket, readiness, &bound, &cx),
            Err(error) => (0, Some(error)),
        };
        if accepted > 0 {
            back_off = FIRST_BACK_OFF;
            spare.replenish();
        }
        let fault = fault.map(|error| {
            survive(|| log_error(&error, &bound, &cx));
            AcceptFault::of(&error)
        });
        match fault {
            // Lets the other tasks of the worker run, however many connections wait here.
            None | Some(AcceptFault::Connection) => {
                tokio::task::yield_now().await;
                continue;
            }
            // A waiting client is closed at once. Otherwise it would wait without an answer.
            Some(AcceptFault::Descriptors) => spare.refuse_one(&socket),
            Some(AcceptFault::Machine) => {}
        }
        tokio::time::sleep(back_off).await;
        back_off = (back_off * 2).min(LONGEST_BACK_OFF);
    }
    // systemd keeps its own copy of the socket open: new connections wait there for the next program.
    if !bound.is_inherited() {
        if let Err(error) = socket.refuse_new_syns() {
            let message = format!(
                "{} closes, and can't turn newcomers away before: {error}",
                bound.address()
            );
            cx.live.log().warn("listener", &message);
        }
        tokio::time::sleep(HANDSHAKE_ROUND_TRIP).await;
    }
    // At most as many connections as the queue can have held when the listener closed: during a flood the queue never
    // becomes empty.
    for _ in 0..=bound.listener().policy.backlog {
        match socket.accept() {
            Ok(Some((accepted, peer))) => start_walk(accepted, peer, &bound, &cx),
            Ok(None) => break,
            Err(error) => {
                log_error(&error, &bound, &cx);
                if AcceptFault::of(&error) != AcceptFault::Connection {
                    break;
                }
            }
        }
    }
    // The socket is closed before `bound` is dropped: a reload waits for that drop and then binds the address again.
    drop(socket);
}

/// Accepts the waiting connections, at most [`BATCH`]. Returns how many it accepted, and the error that stopped it.
fn accept_batch(
    socket: &AcceptSocket,
    readiness: Readiness<'_>,
    bound: &Arc<BoundListener>,
    cx: &Arc<Context>,
) -> (usize, Option<io::Error>) {
    for count in 0..BATCH {
        match socket.accept() {
            Ok(Some((accepted, peer))) => start_walk(accepted, peer, bound, cx),
            Ok(None) => {
                readiness.clear();
                return (count, None);
            }
            Err(error) => return (count, Some(error)),
        }
    }
    (BATCH, None)
}

/// Starts an accepted socket on its walk. A panic here ends only that socket, not the loop.
fn start_walk(
    socket: AcceptedSocket<Unregistered>,
    peer: Option<SocketAddr>,
    bound: &Arc<BoundListener>,
    cx: &Arc<Context>,
) {
    survive(|| {
        let (listener, in_force) = bound.in_force();
        let peer = peer.map(|peer| peer.ip().to_canonical());
        let step = walk::accept(socket, peer, listener, in_force, &cx.live, Instant::now());
        drive(step, cx);
    });
}

fn log_error(error: &io::Error, bound: &BoundListener, cx: &Context) {
    let process = cx.live.process();
    process.metrics.accept_errors.inc();
    let line = Line {
        listener: Some(Arc::clone(&bound.listener().policy.name)),
        message: Some(error.to_string()),
        ..Line::default()
    };
    process.log.event(LogLevel::Warn, "accept_error", line);
}

const FIRST_BACK_OFF: Duration = Duration::from_millis(5);
const LONGEST_BACK_OFF: Duration = Duration::from_millis(250);
/// The time that a client has to finish a TCP handshake which has begun when the socket is about to close: a round
/// trip.
const HANDSHAKE_ROUND_TRIP: Duration = Duration::from_millis(150);
/// Connections that are accepted before other tasks may run.
const BATCH: usize = 64;
