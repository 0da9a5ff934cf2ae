//! The queue before a shared bucket: a connection that waits in it learns of its turn, however those before it leave.

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

/// Two connections leave the queue before a third one, each on its own thread, while the third one asks. It finds
/// itself first, or is woken.
#[test]
fn a_turn_is_never_lost() {
    model(Some(3), || {
        let queue = Arc::new(WaitQueue::default());
        let places: Vec<Mutex<Option<Place>>> = (0..3).map(|_| Mutex::new(Some(queue.join(price())))).collect();
        let shared = Arc::new((queue, places));
        let mut left = of_all(3, &shared, |thread, shared| {
            let place = shared.1[thread].lock().expect("no holder has panicked").take();
            if thread < 2 {
                drop(place);
                return None;
            }
            let wake_count = Arc::new(WakeCount::default());
            let waker = Waker::from(Arc::clone(&wake_count));
            let place = place.expect("its own");
            let looked = place.poll_first(&mut Context::from_waker(&waker));
            Some((place, looked, wake_count))
        });
        let (place, looked, wake_count) = left.swap_remove(2).expect("it has looked");
        let times = wake_count.0.load(Ordering::Relaxed);
        assert_eq!(
            times,
            u32::from(looked == Poll::Pending),
            "woken once, or first by its own look"
        );
        let waker = Waker::from(wake_count);
        assert_eq!(place.poll_first(&mut Context::from_waker(&waker)), Poll::Ready(()));
        drop(place);
        assert!(shared.0.is_empty(price()));
    });
}

/// Some connections join and leave while others do. In the end none is left in the queue.
#[test]
fn a_connection_that_leaves_the_queue_is_gone_from_it() {
    model(Some(3), || {
        let queue = Arc::new(WaitQueue::default());
        of_all(3, &queue, |_, queue| drop(queue.join(price())));
        assert!(queue.is_empty(price()));
    });
}

/// The price that all of them pay.
fn price() -> Charge {
    let one = NonZeroU32::MIN;
    Meter::from(Rate {
        tokens: one,
        per: Duration::from_secs(1),
        burst: one,
    })
    .one()
}

/// How often a waker was woken.
#[derive(Default)]
struct WakeCount(AtomicU32);

impl Wake for WakeCount {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
