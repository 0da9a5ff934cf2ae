use super::*;
use crate::limit::rules::Rate;
use crate::limit::shares::Shares;
use crate::net::clock::Clock;
use crate::relay::conn_limits::ConnLimits;
use crate::relay::counters::RelayCounters;
use crate::relay::rules::{MessageRules, OnExceed, Timeouts};
use crate::wire::ws::extensions::Extensions;
use crate::wire::ws::frame::server_frame;
use proptest::prelude::*;
use std::time::Instant;

const NO_TIMEOUTS: Timeouts = Timeouts {
    idle: None,
    half_close: None,
    stalled: None,
    keepalive: None,
    lifetime: None,
};

fn a_second(tokens: u32, burst: u32) -> Rate {
    Rate {
        tokens: tokens.try_into().unwrap(),
        per: Duration::from_secs(1),
        burst: burst.try_into().unwrap(),
    }
}

/// A policer, and the stream that has passed it so far.
struct Rig {
    policer: FramePolicer,
    env: RelayEnv,
    scanner: FrameScanner,
    epoch: Instant,
    counters: Arc<RelayCounters>,
    deferred: Vec<u8>,
    passed: Vec<u8>,
    messages: u32,
    has_frame: bool,
    remainder: Remainder,
}

impl Rig {
    fn new(sender: Sender, rules: &MessageRules, observe: bool) -> Self {
        Self::sharing(sender, rules, observe, None)
    }

    fn sharing(sender: Sender, rules: &MessageRules, observe: bool, shares: Option<Arc<Shares>>) -> Self {
        let (epoch, counters) = (Instant::now(), Arc::<RelayCounters>::default());
        let limits = Arc::new(ConnLimits::new(
            NO_TIMEOUTS,
            rules,
            observe,
            epoch,
            Arc::new(Clock::begin(epoch)),
            Arc::new(Random::seeded([7; 16])),
        ));
        let is_strict = sender == Sender::Client && rules.strict_frames;
        Self {
            policer: FramePolicer::new(sender),
            env: RelayEnv {
                limits,
                shares,
                counters: Arc::clone(&counters),
            },
            scanner: if is_strict {
                FrameScanner::strict(sender, Extensions::None)
            } else {
                FrameScanner::new(sender)
            },
            epoch,
            counters,
            deferred: Vec::new(),
            passed: Vec::new(),
            messages: 0,
            has_frame: false,
            remainder: Remainder::None,
        }
    }

    /// Feeds a segment to the policer, until bytes wait or are rejected.
    fn feed(&mut self, segment: &[u8], ms: u64) {
        self.deferred.extend_from_slice(segment);
        let now = Moment::since(self.epoch, self.epoch + Duration::from_millis(ms));
        loop {
            let verdict = self.policer.police(&mut self.scanner, &self.deferred, &self.env, now);
            self.passed.extend_from_slice(&self.deferred[..verdict.passes]);
            self.deferred.drain(..verdict.rest);
            self.messages += verdict.messages;
            self.has_frame |= verdict.has_frame;
            self.remainder = verdict.remainder;
            if !matches!(verdict.remainder, Remainder::Swallowed | Remainder::TurnOver) {
                return;
            }
        }
    }

    fn hits(&self, limit: MessageLimit, action: LimitAction) -> u64 {
        self.counters.hits(limit, action).value()
    }
}

/// A client's frame with this first byte and this many bytes of payload.
fn frame(first: u8, payload: usize) -> Vec<u8> {
    let mut frame = match payload {
        0..126 => vec![first, 0x80 | u8::try_from(payload).unwrap()],
        126..65_536 => [&[first, 0xfe], u16::try_from(payload).unwrap().to_be_bytes().as_slice()].concat(),
        _ => [&[first, 0xff], (payload as u64).to_be_bytes().as_slice()].concat(),
    };
    frame.extend(*b"mask");
    frame.resize(frame.len() + payload, b'x');
    frame
}

#[test]
fn a_policer_is_small() {
    assert!(size_of::<FramePolicer>() <= 64, "{}", size_of::<FramePolicer>());
}

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

