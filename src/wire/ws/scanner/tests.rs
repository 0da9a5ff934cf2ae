use super::*;
use crate::wire::ws::extensions::Extensions;
use proptest::prelude::*;

/// RFC 6455, 5.7, byte for byte.
const HELLO: &[u8] = b"\x81\x05\x48\x65\x6c\x6c\x6f";
const MASKED_HELLO: &[u8] = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
const HEL: &[u8] = b"\x01\x03\x48\x65\x6c";
const LO: &[u8] = b"\x80\x02\x6c\x6f";
const PING: &[u8] = b"\x89\x05\x48\x65\x6c\x6c\x6f";
const MASKED_PONG: &[u8] = b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";

fn binary(length: usize) -> Vec<u8> {
    let mut frame = match length {
        0..126 => vec![0x82, u8::try_from(length).expect("below 126")],
        126..65536 => [
            &[0x82, 0x7E],
            u16::try_from(length).expect("below 2^16").to_be_bytes().as_slice(),
        ]
        .concat(),
        _ => [&[0x82, 0x7F], (length as u64).to_be_bytes().as_slice()].concat(),
    };
    frame.resize(frame.len() + length, 0xAA);
    frame
}

/// The state of a scanner: messages begun, at a boundary, blind, saw a close frame.
type Outcome = (u32, bool, bool, bool);

fn outcome(scanner: &FrameScanner, messages: u32) -> Outcome {
    (messages, scanner.at_boundary(), scanner.is_blind(), scanner.saw_close())
}

fn scan_in_chunks(sender: Sender, bytes: &[u8], sizes: &[usize]) -> Outcome {
    let mut scanner = FrameScanner::new(sender);
    let mut sizes = sizes.iter().copied().cycle();
    let mut rest = bytes;
    let mut messages = 0;
    while !rest.is_empty() {
        let (chunk, next) = rest.split_at(sizes.next().unwrap_or(1).clamp(1, rest.len()));
        messages += scanner.scan(chunk);
        rest = next;
    }
    outcome(&scanner, messages)
}

