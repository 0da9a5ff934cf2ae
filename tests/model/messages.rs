//! A plain model of the limits on messages, written from the manual, and a check that the real relay between real
//! sockets behaves like the model.
//!
//! The rates are so slow that no token comes back during a run. So exactly the burst of every bucket passes, however
//! the stream is split and whatever lengths are declared. `tests/parsers/messages.rs` and the fuzz target `messages`
//! share this file.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;
use wsguard::limit::rules::Rate;
use wsguard::limit::shares::Shares;
use wsguard::net::clock::Clock;
use wsguard::net::random::Random;
use wsguard::relay::conn_limits::ConnLimits;
use wsguard::relay::legs::Legs;
use wsguard::relay::params::{EarlyBytes, RelayParams};
use wsguard::relay::relay::Relay;
use wsguard::relay::rules::RelayMode;
use wsguard::relay::rules::{MessageRules, OnExceed, Timeouts};
use wsguard::wire::ws::extensions::Extensions;
use wsguard::wire::ws::header::Sender;

/// The side that sends, and its limits. `None` is "off".
#[derive(Clone, Copy, Debug)]
pub struct Case {
    sender: Sender,
    strict: bool,
    observes: bool,
    on_exceed: OnExceed,
    extensions: Extensions,
    mode: RelayMode,
    messages: Option<u32>,
    shared: Option<u32>,
    bytes: Option<u32>,
    max_size: Option<u32>,
    /// How many bytes are written at once.
    piece: usize,
}

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Everything that can be decided on has passed.
    Open,
    /// The rest waits for tokens.
    Waits,
    /// The connection is closed with this code.
    Closed(u16),
}

/// Checks the relay against the model. `data` describes a case, followed by a stream.
pub fn check(data: &[u8]) {
    let Some((head, stream)) = data.split_first_chunk() else {
        return;
    };
    let stream = &stream[..stream.len().min(MOST)];
    let case = Case::of(*head, stream.len());
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(drive(&case, stream));
}

impl Case {
    fn of([flags, messages, shared, bytes, max_size, piece]: [u8; 6], len: usize) -> Self {
        let bit = |nth: u8| flags >> nth & 1 == 1;
        let number = |byte: u8, times: u32| (byte > 0).then(|| u32::from(byte) * times);
        Self {
            sender: if bit(0) { Sender::Server } else { Sender::Client },
            strict: bit(1),
            observes: bit(2),
            on_exceed: if bit(3) { OnExceed::Delay } else { OnExceed::Close },
            extensions: [
                Extensions::None,
                Extensions::PerMessage,
                Extensions::Other,
                Extensions::None,
            ][usize::from(flags >> 4 & 3)],
            mode: if bit(6) { RelayMode::Copy } else { RelayMode::Auto },
            messages: number(messages, 1),
            shared: number(shared, 1),
            bytes: number(bytes, 257),
            max_size: number(max_size, 100).filter(|_| !bit(0)),
            // Pieces are not too small: each piece takes much more room in the kernel than its own size.
            piece: (1 + usize::from(piece) * 37).max(len / 64),
        }
    }

    fn limits(&self) -> ConnLimits {
        let rate = |burst: Option<u32>| {
            burst.and_then(NonZeroU32::new).map(|burst| Rate {
                tokens: NonZeroU32::MIN,
                per: Duration::from_secs(5000),
                burst,
            })
        };
        let (messages, shared, bytes) = (rate(self.messages), rate(self.shared), rate(self.bytes));
        let mut rules = MessageRules {
            on_exceed: self.on_exceed,
            strict_frames: self.strict,
            max_size: self.max_size.map(u64::from),
            ..MessageRules::OFF
        };
        if self.is_client() {
            (rules.rate, rules.per_ip_rate, rules.bytes_rate) = (messages, shared, bytes);
        } else {
            (rules.out_rate, rules.out_per_ip_rate, rules.out_bytes_rate) = (messages, shared, bytes);
        }
        let timeouts = Timeouts {
            idle: None,
            half_close: None,
            stalled: None,
            keepalive: None,
            lifetime: None,
        };
        let now = Instant::now();
        ConnLimits::new(
            timeouts,
            &rules,
            self.observes,
            now,
            Arc::new(Clock::begin(now)),
            Arc::new(Random::seeded([0; 16])),
        )
    }

    fn is_client(&self) -> bool {
        self.sender == Sender::Client
    }

