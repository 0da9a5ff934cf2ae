//! Upgrade requests as bytes, of which a test changes one part at a time.

use std::fmt::Display;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

/// A request whose parts can be set, left out and repeated.
#[derive(Clone)]
pub struct Request {
    line: Vec<u8>,
    headers: Vec<(String, Vec<u8>)>,
    bytes: Vec<u8>,
}

impl Request {
    /// The upgrade that a browser would send to this target.
    pub fn to(target: impl AsRef<[u8]>) -> Self {
        let headers = [
            ("Host", "chat.example.org"),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", KEY),
            ("Sec-WebSocket-Version", "13"),
        ];
        let line = [b"GET ", target.as_ref(), b" HTTP/1.1"].concat();
        let headers = headers.map(|(name, value)| (name.to_owned(), value.into())).to_vec();
        Self {
            line,
            headers,
            bytes: Vec::new(),
        }
        .rendered()
    }

    /// Replaces the request line.
    pub fn line(mut self, line: impl AsRef<[u8]>) -> Self {
        self.line = line.as_ref().to_vec();
        self.rendered()
    }

    /// Adds a header after the others.
    pub fn add(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self.rendered()
    }

    /// Replaces the value of a header.
    pub fn set(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let header = self
            .headers
            .iter_mut()
            .find(|(known, _)| known == name)
            .expect("a header to set");
        header.1 = value.as_ref().to_vec();
        self.rendered()
    }

    /// Leaves a header out.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.rendered()
    }

    /// The request itself.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The request, followed by these bytes.
    pub fn followed_by(&self, tail: impl AsRef<[u8]>) -> Vec<u8> {
        [&self.bytes, tail.as_ref()].concat()
    }

    fn rendered(mut self) -> Self {
        self.bytes = [&self.line, &b"\r\n"[..]].concat();
        for (name, value) in &self.headers {
            self.bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        self.bytes.extend(b"\r\n");
        self
    }
}

impl AsRef<[u8]> for Request {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The key of RFC 6455, 1.3; its answer is `s3pPLMBiTxaQ9kYGzzhZRbK+xOo=`.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The server's answer to a key (RFC 6455, 4.2.2).
pub fn accept_for(key: impl Display) -> String {
    STANDARD.encode(Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11")))
}
