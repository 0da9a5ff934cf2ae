//! Frames are counted as a plain reading of RFC 6455, section 5.2, counts them, however the bytes are split.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wsguard::wire::Step;
use wsguard::wire::ws::frame::close_frame;
use wsguard::wire::ws::header::FrameHeader;
use wsguard::wire::ws::header::Sender;
use wsguard::wire::ws::scanner::FrameScanner;
use wsguard::wire::ws::sequence::MessageSequence;
use wsguard_fuzz::{Dice, pieces};

fuzz_target!(|data: &[u8]| {
    for sender in [Sender::Client, Sender::Server] {
        let expected = plain(data, sender);

        let mut scanner = FrameScanner::new(sender);
        let messages = scanner.scan(data);
        assert_eq!(outcome(&scanner, messages), expected, "whole, from the {sender:?}");

        let mut scanner = FrameScanner::new(sender);
        let messages = pieces(data).map(|piece| scanner.scan(piece)).sum();
        assert_eq!(outcome(&scanner, messages), expected, "in pieces, from the {sender:?}");

        let mut scanner = FrameScanner::new(sender);
        let (mut at, mut messages) = (0, 0);
        for piece in pieces(data) {
            let end = at + piece.len();
            while at < end {
                let was_at_boundary = scanner.at_boundary();
                let (used, began) = scanner.scan_to_boundary(&data[at..end]);
                assert!(used > 0 && used <= end - at && began <= 1);
                assert!(at + used == end || scanner.at_boundary(), "it stops at boundaries only");
                assert!(!was_at_boundary || used >= 2 || end - at < 2 || scanner.is_blind());
                at += used;
                messages += began;
            }
        }
        assert_eq!(
            outcome(&scanner, messages),
            expected,
            "frame by frame, from the {sender:?}"
        );
        let by_headers = header_by_header(data, sender);
        assert_eq!(by_headers, expected, "header by header, from the {sender:?}");
        closes(data, sender);
    }
});

/// Counts as the policer and splice do: each header is read as a whole, and its payload is skipped.
fn header_by_header(data: &[u8], sender: Sender) -> Outcome {
    let mut scanner = FrameScanner::new(sender);
    let mut sequence = MessageSequence::default();
    let (mut at, mut messages) = (0, 0);
    while at < data.len() && !scanner.is_blind() {
        let rest = &data[at..];
        match FrameHeader::parse(rest, sender) {
            Ok(Step::Done { value: header, used }) => {
                assert_eq!(FrameScanner::header_len(rest), Some(used));
                let size = sequence.size_with(header);
                assert!(size.is_ok_and(|size| header.kind.is_control() || size >= header.payload) || size.is_err());
                sequence.pass(header);
                messages += scanner.scan(&rest[..used]);
                assert_eq!(scanner.payload_left(), header.payload);
                let here = header.payload.min((rest.len() - used) as u64);
                scanner.skip(here);
                at += used + usize::try_from(here).expect("no more than there is");
            }
            Ok(Step::More) => {
                messages += scanner.scan(rest);
                assert!(!scanner.is_blind(), "what is not whole is no fault yet");
                break;
            }
            Err(_) => {
                messages += scanner.scan(rest);
                assert!(scanner.is_blind(), "both see the same faults");
            }
        }
    }
    outcome(&scanner, messages)
}

#[derive(Debug, PartialEq)]
struct Outcome {
    messages: u32,
    at_boundary: bool,
    blind: bool,
    saw_close: bool,
}

fn outcome(scanner: &FrameScanner, messages: u32) -> Outcome {
    Outcome {
        messages,
        at_boundary: scanner.at_boundary(),
        blind: scanner.is_blind(),
        saw_close: scanner.saw_close(),
    }
}

/// The plain reading: all bytes at once, frame by frame, in numbers that can't overflow.
fn plain(data: &[u8], sender: Sender) -> Outcome {
    let mut seen = Outcome {
        messages: 0,
        at_boundary: true,
        blind: false,
        saw_close: false,
    };
    let mut at: u128 = 0;
    let byte = |at: u128| usize::try_from(at).ok().and_then(|at| data.get(at)).copied();
    while let Some(first) = byte(at) {
        let opcode = first & 0x0f;
        let is_control = opcode >= 8;
        seen.at_boundary = false;
        if !matches!(opcode, 0..=2 | 8..=10) || is_control && first & 0x80 == 0 {
            seen.blind = true;
            return seen;
        }
        seen.saw_close |= opcode == 8;
        let Some(second) = byte(at + 1) else { return seen };
        let is_masked = second & 0x80 != 0;
        let short = second & 0x7f;
        if is_masked != (sender == Sender::Client) || is_control && short > 125 {
            seen.blind = true;
            return seen;
        }
        let bytes_of_length = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mut length = if bytes_of_length == 0 { u128::from(short) } else { 0 };
        for place in 0..bytes_of_length {
            let Some(part) = byte(at + 2 + place) else { return seen };
            if bytes_of_length == 8 && place == 0 && part & 0x80 != 0 {
                seen.blind = true;
                return seen;
            }
            length = length * 256 + u128::from(part);
        }
        seen.messages += u32::from(matches!(opcode, 1 | 2));
        at += 2 + bytes_of_length + if is_masked { 4 } else { 0 } + length;
        seen.at_boundary = at <= data.len() as u128;
    }
    seen
}

/// Checks that a close frame of wsguard's is one frame with the given code and text.
fn closes(data: &[u8], sender: Sender) {
    let mut dice = Dice::of(data);
    let code = u16::try_from(dice.below(5000)).expect("a small number");
    let reason = String::from_utf8_lossy(data);
    let mask = (sender == Sender::Client).then(|| data.first_chunk().copied().unwrap_or([1, 2, 3, 4]));
    let frame = close_frame(code, &reason, mask);
    let seen = plain(&frame, sender);
    assert!(seen.at_boundary && seen.saw_close && !seen.blind && seen.messages == 0);
    let begin = if mask.is_some() { 6 } else { 2 };
    assert_eq!(frame[0], 0x88);
    assert_eq!(usize::from(frame[1] & 0x7f), frame.len() - begin);
    let keys = mask.unwrap_or_default().into_iter().cycle();
    let payload: Vec<u8> = frame[begin..].iter().zip(keys).map(|(byte, key)| byte ^ key).collect();
    assert_eq!(payload[..2], code.to_be_bytes());
    let text = str::from_utf8(&payload[2..]).expect("it is cut between characters");
    assert!(reason.starts_with(text) && (text.len() == reason.len() || text.len() > 119));
}
