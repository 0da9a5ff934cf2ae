use super::*;
use crate::limit::rules::Rate;
use crate::relay::clock::Clock;
use crate::relay::pace::Pace;
use crate::relay::rules::MessageRules;
use crate::wire::frame::server_frame;
use proptest::prelude::*;
use std::time::Instant;

const PACE: Pace = Pace {
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

/// A judge, and the stream that it has let through so far.
struct Court {
    judge: Judge,
    law: Law,
    scanner: FrameScanner,
    epoch: Instant,
    tally: Arc<Tally>,
    kept: Vec<u8>,
    passed: Vec<u8>,
    messages: u32,
    matter: Matter,
}

impl Court {
    fn new(sender: Sender, rules: &MessageRules, observe: bool) -> Self {
        Self::sharing(sender, rules, observe, None)
    }

    fn sharing(sender: Sender, rules: &MessageRules, observe: bool, shares: Option<Arc<Shares>>) -> Self {
        let (epoch, tally) = (Instant::now(), Arc::<Tally>::default());
        let terms = Arc::new(Terms::new(PACE, rules, observe, epoch, Arc::new(Clock::begin(epoch))));
        Self {
            judge: Judge::new(sender),
            law: Law {
                terms,
                shares,
                tally: Arc::clone(&tally),
            },
            scanner: FrameScanner::new(sender),
            epoch,
            tally,
            kept: Vec::new(),
            passed: Vec::new(),
            messages: 0,
            matter: Matter::None,
        }
    }

    /// Hears a segment, until something waits or is forbidden.
    fn hear(&mut self, segment: &[u8], ms: u64) {
        self.kept.extend_from_slice(segment);
        let now = Moment::since(self.epoch, self.epoch + Duration::from_millis(ms));
        loop {
            let judged = self.judge.judge(&mut self.scanner, &self.kept, &self.law, now);
            self.passed.extend_from_slice(&self.kept[..judged.passes]);
            self.kept.drain(..judged.rest);
            self.messages += judged.messages;
            self.matter = judged.matter;
            if judged.matter != Matter::Swallowed {
                return;
            }
        }
    }

    fn hits(&self, limit: MessageLimit, action: Action) -> u64 {
        self.tally.hits(limit, action).value()
    }
}

/// A client's frame: its first byte, and so many bytes of payload.
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
fn a_judge_is_small() {
    assert!(size_of::<Judge>() <= 64, "{}", size_of::<Judge>());
}

const TEXT: u8 = 0x81;
const PING: u8 = 0x89;

#[test]
fn five_a_second_means_five_at_once_and_the_sixth_is_forbidden_before_a_byte_of_it_passes() {
    let mut court = Court::new(
        Sender::Client,
        &MessageRules {
            rate: Some(a_second(5, 5)),
            ..MessageRules::OFF
        },
        false,
    );
    let flood = frame(TEXT, 10).repeat(6);
    court.hear(&flood, 0);
    assert_eq!(court.passed, frame(TEXT, 10).repeat(5));
    assert_eq!(
        court.matter,
        Matter::Forbidden(Offence::Rate(MessageLimit::Rate, Duration::from_millis(200)))
    );
    assert_eq!((court.messages, court.scanner.at_boundary()), (5, true));
}

#[test]
fn heartbeats_take_no_message_token_and_yet_are_no_way_round() {
    let rules = MessageRules {
        rate: Some(a_second(5, 5)),
        ..MessageRules::OFF
    };
    let mut court = Court::new(Sender::Client, &rules, false);
    court.hear(&frame(TEXT, 1).repeat(5), 0);
    court.hear(&frame(PING, 4).repeat(45), 0);
    assert_eq!(court.matter, Matter::None);
    court.hear(&frame(PING, 4), 0);
    assert!(matches!(
        court.matter,
        Matter::Forbidden(Offence::Rate(MessageLimit::Frames, _))
    ));

    // A message that never ends, of empty fragments.
    let mut court = Court::new(Sender::Client, &rules, false);
    court.hear(&[frame(0x01, 1), frame(0x00, 0).repeat(60)].concat(), 0);
    assert_eq!(court.messages, 1);
    assert!(matches!(
        court.matter,
        Matter::Forbidden(Offence::Rate(MessageLimit::Frames, _))
    ));
    assert_eq!(court.passed.len(), frame(0x01, 1).len() + 49 * frame(0x00, 0).len());
}

#[test]
fn a_size_is_that_of_all_fragments_and_is_known_before_the_payload_comes() {
    let rules = MessageRules {
        max_size: Some(100),
        ..MessageRules::OFF
    };
    let mut court = Court::new(Sender::Client, &rules, false);
    court.hear(&[frame(0x01, 60), frame(PING, 125), frame(0x00, 40)].concat(), 0);
    assert_eq!(court.matter, Matter::None);
    court.hear(&frame(0x00, 1)[..6], 0);
    assert_eq!(court.matter, Matter::Forbidden(Offence::Size));

    let mut court = Court::new(Sender::Client, &rules, false);
    court.hear(&frame(TEXT, 100), 0);
    court.hear(
        &[0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4],
        0,
    );
    assert_eq!(
        (court.matter, court.passed.len()),
        (Matter::Forbidden(Offence::Size), 106)
    );
}

#[test]
fn bytes_are_those_of_payload_and_control_frames_are_free() {
    let rules = MessageRules {
        bytes_rate: Some(a_second(100, 250)),
        ..MessageRules::OFF
    };
    let mut court = Court::new(Sender::Client, &rules, false);
    court.hear(&[frame(TEXT, 200), frame(PING, 100), frame(TEXT, 50)].concat(), 0);
    assert_eq!(court.matter, Matter::None);
    court.hear(&frame(TEXT, 1), 0);
    assert_eq!(
        court.matter,
        Matter::Forbidden(Offence::Rate(MessageLimit::BytesRate, Duration::from_millis(10)))
    );
}

#[test]
fn all_connections_of_a_client_spend_from_one_bucket() {
    let rules = MessageRules {
        per_ip_rate: Some(a_second(5, 5)),
        ..MessageRules::OFF
    };
    let shares = Arc::<Shares>::default();
    let epoch = Instant::now();
    let mut courts = [0, 1].map(|_| {
        let mut court = Court::sharing(Sender::Client, &rules, false, Some(Arc::clone(&shares)));
        court.epoch = epoch;
        court
    });
    courts[0].hear(&frame(TEXT, 1).repeat(3), 0);
    courts[1].hear(&frame(TEXT, 1).repeat(3), 0);
    assert_eq!(courts.map(|court| court.messages), [3, 2]);
}

#[test]
fn what_is_delayed_passes_when_its_time_has_come_and_counts_one_hit() {
    let rules = MessageRules {
        rate: Some(a_second(5, 5)),
        on_exceed: OnExceed::Delay,
        ..MessageRules::OFF
    };
    let mut court = Court::new(Sender::Client, &rules, false);
    court.hear(&frame(TEXT, 1).repeat(7), 0);
    assert_eq!(
        (court.matter, court.messages),
        (Matter::Wait(Duration::from_millis(200)), 5)
    );
    court.hear(b"", 100);
    assert_eq!(court.matter, Matter::Wait(Duration::from_millis(100)));
    court.hear(b"", 200);
    assert_eq!(
        (court.messages, court.matter),
        (6, Matter::Wait(Duration::from_millis(200)))
    );
    assert_eq!(court.hits(MessageLimit::Rate, Action::Delay), 2);
    court.hear(b"", 400);
    assert_eq!((court.messages, court.matter), (7, Matter::None));
    assert_eq!(court.passed, frame(TEXT, 1).repeat(7));
}

#[test]
fn what_is_larger_than_the_bucket_is_owed_where_nothing_may_be_refused() {
    let rules = MessageRules {
        out_bytes_rate: Some(a_second(1000, 1000)),
        ..MessageRules::OFF
    };
    let mut court = Court::new(Sender::Server, &rules, false);
    let large = server_frame(FrameKind::Binary, &[0; 3000]);
    let small = server_frame(FrameKind::Binary, b"x");
    court.hear(&[large.clone(), small.clone()].concat(), 0);
    assert_eq!(court.passed, large);
    assert_eq!(court.matter, Matter::Wait(Duration::from_millis(2001)));
    court.hear(b"", 2001);
    assert_eq!(court.passed, [large, small].concat());
}

#[test]
fn who_observes_lets_everything_pass_and_counts_what_it_would_not_have() {
    let rules = MessageRules {
        rate: Some(a_second(5, 5)),
        max_size: Some(10),
        strict_frames: true,
        ..MessageRules::OFF
    };
    let mut court = Court::new(Sender::Client, &rules, true);
    let stream = [
        frame(TEXT, 1).repeat(8),
        frame(0x80, 1),
        b"\x81\x01x".to_vec(),
        frame(TEXT, 50),
    ]
    .concat();
    court.hear(&stream, 0);
    assert_eq!((court.passed == stream, court.matter), (true, Matter::None));
    assert_eq!(court.hits(MessageLimit::Rate, Action::Observe), 3);
    assert_eq!(court.hits(MessageLimit::StrictFrames, Action::Observe), 2);
}

#[test]
fn exactly_our_pong_is_swallowed() {
    let rules = MessageRules {
        ping: Some(Duration::from_secs(1)),
        ..MessageRules::OFF
    };
    let mut expected = Expected::unguessable();
    let ping = expected.ask();
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
        let mut court = Court::new(Sender::Client, &rules, false);
        court.judge.pong = Some(Box::new(expected));
        stream.chunks(size).for_each(|segment| court.hear(segment, 0));
        // A second answer to one question is none of ours.
        assert_eq!(
            court.passed,
            [frame(TEXT, 3), theirs.clone(), frame(TEXT, 4), ours.clone()].concat()
        );
        assert_eq!(court.matter, Matter::None);
    }
    let mut court = Court::new(Sender::Client, &rules, false);
    court.hear(&ours, 0);
    assert_eq!(court.passed, ours, "nobody has asked");
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let first = prop::sample::select(vec![
        0x81_u8, 0x82, 0x01, 0x02, 0x00, 0x80, 0x88, 0x89, 0x8a, 0xc1, 0x83, 0x09,
    ]);
    let length = prop_oneof![0..20_usize, 120..130_usize, 65_530..65_540_usize];
    (first, length, 0..20_u8).prop_map(|(first, length, twist)| {
        let mut frame = frame(first, length);
        match twist {
            // Not masked, and not as short as can be.
            0 => frame[1] &= 0x7f,
            1 if length < 126 => {
                frame[1] = 0xfe;
                frame.splice(2..2, [0, u8::try_from(length).unwrap()]);
            }
            _ => {}
        }
        frame
    })
}

