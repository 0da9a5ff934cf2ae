//! The relay between real sockets. The tests poll it by hand and set its clock, so no test waits.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use crate::limit::rules::Rate;
use crate::net::clock::Clock;
use crate::net::random::Random;
use crate::relay::conn_limits::ConnLimits;
use crate::relay::rules::RelayMode;
use crate::relay::rules::{MessageRules, OnExceed, Timeouts};
use crate::wire::ws::extensions::Extensions;
use crate::wire::ws::frame::{close_frame, server_frame};
use crate::wire::ws::header::FrameKind;

use super::*;

const TIMEOUTS: Timeouts = Timeouts {
    idle: None,
    half_close: Some(Duration::from_secs(30)),
    stalled: Some(Duration::from_secs(60)),
    keepalive: None,
    lifetime: None,
};

/// A relay, and both of its peers.
struct Rig {
    relay: Relay,
    legs: Legs,
    client: UnixStream,
    server: UnixStream,
    handle: Arc<ConnHandle>,
    clock: Arc<Clock>,
}

impl Rig {
    fn new(rules: &MessageRules) -> Self {
        Self::with(rules, Arc::new(Random::seeded([7; 16])))
    }

    /// A rig whose random numbers come from a source that others may draw from.
    fn with(rules: &MessageRules, random: Arc<Random>) -> Self {
        let now = Instant::now();
        let clock = Arc::new(Clock::manual(now));
        let handle = Arc::<ConnHandle>::default();
        let ((client, client_leg), (server, server_leg)) = (pair(), pair());
        let early = EarlyBytes {
            from_client: Vec::new(),
            from_server: Vec::new(),
            reply_size: 0,
            extensions: Extensions::None,
        };
        let params = RelayParams {
            mode: RelayMode::Auto,
            limits: Arc::new(ConnLimits::new(TIMEOUTS, rules, false, now, Arc::clone(&clock), random)),
            shares: None,
            handle: Arc::clone(&handle),
            counters: Arc::default(),
        };
        Self {
            relay: Relay::new(early, params),
            legs: Legs {
                client: client_leg,
                server: server_leg,
            },
            client,
            server,
            handle,
            clock,
        }
    }

    /// Polls the relay until it has done all that it can do now. Returns why the connection is over, if it is.
    async fn settle(&mut self) -> Option<CloseReason> {
        for _ in 0..10 {
            // This lets the runtime find out which sockets are ready.
            tokio::task::yield_now().await;
            if let Poll::Ready(totals) = self.relay.poll(&self.legs, &mut Context::from_waker(Waker::noop())) {
                return Some(totals.reason);
            }
        }
        None
    }

    /// Advances the clock by this long. The connection must stay open until then, and must be over then. Returns the
    /// reason.
    async fn closes_after(&mut self, span: Duration) -> CloseReason {
        let early = Duration::from_millis(1);
        assert_eq!(self.settle().await, None, "it is over at once");
        self.clock.advance(span.saturating_sub(early));
        assert_eq!(self.settle().await, None, "it is over too early");
        self.clock.advance(early);
        self.settle().await.expect("it is over in time")
    }
}

/// A peer, and the leg that leads to it.
fn pair() -> (UnixStream, crate::net::transport::Transport) {
    let (peer, leg) = UnixStream::pair().unwrap();
    peer.set_nonblocking(true).unwrap();
    leg.set_nonblocking(true).unwrap();
    (peer, tokio::net::UnixStream::from_std(leg).unwrap().into())
}

/// The bytes that can be read now, and whether an end or an error follows them.
fn read(peer: &mut UnixStream) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let ended = match peer.read_to_end(&mut bytes) {
        Ok(_) => true,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    };
    (bytes, ended)
}

/// Writes until the socket takes no more.
fn fill(peer: &mut UnixStream, bytes: &[u8]) {
    let mut written = 0;
    while written < bytes.len()
        && let Ok(more) = peer.write(&bytes[written..])
    {
        written += more;
    }
}

/// A client's frame. Its mask is zero, so the payload stays as it is.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = 0x80 | u8::try_from(payload.len()).unwrap();
    [&[first, length, 0, 0, 0, 0], payload].concat()
}

fn text(payload: &[u8]) -> Vec<u8> {
    masked(0x81, payload)
}

