//! A corpus in the manner of Autobahn's test suite. All that RFC 6455 allows a client and a server to send passes
//! through limits, strict frames and pings exactly as it passes without them, and as it passes without wsguard.

use std::io::Write;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use crate::rig::{Backend, End, Request, Rig, Socket, frame, ip, masked};

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Every limit is on, and none is ever reached.
const LIMITS: &str = r#"
[limits.messages]
rate = "100000/s"
per_ip_rate = "100000/s"
bytes_rate = "1GiB/s"
max_size = "1GiB"
out_rate = "100000/s"
out_per_ip_rate = "100000/s"
out_bytes_rate = "1GiB/s"
strict_frames = true
ping = "30s"
notice = "{retry_ms}"
[limits.timeouts]
first_message = "1m"
"#;

/// The frames that one side sends, and the size of the pieces in which they are written.
struct Case {
    name: String,
    frames: Vec<(u8, u8, Vec<u8>)>,
    pieces: usize,
}

/// The first bits of a frame: FIN, FIN and all reserved bits, or none.
const WHOLE: u8 = 0x80;
const EXTENDED: u8 = 0xf0;
const PART: u8 = 0;

fn case(name: &str, frames: Vec<(u8, u8, Vec<u8>)>) -> Case {
    Case {
        name: name.to_owned(),
        frames,
        pieces: usize::MAX,
    }
}

fn corpus() -> Vec<Case> {
    let text = |bits, payload: &str| (bits, TEXT, payload.as_bytes().to_vec());
    let next = |bits, payload: &str| (bits, CONTINUATION, payload.as_bytes().to_vec());
    let control = |opcode, payload: &[u8]| (WHOLE, opcode, payload.to_vec());
    let mut corpus = vec![
        case("empty messages", vec![text(WHOLE, ""), (WHOLE, BINARY, Vec::new())]),
        case("text that is not ASCII", vec![text(WHOLE, "größer, 更大, 🙂")]),
        case("text that is not UTF-8", vec![(WHOLE, TEXT, vec![0xff, 0xc0, 0x80])]),
        case("reserved bits", vec![(EXTENDED, TEXT, b"compressed, say".to_vec())]),
        // Only the first frame of a compressed message shows that it is compressed.
        case(
            "one reserved bit at a time",
            vec![
                text(0xc0, "a"),
                text(0xa0, "b"),
                text(0x90, "c"),
                text(0x40, "one"),
                next(PART, " two"),
                next(WHOLE, ""),
            ],
        ),
        case(
            "pings of every size",
            (0..=125).map(|n| control(PING, &vec![b'p'; n])).collect(),
        ),
        case("two fragments", vec![text(PART, "one"), next(WHOLE, " two")]),
        case(
            "control frames between fragments",
            vec![
                text(PART, "one"),
                control(PING, b"between"),
                next(PART, " two"),
                control(PONG, b"unasked"),
                control(PING, b""),
                next(WHOLE, " three"),
            ],
        ),
        case(
            "empty fragments",
            vec![text(PART, ""), next(PART, ""), next(PART, ""), next(WHOLE, "")],
        ),
        case(
            "messages back to back",
            (0..200).map(|n| text(WHOLE, &"x".repeat(n))).collect(),
        ),
        case("unsolicited pongs", vec![control(PONG, b""), control(PONG, &[7; 125])]),
        case("a pong as long as ours", vec![control(PONG, b"wsguard-12345678")]),
        case("a close without a code", vec![text(WHOLE, "bye"), control(CLOSE, b"")]),
        case("a close with a reason", vec![control(CLOSE, b"\x03\xe8all is said")]),
        case(
            "a close in the middle of a message",
            vec![text(PART, "I was"), control(CLOSE, b"\x03\xe8")],
        ),
    ];
    let fragments = |size: usize, count: usize| {
        let mut frames = vec![(PART, BINARY, vec![b'f'; size])];
        frames.extend((2..count).map(|_| (PART, CONTINUATION, vec![b'f'; size])));
        frames.push((WHOLE, CONTINUATION, vec![b'f'; size]));
        frames
    };
    corpus.push(case("a thousand fragments", fragments(10, 1000)));
    corpus.push(case("fragments of 64 KiB", fragments(64 << 10, 16)));
    for size in [1, 124, 125, 126, 127, 128, 65_535, 65_536, 65_537, 1 << 20, 16 << 20] {
        corpus.push(case(&format!("{size} bytes"), vec![(WHOLE, BINARY, vec![b's'; size])]));
    }
    for code in [
        1000_u16, 1001, 1002, 1003, 1007, 1011, 1012, 1014, 3000, 3999, 4000, 4999,
    ] {
        corpus.push(case(
            &format!("close {code}"),
            vec![control(CLOSE, &code.to_be_bytes())],
        ));
    }
    // Short cases also come in pieces of several sizes.
    for pieces in [1, 2, 3, 7] {
        corpus.push(Case {
            name: format!("in pieces of {pieces}"),
            frames: vec![
                text(WHOLE, "hello"),
                text(PART, "one"),
                control(PING, b"between"),
                next(WHOLE, &"two".repeat(60)),
                (WHOLE, BINARY, Vec::new()),
                control(CLOSE, b"\x03\xe8bye"),
            ],
            pieces,
        });
    }
    corpus
}