/// A plain reading of RFC 6455, 5.2: the state in the end, and a list of where frames end.
fn naive(sender: Sender, bytes: &[u8]) -> (Outcome, Vec<usize>) {
    let (mut messages, mut saw_close, mut ends, mut at) = (0, false, Vec::new(), 0);
    loop {
        let blind = |messages, saw_close| (messages, false, true, saw_close);
        let short = |messages, saw_close| (messages, false, false, saw_close);
        let frame = &bytes[at..];
        let Some(&first) = frame.first() else {
            return ((messages, true, false, saw_close), ends);
        };
        let opcode = first & 15;
        if matches!(opcode, 3..=7 | 11..=15) || opcode >= 8 && first < 128 {
            return (blind(messages, saw_close), ends);
        }
        saw_close |= opcode == 8;
        let Some(&second) = frame.get(1) else {
            return (short(messages, saw_close), ends);
        };
        if (second >= 128) != (sender == Sender::Client) || opcode >= 8 && second & 127 > 125 {
            return (blind(messages, saw_close), ends);
        }
        let extended = match second & 127 {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if extended == 8 && frame.get(2).is_some_and(|&byte| byte >= 128) {
            return (blind(messages, saw_close), ends);
        }
        let Some(length) = frame.get(2..2 + extended) else {
            return (short(messages, saw_close), ends);
        };
        let length = if extended == 0 {
            u64::from(second & 127)
        } else {
            length.iter().fold(0, |length, &byte| length * 256 + u64::from(byte))
        };
        messages += u32::from(opcode == 1 || opcode == 2);
        let end = (at + 2 + extended) as u64 + length + if sender == Sender::Client { 4 } else { 0 };
        match usize::try_from(end) {
            Ok(end) if end <= bytes.len() => at = end,
            _ => return (short(messages, saw_close), ends),
        }
        ends.push(at);
    }
}

#[test]
fn a_message_is_unfinished_until_its_last_fragment_whatever_comes_between() {
    for size in [1, 2, usize::MAX] {
        let mut scanner = FrameScanner::new(Sender::Server);
        let mut within = Vec::new();
        for bytes in [HELLO, HEL, PING, b"\x00\x00", LO, PING] {
            for piece in bytes.chunks(size.min(bytes.len())) {
                scanner.scan(piece);
            }
            within.push(scanner.is_within_message());
        }
        assert_eq!(within, [false, true, true, true, false, false]);
    }
}

#[test]
fn the_frames_of_the_rfc_are_counted() {
    for (sender, bytes, messages) in [
        (Sender::Server, HELLO.to_vec(), 1),
        (Sender::Client, MASKED_HELLO.to_vec(), 1),
        (Sender::Server, [HEL, PING, LO].concat(), 1),
        (Sender::Client, MASKED_PONG.to_vec(), 0),
        (Sender::Server, binary(256), 1),
        (Sender::Server, binary(65536), 1),
        (
            Sender::Server,
            [binary(0), binary(125), binary(126), binary(65535)].concat(),
            4,
        ),
        // RSV1: a compressed message.
        (Sender::Server, b"\xC1\x00".to_vec(), 1),
        // A length with more bytes than needed.
        (
            Sender::Server,
            b"\x82\x7E\x00\x01x\x82\x7F\0\0\0\0\0\0\0\x01x".to_vec(),
            2,
        ),
    ] {
        for size in [1, 2, 3, 7, usize::MAX] {
            let seen = scan_in_chunks(sender, &bytes, &[size]);
            assert_eq!(
                seen,
                (messages, true, false, false),
                "{} by {size}",
                bytes.escape_ascii()
            );
        }
    }
}

#[test]
fn an_impossible_header_blinds_for_good() {
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        let bytes = [HELLO, &[0x80 | opcode, 0], HELLO].concat();
        assert_eq!(
            scan_in_chunks(Sender::Server, &bytes, &[usize::MAX]),
            (1, false, true, false),
            "{opcode}"
        );
    }
    for (sender, header) in [
        (Sender::Server, b"\x09\x00".as_slice()),
        (Sender::Server, b"\x08\x00"),
        (Sender::Server, b"\x89\x7E\x00\x7E"),
        (Sender::Server, b"\x8A\x7F\0\0\0\0\0\0\0\0"),
        (Sender::Server, b"\x81\x85"),
        (Sender::Client, b"\x81\x05"),
        (Sender::Client, b"\x89\x00"),
        (Sender::Server, b"\x82\x7F\x80\0\0\0\0\0\0\0"),
        (Sender::Client, b"\x82\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"),
    ] {
        for size in [1, usize::MAX] {
            let bytes = [header, HELLO, MASKED_HELLO].concat();
            assert_eq!(
                scan_in_chunks(sender, &bytes, &[size]),
                (0, false, true, false),
                "{}",
                header.escape_ascii()
            );
        }
    }
}

#[test]
fn the_longest_lengths_are_skipped_without_overflow() {
    let mut scanner = FrameScanner::new(Sender::Client);
    assert_eq!(scanner.scan(b"\x82\xFF\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF"), 1);
    assert_eq!(scanner.scan_to_boundary(&[0x81; 4096]), (4096, 0));
    assert_eq!(outcome(&scanner, 0), (0, false, false, false));
}

#[test]
fn a_close_frame_is_seen_from_its_first_byte() {
    let mut scanner = FrameScanner::new(Sender::Server);
    scanner.scan(HELLO);
    assert!(!scanner.saw_close());
    scanner.scan(b"\x88");
    assert!(scanner.saw_close() && !scanner.at_boundary());
    scanner.scan(b"\x00");
    assert!(scanner.saw_close() && scanner.at_boundary());
}

