//! The way in: sockets are accepted, given a pending seat, and sent on their walk.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::config::policy::LogLevel;
use crate::net::accept_socket::{AcceptFault, AcceptSocket, Readiness, SpareDescriptor};
use crate::net::accepted::AcceptedSocket;
use crate::net::transport::Unregistered;

use crate::engine::context::Context;
use crate::engine::drive::drive;
use crate::engine::post::Post;
use crate::telemetry::log::Line;
use crate::telemetry::survive::survive;
use crate::walk::walk;

/// Accepts on one socket until its post closes; then accepts what is queued there, so that nobody who had connected is
/// reset, and closes it.
pub async fn accept(door: AcceptSocket, post: Arc<Post>, mut closes: watch::Receiver<bool>, cx: Arc<Context>) {
    let mut spare = SpareDescriptor::new();
    let mut back_off = FIRST_BACK_OFF;
    // Asked each time: where the next one always waits already, the select below would never come to it.
    while !*closes.borrow() {
        let knock = tokio::select! {
            biased;
            knock = door.readable() => knock,
            _ = closes.wait_for(|closes| *closes) => break,
        };
        let (accepted, fault) = match knock {
            Ok(knock) => accept_batch(&door, knock, &post, &cx),
            Err(error) => (0, Some(error)),
        };
        if accepted > 0 {
            back_off = FIRST_BACK_OFF;
            spare.replenish();
        }
        let fault = fault.map(|error| {
            survive(|| complain(&error, &post, &cx));
            AcceptFault::of(&error)
        });
        match fault {
            // Whoever is in already has its turn, however many knock.
            None | Some(AcceptFault::Connection) => {
                tokio::task::yield_now().await;
                continue;
            }
            // Whoever waits hears at once that there is no room, instead of nothing.
            Some(AcceptFault::Descriptors) => spare.refuse_one(&door),
            Some(AcceptFault::Machine) => {}
        }
        tokio::time::sleep(back_off).await;
        back_off = (back_off * 2).min(LONGEST_BACK_OFF);
    }
    // A socket from systemd stays open behind us: newcomers wait there for whoever takes it next.
    if !post.is_inherited() {
        if let Err(error) = door.refuse_new_syns() {
            let log = cx.live.log();
            let message = format!(
                "{} closes, and can't turn newcomers away before: {error}",
                post.address()
            );
            log.warn("listener", &message);
        }
        tokio::time::sleep(HAS_BEGUN).await;
    }
    // No more than can have been queued when it closed: a flood goes on knocking.
    for _ in 0..=post.listener().policy.backlog {
        match door.accept() {
            Ok(Some((newcomer, peer))) => receive(newcomer, peer, &post, &cx),
            Ok(None) => break,
            Err(error) => {
                complain(&error, &post, &cx);
                if AcceptFault::of(&error) != AcceptFault::Connection {
                    break;
                }
            }
        }
    }
    // Before the post is let go of: whoever waits for that binds the address anew.
    drop(door);
}

/// Accepts whoever waits, at most [`BATCH`]; says how many that were, and what stopped it short of that.
fn accept_batch(
    door: &AcceptSocket,
    readiness: Readiness<'_>,
    post: &Arc<Post>,
    cx: &Arc<Context>,
) -> (usize, Option<io::Error>) {
    for accepted in 0..BATCH {
        match door.accept() {
            Ok(Some((newcomer, peer))) => receive(newcomer, peer, post, cx),
            Ok(None) => {
                readiness.clear();
                return (accepted, None);
            }
            Err(error) => return (accepted, Some(error)),
        }
    }
    (BATCH, None)
}

/// Gives a socket its seat and sends it on its walk. A panic in here ends that one socket, and not the loop.
fn receive(newcomer: AcceptedSocket<Unregistered>, peer: Option<SocketAddr>, post: &Arc<Post>, cx: &Arc<Context>) {
    survive(|| {
        let (listener, in_force) = post.in_force();
        let peer = peer.map(|peer| peer.ip().to_canonical());
        let step = walk::accept(newcomer, peer, listener, in_force, &cx.live, Instant::now());
        drive(step, cx);
    });
}

fn complain(error: &io::Error, post: &Post, cx: &Context) {
    let process = Arc::clone(&cx.live.in_force().process);
    process.metrics.accept_errors.inc();
    let line = Line {
        listener: Some(Arc::clone(&post.listener().policy.name)),
        message: Some(error.to_string()),
        ..Line::default()
    };
    process.log.event(LogLevel::Warn, "accept_error", line);
}

const FIRST_BACK_OFF: Duration = Duration::from_millis(5);
/// Whoever has begun to connect when a socket is about to close has a round trip to finish it.
const HAS_BEGUN: Duration = Duration::from_millis(150);
/// Sockets that are accepted before others have their turn.
const BATCH: usize = 64;
const LONGEST_BACK_OFF: Duration = Duration::from_millis(250);
