//! A frame header reads alike however it is split, and a scanner follows it in the same way, even over payload that it
//! has not seen. The sizes of messages are summed as a plain sum does it. Frames of wsguard's read as the frames that
//! were asked for.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wsguard::wire::Step;
use wsguard::wire::ws::frame::server_frame;
use wsguard::wire::ws::header::{FrameFault, FrameHeader, FrameKind};
use wsguard::wire::ws::header::{LONGEST_HEADER, Sender};
use wsguard::wire::ws::scanner::FrameScanner;
use wsguard::wire::ws::sequence::MessageSequence;
use wsguard_fuzz::{Dice, looks};

fuzz_target!(|data: &[u8]| {
    for sender in [Sender::Client, Sender::Server] {
        reads_alike_in_pieces(data, sender);
        for way in [Payload::Scanned, Payload::Skipped, Payload::Unseen] {
            follow(data, sender, way);
        }
    }
    writes_whole_frames(data);
});

/// How the payload is passed on the way to the next header.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Payload {
    Scanned,
    Skipped,
    /// The payload is not in the data: the next header follows at once. So lengths may be of any size.
    Unseen,
}

fn reads_alike_in_pieces(data: &[u8], sender: Sender) {
    let whole = FrameHeader::parse(data, sender);
    let has_result = |end: &usize| FrameHeader::parse(&data[..*end], sender) != Ok(Step::More);
    let in_pieces = looks(data)
        .find(has_result)
        .map(|end| FrameHeader::parse(&data[..end], sender));
    assert_eq!(in_pieces.unwrap_or(Ok(Step::More)), whole);
    // The shortest prefix with a result has exactly the bytes that the result needs.
    match (0..=data.len().min(LONGEST_HEADER)).find(has_result) {
        None => assert_eq!(whole, Ok(Step::More)),
        Some(end) => match whole {
            Ok(Step::Done { used, .. }) => assert_eq!(used, end),
            Err(fault) => breaks(fault, &data[..end], sender),
            Ok(Step::More) => panic!("more is asked for than {end} bytes, which were enough"),
        },
    }
}

/// Checks that the last of `bytes` breaks this rule of RFC 6455.
fn breaks(fault: FrameFault, bytes: &[u8], sender: Sender) {
    let (first, second) = (bytes[0], bytes.get(1).copied().unwrap_or_default());
    let is_broken = match fault {
        FrameFault::ReservedOpcode => bytes.len() == 1 && matches!(first & 0x0f, 3..=7 | 11..=15),
        FrameFault::FragmentedControl => bytes.len() == 1 && first < 0x80 && matches!(first & 0x0f, 8..=10),
        FrameFault::LongControl => bytes.len() == 2 && first & 8 != 0 && second & 0x7f > 125,
        FrameFault::NotMasked => bytes.len() == 2 && sender == Sender::Client && second < 0x80,
        FrameFault::Masked => bytes.len() == 2 && sender == Sender::Server && second >= 0x80,
        FrameFault::LengthTooLarge => bytes.len() == 3 && second & 0x7f == 127 && bytes[2] >= 0x80,
        FrameFault::LengthNotMinimal
        | FrameFault::NothingToContinue
        | FrameFault::InsideMessage
        | FrameFault::ReservedBits
        | FrameFault::BehindClose => false,
    };
    assert!(is_broken, "{fault:?} is not what {bytes:x?} breaks");
}

