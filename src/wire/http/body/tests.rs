#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// Feeds the pieces until the outcome is not `More`. The first call has no bytes.
fn read(mut body: BodyRead, pieces: &[&[u8]], max: usize) -> (Result<BodyState, BodyFault>, Vec<u8>, bool) {
    let mut out = Vec::new();
    let mut outcome = body.feed(b"", &mut out, max);
    for piece in pieces {
        if outcome == Ok(BodyState::More) {
            outcome = body.feed(piece, &mut out, max);
        }
    }
    (outcome, out, body.at_end_of_stream())
}

fn chunked(bytes: &[u8]) -> (Result<BodyState, BodyFault>, Vec<u8>, bool) {
    read(BodyRead::chunked(), &[bytes], 1 << 20)
}

#[test]
fn each_framing_finds_the_end_of_its_body() {
    assert_eq!(read(BodyRead::none(), &[], 9), (Ok(BodyState::Done), vec![], true));
    assert_eq!(
        read(BodyRead::length(3), &[b"ab"], 9),
        (Ok(BodyState::More), b"ab".to_vec(), false)
    );
    assert_eq!(
        read(BodyRead::length(3), &[b"ab", b"cd"], 9),
        (Ok(BodyState::Done), b"abc".to_vec(), true)
    );
    assert_eq!(
        read(BodyRead::until_close(), &[b"ab", b"cd"], 9),
        (Ok(BodyState::More), b"abcd".to_vec(), true)
    );
    assert_eq!(chunked(b"0\r\n\r\n"), (Ok(BodyState::Done), vec![], true));
    assert_eq!(chunked(b"3\r\nabc\r\n"), (Ok(BodyState::More), b"abc".to_vec(), false));
}

#[test]
fn no_more_is_read_than_the_caller_wants() {
    for body in [BodyRead::until_close(), BodyRead::length(9)] {
        assert_eq!(read(body, &[b"ab", b"cd"], 3).1, b"abc");
    }
    let (outcome, out, _) = read(BodyRead::chunked(), &[b"2\r\nab\r\n5\r\ncd"], 3);
    assert_eq!((outcome, out), (Ok(BodyState::Done), b"abc".to_vec()));
    assert_eq!(read(BodyRead::until_close(), &[b"ab"], 0).0, Ok(BodyState::Done));
}

#[test]
fn chunks_are_decoded() {
    // RFC 9112, section 7.1: extensions and trailers are read and left out.
    for bytes in [
        &b"4\r\nWiki\r\n7\r\npedia i\r\nB\r\nn \r\nchunks.\r\n0\r\n\r\n"[..],
        b"04;a=\"b\";c\r\nWiki\r\n012 \r\npedia in \r\nchunks.\r\n000;x\r\nA: b\r\nC:\t\xff\r\n\r\n",
        b"16  ;x\r\nWikipedia in \r\nchunks.\r\n0\t\r\n\r\nbehind",
    ] {
        assert_eq!(
            chunked(bytes),
            (Ok(BodyState::Done), b"Wikipedia in \r\nchunks.".to_vec(), true)
        );
    }
}

#[test]
fn malformed_chunks_are_faults() {
    for (bytes, fault) in [
        (&b"\r\n"[..], BodyFault::ChunkSize),
        (b"x\r\n", BodyFault::ChunkSize),
        (b"-1\r\n", BodyFault::ChunkSize),
        (b"0x1\r\n", BodyFault::ChunkSize),
        (b" 1\r\n", BodyFault::ChunkSize),
        (b";a\r\n", BodyFault::ChunkSize),
        (b"1\n", BodyFault::ChunkSize),
        (b"00000000000000001\r\n", BodyFault::ChunkSize),
        (b"1 1\r\n", BodyFault::Chunk),
        (b"1\rx", BodyFault::Chunk),
        (b"1;a\n", BodyFault::Chunk),
        (b"1;a\0", BodyFault::Chunk),
        (b"1\r\nab", BodyFault::Chunk),
        (b"1\r\na\n", BodyFault::Chunk),
        (b"0\r\n\n", BodyFault::Chunk),
        (b"0\r\n A: b\r\n", BodyFault::Chunk),
        (b"0\r\nA: b\n", BodyFault::Chunk),
    ] {
        assert_eq!(chunked(bytes).0, Err(fault), "{}", bytes.escape_ascii());
    }
    assert_eq!(chunked(b"ffffffffffffffff\r\nab").0, Ok(BodyState::More));
}

