use super::*;
use crate::wire::Step;
use crate::wire::ws::header::{FrameHeader, Sender};
use crate::wire::ws::scanner::FrameScanner;

#[test]
fn close_frames_have_the_layout_of_the_rfc() {
    assert_eq!(close_frame(1000, "", None), b"\x88\x02\x03\xE8");
    assert_eq!(
        close_frame(1013, "Server at capacity", None),
        b"\x88\x14\x03\xF5Server at capacity"
    );
    assert_eq!(
        close_frame(1001, "ab", Some([1, 2, 4, 8])),
        b"\x88\x84\x01\x02\x04\x08\x02\xEB\x65\x6A"
    );
    // Each character has three bytes, so 41 fit into 123.
    let long = close_frame(1008, &"\u{20AC}".repeat(100), None);
    assert_eq!((long.len(), long[1]), (127, 125));
    let cut = close_frame(1008, &format!("a{}", "\u{20AC}".repeat(100)), None);
    assert_eq!(
        String::from_utf8(cut[4..].to_vec()),
        Ok(format!("a{}", "\u{20AC}".repeat(40)))
    );
    for sender in [Sender::Client, Sender::Server] {
        let mask = (sender == Sender::Client).then_some([9; 4]);
        let frame = close_frame(1012, &"x".repeat(300), mask);
        let mut scanner = FrameScanner::new(sender);
        assert_eq!(scanner.scan(&frame), 0);
        assert!(scanner.at_boundary() && scanner.saw_close());
    }
}

#[test]
fn our_frames_are_read_back_as_they_were_meant() {
    for (kind, length, sent) in [
        (FrameKind::Ping, 12, 12),
        (FrameKind::Ping, 200, 125),
        (FrameKind::Text, 0, 0),
        (FrameKind::Text, 125, 125),
        (FrameKind::Text, 126, 126),
        (FrameKind::Text, 70_000, 65_535),
    ] {
        let payload = vec![b'x'; length];
        let frame = server_frame(kind, &payload);
        let Ok(Step::Done { value, used }) = FrameHeader::parse(&frame, Sender::Server) else {
            panic!("{frame:?}")
        };
        assert_eq!(
            (value.kind, value.is_last, value.is_minimal, value.payload),
            (kind, true, true, sent)
        );
        assert_eq!(&frame[used..], &payload[..frame.len() - used]);
        assert_eq!(used as u64 + sent, frame.len() as u64);
    }
}