fn one_a_second(on_exceed: OnExceed) -> MessageRules {
    let one = std::num::NonZeroU32::MIN;
    MessageRules {
        rate: Some(Rate {
            tokens: one,
            per: Duration::from_secs(1),
            burst: one,
        }),
        on_exceed,
        notice: Some("wait {retry_ms}".into()),
        ..MessageRules::OFF
    }
}

#[tokio::test]
async fn a_server_has_half_close_to_finish_after_its_clients_end() {
    let mut rig = Rig::new(&MessageRules::OFF);
    rig.client.write_all(&text(b"last")).unwrap();
    rig.client.shutdown(Shutdown::Write).unwrap();
    let reason = rig.closes_after(Duration::from_secs(30)).await;
    assert_eq!(reason, CloseReason::HalfClose);
    assert_eq!(read(&mut rig.server), (text(b"last"), true));
}

#[tokio::test]
async fn what_a_server_sends_within_half_close_arrives_and_its_end_is_the_end() {
    let mut rig = Rig::new(&MessageRules::OFF);
    rig.client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rig.settle().await, None);
    rig.clock.advance(Duration::from_secs(29));
    let answer = server_frame(FrameKind::Text, b"late");
    rig.server.write_all(&answer).unwrap();
    assert_eq!(rig.settle().await, None);
    assert_eq!(read(&mut rig.client), (answer, false));
    rig.server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rig.settle().await, Some(CloseReason::Client));
}

#[tokio::test]
async fn a_client_that_does_not_take_what_its_ended_server_sent_has_stalled() {
    let mut rig = Rig::new(&MessageRules::OFF);
    let frame = server_frame(FrameKind::Binary, &vec![0; 60_000]);
    // This is more than the sockets on the way hold.
    for _ in 0..20 {
        fill(&mut rig.server, &frame);
        assert_eq!(rig.settle().await, None);
    }
    rig.server.shutdown(Shutdown::Write).unwrap();
    rig.handle.probe();
    let reason = rig.closes_after(Duration::from_secs(60)).await;
    assert_eq!(reason, CloseReason::Stalled);
}

#[tokio::test]
async fn a_client_that_has_everything_has_two_seconds_to_end() {
    let mut rig = Rig::new(&MessageRules::OFF);
    rig.server.write_all(&server_frame(FrameKind::Text, b"last")).unwrap();
    rig.server.shutdown(Shutdown::Write).unwrap();
    let reason = rig.closes_after(Duration::from_secs(2)).await;
    assert_eq!(reason, CloseReason::Upstream);
}

#[tokio::test]
async fn what_a_dead_client_sent_has_150_ms_to_be_taken() {
    let mut rig = Rig::new(&MessageRules::OFF);
    for _ in 0..20 {
        fill(&mut rig.client, &text(&[0; 100]).repeat(600));
        assert_eq!(rig.settle().await, None);
    }
    // Bytes that the server has not read make its end a reset.
    rig.server.write_all(&server_frame(FrameKind::Text, b"unread")).unwrap();
    assert_eq!(rig.settle().await, None);
    let (client, _) = pair();
    drop(std::mem::replace(&mut rig.client, client));
    rig.handle.probe();
    let reason = rig.closes_after(Duration::from_millis(150)).await;
    assert_eq!(reason, CloseReason::Client);
}

#[tokio::test]
async fn a_close_handshake_without_an_answer_closes_after_half_a_second() {
    let mut rig = Rig::new(&MessageRules::OFF);
    rig.handle.send(Command::Close(CloseReason::Idle));
    let reason = rig.closes_after(Duration::from_millis(500)).await;
    assert_eq!(reason, CloseReason::Idle);
    let frame = CloseReason::Idle.frame().unwrap();
    let to_client = close_frame(frame.code, frame.text, None);
    assert_eq!(read(&mut rig.client), (to_client, false), "its end follows its answer");
    let (to_server, has_ended) = read(&mut rig.server);
    assert_eq!((&to_server[..2], has_ended), (&[0x88, 0x82][..], true));
}

#[tokio::test]
async fn a_close_handshake_that_both_answer_is_over_at_once() {
    let mut rig = Rig::new(&MessageRules::OFF);
    rig.handle.send(Command::Close(CloseReason::Lifetime));
    assert_eq!(rig.settle().await, None);
    rig.client.write_all(&masked(0x88, &1001_u16.to_be_bytes())).unwrap();
    assert_eq!(rig.settle().await, None);
    assert!(read(&mut rig.client).1, "the end follows its answer");
    rig.client.shutdown(Shutdown::Write).unwrap();
    rig.server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rig.settle().await, Some(CloseReason::Lifetime));
}