#[test]
fn the_scan_to_a_boundary_ends_after_one_frame() {
    let stream = [HELLO, HELLO, PING].concat();
    let mut scanner = FrameScanner::new(Sender::Server);
    assert_eq!(scanner.scan_to_boundary(b""), (0, 0));
    assert_eq!(scanner.scan_to_boundary(&stream), (HELLO.len(), 1));
    assert_eq!(scanner.scan_to_boundary(&stream[..3]), (3, 1));
    assert!(!scanner.at_boundary());
    assert_eq!(scanner.scan_to_boundary(&stream[3..]), (HELLO.len() - 3, 0));
    assert!(scanner.at_boundary());
    assert_eq!(scanner.scan_to_boundary(PING), (PING.len(), 0));
    assert_eq!(scanner.scan_to_boundary(b"\x83\x00\x81\x00"), (4, 0));
    assert!(scanner.is_blind());
    assert_eq!(scanner.scan_to_boundary(&stream), (stream.len(), 0));
}

/// Streams of mostly possible frames, so that most of each is scanned before the scanner goes blind.
fn stream(sender: Sender) -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        12 => prop::sample::select(vec![0x81, 0x82, 0x01, 0x00, 0x80, 0xC1]),
        4 => prop::sample::select(vec![0x88, 0x89, 0x8A]),
        1 => any::<u8>(),
    ];
    let length = prop_oneof![8 => 0..8_usize, 2 => 120..130_usize, 1 => 65530..65540_usize];
    let frame = (first, length, any::<[u8; 4]>(), 0..40_u8).prop_map(move |(first, length, mask, odd)| {
        let mut frame = binary(if first & 8 != 0 { length % 126 } else { length });
        frame[0] = first;
        if (sender == Sender::Client) != (odd == 0) {
            frame[1] |= 0x80;
            let payload = frame.split_off(frame.len() - if first & 8 != 0 { length % 126 } else { length });
            frame.extend(mask);
            frame.extend(payload);
        }
        frame
    });
    (
        prop::collection::vec(frame, 0..12),
        prop::collection::vec(any::<u8>(), 0..12),
    )
        .prop_map(|(frames, rest)| [frames.concat(), rest].concat())
}

fn sent() -> impl Strategy<Value = (Sender, Vec<u8>)> {
    prop_oneof![Just(Sender::Client), Just(Sender::Server)].prop_flat_map(|sender| (Just(sender), stream(sender)))
}

proptest! {
    #[test]
    fn any_split_is_scanned_as_the_naive_model_does(
        (sender, bytes) in sent(), sizes in prop::collection::vec(1..400_usize, 1..9)
    ) {
        let (expected, _) = naive(sender, &bytes);
        prop_assert_eq!(scan_in_chunks(sender, &bytes, &sizes), expected);
        prop_assert_eq!(scan_in_chunks(sender, &bytes, &[usize::MAX]), expected);
        prop_assert_eq!(scan_in_chunks(sender, &bytes, &[1]), expected);
    }

    #[test]
    fn the_scan_to_a_boundary_stops_where_the_naive_model_ends_frames(
        (sender, bytes) in sent(), start in any::<prop::sample::Index>()
    ) {
        let (expected, ends) = naive(sender, &bytes);
        let mut scanner = FrameScanner::new(sender);
        let mut at = start.index(bytes.len() + 1);
        let mut messages = scanner.scan(&bytes[..at]);
        while at < bytes.len() {
            let (used, began) = scanner.scan_to_boundary(&bytes[at..]);
            let next = ends.iter().copied().find(|end| *end > at).unwrap_or(bytes.len());
            prop_assert_eq!(at + used, next);
            prop_assert_eq!(scanner.at_boundary(), ends.contains(&next));
            (at, messages) = (next, messages + began);
        }
        prop_assert_eq!(outcome(&scanner, messages), expected);
    }

    #[test]
    fn skipping_payload_leads_to_the_same_state_as_scanning_it(
        (sender, bytes) in sent(), sizes in prop::collection::vec(1..400_usize, 1..9)
    ) {
        let mut scanner = FrameScanner::new(sender);
        let (mut at, mut messages) = (0, 0);
        for size in sizes.into_iter().cycle() {
            if at == bytes.len() {
                break;
            }
            let here = &bytes[at..bytes.len().min(at + size)];
            let unseen = usize::try_from(scanner.payload_left()).unwrap_or(usize::MAX).min(here.len());
            if unseen > 0 {
                scanner.skip(unseen as u64);
                at += unseen;
            } else {
                messages += scanner.scan(here);
                at += here.len();
            }
        }
        prop_assert_eq!(outcome(&scanner, messages), naive(sender, &bytes).0);
    }

    #[test]
    fn arbitrary_bytes_are_scanned_as_the_naive_model_does(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for sender in [Sender::Client, Sender::Server] {
            prop_assert_eq!(scan_in_chunks(sender, &bytes, &[3, 1]), naive(sender, &bytes).0);
        }
    }
}

