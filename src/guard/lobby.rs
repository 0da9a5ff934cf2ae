//! The lobby: where sockets wait that have more to say. There may be thousands of them, so nothing is kept of one but what
//! it is: it has no task, and the runtime does not know it.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::net::lookout::{Lookout, Mark, Sighting};
use crate::net::newcomer::Newcomer;

use super::panics::survive;
use super::walk::{Arrival, go_on};
use super::worker::Worker;

/// The sockets of one worker that wait.
#[derive(Debug)]
pub struct Lobby {
    lookout: Lookout,
    // Boxed, so that a table that is half empty is small.
    waiting: Mutex<HashMap<Mark, Box<Arrival>>>,
    ended: UnboundedSender<Mark>,
}

impl Lobby {
    /// An empty one that the runtime of the calling thread watches; with it comes what [`attend`] hears of seats that have
    /// ended.
    pub fn new() -> io::Result<(Self, UnboundedReceiver<Mark>)> {
        let (ended, hears) = unbounded_channel();
        let lobby = Self {
            lookout: Lookout::new()?,
            waiting: Mutex::default(),
            ended,
        };
        Ok((lobby, hears))
    }

    /// Has it wait until more comes, or its seat ends.
    pub fn keep(&self, mut arrival: Arrival) -> Result<(), (Box<Arrival>, io::Error)> {
        let mark = arrival.newcomer.mark();
        if !arrival.newcomer.is_watched() {
            if let Err(error) = arrival.newcomer.be_watched(&self.lookout) {
                return Err((Box::new(arrival), error));
            }
            let card = Waker::from(Arc::new(Card {
                mark,
                ended: self.ended.clone(),
            }));
            if arrival.seat.poll_ended(&mut Context::from_waker(&card)).is_ready() {
                card.wake();
            }
        }
        self.waiting.lock().insert(mark, Box::new(arrival));
        Ok(())
    }

    fn take(&self, mark: Mark) -> Option<Box<Arrival>> {
        let mut waiting = self.waiting.lock();
        let arrival = waiting.remove(&mark);
        // A flood's worth of room is not kept for ever.
        if waiting.capacity() > waiting.len().saturating_mul(8).max(1024) {
            let left = waiting.len();
            waiting.shrink_to(left * 2);
        }
        arrival
    }

    /// Lets go of one that was kept, which is not to be closed yet.
    pub fn forget(&self, newcomer: &mut Newcomer) {
        newcomer.be_forgotten(&self.lookout);
    }
}

/// What the room has of one that waits: it brings it up when its seat ends.
struct Card {
    mark: Mark,
    ended: UnboundedSender<Mark>,
}

impl Wake for Card {
    fn wake(self: Arc<Self>) {
        // Nobody hears it when the worker is gone, and the socket with it.
        let _gone = self.ended.send(self.mark);
    }
}

/// Has those in the lobby go on who have said more, or whose seat has ended. Some at a time, so that all others have their
/// turn, and each by itself: a fault over one ends that one.
pub async fn attend(worker: Arc<Worker>, mut ended: UnboundedReceiver<Mark>) {
    let mut sightings = Vec::with_capacity(Lookout::AT_ONCE);
    let mut over = Vec::with_capacity(Lookout::AT_ONCE);
    loop {
        let looked = tokio::select! {
            looked = worker.lobby().lookout.look(&mut sightings) => looked,
            _ = ended.recv_many(&mut over, Lookout::AT_ONCE) => Ok(()),
        };
        if let Err(error) = looked {
            survive(|| worker.guard().log().warn("lobby", &error.to_string()));
            tokio::time::sleep(BACK_OFF).await;
        }
        let seen = sightings.drain(..);
        let by_seat = over.drain(..).map(|mark| Sighting { mark, has_ended: false });
        for sighting in seen.chain(by_seat) {
            survive(|| take_up(sighting, &worker));
        }
        tokio::task::yield_now().await;
    }
}

/// It may be gone meanwhile, and another be known by its mark: that one then finds that nothing has come.
fn take_up(sighting: Sighting, worker: &Arc<Worker>) {
    if let Some(arrival) = worker.lobby().take(sighting.mark) {
        go_on(*arrival, sighting.has_ended, worker);
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
}
