//! A queue of tasks before a bucket that they share. They are served in the order in which they came, and each token
//! wakes only one of them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::bucket::Charge;
use super::sync::{AtomicUsize, Mutex, Ordering};

/// The waiting tasks, in the order in which they came. Only the first may look for tokens. After a reload, older
/// connections may pay another price than newer ones. So each price has a queue of its own, and no task waits behind
/// one that has to wait longer.
#[derive(Default)]
pub struct WaitQueue {
    // Wakers are woken and dropped only outside of the lock: both may run code that comes back here.
    state: Mutex<State>,
    /// The number of places. It is read without the lock to see whether there are any.
    length: AtomicUsize,
}

#[derive(Default)]
struct State {
    /// The number of the last place that was given out.
    last: u64,
    /// By ascending number.
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    number: u64,
    price: Charge,
    waker: Option<Waker>,
}

impl State {
    /// The index of the first place with this price.
    fn first(&self, price: Charge) -> Option<usize> {
        // All places nearly always have the same price, so this is the very first one.
        self.waiting.iter().position(|waiting| waiting.price == price)
    }

    fn find(&self, number: u64) -> Option<usize> {
        self.waiting
            .binary_search_by_key(&number, |waiting| waiting.number)
            .ok()
    }
}

impl WaitQueue {
    /// Takes a place behind all others with this price.
    pub fn join(self: &Arc<Self>, price: Charge) -> Place {
        let mut state = self.state.lock();
        state.last += 1;
        let number = state.last;
        state.waiting.push_back(Waiting {
            number,
            price,
            waker: None,
        });
        self.length.store(state.waiting.len(), Ordering::Relaxed);
        drop(state);
        Place {
            queue: Arc::clone(self),
            number,
            price,
        }
    }

    /// Whether no task waits at this price. Otherwise a new one has to queue.
    pub fn is_empty(&self, price: Charge) -> bool {
        self.length.load(Ordering::Relaxed) == 0 || self.state.lock().first(price).is_none()
    }
}

impl fmt::Debug for WaitQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitQueue")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// A place in a [`WaitQueue`]. Dropping it gives the turn to the next place.
#[must_use = "dropping it gives the place up"]
pub struct Place {
    queue: Arc<WaitQueue>,
    number: u64,
    price: Charge,
}

impl Place {
    /// Whether this is the first place at its price.
    pub fn is_first(&self) -> bool {
        let state = self.queue.state.lock();
        state
            .first(self.price)
            .is_none_or(|at| state.waiting[at].number == self.number)
    }

    /// Ready once this place is the first; otherwise the task is woken when that happens. Only the task that polled
    /// last is woken.
    pub fn poll_first(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.queue.state.lock();
        let Some(at) = state.find(self.number) else {
            return Poll::Ready(());
        };
        if state.first(self.price) == Some(at) {
            return Poll::Ready(());
        }
        let waker = state.waiting.get_mut(at).map(|waiting| &mut waiting.waker);
        let before = match waker {
            Some(waker) if waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) => {
                waker.replace(cx.waker().clone())
            }
            _ => None,
        };
        drop(state);
        drop(before);
        Poll::Pending
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        let Some(at) = state.find(self.number) else {
            return;
        };
        let was_first = state.first(self.price) == Some(at);
        let gone = state.waiting.remove(at);
        let next = state.first(self.price).filter(|_| was_first);
        let next = next.and_then(|at| state.waiting[at].waker.take());
        // The memory that many waiting tasks needed is not kept.
        if state.waiting.is_empty() {
            state.waiting = VecDeque::new();
        }
        self.queue.length.store(state.waiting.len(), Ordering::Relaxed);
        drop(state);
        drop(gone);
        next.into_iter().for_each(Waker::wake);
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    use std::task::Wake;

    use std::time::Duration;

    use crate::limit::bucket::Meter;
    use crate::limit::rules::Rate;

    use super::*;

    /// The price of a message if this many are allowed per second.
    fn price(tokens: u32) -> Charge {
        let tokens = NonZeroU32::new(tokens).unwrap();
        Meter::from(Rate {
            tokens,
            per: Duration::from_secs(1),
            burst: tokens,
        })
        .one()
    }

    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    /// A thousand tasks wait, and a thousand tokens come one by one.
    #[test]
    fn each_token_wakes_one_task_in_the_order_in_which_they_came() {
        let queue = Arc::new(WaitQueue::default());
        let mut waits: Vec<(Place, Arc<Woken>)> = (0..1000).map(|_| (queue.join(price(1)), Arc::default())).collect();
        assert!(!queue.is_empty(price(1)));
        let is_first = |(place, woken): &(Place, Arc<Woken>)| {
            let waker = Waker::from(Arc::clone(woken));
            place.poll_first(&mut Context::from_waker(&waker)).is_ready()
        };
        assert_eq!(waits.iter().filter(|one| is_first(one)).count(), 1);
        for nth in 0..1000 {
            assert!(is_first(&waits[0]), "the one that came first");
            let (place, woken) = waits.remove(0);
            assert_eq!(
                woken.0.load(Relaxed),
                u32::from(nth > 0),
                "once, and not for the others"
            );
            drop(place);
            let all: u32 = waits.iter().map(|(_, woken)| woken.0.load(Relaxed)).sum();
            assert_eq!(all, u32::from(nth < 999), "only the next one");
        }
        assert!(queue.is_empty(price(1)));
    }

    #[test]
    fn a_task_that_gives_up_its_place_in_the_middle_wakes_no_other() {
        let queue = Arc::new(WaitQueue::default());
        let [first, second, third] = [(); 3].map(|()| queue.join(price(1)));
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        assert!(third.poll_first(&mut cx).is_pending() && second.poll_first(&mut cx).is_pending());
        drop(second);
        assert_eq!(woken.0.load(Relaxed), 0);
        drop(first);
        assert_eq!(woken.0.load(Relaxed), 1);
        assert!(third.poll_first(&mut cx).is_ready());
    }

    /// A reload has changed the rate.
    #[test]
    fn no_task_waits_behind_one_that_pays_another_price() {
        let queue = Arc::new(WaitQueue::default());
        let [slow, queues] = [(); 2].map(|()| queue.join(price(1)));
        assert!(queue.is_empty(price(1000)));
        let fast = queue.join(price(1000));
        assert!(fast.is_first() && slow.is_first() && !queues.is_first());
        let later = queue.join(price(1000));
        let woken = [(); 2].map(|()| Arc::new(Woken::default()));
        for (place, woken) in [&queues, &later].into_iter().zip(&woken) {
            let waker = Waker::from(Arc::clone(woken));
            assert!(place.poll_first(&mut Context::from_waker(&waker)).is_pending());
        }
        drop(fast);
        assert_eq!([0, 1], [0, 1].map(|nth: usize| woken[nth].0.load(Relaxed)));
        drop(slow);
        assert_eq!([1, 1], [0, 1].map(|nth: usize| woken[nth].0.load(Relaxed)));
        drop((queues, later));
        assert!(queue.is_empty(price(1)) && queue.is_empty(price(1000)));
    }
}
