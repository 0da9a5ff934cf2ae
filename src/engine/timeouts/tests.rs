use std::time::Instant;

use super::*;

/// A connection under a false clock: one call of [`Conn::sweep`] is a quarter of a second.
struct Conn {
    timers: ConnTimers,
    seen: Observation,
    timeouts: Timeouts,
    liveness: Liveness,
    parking: Parking,
    millis: u64,
}

const SWEEP: u64 = 250;

impl Conn {
    fn new(timeouts: Timeouts, liveness: Liveness) -> Self {
        Self {
            timers: ConnTimers::new(0, tick(0)),
            seen: Observation {
                has_moved: false,
                is_client_unread: false,
                is_server_delayed: false,
                is_blocked: false,
                has_unacked: false,
                acked: 0,
                activity: 0,
                delivery: PingDelivery::None,
            },
            timeouts,
            liveness,
            parking: Parking {
                after: Duration::MAX,
                left: 0,
            },
            millis: 0,
        }
    }

    fn sweep(&mut self) -> Actions {
        self.millis += SWEEP;
        let actions = self.timers.step(
            &self.seen,
            &self.timeouts,
            &self.liveness,
            &mut self.parking,
            tick(self.millis),
        );
        self.seen.has_moved = false;
        actions
    }

    /// The time of the first sweep whose actions match `wanted`, in milliseconds from the opening. `None` if no sweep
    /// within an hour matches.
    fn first(&mut self, wanted: impl Fn(&Actions) -> bool) -> Option<u64> {
        (0..3_600_000 / SWEEP).find_map(|_| wanted(&self.sweep()).then_some(self.millis))
    }

    fn closes(&mut self) -> Option<(CloseReason, u64)> {
        let mut command = None;
        (0..3_600_000 / SWEEP).find_map(|_| {
            command = self.sweep().close;
            Some((command?, self.millis))
        })
    }

    /// Sweeps until this many milliseconds after the opening, and checks that no action but a probe is due until then.
    fn is_left_alone_until(&mut self, millis: u64) {
        while self.millis < millis {
            let actions = self.sweep();
            let quiet = Actions {
                probe: actions.probe,
                ..Actions::default()
            };
            assert_eq!(actions, quiet, "at {} ms", self.millis);
        }
    }

    fn moves(&mut self) {
        self.seen.has_moved = true;
    }

    fn speaks(&mut self) {
        self.seen.activity += 1;
        self.seen.delivery = PingDelivery::None;
        self.moves();
    }

    fn suspicion(&mut self) -> Suspicion {
        let Observation {
            activity,
            is_client_unread,
            ..
        } = self.seen;
        self.timers
            .suspect(activity, is_client_unread, &self.liveness, tick(self.millis))
    }
}

fn tick(millis: u64) -> Tick {
    // The clock begins just before its count wraps.
    let started = Instant::now();
    let begin = Duration::from_millis(50 << 32).saturating_sub(Duration::from_secs(5));
    Tick::at(started + begin + Duration::from_millis(millis), started)
}

#[allow(clippy::unnecessary_wraps)] // As the settings are written.
fn secs(secs: u64) -> Option<Duration> {
    Some(Duration::from_secs(secs))
}

const NO_TIMEOUTS: Timeouts = Timeouts {
    idle: None,
    half_close: None,
    stalled: None,
    keepalive: None,
    lifetime: None,
};

const NO_PINGS: Liveness = Liveness {
    ping: None,
    pong_timeout: Duration::from_secs(10),
    pong: Pong::Required,
    first_message: None,
};

fn idle(limit: u64) -> Conn {
    Conn::new(
        Timeouts {
            idle: secs(limit),
            ..NO_TIMEOUTS
        },
        NO_PINGS,
    )
}

fn stalled(limit: u64) -> Conn {
    Conn::new(
        Timeouts {
            stalled: secs(limit),
            ..NO_TIMEOUTS
        },
        NO_PINGS,
    )
}

