//! Bytes that a hostile peer might send, kept as files: `tests/corpus/<parser>/<what it is>`. Each is given to its
//! parser whole and byte by byte; nothing may panic, and both must come to the same.
//!
//! To keep a new finding, put its bytes into a file there: no code has to change.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use wsguard::wire::Step;
use wsguard::wire::hops::{ForwardHeader, client_from, parse_hop};
use wsguard::wire::path::{PathReading, is_below, normal_form};
use wsguard::wire::proxy::{Announces, announces, parse_proxy};
use wsguard::wire::ws::header::FrameHeader;
use wsguard::wire::ws::header::Sender;
use wsguard::wire::ws::scanner::FrameScanner;
use wsguard::wire::ws::sequence::MessageSequence;

#[test]
fn proxy_headers_are_read_alike_whole_and_byte_by_byte() {
    replay("proxy", |bytes| {
        let whole = parse_proxy(bytes);
        let dripped = prefixes(bytes).map(parse_proxy).find(|read| *read != Ok(Step::More));
        assert_eq!(dripped.unwrap_or(Ok(Step::More)), whole);
        if let Ok(Step::Done { used, .. }) = whole {
            assert!(used <= bytes.len());
            assert_eq!(announces(bytes), Announces::Yes);
        }
    });
}

/// A file's lines are the header's values.
#[test]
fn hops_are_read_to_an_end_wherever_the_list_is_cut() {
    let hop = IpAddr::from([10, 0, 0, 1]);
    let trusts = |ip| matches!(ip, IpAddr::V4(v4) if v4.octets()[0] == 10);
    replay("hops", |bytes| {
        let lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
        let items: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n' || byte == b',').collect();
        let as_lines = client_from(ForwardHeader::XForwardedFor, &lines, hop, trusts);
        assert_eq!(
            as_lines,
            client_from(ForwardHeader::XForwardedFor, &items, hop, trusts),
            "all lines are one list"
        );
        for item in items {
            let _ = parse_hop(item);
        }
        for cut in some_prefixes(bytes) {
            for header in ForwardHeader::ALL {
                let _ = client_from(header, &[cut], hop, trusts);
            }
        }
    });
}

#[test]
fn paths_come_into_their_normal_form_wherever_they_are_cut() {
    replay("path", |bytes| {
        for cut in some_prefixes(bytes) {
            let reading = PathReading::of(cut, false);
            assert!(reading.normal.starts_with(b"/"));
            assert!(is_below(&reading.normal, b"/"));
            assert!(
                !reading.plain || *reading.normal == *cut,
                "a plain path is its own normal form"
            );
            if !reading.normal.contains(&b'%') {
                assert_eq!(
                    normal_form(&reading.normal),
                    reading.normal,
                    "nothing is left to resolve"
                );
            }
        }
    });
}

#[test]
fn frames_are_scanned_alike_whole_byte_by_byte_and_frame_by_frame() {
    let outcome = |scanner: &FrameScanner, messages: u32| {
        (messages, scanner.at_boundary(), scanner.is_blind(), scanner.saw_close())
    };
    replay("frame", |bytes| {
        for sender in [Sender::Client, Sender::Server] {
            let mut scanner = FrameScanner::new(sender);
            let messages = scanner.scan(bytes);
            let whole = outcome(&scanner, messages);

            let mut scanner = FrameScanner::new(sender);
            let messages = bytes.chunks(1).map(|byte| scanner.scan(byte)).sum();
            assert_eq!(outcome(&scanner, messages), whole, "byte by byte, from the {sender:?}");

            let mut scanner = FrameScanner::new(sender);
            let (mut at, mut messages) = (0, 0);
            while at < bytes.len() {
                let (used, began) = scanner.scan_to_boundary(&bytes[at..]);
                assert!(used > 0);
                at += used;
                messages += began;
            }
            assert_eq!(
                outcome(&scanner, messages),
                whole,
                "frame by frame, from the {sender:?}"
            );

            let mut scanner = FrameScanner::new(sender);
            let (mut rest, mut messages) = (bytes, 0);
            while let (Ok(Step::Done { value, used }), false) = (FrameHeader::parse(rest, sender), scanner.is_blind()) {
                messages += scanner.scan(&rest[..used]);
                assert_eq!(scanner.payload_left(), value.payload);
                let skipped = usize::try_from(value.payload).map_or(rest.len() - used, |n| n.min(rest.len() - used));
                scanner.skip(skipped as u64);
                rest = &rest[used + skipped..];
            }
            messages += scanner.scan(rest);
            assert_eq!(
                outcome(&scanner, messages),
                whole,
                "header by header, from the {sender:?}"
            );
        }
    });
}

/// Once over the payload that is there, and once as if none were: then each header stands right behind the one before.
#[test]
fn frame_headers_are_read_alike_whole_and_byte_by_byte_and_as_a_scanner_follows_them() {
    replay("header", |bytes| {
        for (sender, has_payload) in [Sender::Client, Sender::Server]
            .into_iter()
            .flat_map(|sender| [(sender, true), (sender, false)])
        {
            let mut scanner = FrameScanner::new(sender);
            let mut sequence = MessageSequence::default();
            let mut rest = bytes;
            while scanner.at_boundary() {
                let whole = FrameHeader::parse(rest, sender);
                let dripped = prefixes(rest)
                    .map(|bytes| FrameHeader::parse(bytes, sender))
                    .find(|read| *read != Ok(Step::More));
                assert_eq!(dripped.unwrap_or(Ok(Step::More)), whole);
                let Ok(Step::Done { value: header, used }) = whole else {
                    scanner.scan(rest);
                    assert_eq!(scanner.is_blind(), whole.is_err());
                    break;
                };
                assert_eq!(FrameScanner::header_len(rest), Some(used));
                scanner.scan(&rest[..used]);
                assert_eq!(scanner.payload_left(), header.payload);
                if let Ok(size) = sequence.size_with(header) {
                    assert!(header.kind.is_control() || size >= header.payload);
                }
                sequence.pass(header);
                rest = &rest[used..];
                if has_payload {
                    let here = usize::try_from(header.payload).map_or(rest.len(), |payload| payload.min(rest.len()));
                    assert_eq!(scanner.scan(&rest[..here]), 0, "payload begins no message");
                    rest = &rest[here..];
                } else {
                    scanner.skip(header.payload);
                }
            }
        }
    });
}

/// Gives each file of a parser's folder to `check`, naming the file that fails.
fn replay(parser: &str, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(parser);
    let mut replayed = 0;
    for entry in fs::read_dir(&folder).expect("the corpus has a folder for each parser") {
        let file = entry.expect("a readable folder").path();
        let bytes = fs::read(&file).expect("a readable file");
        println!("replaying {}", file.display());
        check(&bytes);
        replayed += 1;
    }
    assert!(replayed > 0, "{} is empty", folder.display());
}

/// Every beginning of `bytes`, from none to all.
fn prefixes(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    (0..=bytes.len()).map(|end| &bytes[..end])
}

/// All of them for a short file, some hundreds for a long one: these parsers begin anew at each.
fn some_prefixes(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    prefixes(bytes).step_by(1 + bytes.len() / 400).chain([bytes])
}