/// How many bytes a strict scanner takes of a client's frames, at once and in pieces of every size.
fn strictly(extensions: Extensions, frames: &[&[u8]]) -> usize {
    let bytes = frames.concat();
    let mut scanner = FrameScanner::strict(Sender::Client, extensions);
    let (whole, messages) = scanner.scan_strictly(&bytes);
    for size in 1..=bytes.len() {
        let mut scanner = FrameScanner::strict(Sender::Client, extensions);
        let (mut waits, mut used, mut began) = (Vec::new(), 0, 0);
        for piece in bytes.chunks(size) {
            waits.extend_from_slice(piece);
            let (here, messages) = scanner.scan_strictly(&waits);
            waits.drain(..here);
            used += here;
            began += messages;
        }
        assert_eq!((used, began), (whole, messages), "in pieces of {size}");
    }
    whole
}

#[test]
fn a_strict_scan_stops_before_a_forbidden_frame_and_before_an_incomplete_header() {
    use Extensions::{None, Other, PerMessage};
    let (text, asks, pong): (&[u8], &[u8], &[u8]) = (b"\x81\x82maskhi", b"\x89\x80mask", b"\x8a\x80mask");
    let close: &[u8] = b"\x88\x80mask";
    let long = [b"\x82\xfe\x00\x7emask".as_slice(), &[7; 126]].concat();
    let (begins, goes_on, ends): (&[u8], &[u8], &[u8]) = (b"\x01\x80mask", b"\x00\x81maskx", b"\x80\x80mask");
    let passes: [&[&[u8]]; 4] = [
        &[text, text, &long, asks],
        &[begins, asks, goes_on, pong, ends, text],
        &[text, close, pong, pong],
        &[begins, close],
    ];
    for frames in passes {
        for extensions in [None, PerMessage, Other] {
            assert_eq!(strictly(extensions, frames), frames.concat().len());
        }
    }
    let forbidden: [(&[&[u8]], &[u8]); 14] = [
        (&[text], b"\x81\x02hi"),
        (&[text], b"\x83\x80mask"),
        (&[text], b"\x09\x80mask"),
        (&[text], b"\x89\xfe\x00\x7emask"),
        (&[text], b"\x82\xfe\x00\x05mask"),
        (&[text], b"\x82\xff\x80\0\0\0\0\0\0\0mask"),
        (&[text], ends),
        (&[begins], text),
        (&[text, close], text),
        (&[text, close], asks),
        (&[text, close], close),
        (&[begins, close], ends),
        (&[text], b"\x81"),
        (&[text], b"\x81\x82mas"),
    ];
    for (before, frame) in forbidden {
        for extensions in [None, PerMessage, Other] {
            let frames = [before, &[frame, text]].concat();
            let expected = match frame.len() {
                // Its header is incomplete, so nothing may follow it.
                1 | 5 => strictly(extensions, &[before, &[frame]].concat()),
                _ => strictly(extensions, &frames),
            };
            assert_eq!(expected, before.concat().len(), "{frame:?}");
        }
    }
    for (extensions, first, passes) in [
        (None, 0xc1, false),
        (PerMessage, 0xc1, true),
        (PerMessage, 0xa1, false),
        (PerMessage, 0xc9, false),
        (Other, 0xb1, true),
        (Other, 0xc9, true),
    ] {
        let frame = [first, 0x80, 1, 2, 3, 4];
        let expected = text.len() + if passes { frame.len() } else { 0 };
        assert_eq!(
            strictly(extensions, &[text, &frame]),
            expected,
            "{extensions:?} {first:x}"
        );
    }
}