#[test]
fn five_a_second_means_five_at_once_and_the_sixth_is_forbidden_before_a_byte_of_it_passes() {
    let mut rig = Rig::new(
        Sender::Client,
        &MessageRules {
            rate: Some(a_second(5, 5)),
            ..MessageRules::OFF
        },
        false,
    );
    let flood = frame(TEXT, 10).repeat(6);
    rig.feed(&flood, 0);
    assert_eq!(rig.passed, frame(TEXT, 10).repeat(5));
    assert_eq!(
        rig.remainder,
        Remainder::Reject(Violation::Rate(MessageLimit::Rate, Duration::from_millis(200)))
    );
    assert_eq!((rig.messages, rig.scanner.at_boundary()), (5, true));
}

#[test]
fn control_frames_take_no_message_token_and_yet_are_no_way_around() {
    let rules = MessageRules {
        rate: Some(a_second(5, 5)),
        ..MessageRules::OFF
    };
    let mut rig = Rig::new(Sender::Client, &rules, false);
    rig.feed(&frame(TEXT, 1).repeat(5), 0);
    rig.feed(&frame(PING, 4).repeat(45), 0);
    assert_eq!(rig.remainder, Remainder::None);
    rig.feed(&frame(PING, 4), 0);
    assert!(matches!(
        rig.remainder,
        Remainder::Reject(Violation::Rate(MessageLimit::Frames, _))
    ));

    // The stream is a message that never ends, of empty fragments.
    let mut rig = Rig::new(Sender::Client, &rules, false);
    rig.feed(&[frame(0x01, 1), frame(0x00, 0).repeat(60)].concat(), 0);
    assert_eq!(rig.messages, 1);
    assert!(matches!(
        rig.remainder,
        Remainder::Reject(Violation::Rate(MessageLimit::Frames, _))
    ));
    assert_eq!(rig.passed.len(), frame(0x01, 1).len() + 49 * frame(0x00, 0).len());
}

#[test]
fn a_size_is_that_of_all_fragments_and_is_known_before_the_payload_comes() {
    let rules = MessageRules {
        max_size: Some(100),
        ..MessageRules::OFF
    };
    let mut rig = Rig::new(Sender::Client, &rules, false);
    rig.feed(&[frame(0x01, 60), frame(PING, 125), frame(0x00, 40)].concat(), 0);
    assert_eq!(rig.remainder, Remainder::None);
    rig.feed(&frame(0x00, 1)[..6], 0);
    assert_eq!(rig.remainder, Remainder::Reject(Violation::Size));

    let mut rig = Rig::new(Sender::Client, &rules, false);
    rig.feed(&frame(TEXT, 100), 0);
    rig.feed(
        &[0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4],
        0,
    );
    assert_eq!(
        (rig.remainder, rig.passed.len()),
        (Remainder::Reject(Violation::Size), 106)
    );
}

#[test]
fn bytes_are_those_of_payload_of_every_kind() {
    let rules = MessageRules {
        bytes_rate: Some(a_second(100, 250)),
        ..MessageRules::OFF
    };
    for next in [frame(TEXT, 1), frame(PING, 1), frame(PONG, 1), frame(CLOSE, 1)] {
        let mut rig = Rig::new(Sender::Client, &rules, false);
        rig.feed(
            &[frame(TEXT, 100), frame(PING, 60), frame(PONG, 50), frame(TEXT, 40)].concat(),
            0,
        );
        assert_eq!(rig.remainder, Remainder::None);
        rig.feed(&[frame(TEXT, 0), next].concat(), 0);
        assert_eq!(
            rig.remainder,
            Remainder::Reject(Violation::Rate(MessageLimit::BytesRate, Duration::from_millis(10)))
        );
    }
}

