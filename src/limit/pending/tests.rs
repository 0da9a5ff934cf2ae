use super::*;
use crate::limit::key::Prefixes;
use proptest::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

const RULES: PendingRules = PendingRules {
    max: 3,
    max_per_ip: None,
    timeout: Duration::from_secs(10),
};

fn key(last: u8) -> ClientKey {
    ClientKey::of([192, 0, 2, last].into(), Prefixes::default())
}

#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn rung(bell: &Arc<Bell>) -> usize {
    bell.0.load(Ordering::Relaxed)
}

fn poll(seat: &Pending, bell: &Arc<Bell>) -> Poll<Ended> {
    seat.poll_ended(&mut Context::from_waker(&Waker::from(Arc::clone(bell))))
}

fn is_empty(room: &PendingRoom) -> bool {
    let is_waiting = room.counts.waiting.load(Ordering::Relaxed) > 0;
    let are_empty = room.shards.iter().all(|shard| shard.lock().is_empty());
    !is_waiting && room.taken() == 0 && are_empty
}

#[test]
fn the_seat_that_waited_longest_gives_way_silent_ones_first() {
    let (room, now) = (PendingRoom::new(RULES), Instant::now());
    let mut seats: Vec<Pending> = (0..3).map(|_| room.enter(None, now).unwrap()).collect();
    seats[1].is_silent();
    seats[0].heard();
    seats[2].is_silent();
    seats[2].heard();
    for gone in [1, 3, 4] {
        seats.push(room.enter(None, now).unwrap());
        seats.last().unwrap().is_silent();
        let ended: Vec<usize> = (0..seats.len()).filter(|seat| seats[*seat].ended().is_some()).collect();
        assert_eq!(ended.last(), Some(&gone));
    }
    assert_eq!(room.taken(), 6, "an ended seat is counted until it is dropped");
    seats[5].heard();
    seats.push(room.enter(None, now).unwrap());
    assert_eq!(
        seats[0].ended(),
        Some(Ended::GaveWay),
        "without silent seats, the first to arrive of those that sent something"
    );
    assert_eq!(seats[2].ended(), None);
    seats.clear();
    assert!(is_empty(&room));
}

#[test]
fn a_task_whose_seat_is_ended_is_woken_once_and_learns_why() {
    let (room, now) = (PendingRoom::new(PendingRules { max: 1, ..RULES }), Instant::now());
    let bells: [Arc<Bell>; 2] = Default::default();
    let first = room.enter(None, now).unwrap();
    assert_eq!(poll(&first, &bells[1]), Poll::Pending);
    assert_eq!(poll(&first, &bells[0]), Poll::Pending);
    let second = room.enter(None, now).unwrap();
    assert_eq!(poll(&second, &bells[1]), Poll::Pending);
    assert_eq!((rung(&bells[0]), rung(&bells[1])), (1, 0));
    assert_eq!(poll(&first, &bells[0]), Poll::Ready(Ended::GaveWay));
    assert_eq!(room.expire(now + RULES.timeout), None);
    assert_eq!((rung(&bells[0]), rung(&bells[1])), (1, 1));
    assert_eq!(second.ended(), Some(Ended::Late));
    assert_eq!(first.ended(), Some(Ended::GaveWay), "the first end counts");
    drop((first, second));
    assert!(is_empty(&room));
    assert!(
        bells.iter().all(|bell| Arc::strong_count(bell) == 1),
        "no waker is kept"
    );
}

#[test]
fn a_seat_keeps_the_deadline_of_its_arrival_when_the_rules_change() {
    let (room, now) = (PendingRoom::new(RULES), Instant::now());
    assert_eq!(room.expire(now), None);
    let slow = room.enter(None, now).unwrap();
    room.set_rules(PendingRules {
        timeout: Duration::from_secs(1),
        ..RULES
    });
    let quick = room.enter(None, now + Duration::from_secs(2)).unwrap();
    quick.heard();
    assert_eq!(room.expire(now), Some(now + Duration::from_secs(3)));
    assert_eq!(
        room.expire(now + Duration::from_secs(3)),
        Some(now + Duration::from_secs(10))
    );
    assert_eq!((slow.ended(), quick.ended()), (None, Some(Ended::Late)));
    drop(slow);
    assert_eq!(room.expire(now + Duration::from_secs(99)), None);
}