proptest! {
    #[test]
    fn at_every_split_of_the_stream_the_tally_is_the_same(
        frames in prop::collection::vec(any_frame(), 1..30),
        sizes in prop::collection::vec(1..200_usize, 1..20),
        (strict, observe, delays) in any::<(bool, bool, bool)>(),
        max_size in prop::option::of(1..70_000_u64),
    ) {
        let rules = MessageRules {
            rate: Some(a_second(1, 8)),
            per_ip_rate: Some(a_second(1, 9)),
            bytes_rate: Some(a_second(1, 200_000)),
            max_size,
            strict_frames: strict,
            on_exceed: if delays { OnExceed::Delay } else { OnExceed::Close },
            ..MessageRules::OFF
        };
        let stream = frames.concat();
        let outcome = |court: Court| {
            let hits: Vec<u64> = MessageLimit::ALL
                .into_iter()
                .flat_map(|limit| Action::ALL.map(|action| court.hits(limit, action)))
                .collect();
            (court.passed, court.messages, court.matter, hits)
        };
        let ends = |matter| matches!(matter, Matter::Forbidden(_) | Matter::Wait(_));
        let mut whole = Court::sharing(Sender::Client, &rules, observe, Some(Arc::default()));
        whole.hear(&stream, 0);
        let mut split = Court::sharing(Sender::Client, &rules, observe, Some(Arc::default()));
        let (mut rest, mut sizes) = (stream.as_slice(), sizes.into_iter().cycle());
        while !rest.is_empty() && !ends(split.matter) {
            let (segment, next) = rest.split_at(sizes.next().unwrap_or(1).min(rest.len()));
            split.hear(segment, 0);
            rest = next;
        }
        prop_assert_eq!(outcome(split), outcome(whole));
    }
}
