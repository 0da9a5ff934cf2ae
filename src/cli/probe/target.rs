//! The target of a probe, and the target's answers.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::wire::Step;
use crate::wire::http::server_reply::{Reply, ReplyFault, ReplyScan};
use crate::wire::ws::upgrade_request::accept_for;

/// A guard that can be dialled.
#[derive(Debug)]
pub(super) struct Target {
    /// The value of `Host`.
    pub(super) authority: String,
    /// The path, with its query.
    pub(super) path: String,
    address: SocketAddr,
}

/// Why there is nothing to probe.
#[derive(Debug)]
pub(super) enum Wrong {
    /// The command line is wrong.
    Usage(&'static str),
    /// The target can't be found or dialled.
    Unreachable(anyhow::Error),
}

/// The answer to a request.
#[derive(Debug)]
pub(super) enum Answer {
    /// A 101: the socket is open as long as the value lives.
    Open(TcpStream),
    /// A refusal: its status (or close code), and, if the target is a wsguard, the reason.
    Refused { status: u16, reason: String },
    /// The end of the connection.
    Ended,
    /// Bytes that are not HTTP.
    Garbled,
    /// No answer within [`ANSWER`].
    Nothing,
}

impl Target {
    /// Reads the URL, resolves its host, and dials it once.
    pub(super) fn parse(url: &str, owned: bool) -> Result<Self, Wrong> {
        let (scheme, rest) = url
            .split_once("://")
            .ok_or(Wrong::Usage("not a URL: ws://HOST:PORT/PATH is expected"))?;
        if scheme.eq_ignore_ascii_case("wss") {
            return Err(Wrong::Usage(
                "TLS is not in this version: probe the ws:// listener behind it",
            ));
        }
        if !scheme.eq_ignore_ascii_case("ws") {
            return Err(Wrong::Usage("only ws:// can be probed"));
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        let is_host = !authority.is_empty() && authority.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'@');
        if !is_host || !is_path(&path) {
            return Err(Wrong::Usage("not a URL: ws://HOST:PORT/PATH is expected"));
        }
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let dialled = if has_port {
            authority.to_owned()
        } else {
            format!("{authority}:80")
        };
        let addresses: Vec<SocketAddr> = dialled
            .to_socket_addrs()
            .context("no such host")
            .map_err(Wrong::Unreachable)?
            .collect();
        if !owned
            && !addresses
                .iter()
                .all(|address| address.ip().to_canonical().is_loopback())
        {
            return Err(Wrong::Usage(
                "not on this machine: probe only your own guard, and confirm with --i-own-this that it is yours",
            ));
        }
        let mut last = anyhow::anyhow!("no such host");
        for address in addresses {
            match TcpStream::connect_timeout(&address, ANSWER) {
                Ok(_) => {
                    return Ok(Self {
                        authority: authority.to_owned(),
                        path,
                        address,
                    });
                }
                Err(error) => last = anyhow::Error::new(error).context(format!("cannot connect to {address}")),
            }
        }
        Err(Wrong::Unreachable(last))
    }

    /// Opens one more socket.
    pub(super) fn dial(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address, ANSWER)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(ANSWER))?;
        Ok(stream)
    }

    /// The upgrade request that a browser would send to this path, with the further header `lines`.
    pub(super) fn upgrade(&self, path: &str, lines: &str) -> String {
        format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{lines}\r\n",
            self.authority
        )
    }
}

impl Answer {
    /// Sends a request and reads the answer.
    pub(super) fn asked(mut stream: TcpStream, request: &str) -> Self {
        // A failed write is ignored: a peer that has closed may have sent its reason before.
        let _gone = stream.write_all(request.as_bytes());
        let (mut scan, mut bytes, until) = (ReplyScan::default(), Vec::new(), Instant::now() + ANSWER);
        let accept = accept_for(KEY.as_bytes());
        loop {
            let more = read(&mut stream, until.saturating_duration_since(Instant::now()));
            match &more {
                More::Bytes(more) => bytes.extend_from_slice(more),
                More::End if bytes.is_empty() => return Self::Ended,
                More::End => return Self::Garbled,
                More::Nothing => return Self::Nothing,
            }
            match scan.parse(&bytes, &accept) {
                Ok(Step::More) => {}
                Ok(Step::Done {
                    value: Reply::Interim,
                    used,
                }) => drop(bytes.drain(..used)),
                Ok(Step::Done {
                    value: Reply::PassOn { status, head, .. },
                    ..
                }) => {
                    return Self::Refused {
                        status,
                        reason: reason_in(&head),
                    };
                }
                Ok(Step::Done {
                    value: Reply::Switched(_),
                    used,
                }) => return Self::switched(stream, bytes.split_off(used)),
                // A 101 counts even without a valid Sec-WebSocket-Accept.
                Err(ReplyFault::BadSwitch) => return Self::Open(stream),
                Err(ReplyFault::Status(status)) => {
                    return Self::Refused {
                        status,
                        reason: String::new(),
                    };
                }
                Err(_) => return Self::Garbled,
            }
        }
    }

    /// The answer after a 101. A close frame right behind it is a refusal too: `reject_with = "close"`.
    fn switched(mut stream: TcpStream, mut tail: Vec<u8>) -> Self {
        while tail.len() < 4 {
            match read(&mut stream, AT_ONCE) {
                More::Bytes(more) => tail.extend_from_slice(&more),
                More::End => return Self::Ended,
                More::Nothing => break,
            }
        }
        match tail[..] {
            [0x88, _, high, low, ..] => Self::Refused {
                status: u16::from_be_bytes([high, low]),
                reason: String::new(),
            },
            _ => Self::Open(stream),
        }
    }
}

/// The result of one read.
#[derive(Debug)]
pub(super) enum More {
    Bytes(Vec<u8>),
    End,
    Nothing,
}

/// Reads once, with this timeout.
pub(super) fn read(stream: &mut TcpStream, within: Duration) -> More {
    // A timeout of zero would be an error, so it is at least a millisecond.
    let _set = stream.set_read_timeout(Some(within.max(Duration::from_millis(1))));
    let mut buffer = vec![0; 16 * 1024];
    match stream.read(&mut buffer) {
        Ok(0) => More::End,
        Ok(len) => {
            buffer.truncate(len);
            More::Bytes(buffer)
        }
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
            ) =>
        {
            More::Nothing
        }
        Err(_) => More::End,
    }
}

/// Whether `path` can be part of a request line. A blank or a line break in it would change the request.
pub(super) fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

fn reason_in(head: &[u8]) -> String {
    let head = String::from_utf8_lossy(head);
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines
        .filter(|(name, _)| name.eq_ignore_ascii_case("x-wsguard-reason"))
        .map(|(_, word)| word.to_owned())
        .collect()
}

/// Any 16 bytes in base64 are a key.
const KEY: &str = "d3NndWFyZCBwcm9iZXMgeQ==";
/// How long a dial or an answer may take.
const ANSWER: Duration = Duration::from_secs(3);
/// The time in which bytes arrive that a guard sends at once.
const AT_ONCE: Duration = Duration::from_millis(30);