#[test]
fn a_length_is_worth_nothing_before_its_bytes_have_come() {
    let rules = MessageRules {
        bytes_rate: Some(a_second(100, 100)),
        ..MessageRules::OFF
    };
    // A frame that was found to fit by its header is paid for as it passes. So a second frame finds what the first one
    // has left.
    let mut rig = Rig::new(Sender::Client, &rules, false);
    let whole = frame(TEXT, 100);
    rig.feed(&whole[..16], 0);
    rig.feed(&[&whole[16..], frame(TEXT, 11).as_slice()].concat(), 100);
    assert_eq!(rig.passed, whole);
    assert_eq!(
        rig.remainder,
        Remainder::Reject(Violation::Rate(MessageLimit::BytesRate, Duration::from_millis(10)))
    );
    // A frame that does not fit is refused by its header.
    let mut rig = Rig::new(Sender::Client, &rules, false);
    rig.feed(&frame(TEXT, 101)[..6], 0);
    assert_eq!(
        (rig.passed.len(), rig.remainder),
        (
            0,
            Remainder::Reject(Violation::Rate(MessageLimit::BytesRate, Duration::from_millis(10)))
        )
    );
}

#[test]
fn a_frame_of_any_length_passes_at_the_rate_where_what_is_too_much_waits() {
    let rules = MessageRules {
        bytes_rate: Some(a_second(1000, 1000)),
        on_exceed: OnExceed::Delay,
        ..MessageRules::OFF
    };
    let longest = [0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4];
    let mut rig = Rig::new(Sender::Client, &rules, false);
    rig.feed(&[longest.as_slice(), &[0; 5000]].concat(), 0);
    assert_eq!(
        (rig.passed.len(), rig.remainder),
        (14 + 1000, Remainder::Defer(Duration::from_millis(250)))
    );
    // The payload passes a portion at a time, and not byte by byte.
    rig.feed(b"", 249);
    assert_eq!(
        (rig.passed.len(), rig.remainder),
        (14 + 1000, Remainder::Defer(Duration::from_millis(1)))
    );
    rig.feed(b"", 250);
    assert_eq!(
        (rig.passed.len(), rig.remainder),
        (14 + 1250, Remainder::Defer(Duration::from_millis(250)))
    );
    rig.feed(b"", 3000);
    assert_eq!(rig.passed.len(), 14 + 2250, "the bucket holds no more than its burst");
    assert_eq!(rig.hits(MessageLimit::BytesRate, LimitAction::Delay), 1);
}

#[test]
fn what_has_no_end_that_anybody_knows_is_limited_in_bytes_all_the_same() {
    let limit = |on_exceed| MessageRules {
        bytes_rate: Some(a_second(100, 100)),
        on_exceed,
        ..MessageRules::OFF
    };
    let stream = [b"\x83".as_slice(), &[0; 300]].concat();
    let refused = Remainder::Reject(Violation::Rate(MessageLimit::BytesRate, Duration::from_millis(250)));
    for (on_exceed, remainder) in [
        (OnExceed::Close, refused),
        (OnExceed::Delay, Remainder::Defer(Duration::from_millis(250))),
    ] {
        let mut rig = Rig::new(Sender::Client, &limit(on_exceed), false);
        rig.feed(&stream, 0);
        assert_eq!((rig.passed.len(), rig.remainder), (101, remainder));
    }
}

#[test]
fn one_close_frame_ends_what_may_be_said_but_for_pongs() {
    let rules = MessageRules {
        rate: Some(a_second(100, 100)),
        strict_frames: true,
        ..MessageRules::OFF
    };
    for more in [frame(TEXT, 1), frame(0x80, 1), frame(PING, 1), frame(CLOSE, 2)] {
        let mut rig = Rig::new(Sender::Client, &rules, false);
        // A ping may have been on its way to the client, and its pong may still come.
        let said = [frame(TEXT, 1), frame(CLOSE, 2), frame(PONG, 1)].concat();
        rig.feed(&[said.as_slice(), &more].concat(), 0);
        assert_eq!(rig.passed, said);
        assert_eq!(
            rig.remainder,
            Remainder::Reject(Violation::Fault(FrameFault::BehindClose))
        );
    }
}