fn pinged(after: u64, pong: Pong) -> Conn {
    Conn::new(
        NO_TIMEOUTS,
        Liveness {
            ping: secs(after),
            pong,
            ..NO_PINGS
        },
    )
}

fn first_message(limit: u64) -> Conn {
    Conn::new(
        NO_TIMEOUTS,
        Liveness {
            first_message: secs(limit),
            ..NO_PINGS
        },
    )
}

#[test]
fn without_limits_nothing_is_ever_closed_or_pinged() {
    assert_eq!(Conn::new(NO_TIMEOUTS, NO_PINGS).closes(), None);
    assert_eq!(Conn::new(NO_TIMEOUTS, NO_PINGS).first(|actions| actions.ping), None);
}

#[test]
fn the_idle_timeout_counts_from_the_last_byte() {
    assert_eq!(idle(30).closes(), Some((CloseReason::Idle, 30_000)));
    let mut conn = idle(30);
    conn.is_left_alone_until(29_750);
    conn.moves();
    conn.sweep();
    assert_eq!(conn.closes(), Some((CloseReason::Idle, 60_000)));
}

#[test]
fn a_connection_whose_bytes_wait_for_us_is_not_idle() {
    let waits: [fn(&mut Observation) -> &mut bool; 2] =
        [|seen| &mut seen.is_client_unread, |seen| &mut seen.is_server_delayed];
    for waits in waits {
        let mut conn = idle(30);
        *waits(&mut conn.seen) = true;
        conn.is_left_alone_until(90_000);
        *waits(&mut conn.seen) = false;
        assert_eq!(conn.closes(), Some((CloseReason::Idle, 120_000)));
    }
}

#[test]
fn lifetimes_end_in_their_last_tenth_wherever_the_jitter_puts_them() {
    let ends = |jitter| {
        let mut conn = Conn::new(
            Timeouts {
                lifetime: secs(1000),
                ..NO_TIMEOUTS
            },
            NO_PINGS,
        );
        conn.timers = ConnTimers::new(jitter, tick(0));
        let (command, at) = conn.closes().expect("it ends");
        assert_eq!(command, CloseReason::Lifetime);
        at
    };
    assert_eq!(
        [ends(0), ends(u16::MAX / 2), ends(u16::MAX)],
        [900_000, 950_000, 1_000_000]
    );
}

#[test]
fn the_lifetime_does_not_care_whether_anything_moves() {
    let mut conn = Conn::new(
        Timeouts {
            lifetime: secs(10),
            ..NO_TIMEOUTS
        },
        NO_PINGS,
    );
    let closed = (0..).find_map(|_| {
        conn.speaks();
        conn.sweep().close
    });
    assert_eq!((closed, conn.millis), (Some(CloseReason::Lifetime), 9_000));
}

#[test]
fn a_client_that_takes_nothing_of_what_waits_for_it_is_stalled() {
    let mut conn = stalled(16);
    conn.is_left_alone_until(60_000);
    conn.seen.has_unacked = true;
    assert_eq!(conn.closes(), Some((CloseReason::Stalled, 76_000)));
}

#[test]
fn a_client_that_takes_anything_is_not_stalled() {
    let mut conn = stalled(16);
    conn.seen.has_unacked = true;
    for acked in 1..10 {
        conn.is_left_alone_until(u64::from(acked) * 15_000);
        conn.seen.acked = acked;
    }
    conn.sweep();
    assert_eq!(conn.closes(), Some((CloseReason::Stalled, 9 * 15_000 + SWEEP + 16_000)));
}

#[test]
fn a_client_that_owes_acknowledgements_is_probed_from_an_eighth_of_the_limit_on() {
    let mut conn = stalled(16);
    conn.seen.has_unacked = true;
    while conn.sweep().close.is_none() && conn.millis < 1_000 {}
    let at = conn.first(|actions| actions.probe);
    assert!(at.is_some_and(|at| (2_000..2_500).contains(&at)), "{at:?}");
    assert!(conn.sweep().probe, "and from then on at each sweep");
}