#[test]
fn chunk_extensions_padding_and_trailers_are_bounded() {
    for begin in ["1;", "1 ", "0\r\nA: "] {
        let mut bytes = begin.as_bytes().to_vec();
        bytes.resize(9_000, b' ');
        assert_eq!(chunked(&bytes).0, Err(BodyFault::TooLong), "{begin}");
    }
    let mut trailers = b"0\r\n".to_vec();
    trailers.extend_from_slice(&b"A: b\r\n".repeat(2_000));
    assert_eq!(chunked(&trailers).0, Err(BodyFault::TooLong));
}

#[test]
fn an_incomplete_body_never_looks_complete_to_the_client() {
    let written = |body: BodyRead, content: &[u8], is_whole| {
        let mut answer = Vec::new();
        body.write(content, is_whole, &mut answer);
        String::from_utf8(answer).unwrap()
    };
    // The server's own Content-Length stays, however many bytes came.
    assert_eq!(
        written(BodyRead::length(3), b"abc", true),
        "Content-Length: 3\r\n\r\nabc"
    );
    assert_eq!(
        written(BodyRead::length(50), b"abc", false),
        "Content-Length: 50\r\n\r\nabc"
    );
    assert_eq!(
        written(BodyRead::chunked(), b"abc", true),
        "Content-Length: 3\r\n\r\nabc"
    );
    // Only the end of the connection shows that it is complete.
    assert_eq!(written(BodyRead::until_close(), b"abc", true), "\r\nabc");
    for body in [BodyRead::chunked(), BodyRead::until_close()] {
        assert_eq!(
            written(body.clone(), &[b'a'; 17], false),
            "Transfer-Encoding: chunked\r\n\r\n11\r\naaaaaaaaaaaaaaaaa\r\n"
        );
        assert_eq!(written(body, b"", false), "Transfer-Encoding: chunked\r\n\r\n");
    }
    assert_eq!(written(BodyRead::none(), b"", true), "\r\n");
}

proptest! {
    #[test]
    fn chunks_read_as_their_data_at_every_split(
        data in prop::collection::vec((prop::collection::vec(any::<u8>(), 1..40), "(;[ -~]{0,9})?", any::<bool>()), 0..6),
        trailers in prop::collection::vec("[A-Z]{1,5}: [ -~]{0,9}\r\n", 0..3),
        max in 0..200usize,
    ) {
        let mut bytes = Vec::new();
        for (chunk, extension, upper) in &data {
            let size = if *upper { format!("{:X}", chunk.len()) } else { format!("{:03x}", chunk.len()) };
            bytes.extend_from_slice(format!("{size}{extension}\r\n").as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(format!("0\r\n{}\r\n", trailers.concat()).as_bytes());
        let mut model: Vec<u8> = data.into_iter().flat_map(|(chunk, ..)| chunk).collect();
        model.truncate(max);
        for split in 0..=bytes.len() {
            let (outcome, out, _) = read(BodyRead::chunked(), &[&bytes[..split], &bytes[split..]], max);
            prop_assert_eq!((outcome, &out), (Ok(BodyState::Done), &model));
        }
        let singly: Vec<_> = bytes.chunks(1).collect();
        prop_assert_eq!(read(BodyRead::chunked(), &singly, max).1, model);
    }

    #[test]
    fn any_bytes_have_one_outcome_however_they_come(
        bytes in prop::collection::vec(prop::sample::select(b"0123aF;: \r\n\tx\0\xff".to_vec()), 0..60),
        max in 0..20usize,
    ) {
        let whole = read(BodyRead::chunked(), &[&bytes], max);
        let singly: Vec<_> = bytes.chunks(1).collect();
        let singly = read(BodyRead::chunked(), &singly, max);
        prop_assert_eq!((&singly.0, &singly.1), (&whole.0, &whole.1));
        prop_assert!(whole.1.len() <= max);
    }
}
