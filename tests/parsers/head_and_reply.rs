//! Replays the hostile request heads and replies of `tests/corpus/`, whole and byte by byte.
//!
//! A file's name says what it is: `passes-…` must pass, `unfinished-…` must be waited for, everything else must be
//! refused. Whatever once went wrong belongs there as one more file.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use wsguard::wire::Step;
use wsguard::wire::http::body::BodyState;
use wsguard::wire::http::head::{HeadCaps, HeadScan};
use wsguard::wire::http::server_reply::{Reply, ReplyScan};
use wsguard::wire::http::server_request::{Forwarding, SendMode, request_for_server};
use wsguard::wire::ws::upgrade_request::check_upgrade;

/// What becomes of an input: the expected one, and the words that must not depend on how it came.
#[derive(Debug, PartialEq)]
enum Outcome {
    Passes(String),
    Refused(String),
    Unfinished,
}

#[test]
fn every_request_head_has_one_outcome_however_it_comes() {
    replay("head", head_outcome);
}

#[test]
fn every_reply_has_one_outcome_however_it_comes() {
    replay("reply", reply_outcome);
}

#[test]
fn what_passes_of_the_corpus_reaches_the_server_as_one_request_without_a_forged_client() {
    for (name, bytes) in corpus("head")
        .into_iter()
        .filter(|(name, _)| name.starts_with("passes-"))
    {
        let head = match HeadScan::default().parse(&bytes, CAPS) {
            Ok(Step::Done { value, .. }) => value,
            other => panic!("{name}: {other:?}"),
        };
        let hop = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let composed = request_for_server(
            &head,
            &Forwarding {
                hop,
                hop_trusted: false,
                client: hop,
                proto: "http",
                send: SendMode::Append,
            },
        );
        match HeadScan::default().parse(&composed, WITH_OURS) {
            Ok(Step::Done { value, used }) => {
                assert_eq!(used, composed.len(), "{name}");
                assert_eq!((value.target, value.authority), (head.target, head.authority), "{name}");
                assert!(check_upgrade(&value).is_ok(), "{name}");
            }
            other => panic!("{name}: {other:?}"),
        }
        assert!(!composed.windows(7).any(|window| window == b"1.2.3.4"), "{name}");
    }
}

fn replay(folder: &str, outcome: fn(&[u8], usize) -> Outcome) {
    for (name, bytes) in corpus(folder) {
        let whole = outcome(&bytes, bytes.len().max(1));
        for step in [1, 2, 7] {
            assert_eq!(outcome(&bytes, step), whole, "{name}, {step} bytes at a time");
        }
        let is_expected = match whole {
            Outcome::Passes(_) => name.starts_with("passes-"),
            Outcome::Unfinished => name.starts_with("unfinished-"),
            Outcome::Refused(_) => !name.starts_with("passes-") && !name.starts_with("unfinished-"),
        };
        assert!(is_expected, "{name}: {whole:?}");
    }
}

fn head_outcome(bytes: &[u8], step: usize) -> Outcome {
    let mut scan = HeadScan::default();
    for end in ends(bytes, step) {
        match scan.parse(&bytes[..end], CAPS) {
            Ok(Step::More) => {}
            Ok(Step::Done { value: head, used }) => {
                return match check_upgrade(&head) {
                    Ok(upgrade) => Outcome::Passes(format!("{used} {head:?} {upgrade:?}")),
                    Err(fault) => Outcome::Refused(fault.to_string()),
                };
            }
            Err(fault) => return Outcome::Refused(fault.to_string()),
        }
    }
    Outcome::Unfinished
}

/// Follows interim replies, and reads a body to its end.
fn reply_outcome(bytes: &[u8], step: usize) -> Outcome {
    let (mut scan, mut begin) = (ReplyScan::default(), 0);
    for end in ends(bytes, step) {
        while let parsed = scan.parse(&bytes[begin..end], ACCEPT)
            && parsed != Ok(Step::More)
        {
            match parsed {
                Ok(Step::Done {
                    value: Reply::Interim,
                    used,
                }) => begin += used,
                Ok(Step::Done {
                    value: Reply::Switched(_),
                    used,
                }) => {
                    return Outcome::Passes(format!("switched at {}", begin + used));
                }
                Ok(Step::Done {
                    value: Reply::PassOn { status, head, mut body },
                    used,
                }) => {
                    let mut out = Vec::new();
                    for piece in bytes[begin + used..].chunks(step) {
                        match body.feed(piece, &mut out, 64 * 1024) {
                            Ok(BodyState::More) => {}
                            Ok(BodyState::Done) => break,
                            Err(fault) => return Outcome::Refused(fault.to_string()),
                        }
                    }
                    let passed = format!("{status} {} {}", head.escape_ascii(), out.escape_ascii());
                    return if body.at_end_of_stream() {
                        Outcome::Passes(passed)
                    } else {
                        Outcome::Unfinished
                    };
                }
                Err(fault) => return Outcome::Refused(fault.to_string()),
                Ok(Step::More) => unreachable!("the loop has ended"),
            }
        }
    }
    Outcome::Unfinished
}

/// Where the buffer ends at each look, when `step` bytes come at a time.
fn ends(bytes: &[u8], step: usize) -> impl Iterator<Item = usize> {
    (step..bytes.len()).step_by(step).chain([bytes.len()])
}

fn corpus(folder: &str) -> Vec<(String, Vec<u8>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(folder);
    let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let inputs: Vec<_> = entries
        .map(|entry| entry.expect("the folder can be read"))
        .map(|entry| {
            (
                entry.file_name().to_string_lossy().into_owned(),
                fs::read(entry.path()).expect("a file"),
            )
        })
        .collect();
    assert!(inputs.len() > 50, "the corpus is here");
    inputs
}

const CAPS: HeadCaps = HeadCaps {
    max_size: 16 * 1024,
    max_headers: 64,
};
/// For a head with the three headers of ours.
const WITH_OURS: HeadCaps = HeadCaps {
    max_size: CAPS.max_size + 256,
    max_headers: CAPS.max_headers + 3,
};
/// For the key of RFC 6455, section 1.3.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
