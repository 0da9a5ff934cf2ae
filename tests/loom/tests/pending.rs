//! The pending room: a client that has left keeps no seat, no task waits for an end that has come already, and a client
//! that loses the race for the last seat of a key gets none.

#![cfg(loom)]

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use wsguard_loom::limit::key::{ClientKey, Prefixes};
use wsguard_loom::limit::pending::{Ended, Pending, PendingRoom, PendingRules};
use wsguard_loom::{model, of_all};

#[test]
fn a_key_never_has_more_seats_than_it_may() {
    for (threads, cap) in [(2, 1), (3, 1), (3, 2)] {
        model(Some(3), move || {
            let rig = Rig::of(9, Some(cap));
            let seats = of_all(threads, &rig, |_, rig| rig.enter(0));
            assert_eq!(seats.iter().flatten().count(), cap as usize);
            assert_eq!(rig.room.taken(), cap);
            drop(seats);
            rig.is_empty(cap);
        });
    }
}

/// Each newcomer to the full room ends one seat. The last one to come never loses its seat.
#[test]
fn a_newcomer_to_a_full_room_makes_one_seat_give_way() {
    for threads in [2, 3] {
        model(Some(3), move || {
            let rig = Rig::of(1, None);
            let seats: Vec<Pending> = of_all(threads, &rig, Rig::enter_some);
            let ended = seats.iter().filter_map(Pending::ended).collect::<Vec<_>>();
            assert_eq!(ended, vec![Ended::GaveWay; threads - 1]);
            assert_eq!(rig.room.taken() as usize, threads, "counted until it is dropped");
            drop(seats);
            rig.is_empty(1);
        });
    }
}

/// One thread asks to be woken while another one ends its seat. It notices the end by its own look or by its waker.
#[test]
fn an_end_is_never_missed() {
    for by_newcomer in [true, false] {
        model(None, move || {
            let rig = Rig::of(1, None);
            let waits = Mutex::new(Some(rig.enter(0).expect("it is empty")));
            let shared = Arc::new((Arc::clone(&rig), waits));
            let mut newcomers = of_all(2, &shared, move |thread, shared| {
                let (rig, waits) = &**shared;
                if thread == 0 {
                    let seat = waits.lock().expect("no holder has panicked").take().expect("its own");
                    let wake_count = Arc::new(WakeCount::default());
                    let waker = Waker::from(Arc::clone(&wake_count));
                    seat.is_silent();
                    let looked = seat.poll_ended(&mut Context::from_waker(&waker));
                    return (Some(seat), Some((looked, wake_count)));
                }
                if by_newcomer {
                    return (rig.enter(1), None);
                }
                assert_eq!(rig.room.expire(rig.now + TIMEOUT), None);
                (None, None)
            });
            let (seat, looked) = newcomers.swap_remove(0);
            let how = if by_newcomer { Ended::GaveWay } else { Ended::Late };
            let (looked, wake_count) = looked.expect("it has looked");
            assert_eq!(seat.as_ref().and_then(Pending::ended), Some(how));
            let times = wake_count.0.load(Ordering::Relaxed);
            assert_eq!(
                times,
                u32::from(looked == Poll::Pending),
                "woken once, or the end seen by its own look"
            );
            drop((seat, newcomers));
            rig.is_empty(1);
        });
    }
}

/// A PROXY header moves a seat to another key, while other clients enter under both keys.
#[test]
fn a_seat_that_is_moved_is_counted_once() {
    model(Some(3), || {
        let rig = Rig::of(9, Some(1));
        let moves = Mutex::new(Some(rig.enter(0).expect("it is empty")));
        let shared = Arc::new((Arc::clone(&rig), moves));
        let seats = of_all(3, &shared, |thread, shared| {
            let (rig, moves) = &**shared;
            if thread > 0 {
                return rig.enter(thread - 1);
            }
            let mut seat = moves.lock().expect("no holder has panicked").take().expect("its own");
            let _full = seat.rekey(Some(key(1)));
            Some(seat)
        });
        // Both keys together can have two seats: the one that was there, and one newcomer under the other key.
        assert_eq!(rig.room.taken() as usize, seats.iter().flatten().count());
        assert!(rig.enter(0).is_none() || rig.enter(1).is_none());
        drop(seats);
        rig.is_empty(1);
    });
}

struct Rig {
    room: Arc<PendingRoom>,
    now: Instant,
}

impl Rig {
    fn of(max: u32, max_per_ip: Option<u32>) -> Arc<Self> {
        let rules = PendingRules {
            max,
            max_per_ip,
            timeout: TIMEOUT,
        };
        Arc::new(Self {
            room: PendingRoom::new(rules),
            now: Instant::now(),
        })
    }

    /// Takes a seat for this client, if the client may have one.
    fn enter(&self, client: usize) -> Option<Pending> {
        self.room.enter(Some(key(client)), self.now).ok()
    }

    fn enter_some(client: usize, rig: &Arc<Self>) -> Pending {
        rig.enter(client).expect("no key has a cap")
    }

    /// Checks that no seat is counted, and that each key can have all its seats again.
    fn is_empty(&self, cap: u32) {
        assert_eq!(self.room.taken(), 0);
        for client in [0, 1] {
            let seats: Vec<_> = (0..cap).map(|_| self.enter(client).expect("its own again")).collect();
            drop(seats);
        }
    }
}

/// How often a waker was woken.
#[derive(Default)]
struct WakeCount(AtomicU32);

impl Wake for WakeCount {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn key(client: usize) -> ClientKey {
    let client = u8::try_from(client).expect("a few clients");
    ClientKey::of(IpAddr::from([192, 0, 2, client]), Prefixes::default())
}

const TIMEOUT: Duration = Duration::from_secs(10);