#[test]
fn frames_of_every_kind_are_counted_whatever_is_limited() {
    let rate = Some(a_second(1, 2));
    let bytes_rate = Some(a_second(1600, 4000));
    let max_size = Some(1000);
    let rules = |rate, per_ip_rate, bytes_rate, max_size| MessageRules {
        rate,
        per_ip_rate,
        bytes_rate,
        max_size,
        ..MessageRules::OFF
    };
    for (rules, most) in [
        (rules(rate, None, None, None), 20),
        (rules(None, rate, None, None), 20),
        (rules(None, None, bytes_rate, None), 500),
        (rules(None, None, Some(a_second(1, 1)), None), 100),
        (rules(None, None, None, max_size), 10_000),
        (rules(rate, None, bytes_rate, max_size), 20),
        (rules(None, rate, bytes_rate, max_size), 20),
        (rules(None, None, bytes_rate, max_size), 500),
    ] {
        for kind in [PING, PONG, CLOSE, 0x00] {
            let mut rig = Rig::sharing(Sender::Client, &rules, false, Some(Arc::default()));
            rig.feed(&frame(kind, 0).repeat(10_050), 0);
            assert_eq!(rig.passed.len(), 6 * most, "{kind:x} {rules:?}");
            assert!(matches!(rig.remainder, Remainder::Reject(Violation::Rate(..))));
        }
    }
    for (out_rate, out_per_ip_rate, out_bytes_rate, most) in [
        (rate, None, None, 20),
        (None, rate, None, 20),
        (None, None, bytes_rate, 500),
    ] {
        let rules = MessageRules {
            out_rate,
            out_per_ip_rate,
            out_bytes_rate,
            ..MessageRules::OFF
        };
        let mut rig = Rig::sharing(Sender::Server, &rules, false, Some(Arc::default()));
        rig.feed(&server_frame(FrameKind::Pong, b"").repeat(10_050), 0);
        assert_eq!(rig.passed.len(), 2 * most, "{rules:?}");
        assert!(matches!(rig.remainder, Remainder::Defer(_)));
    }
}

#[test]
fn reserved_bits_pass_where_an_extension_has_them() {
    use Extensions::{None, Other, PerMessage};
    let rules = MessageRules {
        strict_frames: true,
        ..MessageRules::OFF
    };
    for (extensions, first, passes) in [
        (None, 0xc1, false),
        (None, 0x91, false),
        (PerMessage, 0xc1, true),
        (PerMessage, 0xa1, false),
        (PerMessage, 0xc9, false),
        (Other, 0xf1, true),
        (Other, 0xf9, true),
    ] {
        let mut rig = Rig::new(Sender::Client, &rules, false);
        rig.scanner = FrameScanner::strict(Sender::Client, extensions);
        rig.feed(&frame(first, 3), 0);
        let remainder = if passes {
            Remainder::None
        } else {
            Remainder::Reject(Violation::Fault(FrameFault::ReservedBits))
        };
        assert_eq!(rig.remainder, remainder, "{extensions:?} {first:x}");
    }
}

#[test]
fn a_client_has_spoken_when_a_whole_header_that_can_be_has_come() {
    let rules = MessageRules {
        first_message: Some(Duration::from_secs(1)),
        ..MessageRules::OFF
    };
    let mut rig = Rig::new(Sender::Client, &rules, false);
    for byte in &frame(TEXT, 200)[..7] {
        rig.feed(&[*byte], 0);
        assert!(!rig.has_frame);
    }
    rig.feed(&frame(TEXT, 200)[7..8], 0);
    assert!(rig.has_frame, "its payload may take its time");
    for (bytes, expected) in [
        (frame(PONG, 0), true),
        (b"\x81\x05hello".to_vec(), false),
        (b"\x83".to_vec(), false),
    ] {
        let mut rig = Rig::new(Sender::Client, &rules, false);
        rig.feed(&bytes, 0);
        assert_eq!((rig.has_frame, rig.passed == bytes), (expected, true));
    }
}

#[test]
fn all_connections_of_a_client_spend_from_one_bucket() {
    let rules = MessageRules {
        per_ip_rate: Some(a_second(5, 5)),
        ..MessageRules::OFF
    };
    let shares = Arc::<Shares>::default();
    let epoch = Instant::now();
    let mut rigs = [0, 1].map(|_| {
        let mut rig = Rig::sharing(Sender::Client, &rules, false, Some(Arc::clone(&shares)));
        rig.epoch = epoch;
        rig
    });
    rigs[0].feed(&frame(TEXT, 1).repeat(3), 0);
    rigs[1].feed(&frame(TEXT, 1).repeat(3), 0);
    assert_eq!(rigs.map(|rig| rig.messages), [3, 2]);
}

