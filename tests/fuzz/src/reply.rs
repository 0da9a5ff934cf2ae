//! A server's reply has the same outcome however it is split, and so has its body. The client gets one reply without
//! anything about the server's connection. A chunked body reads as in a plain reading of RFC 9112, section 7.1.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wsguard::wire::Step;
use wsguard::wire::http::body::{BodyRead, BodyState};
use wsguard::wire::http::server_reply::{Reply, ReplyFault, ReplyScan};
use wsguard_fuzz::{Dice, looks, pieces};

fuzz_target!(|data: &[u8]| {
    // The whole input is read as a body, and then as a reply with its body.
    bodies(data);
    let mut rest = data;
    loop {
        let whole = ReplyScan::default().parse(rest, ACCEPT);
        assert_eq!(in_pieces(rest), whole, "the outcome depends on how it was split");
        let Ok(Step::Done { value, used }) = whole else { break };
        assert!(used <= rest.len() && used <= 32 * 1024 && rest[..used].ends_with(b"\r\n\r\n"));
        assert_eq!(ReplyScan::default().parse(&rest[..used - 1], ACCEPT), Ok(Step::More));
        rest = &rest[used..];
        match value {
            Reply::Interim => {}
            Reply::Switched(_) => break,
            Reply::PassOn { status, head, body } => {
                is_one_reply(status, &head);
                read_alike(&body, rest, 64 * 1024);
                break;
            }
        }
    }
});

fn in_pieces(data: &[u8]) -> Result<Step<Reply>, ReplyFault> {
    let mut scan = ReplyScan::default();
    looks(data)
        .map(|end| scan.parse(&data[..end], ACCEPT))
        .find(|parsed| *parsed != Ok(Step::More))
        .unwrap_or(Ok(Step::More))
}

/// Checks the head as it goes to the client, with a length behind it.
fn is_one_reply(status: u16, head: &[u8]) {
    let sent = [head, b"Content-Length: 7\r\n\r\n"].concat();
    let mut headers = [httparse::EMPTY_HEADER; 160];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(&sent);
    assert_eq!(
        parsed,
        Ok(httparse::Status::Complete(sent.len())),
        "{}",
        sent.escape_ascii()
    );
    assert_eq!((response.code, response.version), (Some(status), Some(1)));
    assert!((300..600).contains(&status));
    let of_connection: Vec<(&str, &[u8])> = response
        .headers
        .iter()
        .map(|header| (header.name, header.value))
        .filter(|(name, _)| OF_CONNECTION.iter().any(|listed| name.eq_ignore_ascii_case(listed)))
        .collect();
    // Only a 426 has Upgrade, and its Connection names it.
    let (upgrades, others): (Vec<_>, Vec<_>) = of_connection
        .into_iter()
        .partition(|(name, _)| name.eq_ignore_ascii_case("upgrade"));
    assert!(upgrades.is_empty() || status == 426);
    let connection: &[u8] = if upgrades.is_empty() {
        b"close"
    } else {
        b"close, Upgrade"
    };
    assert_eq!(others, [("Connection", connection), ("Content-Length", b"7")]);
    // Every line ends in CRLF, so that no receiver sees other lines.
    for (at, byte) in sent.iter().enumerate() {
        match byte {
            b'\r' => assert_eq!(sent[at + 1], b'\n'),
            b'\n' => assert_eq!(sent[at - 1], b'\r'),
            0 => panic!("a NUL goes on"),
            _ => {}
        }
    }
}

fn bodies(data: &[u8]) {
    let mut dice = Dice::of(data);
    let length = dice.below(2 * data.len() + 2);
    let max = [64 * 1024, dice.below(data.len() + 1)][dice.below(2)];
    for body in [
        BodyRead::chunked(),
        BodyRead::until_close(),
        BodyRead::length(length as u64),
    ] {
        read_alike(&body, data, max);
    }
    if let (Some((text, ended)), Ok((read, _, whole))) =
        (dechunked(data), read(&BodyRead::chunked(), [data], usize::MAX))
    {
        assert_eq!((read, whole), (text, ended));
    } else {
        // One of them found a fault, so both must have found it.
        assert!(dechunked(data).is_none() && read(&BodyRead::chunked(), [data], usize::MAX).is_err());
    }
    let (text, _, whole) = read(&BodyRead::length(length as u64), [data], max).expect("any byte may be in it");
    assert_eq!(text, &data[..length.min(data.len()).min(max)]);
    assert_eq!(whole, text.len() == length);
}