#[tokio::test]
async fn a_drain_waits_for_the_end_of_a_frame_until_it_is_cut() {
    let mut rig = Rig::new(&MessageRules::OFF);
    let message = server_frame(FrameKind::Text, b"in two parts");
    let (begin, end) = message.split_at(5);
    rig.server.write_all(begin).unwrap();
    assert_eq!(rig.settle().await, None);
    rig.handle.send(Command::Close(CloseReason::Drain));
    assert_eq!(rig.settle().await, None);
    rig.clock.advance(Duration::from_secs(3600));
    assert_eq!(rig.settle().await, None, "it has no deadline of its own");
    assert_eq!(read(&mut rig.client), (begin.to_vec(), false));

    rig.server.write_all(end).unwrap();
    assert_eq!(rig.settle().await, None);
    let (rest, _) = read(&mut rig.client);
    assert_eq!((&rest[..end.len()], rest[end.len()]), (end, 0x88));
    rig.clock.advance(Duration::from_millis(500));
    assert_eq!(rig.settle().await, Some(CloseReason::Drain));
}

#[tokio::test]
async fn a_cut_ends_it_within_a_frame_and_without_a_close_frame() {
    let mut rig = Rig::new(&MessageRules::OFF);
    let begin = &server_frame(FrameKind::Text, b"never finished")[..5];
    rig.server.write_all(begin).unwrap();
    assert_eq!(rig.settle().await, None);
    rig.handle.send(Command::Close(CloseReason::Drain));
    assert_eq!(rig.settle().await, None);
    rig.handle.send(Command::Cut);
    assert_eq!(rig.settle().await, Some(CloseReason::Drain));
    assert_eq!(read(&mut rig.client), (begin.to_vec(), true));
}

#[tokio::test]
async fn a_delayed_message_passes_when_its_token_is_there_and_the_client_gets_one_notice() {
    let mut rig = Rig::new(&one_a_second(OnExceed::Delay));
    rig.client.write_all(&text(b"x").repeat(3)).unwrap();
    assert_eq!(rig.settle().await, None);
    assert_eq!(read(&mut rig.server).0, text(b"x"));
    assert_eq!(read(&mut rig.client).0, server_frame(FrameKind::Text, b"wait 1000"));
    assert!(rig.handle.is_client_unread());
    rig.clock.advance(Duration::from_millis(999));
    assert_eq!(rig.settle().await, None);
    assert!(read(&mut rig.server).0.is_empty());
    for _ in 0..2 {
        rig.clock.advance(Duration::from_millis(1));
        assert_eq!(rig.settle().await, None);
        assert_eq!(read(&mut rig.server).0, text(b"x"));
        rig.clock.advance(Duration::from_millis(999));
    }
    assert!(!rig.handle.is_client_unread());
    assert!(read(&mut rig.client).0.is_empty());
}

#[tokio::test]
async fn a_message_that_would_wait_for_more_than_five_seconds_closes_the_connection() {
    let mut rules = one_a_second(OnExceed::Delay);
    rules.rate = rules.rate.map(|rate| Rate {
        per: Duration::from_secs(60),
        ..rate
    });
    let mut rig = Rig::new(&rules);
    rig.client.write_all(&text(b"x").repeat(2)).unwrap();
    assert_eq!(rig.settle().await, None);
    assert_eq!(read(&mut rig.client).0, server_frame(FrameKind::Text, b"wait 60000"));
    rig.clock.advance(Duration::from_millis(4999));
    assert_eq!(rig.settle().await, None);
    assert!(read(&mut rig.client).0.is_empty());
    rig.clock.advance(Duration::from_millis(1));
    let reason = rig.closes_after(Duration::from_millis(500)).await;
    assert_eq!(reason, CloseReason::MessageRate);
    let (last, _) = read(&mut rig.client);
    assert_eq!(&last[..1], &[0x88]);
    assert_eq!(&last[2..4], &1008_u16.to_be_bytes());
}