#[test]
fn what_is_delayed_passes_when_its_token_is_there_and_counts_one_hit() {
    let rules = MessageRules {
        rate: Some(a_second(5, 5)),
        on_exceed: OnExceed::Delay,
        ..MessageRules::OFF
    };
    let mut rig = Rig::new(Sender::Client, &rules, false);
    rig.feed(&frame(TEXT, 1).repeat(7), 0);
    assert_eq!(
        (rig.remainder, rig.messages),
        (Remainder::Defer(Duration::from_millis(200)), 5)
    );
    rig.feed(b"", 100);
    assert_eq!(rig.remainder, Remainder::Defer(Duration::from_millis(100)));
    rig.feed(b"", 200);
    assert_eq!(
        (rig.messages, rig.remainder),
        (6, Remainder::Defer(Duration::from_millis(200)))
    );
    assert_eq!(rig.hits(MessageLimit::Rate, LimitAction::Delay), 2);
    rig.feed(b"", 400);
    assert_eq!((rig.messages, rig.remainder), (7, Remainder::None));
    assert_eq!(rig.passed, frame(TEXT, 1).repeat(7));
}

#[test]
fn where_nothing_may_be_rejected_what_is_larger_than_the_bucket_passes_at_its_rate() {
    let rules = MessageRules {
        out_bytes_rate: Some(a_second(1000, 1000)),
        ..MessageRules::OFF
    };
    let mut rig = Rig::new(Sender::Server, &rules, false);
    let large = server_frame(FrameKind::Binary, &[0; 3000]);
    let small = server_frame(FrameKind::Binary, b"x");
    rig.feed(&[large.clone(), small.clone()].concat(), 0);
    assert_eq!(rig.passed, large[..1004]);
    assert_eq!(rig.remainder, Remainder::Defer(Duration::from_millis(250)));
    rig.feed(b"", 1000);
    assert_eq!(rig.passed, large[..2004]);
    rig.feed(b"", 2000);
    assert_eq!(rig.passed, large);
    assert_eq!(rig.remainder, Remainder::Defer(Duration::from_millis(1)));
    rig.feed(b"", 2001);
    assert_eq!(rig.passed, [large, small].concat());
}

#[test]
fn an_observer_lets_everything_pass_and_counts_what_it_would_have_stopped() {
    let rules = MessageRules {
        rate: Some(a_second(5, 5)),
        max_size: Some(10),
        strict_frames: true,
        ..MessageRules::OFF
    };
    let mut rig = Rig::new(Sender::Client, &rules, true);
    let stream = [
        frame(TEXT, 1).repeat(8),
        frame(0x80, 1),
        b"\x81\x01x".to_vec(),
        frame(TEXT, 50),
    ]
    .concat();
    rig.feed(&stream, 0);
    assert_eq!((rig.passed == stream, rig.remainder), (true, Remainder::None));
    assert_eq!(rig.hits(MessageLimit::Rate, LimitAction::Observe), 3);
    assert_eq!(rig.hits(MessageLimit::StrictFrames, LimitAction::Observe), 2);
}

#[test]
fn exactly_our_pong_is_swallowed() {
    let rules = MessageRules {
        ping: Some(Duration::from_secs(1)),
        ..MessageRules::OFF
    };
    let mut expected = ExpectedPong::new(&Random::seeded([7; 16]));
    let ping = expected.ping();
    let answer = |payload: &[u8]| {
        let mask = [1, 2, 3, 4];
        let masked = payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key);
        [
            &[0x8a, 0x80 | u8::try_from(payload.len()).unwrap(), 1, 2, 3, 4],
            masked.collect::<Vec<u8>>().as_slice(),
        ]
        .concat()
    };
    let (ours, theirs) = (answer(&ping[2..]), answer(b"the server's own"));
    assert_eq!(ours.len(), theirs.len());
    let stream = [
        frame(TEXT, 3),
        theirs.clone(),
        ours.clone(),
        frame(TEXT, 4),
        ours.clone(),
    ]
    .concat();
    for size in [1, 2, 5, 7, 22, stream.len()] {
        let mut rig = Rig::new(Sender::Client, &rules, false);
        rig.policer.pong = Some(Box::new(expected));
        stream.chunks(size).for_each(|segment| rig.feed(segment, 0));
        // A second answer to one ping is not ours.
        assert_eq!(
            rig.passed,
            [frame(TEXT, 3), theirs.clone(), frame(TEXT, 4), ours.clone()].concat()
        );
        assert_eq!(rig.remainder, Remainder::None);
    }
    let mut rig = Rig::new(Sender::Client, &rules, false);
    rig.feed(&ours, 0);
    assert_eq!(rig.passed, ours, "no ping was sent");
}

