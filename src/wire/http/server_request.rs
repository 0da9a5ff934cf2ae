//! Composes the upgrade request for the server. It is the client's request, except for the headers that name the
//! client.

use std::io::Write as _;
use std::net::IpAddr;
use std::ops::Range;

use super::client_headers::{Lengths, lengths_with, may_be, names_client};
use super::head::Head;
use crate::wire::authority::Authority;

/// Where a request came from, for the headers that tell the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarding {
    /// The address the request came from, after a PROXY header; `None` for a Unix peer, which has none.
    pub hop: Option<IpAddr>,
    /// Whether the hop is a trusted proxy, so that its forwarding headers are accepted.
    pub hop_trusted: bool,
    /// The client that the request is counted for; `None` if it is unknown.
    pub client: Option<IpAddr>,
    /// The scheme that it came by: `http` or `https`.
    pub proto: &'static str,
    /// How much of this the server learns.
    pub send: SendMode,
}

/// What forwarding headers tell the server about the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SendMode {
    /// `X-Forwarded-For` with every hop: the value that a trusted hop sent, followed by the hop itself.
    #[default]
    Append,
    /// `X-Forwarded-For` with the client alone, as a single proxy would send it.
    Client,
    /// No header that names a client or a proxy is sent, not even one from a trusted hop.
    None,
}

/// Composes the request for the server from a head that has passed [`check_upgrade`](crate::wire::ws::upgrade_request::check_upgrade).
///
/// Path and query are sent byte for byte, and headers in their order and as they came, with these exceptions:
/// - A header that names a client passes only from a trusted hop, and never if it is spelt with `_`, which many servers
///   read as `-`.
/// - `X-Forwarded-For` is the value that a trusted hop sent, joined into one line, followed by the hop. `X-Real-IP` is
///   the client. `X-Forwarded-Proto` from a trusted hop is kept; otherwise it is set. Those that are set come last.
/// - With [`SendMode::Client`] `X-Forwarded-For` is the client alone. With [`SendMode::None`] none of these three is
///   sent, and no header that names a client passes.
/// - `Connection` is sent once, with the value `Upgrade`, however often it came and whatever it listed. The headers
///   that it listed are not removed.
/// - If the target is a URL, its path and query become the target, and its authority becomes `Host`.
pub fn request_for_server(head: &Head<'_>, forwarding: &Forwarding) -> Vec<u8> {
    let mut request = Vec::with_capacity(capacity_for(head));
    let origin = if head.target.starts_with(b"/") { "" } else { "/" };
    put(
        &mut request,
        &[head.method, b" ", origin.as_bytes(), head.target, b" HTTP/1.1\r\n"],
    );
    let mut has_proto = false;
    let mut has_connection = false;
    for header in &head.headers {
        match Fate::of(header.name, forwarding) {
            Fate::Passes => put_header(&mut request, header.name, header.value),
            Fate::Removed => {}
            Fate::Proto => {
                has_proto = true;
                put_header(&mut request, header.name, header.value);
            }
            Fate::Connection => {
                if !has_connection {
                    put_header(&mut request, "Connection", b"Upgrade");
                }
                has_connection = true;
            }
            Fate::Host => match head.authority {
                Some(authority) if head.absolute_form => put_host(&mut request, authority),
                _ => put_header(&mut request, header.name, header.value),
            },
        }
    }
    let written = match forwarding.send {
        SendMode::Append => put_forwarded_for(&mut request, head, forwarding),
        SendMode::Client => put_client(&mut request, "X-Forwarded-For: ", forwarding, None),
        SendMode::None => None,
    };
    if forwarding.send != SendMode::None {
        put_client(&mut request, "X-Real-IP: ", forwarding, written);
        if !has_proto {
            put_header(&mut request, "X-Forwarded-Proto", forwarding.proto.as_bytes());
        }
    }
    request.extend_from_slice(b"\r\n");
    request
}

/// What happens to a header line.
enum Fate {
    Connection,
    Host,
    Passes,
    Proto,
    Removed,
}

impl Fate {
    fn of(name: &str, forwarding: &Forwarding) -> Self {
        // Nearly every header passes, and its first letter and length are enough to know that.
        static OF_NOTE: Lengths = lengths_with(&["connection", "host"]);
        if !may_be(&OF_NOTE, name.as_bytes()) {
            return Self::Passes;
        }
        if name.eq_ignore_ascii_case("connection") {
            return Self::Connection;
        }
        if name.eq_ignore_ascii_case("host") {
            return Self::Host;
        }
        if !names_client(name.as_bytes()) {
            return Self::Passes;
        }
        let is_replaced = name.eq_ignore_ascii_case("x-forwarded-for")
            || (forwarding.client.is_some() && name.eq_ignore_ascii_case("x-real-ip"));
        let may_pass = forwarding.hop_trusted && forwarding.send != SendMode::None;
        if !may_pass || is_replaced || name.contains('_') {
            Self::Removed
        } else if name.eq_ignore_ascii_case("x-forwarded-proto") {
            Self::Proto
        } else {
            Self::Passes
        }
    }
}

/// An address and its place in the request. Copying it from there costs less than formatting it again.
type Written = (IpAddr, Range<usize>);

fn put_forwarded_for(request: &mut Vec<u8>, head: &Head<'_>, forwarding: &Forwarding) -> Option<Written> {
    let mut lead = "X-Forwarded-For: ";
    if forwarding.hop_trusted {
        for line in head.values("x-forwarded-for").filter(|line| !line.is_empty()) {
            put(request, &[lead.as_bytes(), line]);
            lead = ", ";
        }
    }
    let written = forwarding.hop.map(|hop| put_address(request, lead, hop));
    if lead == ", " || written.is_some() {
        request.extend_from_slice(b"\r\n");
    }
    written
}

fn put_client(request: &mut Vec<u8>, lead: &str, forwarding: &Forwarding, before: Option<Written>) -> Option<Written> {
    let client = forwarding.client?;
    let written = match before {
        Some((address, place)) if address == client => {
            request.extend_from_slice(lead.as_bytes());
            request.extend_from_within(place.clone());
            (address, place)
        }
        _ => put_address(request, lead, client),
    };
    request.extend_from_slice(b"\r\n");
    Some(written)
}

fn put_host(request: &mut Vec<u8>, authority: Authority<'_>) {
    put(request, &[b"Host: ", authority.host]);
    if let Some(port) = authority.port {
        write!(request, ":{port}").expect("a Vec takes every write");
    }
    request.extend_from_slice(b"\r\n");
}

/// An IPv4-mapped address is written as IPv4, since it counts as IPv4 everywhere else.
fn put_address(request: &mut Vec<u8>, lead: &str, address: IpAddr) -> Written {
    request.extend_from_slice(lead.as_bytes());
    let begin = request.len();
    write!(request, "{}", address.to_canonical()).expect("a Vec takes every write");
    (address, begin..request.len())
}

fn put_header(request: &mut Vec<u8>, name: &str, value: &[u8]) {
    put(request, &[name.as_bytes(), b": ", value, b"\r\n"]);
}

fn put(request: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        request.extend_from_slice(part);
    }
}

fn capacity_for(head: &Head<'_>) -> usize {
    let headers: usize = head
        .headers
        .iter()
        .map(|header| header.name.len() + header.value.len() + 4)
        .sum();
    head.method.len() + head.target.len() + headers + ADDED
}

/// Room for what is added: the fixed parts of the request line, and three headers with two addresses of at most 39
/// bytes. The buffer has to grow only if a URL's authority is longer than the `Host` that was sent.
const ADDED: usize = 256;

#[cfg(test)]
mod tests;