#[test]
fn a_side_that_is_not_read_is_probed_at_each_sweep() {
    let mut conn = Conn::new(NO_TIMEOUTS, NO_PINGS);
    conn.seen.is_blocked = true;
    assert!((0..100).all(|_| conn.sweep().probe));
}

#[test]
fn a_new_connection_is_probed_once_when_it_has_stayed_for_a_second() {
    let mut conn = Conn::new(NO_TIMEOUTS, NO_PINGS);
    assert_eq!(conn.first(|actions| actions.probe), Some(1_000));
    assert_eq!(conn.first(|actions| actions.probe), None);
}

#[test]
fn a_client_without_a_first_message_is_pinged_at_half_time_and_closed_at_the_end() {
    let mut conn = first_message(10);
    conn.is_left_alone_until(4_750);
    assert!(
        conn.sweep().ping,
        "a client that only listens has half of the time to answer"
    );
    conn.seen.delivery = PingDelivery::Acknowledged;
    assert_eq!(
        conn.closes(),
        Some((CloseReason::FirstMessage, 10_000)),
        "an acknowledgement is no message"
    );
}

#[test]
fn after_its_first_message_a_client_owes_no_other() {
    let mut conn = first_message(10);
    conn.is_left_alone_until(4_500);
    conn.speaks();
    conn.is_left_alone_until(600_000);
}

#[test]
fn a_silent_client_is_pinged_once() {
    let mut conn = pinged(20, Pong::Required);
    conn.is_left_alone_until(19_750);
    assert!(conn.sweep().ping);
    conn.is_left_alone_until(600_000);
}

#[test]
fn a_ping_is_due_as_long_after_each_word_of_the_client() {
    let mut conn = pinged(20, Pong::Required);
    for word in 1..4_u64 {
        conn.is_left_alone_until(word * 15_000);
        conn.speaks();
    }
    assert_eq!(conn.first(|actions| actions.ping), Some(65_250));
}

#[test]
fn the_pong_deadline_counts_from_the_arrival_of_the_ping() {
    let mut conn = pinged(20, Pong::Required);
    assert_eq!(conn.first(|actions| actions.ping), Some(20_000));
    conn.seen.delivery = PingDelivery::InFlight;
    for _ in 0..400 {
        assert_eq!(
            conn.sweep(),
            Actions {
                probe: true,
                ..Actions::default()
            },
            "a slow link is no silent client"
        );
    }
    conn.seen.delivery = PingDelivery::Acknowledged;
    assert_eq!(conn.closes(), Some((CloseReason::Ghost, 120_250 + 10_000)));
}

#[test]
fn a_client_that_takes_something_has_its_time_for_the_pong_anew() {
    let mut conn = pinged(20, Pong::Required);
    conn.first(|actions| actions.ping);
    conn.seen.delivery = PingDelivery::Acknowledged;
    conn.is_left_alone_until(29_000);
    conn.seen.acked = 77;
    assert_eq!(conn.closes(), Some((CloseReason::Ghost, 29_250 + 10_000)));
}

#[test]
fn a_client_that_answers_is_pinged_again_after_as_long_a_silence() {
    let mut conn = pinged(20, Pong::Required);
    conn.first(|actions| actions.ping);
    conn.seen.delivery = PingDelivery::Acknowledged;
    conn.is_left_alone_until(25_000);
    conn.speaks();
    assert_eq!(conn.first(|actions| actions.ping), Some(45_250));
}

#[test]
fn with_pong_tcp_an_acknowledgement_is_answer_enough_and_the_next_ping_comes_in_time() {
    let mut conn = pinged(20, Pong::Tcp);
    assert_eq!(conn.first(|actions| actions.ping), Some(20_000));
    for acknowledged in [20_250, 40_500, 60_750] {
        conn.seen.delivery = PingDelivery::Acknowledged;
        conn.is_left_alone_until(acknowledged);
        conn.seen.delivery = PingDelivery::None;
        assert_eq!(conn.first(|actions| actions.ping), Some(acknowledged + 20_000));
    }
}