#[tokio::test]
async fn what_is_buffered_for_a_client_has_five_seconds_after_its_violation() {
    let mut rig = Rig::new(&one_a_second(OnExceed::Close));
    let frame = server_frame(FrameKind::Binary, &vec![0; 60_000]);
    for _ in 0..20 {
        fill(&mut rig.server, &frame);
        assert_eq!(rig.settle().await, None);
    }
    rig.client.write_all(&text(b"x").repeat(2)).unwrap();
    let reason = rig.closes_after(Duration::from_secs(5)).await;
    assert_eq!(reason, CloseReason::MessageRate);
}

#[tokio::test]
async fn the_pong_to_our_ping_stays_here_and_any_other_passes() {
    let mut rig = Rig::new(&MessageRules {
        ping: Some(Duration::from_secs(30)),
        ..MessageRules::OFF
    });
    assert_eq!(rig.settle().await, None);
    rig.handle.ping();
    assert_eq!(rig.settle().await, None);
    let (ping, _) = read(&mut rig.client);
    assert_eq!(ping[0], 0x89);
    rig.handle.probe();
    assert_eq!(rig.settle().await, None);
    assert_eq!(rig.handle.ping_delivery(), PingDelivery::Acknowledged);
    assert_eq!(rig.handle.client_activity(), 0);

    let theirs = masked(0x8a, b"sixteen letters!");
    rig.client.write_all(&theirs).unwrap();
    assert_eq!(rig.settle().await, None);
    assert_eq!(read(&mut rig.server).0, theirs);
    assert_eq!(rig.handle.client_activity(), 1);

    rig.client.write_all(&masked(0x8a, &ping[2..])).unwrap();
    assert_eq!(rig.settle().await, None);
    assert!(read(&mut rig.server).0.is_empty());
    assert_eq!(rig.handle.client_activity(), 2);
    assert_eq!(rig.handle.ping_delivery(), PingDelivery::None);
}

#[tokio::test]
async fn all_pings_of_a_connection_are_alike_and_those_of_another_differ() {
    let rules = MessageRules {
        ping: Some(Duration::from_secs(30)),
        ..MessageRules::OFF
    };
    let random = Arc::new(Random::seeded([7; 16]));
    let mut rigs = [(); 2].map(|()| Rig::with(&rules, Arc::clone(&random)));
    let mut pings = Vec::new();
    for rig in rigs.iter_mut().chain([&mut Rig::new(&rules)]) {
        assert_eq!(rig.settle().await, None);
        let mut sent = Vec::new();
        for _ in 0..2 {
            rig.handle.ping();
            assert_eq!(rig.settle().await, None);
            sent.push(read(&mut rig.client).0);
        }
        assert_eq!(sent[0], sent[1]);
        assert_eq!(sent[0][..10], *b"\x89\x10wsguard-");
        pings.append(&mut sent);
    }
    assert_ne!(pings[0], pings[2], "the two draw one after the other");
    assert_eq!(
        pings[0], pings[4],
        "the third draws first, from a source with the same seed"
    );
}

#[tokio::test]
async fn a_ping_waits_for_the_end_of_the_servers_frame() {
    let mut rig = Rig::new(&MessageRules {
        ping: Some(Duration::from_secs(30)),
        ..MessageRules::OFF
    });
    let message = server_frame(FrameKind::Text, b"in two parts");
    rig.server.write_all(&message[..5]).unwrap();
    assert_eq!(rig.settle().await, None);
    rig.handle.ping();
    assert_eq!(rig.settle().await, None);
    assert_eq!(read(&mut rig.client).0, message[..5]);
    assert_eq!(rig.handle.ping_delivery(), PingDelivery::None);
    rig.server.write_all(&message[5..]).unwrap();
    assert_eq!(rig.settle().await, None);
    let (rest, _) = read(&mut rig.client);
    assert_eq!((&rest[..9], rest[9]), (&message[5..], 0x89));
}

#[tokio::test]
async fn only_a_connection_with_nothing_under_way_is_parked() {
    let mut rig = Rig::new(&MessageRules::OFF);
    rig.handle.park();
    rig.server
        .write_all(&server_frame(FrameKind::Text, b"unfinished")[..5])
        .unwrap();
    assert_eq!(rig.settle().await, None);
    assert!(!rig.relay.take_park(), "nobody knows yet whether the client has it");
    rig.handle.probe();
    assert_eq!(rig.settle().await, None);
    assert!(rig.relay.take_park() && !rig.relay.take_park());
    assert!(rig.relay.set_parked_waker(Waker::noop()));
    rig.handle.ping();
    assert!(!rig.relay.set_parked_waker(Waker::noop()), "a request came");
}
