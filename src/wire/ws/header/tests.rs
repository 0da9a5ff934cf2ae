use super::*;
use crate::wire::ws::scanner::FrameScanner;
use proptest::prelude::*;

fn parsed(bytes: &[u8]) -> Result<Step<FrameHeader>, FrameFault> {
    FrameHeader::parse(bytes, Sender::Client)
}

#[test]
fn every_rule_has_its_fault() {
    use FrameFault::{FragmentedControl, LengthTooLarge, LongControl, Masked, NotMasked, ReservedOpcode};
    for (bytes, fault) in [
        (b"\x83".as_slice(), ReservedOpcode),
        (b"\x8b", ReservedOpcode),
        (b"\x0f", ReservedOpcode),
        (b"\x09", FragmentedControl),
        (b"\x08", FragmentedControl),
        (b"\x81\x05", NotMasked),
        (b"\x89\xfe", LongControl),
        (b"\x88\xff", LongControl),
        (b"\x82\xff\x80", LengthTooLarge),
    ] {
        assert_eq!(parsed(bytes), Err(fault), "{bytes:?}");
        // It is found at the byte that breaks the rule, and not before.
        assert_eq!(parsed(&bytes[..bytes.len() - 1]), Ok(Step::More), "{bytes:?}");
    }
    assert_eq!(FrameHeader::parse(b"\x81\x85", Sender::Server), Err(Masked));
}

#[test]
fn reserved_bits_are_left_to_the_extensions() {
    for bits in [0x40, 0x20, 0x10, 0x70] {
        assert!(
            matches!(parsed(&[0x81 | bits, 0x80, 0, 0, 0, 0]), Ok(Step::Done { .. })),
            "{bits:x}"
        );
    }
}

#[test]
fn a_header_has_its_length_and_whether_that_is_minimal() {
    for (length, payload, is_minimal) in [
        (b"\x80".as_slice(), 0, true),
        (b"\xfd", 125, true),
        (b"\xfe\x00\x7d", 125, false),
        (b"\xfe\x00\x7e", 126, true),
        (b"\xfe\xff\xff", 65_535, true),
        (b"\xff\0\0\0\0\0\0\xff\xff", 65_535, false),
        (b"\xff\0\0\0\0\0\x01\0\0", 65_536, true),
        (b"\xff\x7f\xff\xff\xff\xff\xff\xff\xff", i64::MAX as u64, true),
    ] {
        let bytes = [b"\x82", length, b"mask"].concat();
        let header = FrameHeader {
            kind: FrameKind::Binary,
            is_last: true,
            payload,
            is_minimal,
            reserved: 0,
        };
        let used = bytes.len();
        assert_eq!(parsed(&bytes), Ok(Step::Done { value: header, used }));
        for end in 0..used {
            assert_eq!(parsed(&bytes[..end]), Ok(Step::More));
        }
    }
}

proptest! {
    /// The scanner goes byte by byte, and knows where a frame ends.
    #[test]
    fn a_header_agrees_with_the_scanner(
        bytes in prop::collection::vec(any::<u8>(), 0..20),
        first in prop::sample::select(vec![0x00_u8, 0x01, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8a, 0xc1]),
        second in any::<u8>(),
        is_client in any::<bool>(),
    ) {
        let sender = if is_client { Sender::Client } else { Sender::Server };
        for bytes in [bytes.clone(), [&[first, second], bytes.as_slice()].concat()] {
            let mut scanner = FrameScanner::new(sender);
            match FrameHeader::parse(&bytes, sender) {
                Err(_) => {
                    scanner.scan(&bytes);
                    prop_assert!(scanner.is_blind());
                }
                Ok(Step::More) => {
                    scanner.scan(&bytes);
                    prop_assert!(!scanner.is_blind());
                }
                Ok(Step::Done { value, used }) => {
                    let messages = scanner.scan(&bytes[..used]);
                    prop_assert_eq!(scanner.payload_left(), value.payload);
                    prop_assert_eq!(scanner.at_boundary(), value.payload == 0);
                    let begins = matches!(value.kind, FrameKind::Text | FrameKind::Binary);
                    prop_assert_eq!(messages, u32::from(begins));
                    prop_assert_eq!(scanner.saw_close(), value.kind == FrameKind::Close);
                }
            }
        }
    }
}