    /// Whether frames are policed before they pass.
    fn looks(&self) -> bool {
        let limits = [self.messages, self.shared, self.bytes, self.max_size];
        self.strict && self.is_client() || limits.iter().any(Option::is_some)
    }

    /// How much of `stream` passes, and how the stream ends then.
    fn outcome(&self, stream: &[u8]) -> (usize, End) {
        let is_enforced = !self.observes;
        let held = |limit: Option<u32>| limit.map(u64::from).filter(|_| is_enforced);
        let (mut messages, mut shared, mut bytes) = (held(self.messages), held(self.shared), held(self.bytes));
        let max_size = held(self.max_size);
        let mut frames = match (messages, shared, bytes, max_size) {
            (Some(messages), ..) => Some(10 * messages),
            (None, None, Some(bytes), _) => Some((bytes / 8).max(100)),
            // If only sizes are limited, the limit of 10 000 frames is more than a stream can have.
            (None, Some(_), ..) | (None, None, None, _) => None,
        };
        let mut shared_frames = shared.map(|shared| 10 * shared);
        let strict = self.strict && self.is_client() && is_enforced;
        let too_much = if self.on_exceed == OnExceed::Delay || !self.is_client() {
            End::Waits
        } else {
            End::Closed(1008)
        };
        let (mut at, mut message, mut has_closed) = (0, None::<u64>, false);
        if !self.looks() {
            return (stream.len(), End::Open);
        }
        while at < stream.len() {
            let rest = &stream[at..];
            let header = match Header::read(rest, self.is_client()) {
                Ok(Some(header)) => header,
                Ok(None) => return (at, End::Open),
                Err(_) if strict => return (at, End::Closed(1002)),
                Err(seen) => {
                    // From here on the stream is plain bytes.
                    let rest = rest.len() - seen;
                    let passes = bytes.map_or(rest, |bytes| rest.min(usize::try_from(bytes).unwrap_or(rest)));
                    let end = if passes < rest { too_much } else { End::Open };
                    return (at + seen + passes, end);
                }
            };
            let breaks_a_rule = has_closed && header.opcode != 10
                || !self.allows_reserved(&header)
                || header.is_too_long
                || header.opcode == 0 && message.is_none()
                || matches!(header.opcode, 1 | 2) && message.is_some();
            if strict && breaks_a_rule {
                return (at, End::Closed(1002));
            }
            let size = match header.opcode {
                0 => header.payload.saturating_add(message.unwrap_or(0)),
                1 | 2 => header.payload,
                _ => 0,
            };
            if max_size.is_some_and(|max| size > max) {
                return (at, End::Closed(1009));
            }
            let begins = matches!(header.opcode, 1 | 2);
            let is_out = |bucket: Option<u64>| bucket == Some(0);
            let first = if too_much == End::Waits {
                header.payload.min(1)
            } else {
                header.payload
            };
            if begins && (is_out(messages) || is_out(shared))
                || is_out(frames)
                || is_out(shared_frames)
                || bytes.is_some_and(|bytes| first > bytes)
            {
                return (at, too_much);
            }
            let take = |bucket: &mut Option<u64>, count: u64| *bucket = bucket.map(|left| left - count);
            take(&mut frames, 1);
            take(&mut shared_frames, 1);
            if begins {
                take(&mut messages, 1);
                take(&mut shared, 1);
            }
            if header.opcode < 8 {
                message = (!header.is_last).then_some(size);
            }
            has_closed |= header.opcode == 8;
            let here = (rest.len() - header.len) as u64;
            let comes = header.payload.min(here);
            let passes = bytes.map_or(comes, |bytes| comes.min(bytes));
            take(&mut bytes, passes);
            at += header.len + usize::try_from(passes).expect("no more than is here");
            if passes < comes {
                return (at, too_much);
            }
        }
        (at, End::Open)
    }

    fn allows_reserved(&self, header: &Header) -> bool {
        match self.extensions {
            Extensions::None => header.reserved == 0,
            Extensions::PerMessage => header.reserved == 0 || header.reserved == 4 && matches!(header.opcode, 1 | 2),
            Extensions::Other => true,
        }
    }
}

/// A frame header, read bit by bit as in RFC 6455, 5.2.
struct Header {
    len: usize,
    opcode: u8,
    is_last: bool,
    reserved: u8,
    payload: u64,
    /// The length is written with more bytes than it needs.
    is_too_long: bool,
}