#[test]
fn a_key_has_its_cap_and_a_refused_socket_ends_no_seat() {
    let room = PendingRoom::new(PendingRules {
        max: 2,
        max_per_ip: Some(2),
        ..RULES
    });
    let now = Instant::now();
    let (first, second) = (
        room.enter(Some(key(1)), now).unwrap(),
        room.enter(Some(key(1)), now).unwrap(),
    );
    assert_eq!(room.enter(Some(key(1)), now).unwrap_err(), PerIpFull { open: 2, of: 2 });
    assert_eq!((first.ended(), second.ended(), room.taken()), (None, None, 2));
    let other = room.enter(Some(key(2)), now).unwrap();
    assert_eq!(first.ended(), Some(Ended::GaveWay));
    assert!(
        room.enter(Some(key(1)), now).is_err(),
        "an ended seat is counted until it is dropped"
    );
    drop(first);
    let third = room.enter(Some(key(1)), now).unwrap();
    let trusted: Vec<_> = (0..9).map(|_| room.enter(None, now).unwrap()).collect();
    drop((trusted, second, other, third));
    assert!(is_empty(&room));
}

#[test]
fn a_seat_moves_to_another_key_unless_that_is_full() {
    let room = PendingRoom::new(PendingRules {
        max: 9,
        max_per_ip: Some(1),
        ..RULES
    });
    let now = Instant::now();
    let mut proxied = room.enter(None, now).unwrap();
    assert_eq!(proxied.rekey(Some(key(1))), Ok(()));
    assert_eq!(proxied.rekey(Some(key(1))), Ok(()), "the same key is not counted twice");
    let mut other = room.enter(Some(key(2)), now).unwrap();
    assert_eq!(other.rekey(Some(key(1))), Err(PerIpFull { open: 1, of: 1 }));
    assert!(room.enter(Some(key(2)), now).is_err(), "it stays counted as it was");
    assert_eq!(proxied.rekey(None), Ok(()));
    assert_eq!(other.rekey(Some(key(1))), Ok(()));
    room.expire(now + RULES.timeout);
    assert_eq!(other.rekey(Some(key(3))), Ok(()));
    assert!(room.enter(Some(key(3)), now).is_err());
    drop((proxied, other));
    assert!(is_empty(&room));
}

#[test]
fn lowering_the_rules_ends_no_seat() {
    let (room, now) = (PendingRoom::new(RULES), Instant::now());
    let seats: Vec<Pending> = (0..3).map(|_| room.enter(Some(key(1)), now).unwrap()).collect();
    room.set_rules(PendingRules {
        max: 1,
        max_per_ip: Some(1),
        ..RULES
    });
    assert!(seats.iter().all(|seat| seat.ended().is_none()));
    let _new_one = room.enter(None, now).unwrap();
    assert_eq!(seats.iter().filter(|seat| seat.ended().is_some()).count(), 1);
    room.set_rules(PendingRules { max: 0, ..RULES });
    assert_eq!(room.enter(None, now).unwrap().ended(), None);
}

#[test]
fn half_taken_is_half_or_more() {
    let (room, now) = (PendingRoom::new(PendingRules { max: 5, ..RULES }), Instant::now());
    let mut seats = Vec::new();
    for expected in [false, false, true, true] {
        seats.push(room.enter(None, now).unwrap());
        assert_eq!(room.is_half_taken(), expected && seats.len() > 2);
    }
}

