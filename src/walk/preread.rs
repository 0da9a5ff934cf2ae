//! Reads what a socket sends first: a PROXY header, if the listener expects one, and then a request head. Pure and
//! resumable: it gets the bytes that have come so far, and the result is the same however they were split.

use crate::wire::Step;
use crate::wire::http::head::{Head, HeadCaps, HeadFault, HeadScan};
use crate::wire::proxy::{Announces, MAX_PROXY_HEADER, ProxyFault, Source, announces, parse_proxy};

/// How far the reading has come.
#[derive(Debug)]
pub struct Preread {
    expects: Expects,
    scan: HeadScan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expects {
    ProxyHeader,
    /// After a PROXY header; another one is a fault.
    HeadAfterProxyHeader,
    Head,
}

/// A complete part.
#[derive(Debug)]
pub enum Part<'b> {
    /// The PROXY header; more is expected behind it.
    ProxyHeader(Source),
    /// The request head, which is the last part.
    Head(Head<'b>),
}

/// Why a part can't become complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrereadFault {
    /// The PROXY header is malformed, or missing.
    ProxyHeader(ProxyFault),
    /// A second PROXY header follows the first.
    SecondProxyHeader,
    /// The request head is malformed, or too large.
    Head(HeadFault),
}

impl Preread {
    /// The state before any byte has come. If `accept_proxy_protocol` is set, every connection begins with a PROXY
    /// header.
    pub fn new(accept_proxy_protocol: bool) -> Self {
        Self {
            expects: if accept_proxy_protocol {
                Expects::ProxyHeader
            } else {
                Expects::Head
            },
            scan: HeadScan::default(),
        }
    }

    /// Takes the next part from the front of `bytes`. `bytes` are all the bytes that have come and were not consumed.
    /// Before the next call, the caller consumes the bytes that the part used.
    ///
    /// # Errors
    /// The part can't become complete, whatever follows.
    pub fn feed<'b>(&mut self, bytes: &'b [u8], caps: HeadCaps) -> Result<Step<Part<'b>>, PrereadFault> {
        match self.expects {
            Expects::ProxyHeader => match parse_proxy(bytes).map_err(PrereadFault::ProxyHeader)? {
                Step::Done { value, used } => {
                    self.expects = Expects::HeadAfterProxyHeader;
                    let value = Part::ProxyHeader(value);
                    return Ok(Step::Done { value, used });
                }
                Step::More => return Ok(Step::More),
            },
            Expects::HeadAfterProxyHeader => match announces(bytes) {
                Announces::Yes => return Err(PrereadFault::SecondProxyHeader),
                Announces::Maybe => return Ok(Step::More),
                Announces::No => {}
            },
            Expects::Head => {}
        }
        match self.scan.parse(bytes, caps).map_err(PrereadFault::Head)? {
            Step::Done { value, used } => Ok(Step::Done {
                value: Part::Head(value),
                used,
            }),
            Step::More => Ok(Step::More),
        }
    }

    /// How many unconsumed bytes may be read before the next call.
    pub fn limit(&self, caps: HeadCaps) -> usize {
        match self.expects {
            Expects::ProxyHeader => MAX_PROXY_HEADER,
            Expects::HeadAfterProxyHeader | Expects::Head => caps.max_size + 1,
        }
    }

    /// Whether a PROXY header is still to come.
    pub fn expects_proxy_header(&self) -> bool {
        self.expects == Expects::ProxyHeader
    }

    /// Whether a PROXY header has come.
    pub fn has_proxy_header(&self) -> bool {
        self.expects == Expects::HeadAfterProxyHeader
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PROXY: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n";
    const HEAD: &[u8] = b"GET /ws HTTP/1.1\r\nHost: a.example\r\n\r\n";
    const CAPS: HeadCaps = HeadCaps {
        max_size: 1024,
        max_headers: 10,
    };

    /// Feeds `bytes` in two pieces, the first of `split` bytes. Returns the complete parts, and the fault if there is
    /// one.
    fn parts(bytes: &[u8], split: usize, accept_proxy_protocol: bool) -> (Vec<String>, Option<PrereadFault>) {
        let (mut preread, mut parts, mut consumed) = (Preread::new(accept_proxy_protocol), Vec::new(), 0);
        for end in [split, bytes.len()] {
            loop {
                match preread.feed(&bytes[consumed..end], CAPS) {
                    Ok(Step::Done { value, used }) => {
                        let is_last = matches!(value, Part::Head(_));
                        parts.push(match value {
                            Part::ProxyHeader(source) => format!("{source:?}"),
                            Part::Head(head) => String::from_utf8_lossy(head.target).into_owned(),
                        });
                        consumed += used;
                        if is_last {
                            assert_eq!(consumed, bytes.len());
                            return (parts, None);
                        }
                    }
                    Ok(Step::More) => break,
                    Err(fault) => return (parts, Some(fault)),
                }
            }
        }
        (parts, None)
    }

    #[test]
    fn a_head_is_read_and_behind_a_proxy_header_too_wherever_it_is_split() {
        for split in 0..=HEAD.len() {
            assert_eq!(parts(HEAD, split, false), (vec!["/ws".to_owned()], None), "{split}");
        }
        let both = [PROXY, HEAD].concat();
        for split in 0..=both.len() {
            let (parts, fault) = parts(&both, split, true);
            assert_eq!((parts.len(), fault), (2, None), "{split}");
            assert!(parts[0].contains("203.0.113.7"), "{parts:?}");
            assert_eq!(parts[1], "/ws");
        }
    }

    #[test]
    fn a_proxy_header_where_none_may_be_is_a_fault() {
        let twice = [PROXY, PROXY, HEAD].concat();
        for split in 0..=twice.len() {
            assert_eq!(parts(&twice, split, true).1, Some(PrereadFault::SecondProxyHeader));
        }
        let (_, fault) = parts(HEAD, 0, true);
        assert!(matches!(fault, Some(PrereadFault::ProxyHeader(_))), "{fault:?}");
        let (_, fault) = parts(PROXY, 0, false);
        assert!(matches!(fault, Some(PrereadFault::Head(_))), "{fault:?}");
    }
}
