use super::*;

const TIMEOUTS: Timeouts = Timeouts {
    idle: None,
    half_close: Some(Duration::from_secs(30)),
    stalled: Some(Duration::from_secs(60)),
    keepalive: None,
    lifetime: None,
};

const OPEN: Sides = Sides {
    client_ended: false,
    client_died: false,
    server_ended: false,
    server_died: false,
    is_all_sent_to_client: false,
    is_all_sent_to_server: false,
    is_done: false,
};

const CLIENT_ENDED: Sides = Sides {
    client_ended: true,
    ..OPEN
};

const SERVER_ENDED: Sides = Sides {
    server_ended: true,
    ..OPEN
};

const CLIENT_DIED: Sides = Sides {
    client_ended: true,
    client_died: true,
    ..OPEN
};

/// Deadlines, and the moment at which they began.
struct Ending {
    deadlines: Deadlines,
    begun: Instant,
}

impl Ending {
    fn new() -> Self {
        Self {
            deadlines: Deadlines::default(),
            begun: Instant::now(),
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.begun + Duration::from_millis(ms)
    }

    /// Enters the stage that follows from these sides, `ms` after the beginning. Returns the stage.
    fn enter(&mut self, sides: Sides, is_acked: bool, ms: u64) -> CloseStage {
        let stage = self.deadlines.stage(sides, || is_acked).expect("a side has ended");
        let now = self.at(ms);
        self.deadlines.enter(stage, sides.client_ended, TIMEOUTS, now);
        stage
    }

    /// The time of the earliest deadline, and the reason for which the connection is closed then.
    fn earliest(&self) -> (u128, CloseReason) {
        let until = self.deadlines.earliest().expect("a deadline");
        let ms = until.duration_since(self.begun).as_millis();
        let expired = self.deadlines.expired(CloseReason::Client, until);
        assert_eq!(expired.resets_client, expired.reason == CloseReason::Stalled);
        (ms, expired.reason)
    }
}

#[test]
fn while_neither_side_has_ended_nothing_is_waited_for() {
    let deadlines = Deadlines::default();
    assert_eq!(deadlines.stage(OPEN, || true), None);
    assert_eq!(deadlines.earliest(), None);
}

#[test]
fn a_server_may_finish_for_half_close_after_the_clients_end() {
    let mut ending = Ending::new();
    assert_eq!(ending.enter(CLIENT_ENDED, true, 0), CloseStage::Finish);
    assert_eq!(ending.earliest(), (30_000, CloseReason::HalfClose));
    // Entering the same stage again does not prolong it.
    assert_eq!(ending.enter(CLIENT_ENDED, true, 20_000), CloseStage::Finish);
    assert_eq!(ending.earliest(), (30_000, CloseReason::HalfClose));
}

#[test]
fn half_close_also_ends_the_delivery_of_what_the_server_sent() {
    let mut ending = Ending::new();
    ending.enter(CLIENT_ENDED, false, 0);
    let both = Sides {
        server_ended: true,
        ..CLIENT_ENDED
    };
    assert_eq!(ending.enter(both, false, 20_000), CloseStage::Delivery);
    assert_eq!(ending.earliest(), (30_000, CloseReason::HalfClose));
}

#[test]
fn a_client_must_take_what_an_ended_server_sent_within_stalled() {
    let mut ending = Ending::new();
    assert_eq!(
        ending.enter(SERVER_ENDED, true, 0),
        CloseStage::Delivery,
        "not all is sent"
    );
    let sent = Sides {
        is_all_sent_to_client: true,
        ..SERVER_ENDED
    };
    assert_eq!(
        ending.enter(sent, false, 1000),
        CloseStage::Delivery,
        "not all is acknowledged"
    );
    assert_eq!(ending.earliest(), (60_000, CloseReason::Stalled));
}

#[test]
fn a_client_that_has_everything_has_two_seconds_to_end() {
    let mut ending = Ending::new();
    ending.enter(SERVER_ENDED, false, 0);
    let sent = Sides {
        is_all_sent_to_client: true,
        ..SERVER_ENDED
    };
    assert_eq!(ending.enter(sent, true, 7000), CloseStage::Answer);
    assert_eq!(ending.earliest(), (9000, CloseReason::Client));
    // Later writes to the client, for example of a pong, do not lead back to an earlier stage.
    assert_eq!(ending.enter(sent, false, 8000), CloseStage::Answer);
    assert_eq!(ending.earliest(), (9000, CloseReason::Client));
}

#[test]
fn what_a_dead_client_sent_is_delivered_within_150_ms_and_acknowledged_within_two_seconds() {
    let mut ending = Ending::new();
    assert_eq!(ending.enter(CLIENT_DIED, true, 0), CloseStage::Remains);
    assert_eq!(ending.earliest(), (150, CloseReason::Client));
    let sent = Sides {
        is_all_sent_to_server: true,
        ..CLIENT_DIED
    };
    assert_eq!(ending.enter(sent, true, 100), CloseStage::Acknowledgement);
    assert_eq!(ending.earliest(), (2100, CloseReason::Client));
}

#[test]
fn a_client_that_dies_after_its_servers_end_is_not_waited_for_any_more() {
    let mut ending = Ending::new();
    ending.enter(SERVER_ENDED, false, 0);
    let died = Sides {
        client_died: true,
        client_ended: true,
        ..SERVER_ENDED
    };
    assert_eq!(ending.enter(died, false, 1000), CloseStage::Remains);
    assert_eq!(ending.earliest(), (1150, CloseReason::Client));
}

#[test]
fn a_close_handshake_has_its_time_and_half_a_second_once_both_frames_are_out() {
    let mut ending = Ending::new();
    let (begun, later) = (ending.at(0), ending.at(3000));
    ending.deadlines.begin_handshake(Some(Duration::from_secs(5)), begun);
    assert_eq!(ending.earliest(), (5000, CloseReason::Client));
    ending.deadlines.frames_sent(later);
    assert_eq!(ending.earliest(), (3500, CloseReason::Client));

    let late = ending.at(4800);
    ending.deadlines.begin_handshake(Some(Duration::from_secs(5)), begun);
    ending.deadlines.frames_sent(late);
    assert_eq!(
        ending.earliest(),
        (5000, CloseReason::Client),
        "never longer than it had"
    );
}

#[test]
fn a_drain_waits_for_the_end_of_a_frame_without_a_deadline() {
    let mut ending = Ending::new();
    let (begun, sent) = (ending.at(0), ending.at(90_000));
    ending.deadlines.begin_handshake(None, begun);
    assert_eq!(ending.deadlines.earliest(), None);
    ending.deadlines.frames_sent(sent);
    assert_eq!(ending.earliest(), (90_500, CloseReason::Client));
}

#[test]
fn a_timeout_that_is_off_is_no_deadline() {
    let off = Timeouts {
        half_close: None,
        stalled: None,
        ..TIMEOUTS
    };
    let mut deadlines = Deadlines::default();
    let now = Instant::now();
    deadlines.enter(CloseStage::Finish, true, off, now);
    deadlines.enter(CloseStage::Delivery, true, off, now);
    assert_eq!(deadlines.earliest(), None);
}

#[test]
fn it_is_over_when_both_sides_are_done_or_both_have_died() {
    let done = Sides { is_done: true, ..OPEN };
    assert!(done.are_over() && !OPEN.are_over());
    // Bytes may still be left for the other side, or unacknowledged by it.
    let is_done = Sides {
        is_done: true,
        ..CLIENT_DIED
    };
    assert!(!is_done.are_over());
    let both_died = Sides {
        server_died: true,
        ..CLIENT_DIED
    };
    assert!(both_died.are_over());
}