impl Case {
    fn stream(&self, compose: impl Fn(u8, &[u8]) -> Vec<u8>) -> Vec<u8> {
        let whole = |(bits, opcode, payload): &(u8, u8, Vec<u8>)| {
            let mut frame = compose(*opcode, payload);
            frame[0] = bits | opcode;
            frame
        };
        self.frames.iter().flat_map(whole).collect()
    }

    fn write(&self, bytes: &[u8], to: &mut impl Write) {
        for piece in bytes.chunks(self.pieces.min(bytes.len()).max(1)) {
            if self.pieces != usize::MAX {
                // The pause makes the pieces travel one by one.
                thread::sleep(Duration::from_millis(1));
            }
            to.write_all(piece).unwrap();
        }
    }
}

/// The bytes and the ends that the client and the server read.
#[derive(PartialEq)]
struct Heard {
    client: (Vec<u8>, End),
    server: (Vec<u8>, End),
}

#[test]
fn what_the_rfc_allows_passes_limits_as_it_passes_without_them_and_without_wsguard() {
    let cases: &'static [Case] = corpus().leak();
    // The path of a request has the number of its case. Both sides send the frames of this case, each in its own form.
    let backend = Backend::start(move |guest| {
        // The extension is unknown to wsguard, so its frames may use all reserved bits.
        let reply = String::from_utf8(guest.switching()).unwrap();
        guest.send(
            reply
                .replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions: x-all-bits\r\n\r\n")
                .as_bytes(),
        );
        let head = String::from_utf8(guest.read_head()).unwrap();
        let nth: usize = head.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
        let case = &cases[nth];
        let mut stream = guest.stream.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                case.write(&case.stream(frame), &mut stream);
                stream.shutdown(std::net::Shutdown::Write).unwrap();
            });
            guest.read_to_end();
        });
    });
    let without = Rig::start(&backend, "");
    let with = Rig::start(&backend, LIMITS);
    let mut visits = 0;
    let mut heard_by = |front: SocketAddr, nth: usize| {
        let mut socket = Socket::connect(ip(1), front);
        socket.send(Request::to(format!("/{nth}")).as_ref());
        socket.read_head();
        let mut writer = socket.stream().try_clone().unwrap();
        let case = &cases[nth];
        let client = thread::scope(|scope| {
            scope.spawn(move || {
                case.write(&case.stream(masked), &mut writer);
                writer.shutdown(std::net::Shutdown::Write).unwrap();
            });
            socket.read_to_end()
        });
        let visit = backend.visit(visits);
        visits += 1;
        let end = visit.ended();
        Heard {
            client,
            server: (visit.tail(), end),
        }
    };
    for (nth, case) in cases.iter().enumerate() {
        let directly = heard_by(backend.address(), nth);
        assert!(directly.client == (case.stream(frame), End::Fin), "{}", case.name);
        assert!(directly.server == (case.stream(masked), End::Fin), "{}", case.name);
        assert!(
            heard_by(without.front(), nth) == directly,
            "without limits: {}",
            case.name
        );
        assert!(heard_by(with.front(), nth) == directly, "with limits: {}", case.name);
    }
    for rig in [&without, &with] {
        rig.quiet();
    }
    let metrics = with.metrics();
    let hits = metrics.starting_with("wsguard_message_limit_hits_total");
    assert!(
        !hits.is_empty() && hits.iter().all(|(_, number)| *number == "0"),
        "{hits:?}"
    );
}