/// Checks that a body reads alike in one piece, in many, and byte by byte.
fn read_alike(body: &BodyRead, data: &[u8], max: usize) {
    let whole = read(body, [data], max);
    assert_eq!(
        read(body, pieces(data), max),
        whole,
        "the outcome depends on how it was split"
    );
    assert_eq!(
        read(body, data.chunks(1), max),
        whole,
        "the outcome depends on how it was split"
    );
    if let Ok((text, state, is_whole)) = whole {
        assert!(text.len() <= max);
        assert!(state == BodyState::Done || text.len() < max);
        assert!(state == BodyState::More || is_whole || text.len() == max);
    }
}

/// The text, the last state, and whether the body is complete if the stream ends here.
fn read<'d>(
    body: &BodyRead,
    pieces: impl IntoIterator<Item = &'d [u8]>,
    max: usize,
) -> Result<(Vec<u8>, BodyState, bool), String> {
    let (mut body, mut text) = (body.clone(), Vec::new());
    let mut state = body.feed(b"", &mut text, max).map_err(|fault| fault.to_string())?;
    for piece in pieces {
        if state == BodyState::Done {
            break;
        }
        state = body.feed(piece, &mut text, max).map_err(|fault| fault.to_string())?;
    }
    Ok((text, state, body.at_end_of_stream()))
}

/// The text of the chunks that have come, and whether the body has come to its end. `None` if the body is malformed.
fn dechunked(data: &[u8]) -> Option<(Vec<u8>, bool)> {
    let mut text = Vec::new();
    let mut rest = data;
    loop {
        let Some((line, behind)) = line_of(rest)? else {
            return size_of(rest, false).map(|_| (text, false));
        };
        let size = size_of(line, true)?;
        rest = behind;
        if size == 0 {
            break;
        }
        let here = usize::try_from(size).unwrap_or(usize::MAX).min(rest.len());
        text.extend_from_slice(&rest[..here]);
        rest = &rest[here..];
        match rest {
            [b'\r', b'\n', behind @ ..] if here as u64 == size => rest = behind,
            [] | [b'\r'] => return Some((text, false)),
            _ => return None,
        }
    }
    let trailers = rest;
    loop {
        let Some((line, behind)) = line_of(rest)? else {
            let is_fine = trailers.len() <= 8192 && (rest.is_empty() || rest == b"\r" || is_trailer(rest));
            return is_fine.then_some((text, false));
        };
        rest = behind;
        if trailers.len() - rest.len() > 8192 {
            return None;
        }
        if line.is_empty() {
            return Some((text, true));
        }
        if !is_trailer(line) {
            return None;
        }
    }
}

/// A line without its CRLF, and the bytes behind it. `Some(None)` if the line is unfinished, `None` if a CR or LF
/// stands alone.
#[allow(clippy::option_option, reason = "broken, unfinished and whole are three")]
fn line_of(bytes: &[u8]) -> Option<Option<(&[u8], &[u8])>> {
    match bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        None => Some(None),
        Some(at) => match &bytes[at..] {
            [b'\r', b'\n', behind @ ..] => Some(Some((&bytes[..at], behind))),
            [b'\r'] => Some(None),
            _ => None,
        },
    }
}

/// The size at the beginning of a line, or `None` if the line is malformed. For an unfinished line the number has no
/// meaning.
fn size_of(line: &[u8], is_whole: bool) -> Option<u64> {
    let (line, has_cr) = line.strip_suffix(b"\r").map_or((line, false), |line| (line, true));
    if line.len() + if is_whole { 2 } else { usize::from(has_cr) } > 8192 {
        return None;
    }
    let end = line
        .iter()
        .position(|byte| !byte.is_ascii_hexdigit())
        .unwrap_or(line.len());
    let (digits, rest) = line.split_at(end);
    if digits.is_empty() && !is_whole && !has_cr && rest.is_empty() {
        return Some(0);
    }
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    let blanks = rest
        .iter()
        .position(|byte| !matches!(byte, b' ' | b'\t'))
        .unwrap_or(rest.len());
    let is_extension = match &rest[blanks..] {
        [] => true,
        [b';', extension @ ..] => extension.iter().all(|byte| is_text(*byte)),
        _ => false,
    };
    let digits = str::from_utf8(digits).ok()?;
    u64::from_str_radix(digits, 16).ok().filter(|_| is_extension)
}

fn is_trailer(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    matches!(line, [0x21..=0x7e, rest @ ..] if rest.iter().all(|byte| is_text(*byte)))
}

fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | 0x20..=0x7e | 0x80..)
}

/// This list is written apart from the one in `src/wire/http/server_reply.rs`: if a name gets lost there, this one
/// finds it.
const OF_CONNECTION: [&str; 8] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// The answer to the key of RFC 6455, section 1.3.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
