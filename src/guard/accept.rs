//! The way in: sockets are accepted, given a pending seat, and sent on their walk.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::net::listen::Listener as Door;
use crate::net::stream::Stream;

use super::identify::Hop;
use super::ledger::Entry;
use super::log::Line;
use super::reason::Reason;
use super::running::Listener;
use super::stop::Stop;
use super::walk::{Arrival, serve};
use super::worker::Worker;
use crate::config::policy::LogLevel;

/// Accepts on one socket for as long as the worker runs.
pub async fn accept(door: Door, listener: Arc<Listener>, worker: Arc<Worker>) {
    loop {
        match door.accept().await {
            Ok((stream, peer)) => arrive(stream, peer, &listener, &worker),
            Err(error) => {
                let shared = Arc::clone(&worker.guard().running().shared);
                shared.metrics.accept_errors.inc();
                let line = Line {
                    listener: Some(Arc::clone(&listener.policy.name)),
                    message: Some(error.to_string()),
                    ..Line::default()
                };
                shared.log.event(LogLevel::Warn, "accept_error", line);
                // Without descriptors the next accept would fail the same at once.
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

fn arrive(stream: Stream, peer: Option<SocketAddr>, listener: &Arc<Listener>, worker: &Arc<Worker>) {
    let now = Instant::now();
    let running = worker.guard().running();
    let identity = &running.policy.identity;
    let peer = peer.map(|peer| peer.ip().to_canonical());
    let hop = Hop {
        address: peer,
        may_forward: true,
    };
    let mut entry = Entry::begin(&running.shared, listener, hop, now);
    listener.accepted.inc();
    let charged = (!identity.trusts(peer)).then(|| identity.key(peer));
    match listener.room.enter(charged, now) {
        Ok(seat) => {
            let arrival = Arrival {
                stream,
                peer,
                seat,
                listener: Arc::clone(listener),
                entry,
            };
            tokio::spawn(serve(arrival, running, Arc::clone(worker)));
        }
        Err(_) => entry.stopped(&Stop::new(Reason::PendingPerIp), None, &running),
    }
}

const BACK_OFF: Duration = Duration::from_millis(50);