#[test]
fn a_client_that_is_not_read_is_not_pinged_and_its_silence_does_not_count() {
    let mut conn = pinged(20, Pong::Required);
    conn.is_left_alone_until(10_000);
    conn.seen.is_client_unread = true;
    conn.is_left_alone_until(100_000);
    conn.seen.is_client_unread = false;
    assert_eq!(conn.first(|actions| actions.ping), Some(120_000));
    conn.seen.delivery = PingDelivery::Acknowledged;
    conn.is_left_alone_until(125_000);
    conn.seen.is_client_unread = true;
    conn.is_left_alone_until(300_000);
}

#[test]
fn what_is_silent_for_long_is_parked_once_until_something_moves() {
    let mut conn = Conn::new(NO_TIMEOUTS, NO_PINGS);
    conn.parking = Parking {
        after: Duration::from_secs(5),
        left: 10,
    };
    assert_eq!(conn.first(|actions| actions.park), Some(5_000));
    assert_eq!(conn.first(|actions| actions.park), None);
    conn.moves();
    let moved = conn.millis + SWEEP;
    assert_eq!(conn.first(|actions| actions.park), Some(moved + 5_000));
    assert_eq!(conn.parking.left, 8);
}

#[test]
fn when_enough_are_parked_the_others_have_their_turn_at_another_sweep() {
    let mut conn = Conn::new(NO_TIMEOUTS, NO_PINGS);
    conn.parking.after = Duration::from_secs(5);
    conn.is_left_alone_until(60_000);
    conn.parking.left = 1;
    assert!(conn.sweep().park);
}

#[test]
fn nothing_is_parked_that_has_to_be_probed() {
    let mut conn = Conn::new(NO_TIMEOUTS, NO_PINGS);
    conn.parking = Parking {
        after: Duration::from_secs(5),
        left: 10,
    };
    conn.seen.is_blocked = true;
    conn.is_left_alone_until(60_000);
    conn.seen.is_blocked = false;
    assert!(conn.sweep().park);
}

#[test]
fn a_connection_is_suspected_when_a_ping_is_due_and_pinged_at_once() {
    let mut conn = pinged(20, Pong::Required);
    conn.is_left_alone_until(8_000);
    assert_eq!(conn.suspicion(), Suspicion::AliveFor(Duration::from_secs(12)));
    conn.is_left_alone_until(19_750);
    conn.millis += 250;
    assert_eq!(conn.suspicion(), Suspicion::ToPing);
    assert_eq!(
        conn.suspicion(),
        Suspicion::Pinged,
        "for the next newcomer it is not pinged again"
    );
    assert!(!conn.sweep().ping, "nor by the sweep");
    conn.speaks();
    assert_eq!(conn.suspicion(), Suspicion::AliveFor(Duration::from_secs(20)));
}

#[test]
fn a_client_that_can_not_be_heard_is_not_suspected() {
    let mut conn = pinged(20, Pong::Required);
    conn.is_left_alone_until(19_750);
    conn.millis += 60_000;
    conn.seen.is_client_unread = true;
    assert_eq!(conn.suspicion(), Suspicion::AliveFor(Duration::from_secs(20)));
}

#[test]
fn no_client_is_suspected_where_no_pings_are_sent() {
    let mut conn = Conn::new(NO_TIMEOUTS, NO_PINGS);
    conn.is_left_alone_until(600_000);
    assert_eq!(conn.suspicion(), Suspicion::AliveFor(Duration::MAX));
}

#[test]
fn a_host_that_has_acknowledged_a_ping_is_there_until_the_pong_is_due() {
    let mut conn = pinged(20, Pong::Required);
    conn.first(|actions| actions.ping);
    conn.seen.delivery = PingDelivery::Acknowledged;
    conn.sweep();
    assert!(matches!(conn.suspicion(), Suspicion::AliveFor(_)));
    let mut conn = pinged(20, Pong::Tcp);
    conn.first(|actions| actions.ping);
    conn.seen.delivery = PingDelivery::Acknowledged;
    conn.sweep();
    assert_eq!(
        conn.suspicion(),
        Suspicion::ToPing,
        "with pong = \"tcp\" it is asked anew"
    );
}