/// Goes from header to header, and checks a scanner against them.
fn follow(data: &[u8], sender: Sender, way: Payload) {
    let mut dice = Dice::of(data);
    let mut scanner = FrameScanner::new(sender);
    let mut sequence = MessageSequence::default();
    let mut sum = None;
    let mut at = 0;
    loop {
        let rest = &data[at..];
        assert!(scanner.at_boundary() && !scanner.is_blind());
        let (header, used) = match FrameHeader::parse(rest, sender) {
            Ok(Step::Done { value, used }) => (value, used),
            Ok(Step::More) => {
                assert!(FrameScanner::header_len(rest).is_none());
                scanner.scan(rest);
                assert!(!scanner.is_blind() && scanner.at_boundary() == rest.is_empty());
                return;
            }
            Err(_) => {
                assert_eq!(scanner.scan(rest), 0);
                assert!(scanner.is_blind() && scanner.payload_left() == 0);
                return;
            }
        };
        assert_eq!(FrameScanner::header_len(rest), Some(used));
        is_as_written(header, &rest[..used], sender);

        let saw_close = scanner.saw_close();
        let messages = scanner.scan(&rest[..used]);
        assert_eq!(
            messages,
            u32::from(matches!(header.kind, FrameKind::Text | FrameKind::Binary))
        );
        assert_eq!(scanner.payload_left(), header.payload);
        assert_eq!(scanner.saw_close(), saw_close || header.kind == FrameKind::Close);

        let size = sequence.size_with(header);
        assert_eq!(size, plain_size(sum, header));
        sequence.pass(header);
        sum = plain_sum(sum, header);
        assert_eq!(scanner.is_within_message(), sum.is_some());
        assert_eq!(sequence == MessageSequence::default(), sum.is_none());

        at += used;
        let here = usize::try_from(header.payload).map_or(data.len() - at, |payload| payload.min(data.len() - at));
        match way {
            Payload::Scanned => {
                assert_eq!(scanner.scan(&data[at..at + here]), 0, "payload begins no message");
                at += here;
            }
            Payload::Skipped => {
                skip_in_two(&mut scanner, here as u64, &mut dice);
                at += here;
            }
            Payload::Unseen => skip_in_two(&mut scanner, header.payload, &mut dice),
        }
        if scanner.payload_left() > 0 {
            assert!(way != Payload::Unseen && at == data.len());
            assert_eq!(scanner.payload_left(), header.payload - here as u64);
            return;
        }
    }
}

fn is_as_written(header: FrameHeader, bytes: &[u8], sender: Sender) {
    let kind = [
        (FrameKind::Continuation, 0),
        (FrameKind::Text, 1),
        (FrameKind::Binary, 2),
        (FrameKind::Close, 8),
        (FrameKind::Ping, 9),
        (FrameKind::Pong, 10),
    ];
    assert!(kind.contains(&(header.kind, bytes[0] & 0x0f)));
    assert_eq!(header.is_last, bytes[0] >= 0x80);
    assert_eq!(header.kind.is_control(), bytes[0] & 8 != 0);
    assert!(!header.kind.is_control() || header.is_last && header.payload <= 125);
    let shortest = match header.payload {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    } + if sender == Sender::Client { 4 } else { 0 };
    assert_eq!(header.is_minimal, bytes.len() == shortest);
    assert!(header.payload < 1 << 63 && bytes.len() >= shortest);
}

/// The size of the message up to this frame. `sum` is the size of the frames before it.
fn plain_size(sum: Option<u128>, header: FrameHeader) -> Result<u64, FrameFault> {
    if header.kind.is_control() {
        return Ok(0);
    }
    match (header.kind == FrameKind::Continuation, sum) {
        (true, None) => Err(FrameFault::NothingToContinue),
        (false, Some(_)) => Err(FrameFault::InsideMessage),
        (_, sum) => {
            let size = sum.unwrap_or(0) + u128::from(header.payload);
            Ok(u64::try_from(size).unwrap_or(u64::MAX))
        }
    }
}

fn plain_sum(sum: Option<u128>, header: FrameHeader) -> Option<u128> {
    if header.kind.is_control() {
        return sum;
    }
    let before = sum.filter(|_| header.kind == FrameKind::Continuation).unwrap_or(0);
    // The sum stays one below the largest size that can be returned.
    let sum = (before + u128::from(header.payload)).min(u128::from(u64::MAX) - 1);
    (!header.is_last).then_some(sum)
}

fn skip_in_two(scanner: &mut FrameScanner, count: u64, dice: &mut Dice) {
    let left = scanner.payload_left();
    let first = count / (1 + dice.below(4) as u64);
    scanner.skip(first);
    scanner.skip(count - first);
    assert_eq!(scanner.payload_left(), left - count);
    assert_eq!(scanner.at_boundary(), left == count);
}

/// Checks that a frame of wsguard's is one complete frame of this kind with this payload, or with as much of it as
/// fits.
fn writes_whole_frames(data: &[u8]) {
    for kind in [
        FrameKind::Text,
        FrameKind::Binary,
        FrameKind::Close,
        FrameKind::Ping,
        FrameKind::Pong,
    ] {
        let frame = server_frame(kind, data);
        let payload = &data[..data.len().min(if kind.is_control() { 125 } else { 65_535 })];
        let header = FrameHeader {
            kind,
            is_last: true,
            payload: payload.len() as u64,
            is_minimal: true,
            reserved: 0,
        };
        let used = frame.len() - payload.len();
        assert_eq!(
            FrameHeader::parse(&frame, Sender::Server),
            Ok(Step::Done { value: header, used })
        );
        assert_eq!(frame[used..], *payload);
    }
}