impl Header {
    /// Reads a header; `None` if it is incomplete. The error means that it can't be valid, and says how many bytes show
    /// that.
    fn read(bytes: &[u8], is_client: bool) -> Result<Option<Self>, usize> {
        let Some(first) = bytes.first() else { return Ok(None) };
        let (opcode, is_last) = (first & 0x0f, first & 0x80 != 0);
        if !matches!(opcode, 0 | 1 | 2 | 8 | 9 | 10) || opcode >= 8 && !is_last {
            return Err(1);
        }
        let Some(second) = bytes.get(1) else { return Ok(None) };
        let short = second & 0x7f;
        if (second & 0x80 != 0) != is_client || opcode >= 8 && short > 125 {
            return Err(2);
        }
        let wide = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if wide == 8 && bytes.get(2).is_some_and(|third| third & 0x80 != 0) {
            return Err(3);
        }
        let len = 2 + wide + if is_client { 4 } else { 0 };
        if bytes.len() < len {
            return Ok(None);
        }
        let written = bytes[2..2 + wide]
            .iter()
            .fold(0, |sum, byte| sum * 256 + u64::from(*byte));
        let payload = if wide == 0 { short.into() } else { written };
        Ok(Some(Self {
            len,
            opcode,
            is_last,
            reserved: first >> 4 & 7,
            payload,
            is_too_long: wide == 2 && payload < 126 || wide == 8 && payload < 65_536,
        }))
    }
}

async fn drive(case: &Case, stream: &[u8]) {
    let pair = || UnixStream::pair().expect("a pair of sockets");
    let ((client, front), (back, server)) = (pair(), pair());
    let mut relay = Relay::new(
        EarlyBytes {
            from_client: Vec::new(),
            from_server: Vec::new(),
            reply_size: 0,
            extensions: case.extensions,
        },
        RelayParams {
            mode: case.mode,
            limits: Arc::new(case.limits()),
            shares: Some(Arc::<Shares>::default()),
            handle: Arc::default(),
            counters: Arc::default(),
        },
    );
    let legs = Legs {
        client: front.into(),
        server: back.into(),
    };
    let task = tokio::spawn(poll_fn(move |cx| relay.poll(&legs, cx)));
    let (mut source, mut sink) = if case.is_client() {
        (client, server)
    } else {
        (server, client)
    };
    let (mut passed, mut sent) = (Vec::new(), 0);
    for piece in stream.chunks(case.piece) {
        // A source that is closed takes no more bytes.
        let _closed = timeout(PATIENCE, source.write_all(piece))
            .await
            .expect("room for all of it");
        sent += piece.len();
        let (expected, end) = case.outcome(&stream[..sent]);
        while passed.len() < expected {
            let mut buffer = vec![0; expected - passed.len()];
            let read = timeout(PATIENCE, sink.read(&mut buffer)).await;
            let read = read.unwrap_or_else(|_| panic!("{} of {expected} bytes pass, {case:?}", passed.len()));
            let read = read.expect("the sink is there");
            assert!(read > 0, "it ends after {} of {expected} bytes, {case:?}", passed.len());
            passed.extend_from_slice(&buffer[..read]);
        }
        assert!(
            passed == stream[..expected],
            "other bytes pass than were sent, {case:?}"
        );
        if let End::Closed(code) = end {
            is_closed(&mut source, &mut sink, code, case).await;
            task.abort();
            return;
        }
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    let more = sink.try_read(&mut [0; 64]);
    assert!(
        more.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock),
        "{more:?} more than {} bytes pass, {case:?}",
        passed.len()
    );
    task.abort();
}

/// Checks that the sink gets a close frame of wsguard's or nothing, and that the source gets a close frame with `code`.
async fn is_closed(source: &mut UnixStream, sink: &mut UnixStream, code: u16, case: &Case) {
    let mut last = Vec::new();
    timeout(PATIENCE, sink.read_to_end(&mut last))
        .await
        .expect("the sink is told of the end")
        .expect("in order");
    let is_close = last.len() > 8 && last[0] == 0x88 && usize::from(last[1] & 0x7f) == last.len() - 6;
    assert!(last.is_empty() || is_close, "{last:?} pass, {case:?}");
    let mut heard = [0; 4];
    timeout(PATIENCE, source.read_exact(&mut heard))
        .await
        .expect("the source hears why")
        .expect("a close frame");
    assert_eq!(
        (heard[0], u16::from_be_bytes([heard[2], heard[3]])),
        (0x88, code),
        "{case:?}"
    );
}

/// A stream of this length has fewer than 10 000 frames.
const MOST: usize = 59_999;
const PATIENCE: Duration = Duration::from_secs(10);
