//! The queue before a shared bucket: whoever waits in it hears of its turn, however those before it go.

#![cfg(loom)]

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use wsguard_loom::limit::bucket::{Charge, Meter};
use wsguard_loom::limit::rules::Rate;
use wsguard_loom::limit::wait_queue::{Place, WaitQueue};
use wsguard_loom::{model, of_all};

/// Two before it go, each on a thread of its own, while it asks: it is first by its own look, or is woken.
#[test]
fn a_turn_is_never_lost() {
    model(Some(3), || {
        let queue = Arc::new(WaitQueue::default());
        let places: Vec<Mutex<Option<Place>>> = (0..3).map(|_| Mutex::new(Some(queue.join(price())))).collect();
        let shared = Arc::new((queue, places));
        let mut left = of_all(3, &shared, |thread, shared| {
            let place = shared.1[thread].lock().expect("held by nobody").take();
            if thread < 2 {
                drop(place);
                return None;
            }
            let told = Arc::new(Told::default());
            let waker = Waker::from(Arc::clone(&told));
            let place = place.expect("its own");
            let looked = place.poll_first(&mut Context::from_waker(&waker));
            Some((place, looked, told))
        });
        let (place, looked, told) = left.swap_remove(2).expect("it has looked");
        let times = told.0.load(Ordering::Relaxed);
        assert_eq!(times, u32::from(looked == Poll::Pending), "told once, by one way");
        let waker = Waker::from(told);
        assert_eq!(place.poll_first(&mut Context::from_waker(&waker)), Poll::Ready(()));
        drop(place);
        assert!(shared.0.is_empty(price()));
    });
}

/// Some join and go while others do: nobody is left behind in the queue.
#[test]
fn nobody_stays_in_the_line_who_has_left() {
    model(Some(3), || {
        let queue = Arc::new(WaitQueue::default());
        of_all(3, &queue, |_, queue| drop(queue.join(price())));
        assert!(queue.is_empty(price()));
    });
}

/// What all of them pay.
fn price() -> Charge {
    let one = NonZeroU32::MIN;
    Meter::from(Rate {
        tokens: one,
        per: Duration::from_secs(1),
        burst: one,
    })
    .one()
}

/// How often somebody was woken.
#[derive(Default)]
struct Told(AtomicU32);

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