#[test]
fn what_a_payload_leaves_of_its_allowance_is_not_for_bytes_in_which_frames_cannot_be_found() {
    let unmasked = [TEXT, 0, b'm', b'a', b's', b'k'];
    let stream = [frame(TEXT, 120), frame(TEXT, 120), unmasked.to_vec()].concat();
    for (on_exceed, remainder) in [
        (
            OnExceed::Close,
            Remainder::Reject(Violation::Rate(MessageLimit::BytesRate, Duration::from_millis(240))),
        ),
        (OnExceed::Delay, Remainder::Defer(Duration::from_millis(240))),
    ] {
        let rules = MessageRules {
            // One byte is left behind both messages. A portion is all 241.
            bytes_rate: Some(a_second(1000, 241)),
            on_exceed,
            ..MessageRules::OFF
        };
        for size in 1..=stream.len() {
            let mut rig = Rig::new(Sender::Client, &rules, false);
            for segment in stream.chunks(size) {
                rig.feed(segment, 0);
                if rig.remainder == remainder {
                    break;
                }
            }
            // The second byte shows that there is no mask. The header passes up to it.
            assert_eq!(rig.passed.len(), stream.len() - 4, "in segments of {size}");
            assert_eq!(rig.remainder, remainder, "in segments of {size}");
        }
    }
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let first = prop::sample::select(vec![
        0x81_u8, 0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x88, 0x89, 0x8a, 0xc1, 0x83, 0x09,
    ]);
    let length = prop_oneof![0..20_usize, 120..130_usize, 65_530..65_540_usize];
    (first, length, 0..20_u8).prop_map(|(first, length, twist)| {
        let mut frame = frame(first, length);
        match twist {
            // A frame without a mask, one whose length is not minimal, and one that is too long.
            0 => frame[1] &= 0x7f,
            1 if length < 126 => {
                frame[1] = 0xfe;
                frame.splice(2..2, [0, u8::try_from(length).unwrap()]);
            }
            2 => {
                frame[1] = 0xff;
                frame.splice(2..2, (1_u64 << 63).to_be_bytes());
            }
            _ => {}
        }
        frame
    })
}

proptest! {
    #[test]
    fn at_every_split_of_the_stream_the_counts_are_the_same(
        frames in prop::collection::vec(any_frame(), 1..30),
        sizes in prop::collection::vec(1..200_usize, 1..20),
        (strict, observe, delays) in any::<(bool, bool, bool)>(),
        max_size in prop::option::of(1..70_000_u64),
        most_bytes in 1..300_000_u32,
    ) {
        let rules = MessageRules {
            rate: Some(a_second(1, 8)),
            per_ip_rate: Some(a_second(1, 9)),
            // Each byte is worth a whole number of nanoseconds, so that no split rounds differently.
            bytes_rate: Some(a_second(1000, most_bytes)),
            max_size,
            strict_frames: strict,
            on_exceed: if delays { OnExceed::Delay } else { OnExceed::Close },
            ..MessageRules::OFF
        };
        let stream = frames.concat();
        let outcome = |rig: Rig| {
            let hits: Vec<u64> = MessageLimit::ALL
                .into_iter()
                .flat_map(|limit| LimitAction::ALL.map(|action| rig.hits(limit, action)))
                .collect();
            (rig.passed, rig.messages, rig.remainder, hits)
        };
        let ends = |remainder| matches!(remainder, Remainder::Reject(_) | Remainder::Defer(_));
        let mut whole = Rig::sharing(Sender::Client, &rules, observe, Some(Arc::default()));
        whole.feed(&stream, 0);
        let mut split = Rig::sharing(Sender::Client, &rules, observe, Some(Arc::default()));
        let (mut rest, mut sizes) = (stream.as_slice(), sizes.into_iter().cycle());
        while !rest.is_empty() && !ends(split.remainder) {
            let (segment, next) = rest.split_at(sizes.next().unwrap_or(1).min(rest.len()));
            split.feed(segment, 0);
            rest = next;
        }
        prop_assert_eq!(outcome(split), outcome(whole));
    }
}