#[test]
fn a_storm_of_threads_leaves_an_empty_room() {
    let room = PendingRoom::new(PendingRules {
        max: 10,
        max_per_ip: Some(4),
        ..RULES
    });
    let now = Instant::now();
    let left: Vec<Pending> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8u8)
            .map(|thread| {
                let room = &room;
                scope.spawn(move || {
                    let mut seats = std::collections::VecDeque::new();
                    for round in 0..400u32 {
                        if round == 200 {
                            room.expire(now + RULES.timeout);
                        }
                        if let Ok(mut seat) = room.enter((round % 3 > 0).then(|| key(thread % 3)), now) {
                            assert!(poll(&seat, &Arc::default()).is_pending() || seat.ended().is_some());
                            seat.heard();
                            let _: Result<(), PerIpFull> = seat.rekey(Some(key(3)));
                            seats.push_back(seat);
                        }
                        assert!(room.counts.waiting.load(Ordering::Relaxed).cast_signed() <= 10);
                        let most_of_a_key = |shard: &Shard| shard.lock().most_of_a_key();
                        assert!(room.shards.iter().all(|shard| most_of_a_key(shard) <= 4));
                        if seats.len() > 3 {
                            seats.pop_front();
                        }
                    }
                    seats
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let waiting = left.iter().filter(|seat| seat.ended().is_none()).count();
    assert!(waiting <= 10, "{waiting}");
    assert_eq!(room.counts.waiting.load(Ordering::Relaxed), waiting as u64);
    drop(left);
    assert!(is_empty(&room));
}

#[test]
fn a_new_socket_keeps_its_seat_while_slow_heads_fill_the_room() {
    let seats = u32::try_from(FEW).unwrap() + 2;
    let (room, start) = (PendingRoom::new(PendingRules { max: seats, ..RULES }), Instant::now());
    let slow: Vec<Pending> = (0..seats).map(|_| room.enter(None, start).unwrap()).collect();
    slow.iter().for_each(Pending::heard);
    let later = start + SLOW_HEAD;
    let new_one = room.enter(None, later).unwrap();
    new_one.is_silent();
    let next = room.enter(None, later).unwrap();
    assert_eq!(new_one.ended(), None);
    assert_eq!([0, 1, 2].map(|seat| slow[seat].ended().is_some()), [true, true, false]);
    next.is_silent();
    let _third = room.enter(None, later).unwrap();
    assert_eq!(
        new_one.ended(),
        Some(Ended::GaveWay),
        "the silent seats are no longer few"
    );
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Enter(Option<u8>),
    FallSilent(usize),
    Hear(usize),
    Leave(usize),
    Rekey(usize, Option<u8>),
    Expire,
    Rules(u32, Option<u32>, u64),
}

fn act() -> impl Strategy<Value = Act> {
    let number = || prop::option::of(0u8..3);
    prop_oneof![
        4 => number().prop_map(Act::Enter),
        2 => any::<usize>().prop_map(Act::Hear),
        2 => any::<usize>().prop_map(Act::FallSilent),
        2 => any::<usize>().prop_map(Act::Leave),
        1 => (any::<usize>(), number()).prop_map(|(seat, key)| Act::Rekey(seat, key)),
        1 => Just(Act::Expire),
        1 => (1u32..20, prop::option::of(0u32..5), 1u64..9).prop_map(|(max, per_ip, timeout)| Act::Rules(max, per_ip, timeout)),
    ]
}

/// A seat in the list.
#[derive(Clone, Debug)]
struct Known {
    key: Option<u8>,
    heard: bool,
    silent: bool,
    arrived: u64,
    deadline: u64,
    ended: Option<Ended>,
}

/// The seat that gives way, by the rules of [`PendingRoom`].
fn gives_way(known: &mut [Known], seconds: u64) -> &mut Known {
    let waiting = |silent: bool| move |seat: &&mut Known| seat.ended.is_none() && seat.silent == silent;
    let waited = |seat: Option<&mut Known>, span: Duration| {
        seat.map(|seat| u128::from(seconds - seat.arrived) * 1000 >= span.as_millis())
    };
    let first_silent = waited(known.iter_mut().find(waiting(true)), GRACE);
    let first_other = waited(known.iter_mut().find(waiting(false)), SLOW_HEAD);
    let count = |silent: bool| {
        known
            .iter()
            .filter(|seat| seat.ended.is_none() && seat.silent == silent)
            .count()
    };
    let few = count(true) * FEW < count(false);
    let silent = match (first_silent, first_other) {
        (Some(false), Some(true)) if few => false,
        (None, _) => false,
        (Some(_), _) => true,
    };
    known.iter_mut().find(waiting(silent)).unwrap()
}

proptest! {
    #[test]
    fn the_room_agrees_with_a_plain_list(acts in prop::collection::vec((act(), 0u64..3), 1..120)) {
        let (room, epoch) = (PendingRoom::new(RULES), Instant::now());
        let (mut rules, mut seconds) = ((3, None, 10), 0);
        // Both are in order of arrival.
        let (mut seats, mut known): (Vec<Pending>, Vec<Known>) = Default::default();
        for (act, wait) in acts {
            seconds += wait;
            let now = epoch + Duration::from_secs(seconds);
            let place = |seat: usize, of: usize| (of > 0).then(|| seat % of);
            let full = |known: &[Known], key: Option<u8>| key.is_some() && rules.1.is_some_and(|cap: u32| {
                known.iter().filter(|seat| seat.key == key).count() >= cap as usize
            });
            match act {
                Act::Enter(number) => {
                    let entered = room.enter(number.map(key), now);
                    prop_assert_eq!(entered.is_err(), full(&known, number));
                    let Ok(seat) = entered else { continue };
                    if known.iter().filter(|seat| seat.ended.is_none()).count() >= rules.0 as usize {
                        gives_way(&mut known, seconds).ended = Some(Ended::GaveWay);
                    }
                    seats.push(seat);
                    known.push(Known { key: number, heard: false, silent: false, arrived: seconds, deadline: seconds + rules.2, ended: None });
                }
                Act::Hear(seat) => if let Some(place) = place(seat, seats.len()) {
                    seats[place].heard();
                    known[place].heard |= known[place].ended.is_none();
                    known[place].silent = false;
                },
                Act::FallSilent(seat) => if let Some(place) = place(seat, seats.len()) && !known[place].heard {
                    seats[place].is_silent();
                    known[place].silent = true;
                },
                Act::Leave(seat) => if let Some(place) = place(seat, seats.len()) {
                    drop(seats.remove(place));
                    known.remove(place);
                },
                Act::Rekey(seat, number) => if let Some(place) = place(seat, seats.len()) {
                    let refused = number != known[place].key && full(&known, number);
                    prop_assert_eq!(seats[place].rekey(number.map(key)).is_err(), refused);
                    if !refused {
                        known[place].key = number;
                    }
                },
                Act::Expire => {
                    let waiting = |known: &Known| known.ended.is_none();
                    for seat in known.iter_mut().filter(|seat| waiting(seat) && seat.deadline <= seconds) {
                        seat.ended = Some(Ended::Late);
                    }
                    let next = known.iter().filter(|seat| waiting(seat)).map(|seat| seat.deadline).min();
                    prop_assert_eq!(room.expire(now), next.map(|next| epoch + Duration::from_secs(next)));
                }
                Act::Rules(max, max_per_ip, timeout) => {
                    rules = (max, max_per_ip, timeout);
                    room.set_rules(PendingRules { max, max_per_ip, timeout: Duration::from_secs(timeout) });
                }
            }
            prop_assert_eq!(room.taken() as usize, known.len());
            for (seat, known) in seats.iter().zip(&known) {
                prop_assert_eq!(seat.ended(), known.ended);
            }
        }
        drop(seats);
        prop_assert!(is_empty(&room));
    }
}
