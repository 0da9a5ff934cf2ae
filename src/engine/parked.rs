//! The lobby: where sockets wait that have nothing to do. There may be thousands of them, so nothing is kept of one but what
//! it is: it has no task, and the runtime does not know it.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::task::{self, Wake, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::net::accepted::AcceptedSocket;
use crate::net::epoll_set::{EpollSet, ReadyEvent, Token};
use crate::net::transport::Unregistered;
use crate::relay::legs::Legs;

use crate::engine::context::Context;
use crate::engine::tunnel::{Idle, Open};
use crate::telemetry::survive::survive;
use crate::walk::walk::{Arrival, go_on};

/// The sockets of one worker that wait: those that have not said enough to be decided on, and open connections that are idle.
#[derive(Debug)]
pub struct Lobby {
    lookout: EpollSet,
    arrivals: Waiting<Arrival>,
    idle: Waiting<Idle>,
    calls: UnboundedSender<Token>,
}

/// Boxed, so that a table that is half empty is small.
#[derive(Debug)]
struct Waiting<T>(Mutex<HashMap<Token, Box<T>>>);

impl Lobby {
    /// An empty one that the runtime of the calling thread watches; with it comes what [`attend`] hears of those who are
    /// called, whether more of them has come or not.
    pub fn new() -> io::Result<(Self, UnboundedReceiver<Token>)> {
        let (calls, hears) = unbounded_channel();
        let lobby = Self {
            lookout: EpollSet::new()?,
            arrivals: Waiting::default(),
            idle: Waiting::default(),
            calls,
        };
        Ok((lobby, hears))
    }

    /// Has it wait until more comes, or its seat ends.
    pub fn keep(&self, mut arrival: Arrival) -> Result<(), (Box<Arrival>, io::Error)> {
        let mark = arrival.newcomer.token();
        if !arrival.newcomer.is_in_epoll_set() {
            if let Err(error) = arrival.newcomer.add_to(&self.lookout) {
                return Err((Box::new(arrival), error));
            }
            let card = self.card(mark);
            if arrival
                .seat
                .poll_ended(&mut task::Context::from_waker(&card))
                .is_ready()
            {
                card.wake();
            }
        }
        self.arrivals.put(mark, Box::new(arrival));
        Ok(())
    }

    /// Whether an open connection can rest from here on: then it is the lobby that hears of what comes from either side, and
    /// of what it is told. Otherwise nothing has changed, and its `task` goes on.
    ///
    /// The runtime still knows its sockets, so that where the kernel has no room to watch them here nothing is lost.
    pub fn expects(&self, open: &mut Open<Legs>, task: &Waker) -> bool {
        if open.legs.add_to(&self.lookout).is_err() {
            // It costs some memory, and there may be thousands of them: nothing to be told of each.
            return false;
        }
        let can_rest = open.relay.set_parked_waker(&self.card(open.legs.token()));
        if !can_rest {
            open.legs.remove_from(&self.lookout);
            // What it was told may have gone to the card, which calls nobody.
            task.wake_by_ref();
        }
        can_rest
    }

    /// Has an open connection that is expected wait until it is heard of.
    pub fn rest(&self, idle: Box<Idle>) {
        self.idle.put(idle.legs.token(), idle);
    }

    /// Lets go of one that was kept, which is not to be closed yet.
    pub fn forget(&self, newcomer: &mut AcceptedSocket<Unregistered>) {
        newcomer.remove_from(&self.lookout);
    }

    fn card(&self, mark: Token) -> Waker {
        Waker::from(Arc::new(Card {
            mark,
            calls: self.calls.clone(),
        }))
    }
}

impl<T> Waiting<T> {
    fn put(&self, mark: Token, waits: Box<T>) {
        self.0.lock().insert(mark, waits);
    }

    fn take(&self, mark: Token) -> Option<Box<T>> {
        let mut waiting = self.0.lock();
        let taken = waiting.remove(&mark);
        // A flood's worth of room is not kept for ever.
        if waiting.capacity() > waiting.len().saturating_mul(8).max(1024) {
            let left = waiting.len();
            waiting.shrink_to(left * 2);
        }
        taken
    }
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// What others have of one that waits, to call it up by: the room when its seat ends, or whoever has something to tell it.
/// That may be another worker, in search of a slot for a newcomer.
struct Card {
    mark: Token,
    calls: UnboundedSender<Token>,
}

impl Wake for Card {
    fn wake(self: Arc<Self>) {
        // Nobody hears it when the worker is gone, and the socket with it.
        let _gone = self.calls.send(self.mark);
    }
}

/// Has those in the lobby go on of whom more has come, or who are called. Some at a time, so that all others have their turn,
/// and each by itself: a fault over one ends that one.
pub async fn attend(cx: Arc<Context>, mut calls: UnboundedReceiver<Token>) {
    let mut sightings = Vec::with_capacity(EpollSet::MAX_EVENTS);
    let mut called = Vec::with_capacity(EpollSet::MAX_EVENTS);
    loop {
        let looked = tokio::select! {
            looked = cx.lobby().lookout.wait(&mut sightings) => looked,
            _ = calls.recv_many(&mut called, EpollSet::MAX_EVENTS) => Ok(()),
        };
        if let Err(error) = looked {
            survive(|| cx.live.log().warn("lobby", &error.to_string()));
            tokio::time::sleep(BACK_OFF).await;
        }
        let seen = sightings.drain(..);
        let called = called.drain(..).map(|mark| ReadyEvent {
            token: mark,
            has_ended: false,
        });
        for sighting in seen.chain(called) {
            survive(|| take_up(sighting, &cx));
        }
        tokio::task::yield_now().await;
    }
}

/// It may be gone meanwhile, and another be known by its mark: that one then finds that nothing has come.
fn take_up(sighting: ReadyEvent, cx: &Arc<Context>) {
    let lobby = cx.lobby();
    if let Some(arrival) = lobby.arrivals.take(sighting.token) {
        go_on(*arrival, sighting.has_ended, cx);
    } else if let Some(idle) = lobby.idle.take(sighting.token) {
        idle.legs.remove_from(&lobby.lookout);
        idle.get_up(cx);
    }
}

const BACK_OFF: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    /// With the table's place for it, its card and its seat in the room the whole is less than half a KiB.
    #[test]
    fn one_that_waits_is_small() {
        assert!(size_of::<Arrival>() <= 160, "{}", size_of::<Arrival>());
        assert!(size_of::<Card>() <= 16, "{}", size_of::<Card>());
    }

    /// Allocators have a class for 384.
    #[test]
    fn one_that_is_idle_is_small() {
        assert!(size_of::<Idle>() <= 384, "{}", size_of::<Idle>());
    }
}
