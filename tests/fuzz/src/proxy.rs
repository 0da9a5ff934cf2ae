//! A PROXY header has the same outcome however it is split. It passes only if it passes by a plain reading of the
//! specification.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use libfuzzer_sys::fuzz_target;
use wsguard::wire::Step;
use wsguard::wire::proxy::{Announces, MAX_PROXY_HEADER, ProxyFault, Source, announces, parse_proxy};
use wsguard_fuzz::looks;

fuzz_target!(|data: &[u8]| {
    let whole = parse_proxy(data);
    // These are all short prefixes of the data, and then the looks.
    let ends = (0..data.len().min(128)).chain(looks(data));
    let dripped = ends
        .map(|end| parse_proxy(&data[..end]))
        .find(|read| *read != Ok(Step::More));
    assert_eq!(
        dripped.unwrap_or(Ok(Step::More)),
        whole,
        "the outcome depends on how it was split"
    );
    match (announces(data), whole) {
        (Announces::No, Err(ProxyFault::Missing)) | (Announces::Maybe, Ok(Step::More)) => {}
        (Announces::Yes, read) => assert_ne!(read, Err(ProxyFault::Missing)),
        other => panic!("{other:?}"),
    }
    let passed = match whole {
        Ok(Step::Done { value, used }) => {
            assert!(used <= data.len() && used <= MAX_PROXY_HEADER);
            assert_eq!(parse_proxy(&data[..used]), whole, "bytes behind it have no influence");
            assert_eq!(
                parse_proxy(&data[..used - 1]),
                Ok(Step::More),
                "no shorter one is whole"
            );
            Some((value, used))
        }
        Ok(Step::More) => {
            assert!(data.len() < MAX_PROXY_HEADER, "it is waited for without end");
            None
        }
        Err(_) => None,
    };
    assert_eq!(passed, line(data).or_else(|| block(data)));
});

/// Reads section 2.1 of the specification, on whole lines.
fn line(data: &[u8]) -> Option<(Source, usize)> {
    let used = data.windows(2).position(|pair| pair == b"\r\n")? + 2;
    let text = &data[..used - 2];
    if used > 107 {
        return None;
    }
    if text == b"PROXY UNKNOWN" || text.starts_with(b"PROXY UNKNOWN ") {
        return Some((Source::Socket, used));
    }
    let fields: Vec<&str> = str::from_utf8(text).ok()?.split(' ').collect();
    let [_, family, from, to, from_port, to_port] = *fields else {
        return None;
    };
    let (from, _to) = match family {
        "TCP4" => (address::<Ipv4Addr>(from)?, address::<Ipv4Addr>(to)?),
        "TCP6" => (address::<Ipv6Addr>(from)?, address::<Ipv6Addr>(to)?),
        _ => return None,
    };
    port(to_port)?;
    let source = SocketAddr::new(from, port(from_port)?);
    (fields[0] == "PROXY").then_some((Source::Address(source), used))
}

fn address<A: FromStr + Into<IpAddr>>(text: &str) -> Option<IpAddr> {
    text.parse::<A>().ok().map(Into::into)
}

fn port(text: &str) -> Option<u16> {
    // The port must be written in the usual way: without sign and leading zeros.
    text.parse::<u16>().ok().filter(|port| port.to_string() == text)
}

/// Reads section 2.2 of the specification, on whole headers.
fn block(data: &[u8]) -> Option<(Source, usize)> {
    let rest = data.strip_prefix(b"\r\n\r\n\0\r\nQUIT\n")?;
    let [command, family, high, low, rest @ ..] = rest else {
        return None;
    };
    let length = usize::from(*high) * 256 + usize::from(*low);
    if length > 4096 || rest.len() < length {
        return None;
    }
    let (block, used) = (&rest[..length], 16 + length);
    if *command == 0x20 {
        return Some((Source::Socket, used));
    }
    let addresses = match (*command, *family) {
        // For UNSPEC it is not known where the addresses end.
        (0x21, 0x00 | 0x01 | 0x10 | 0x20 | 0x30) => return Some((Source::Socket, used)),
        (0x21, 0x11) => 12,
        (0x21, 0x21) => 36,
        (0x21, 0x31) => 216,
        _ => return None,
    };
    let mut extensions = block.get(addresses..)?;
    while let [_, high, low, behind @ ..] = extensions {
        extensions = behind.get(usize::from(*high) * 256 + usize::from(*low)..)?;
    }
    let port = |at: usize| u16::from_be_bytes([block[at], block[at + 1]]);
    let source = match addresses {
        12 => {
            let ip: [u8; 4] = block[..4].try_into().ok()?;
            Source::Address(SocketAddr::new(ip.into(), port(8)))
        }
        36 => {
            let ip: [u8; 16] = block[..16].try_into().ok()?;
            Source::Address(SocketAddr::new(ip.into(), port(32)))
        }
        _ => Source::Socket,
    };
    extensions.is_empty().then_some((source, used))
}