/// A textbook bucket that counts its level in billionths of a token. It is exact in whole numbers.
struct Plain {
    level: u128,
    rate: u128,
    burst: u128,
    at: u128,
}

impl Plain {
    fn full(rate: Option<Rate>, times: u128) -> Option<Self> {
        rate.map(|rate| {
            let burst = u128::from(rate.burst.get()) * times * 1_000_000_000;
            let rate = u128::from(rate.tokens.get()) * times;
            Self {
                level: burst,
                rate,
                burst,
                at: 0,
            }
        })
    }

    fn has(&mut self, count: u64, ms: u64) -> bool {
        let now = u128::from(ms) * 1_000_000;
        self.level = self.burst.min(self.level + self.rate * (now - self.at));
        self.at = now;
        self.level >= u128::from(count) * 1_000_000_000
    }

    /// Takes `count` tokens, which must be there.
    fn take(&mut self, count: u64, ms: u64) {
        assert!(self.has(count, ms), "{count} more than there are at {ms} ms");
        self.level -= u128::from(count) * 1_000_000_000;
    }
}

/// Charges plain buckets for the bytes that pass.
struct Watch {
    scanner: FrameScanner,
    messages: Option<Plain>,
    frames: Option<Plain>,
    bytes: Option<Plain>,
    seen: usize,
}

impl Watch {
    /// Charges the buckets for the new part of `passed`: for each frame at its header, and for each byte of payload as
    /// it passes.
    fn see(&mut self, passed: &[u8], ms: u64) {
        while self.seen < passed.len() {
            let new = &passed[self.seen..];
            if self.scanner.at_boundary() {
                let Ok(Step::Done { value, used }) = FrameHeader::parse(new, Sender::Client) else {
                    panic!("half a header passes");
                };
                self.frames.iter_mut().for_each(|bucket| bucket.take(1, ms));
                if value.kind.begins_message() {
                    self.messages.iter_mut().for_each(|bucket| bucket.take(1, ms));
                }
                self.scanner.scan(&new[..used]);
                self.seen += used;
            } else {
                let here = usize::try_from(self.scanner.payload_left()).map_or(new.len(), |left| left.min(new.len()));
                self.bytes.iter_mut().for_each(|bucket| bucket.take(here as u64, ms));
                self.scanner.skip(here as u64);
                self.seen += here;
            }
        }
    }
}

