//! The control block of a connection: no request is lost, whenever the relay changes its waker or reads the requests.

#![cfg(loom)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Wake, Waker};

use wsguard_loom::reason::close::CloseReason;
use wsguard_loom::relay::handle::{Command, ConnHandle, PingDelivery};
use wsguard_loom::relay::{
    has_request, mark_client_activity, mark_closed, record_acked, set_waker, take_park, take_requests, write_ping,
};
use wsguard_loom::{model, of_all};

/// A relay is parked while another thread sends it a request. The relay sees the request in time, or is woken.
#[test]
fn a_request_that_meets_a_relay_on_its_way_to_be_parked_wakes_it_or_is_seen() {
    let requests: [fn(&ConnHandle); 3] = [ConnHandle::probe, ConnHandle::ping, |handle| {
        handle.send(Command::Close(CloseReason::Drain));
    }];
    for request in requests {
        model(None, move || {
            let shared = Arc::new((ConnHandle::default(), Arc::new(Woken::default())));
            let seen = of_all(2, &shared, move |thread, shared| {
                let (handle, woken) = &**shared;
                if thread == 0 {
                    request(handle);
                    return false;
                }
                set_waker(handle, &Waker::from(Arc::clone(woken)));
                has_request(handle)
            });
            assert!(seen[1] || shared.1.count() == 1, "no thread knows of the request");
        });
    }
}

/// The relay takes its requests when it is woken, and again for requests that came in the meantime.
#[test]
fn each_request_is_followed_by_a_poll_that_takes_it() {
    model(Some(3), || {
        let shared = Arc::new((ConnHandle::default(), Arc::new(Woken::default())));
        let taken = of_all(3, &shared, |thread, shared| {
            let (handle, woken) = &**shared;
            match thread {
                0 => handle.probe(),
                1 => handle.ping(),
                _ => {
                    set_waker(handle, &Waker::from(Arc::clone(woken)));
                    return take_requests(handle);
                }
            }
            (false, false, None)
        })[2];
        let (handle, woken) = &*shared;
        let later = take_requests(handle);
        assert!(taken.0 != later.0, "the probe is taken once");
        assert!(taken.1 != later.1, "the ping is taken once");
        let is_polled_again = woken.count() > 0;
        assert!(is_polled_again || !later.0 && !later.1, "what is left has woken it");
    });
}

/// Two threads close the connection for different reasons. One reason counts, for all threads and for good.
#[test]
fn at_most_one_reason_to_close_counts() {
    model(None, || {
        let handle = Arc::new(ConnHandle::default());
        let seen = of_all(3, &handle, |thread, handle| {
            match thread {
                0 => handle.send(Command::Close(CloseReason::Idle)),
                1 => handle.send(Command::Close(CloseReason::Drain)),
                _ => {}
            }
            take_requests(handle).2
        });
        let last = take_requests(&handle).2;
        assert!(matches!(
            last,
            Some(Command::Close(CloseReason::Idle | CloseReason::Drain))
        ));
        assert_eq!(
            (seen[0], seen[1]),
            (last, last),
            "a thread that has sent a command sees the one that counts"
        );
        assert!(seen[2].is_none() || seen[2] == last);
    });
}

/// The end of the process overrides every other reason, whichever came first.
#[test]
fn a_cut_is_always_obeyed() {
    model(None, || {
        let handle = Arc::new(ConnHandle::default());
        of_all(2, &handle, |thread, handle| {
            handle.send([Command::Cut, Command::Close(CloseReason::Idle)][thread]);
        });
        assert_eq!(take_requests(&handle).2, Some(Command::Cut));
    });
}

/// A ping counts as acknowledged only once its bytes are acknowledged. A ghost search must not spare a dead client, nor
/// close a live one.
#[test]
fn a_ping_is_never_taken_for_acknowledged_before_it_is() {
    model(None, || {
        let handle = Arc::new(ConnHandle::default());
        let seen = of_all(2, &handle, |thread, handle| {
            if thread == 0 {
                write_ping(handle);
                return PingDelivery::None;
            }
            handle.ping_delivery()
        });
        assert_ne!(seen[1], PingDelivery::Acknowledged);
        record_acked(&handle, 18, false);
        assert_eq!(handle.ping_delivery(), PingDelivery::Acknowledged);
    });
}

/// A thread that sees activity of the client does not see its ping as unanswered any more.
#[test]
fn what_comes_from_a_client_answers_its_ping() {
    model(None, || {
        let handle = Arc::new(ConnHandle::default());
        write_ping(&handle);
        of_all(2, &handle, |thread, handle| match thread {
            0 => mark_client_activity(handle),
            _ => handle.probe(),
        });
        assert_eq!(
            (handle.client_activity(), handle.ping_delivery()),
            (1, PingDelivery::None)
        );
        assert!(!handle.has_probed(), "the request beside it is not lost");
    });
}

/// A request to park is taken once. A request that comes at the same time does not bring it back.
#[test]
fn a_relay_is_parked_once_for_a_request() {
    model(None, || {
        let handle = Arc::new(ConnHandle::default());
        let parked = of_all(2, &handle, |thread, handle| {
            if thread == 0 {
                handle.park();
                return false;
            }
            take_park(handle)
        });
        assert!(parked[1] != take_park(&handle));
        assert!(!take_park(&handle));
    });
}

/// A relay that has ended is not woken any more, and every holder of its handle sees the end.
#[test]
fn a_closed_handle_says_so_and_keeps_no_waker() {
    model(None, || {
        let shared = Arc::new((ConnHandle::default(), Arc::new(Woken::default())));
        set_waker(&shared.0, &Waker::from(Arc::clone(&shared.1)));
        of_all(2, &shared, |thread, shared| match thread {
            0 => mark_closed(&shared.0),
            _ => shared.0.probe(),
        });
        assert!(shared.0.is_closed());
        let before = shared.1.count();
        shared.0.ping();
        assert_eq!(shared.1.count(), before);
        assert_eq!(Arc::strong_count(&shared.1), 1, "its waker is dropped");
    });
}

/// How often a waker was woken. The counter is not loom's, because only the steps of the handle are tested.
#[derive(Default)]
struct Woken(AtomicU32);

impl Woken {
    fn count(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