proptest! {
    #[test]
    fn at_no_time_has_more_passed_than_plain_buckets_have_had(
        frames in prop::collection::vec((prop::sample::select(vec![TEXT, 0x82, CLOSE, PING, PONG]), 0..3000_usize), 1..30),
        steps in prop::collection::vec((1..4000_usize, prop_oneof![Just(0_u64), 0..50_u64, 0..3000_u64]), 1..80),
        (delays, has_rate, has_bytes) in any::<(bool, bool, bool)>(),
        (rate, burst) in (prop::sample::select(vec![1_u32, 2, 5, 10]), 1..20_u32),
        (bytes_rate, bytes_burst) in (prop::sample::select(vec![100_u32, 1000, 10_000]), 1..5000_u32),
    ) {
        let rules = MessageRules {
            rate: has_rate.then(|| a_second(rate, burst)),
            bytes_rate: has_bytes.then(|| a_second(bytes_rate, bytes_burst)),
            on_exceed: if delays { OnExceed::Delay } else { OnExceed::Close },
            ..MessageRules::OFF
        };
        let of_bytes = |rate: Rate| a_second((rate.tokens.get() / 8).max(1), (rate.burst.get() / 8).max(100));
        let mut watch = Watch {
            scanner: FrameScanner::new(Sender::Client),
            messages: Plain::full(rules.rate, 1),
            // A token of this bucket takes a whole number of nanoseconds, rounded up. So the plain bucket may be a
            // little ahead.
            frames: Plain::full(rules.rate, 10).or_else(|| Plain::full(rules.bytes_rate.map(of_bytes), 1)),
            bytes: Plain::full(rules.bytes_rate, 1),
            seen: 0,
        };
        let mut rig = Rig::new(Sender::Client, &rules, false);
        let of_its_kind = |&(first, payload)| frame(first, payload % if first < CLOSE { 3000 } else { 126 });
        let stream: Vec<u8> = frames.iter().flat_map(of_its_kind).collect();
        let (mut rest, mut ms) = (stream.as_slice(), 0);
        for (size, pause) in steps {
            let (segment, next) = rest.split_at(size.min(rest.len()));
            rest = next;
            rig.feed(segment, ms);
            watch.see(&rig.passed, ms);
            match rig.remainder {
                // If a frame is refused or waits, a bucket must lack a token for it.
                Remainder::Reject(Violation::Rate(limit, _)) => {
                    let Ok(Step::Done { value, .. }) = FrameHeader::parse(&rig.deferred, Sender::Client) else {
                        panic!("no frame is refused");
                    };
                    let has = |bucket: &mut Option<Plain>, count| {
                        bucket.as_mut().is_none_or(|bucket| bucket.has(count, ms))
                    };
                    let lacks = match limit {
                        MessageLimit::Rate => !has(&mut watch.messages, 1),
                        MessageLimit::BytesRate => !has(&mut watch.bytes, value.payload),
                        // The plain bucket is ahead by less than one token.
                        _ => !has(&mut watch.frames, 2),
                    };
                    prop_assert!(lacks, "{limit:?} has what {value:?} takes");
                    break;
                }
                Remainder::Defer(lacks) => {
                    // Once the token is there, the stream goes on.
                    prop_assert!(lacks > Duration::ZERO);
                    let before = rig.passed.len();
                    ms += u64::try_from(lacks.as_nanos().div_ceil(1_000_000)).unwrap();
                    rig.feed(b"", ms);
                    watch.see(&rig.passed, ms);
                    prop_assert!(rig.passed.len() > before || matches!(rig.remainder, Remainder::Defer(_)));
                }
                _ => {}
            }
            ms += pause;
        }
    }
}

/// While a turn lasts, the other connections of the worker wait. So a turn must not be long.
#[test]
fn a_turn_ends_after_so_many_frames_however_small_they_are() {
    let rules = MessageRules {
        rate: Some(a_second(1_000_000, 1_000_000)),
        ..MessageRules::OFF
    };
    let mut rig = Rig::new(Sender::Client, &rules, false);
    let stream = frame(TEXT, 0).repeat(10_000);
    let now = Moment::since(rig.epoch, rig.epoch);
    let verdict = rig.policer.police(&mut rig.scanner, &stream, &rig.env, now);
    let most = MAX_FRAMES as usize * 6;
    assert_eq!((verdict.frames, verdict.remainder), (MAX_FRAMES, Remainder::TurnOver));
    assert_eq!((verdict.passes, verdict.rest), (most, most));
    rig.feed(&stream[most..], 0);
    assert_eq!(
        (rig.remainder, rig.passed.len()),
        (Remainder::None, stream.len() - most)
    );
}

#[test]
fn no_message_overtakes_the_queue_for_a_shared_bucket() {
    let shares = Arc::<Shares>::default();
    let rules = MessageRules {
        out_per_ip_rate: Some(a_second(1, 1)),
        ..MessageRules::OFF
    };
    let [mut first, mut second] =
        [(); 2].map(|()| Rig::sharing(Sender::Server, &rules, false, Some(Arc::clone(&shares))));
    let price = first.policer.wait_queue(&first.env).unwrap().1;
    let place = shares.outbound_queue.join(price);
    let message = server_frame(FrameKind::Text, b"x");
    second.feed(&message, 0);
    assert!(
        matches!(second.remainder, Remainder::Defer(_)),
        "though a token is there"
    );
    assert!(second.policer.lacks_shared());
    first.policer.set_turn(true);
    first.feed(&message, 0);
    assert_eq!(first.passed, message);
    drop(place);
    second.feed(&[], 1000);
    assert_eq!(second.passed, message);
}
