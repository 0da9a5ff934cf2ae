//! The client that forwarding headers name is an address in these headers, or the hop. What stands to the left of the
//! part that a proxy appended never changes which client is named. The lines of the input are the values of the header.

#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use libfuzzer_sys::fuzz_target;
use wsguard::wire::hops::{ForwardHeader, client_from, parse_hop};
use wsguard_fuzz::pieces;

fuzz_target!(|data: &[u8]| {
    let lines: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let cuts: Vec<&[u8]> = pieces(data).collect();
    let trusts: [fn(IpAddr) -> bool; 3] = [is_ours, |_| true, |_| false];
    for lines in [&lines, &cuts] {
        let written = written(lines);
        for header in ForwardHeader::ALL {
            for trusts in trusts {
                let client = client_from(header, lines, HOP, trusts);
                assert!(
                    client == HOP || written.contains(&client),
                    "{header:?} made {client} up"
                );
                if header == ForwardHeader::XForwardedFor {
                    assert_eq!(client, by_the_rules(lines, trusts));
                }
            }
            what_was_appended_counts(header, lines);
        }
    }
    for item in data.split(|byte| matches!(byte, b'\n' | b',' | b' ' | b';' | b'"' | b'=')) {
        assert_eq!(parse_hop(item), hop_by_the_rules(item), "{}", item.escape_ascii());
    }
});

/// A proxy appends its part to the header, in a line of its own or at the end of the last line.
fn what_was_appended_counts(header: ForwardHeader, lines: &[&[u8]]) {
    let appended = match header {
        ForwardHeader::XForwardedFor => b"203.0.113.9".to_vec(),
        ForwardHeader::Forwarded => b"for=203.0.113.9;proto=http".to_vec(),
        // These headers have one address, or none.
        ForwardHeader::CfConnectingIp | ForwardHeader::XRealIp => return,
    };
    let expected: IpAddr = IpAddr::from([203, 0, 113, 9]);
    let own_line: Vec<&[u8]> = lines.iter().copied().chain([&*appended]).collect();
    assert_eq!(client_from(header, &own_line, HOP, is_ours), expected);
    let (last, before) = lines
        .split_last()
        .map_or((&b""[..], lines), |(last, before)| (*last, before));
    let joined = [last, b", ", &appended].concat();
    let same_line: Vec<&[u8]> = before.iter().copied().chain([&*joined]).collect();
    assert_eq!(client_from(header, &same_line, HOP, is_ours), expected);
}

/// `X-Forwarded-For` by the rules: all lines are one list, which is walked from its end.
fn by_the_rules(lines: &[&[u8]], trusts: impl Fn(IpAddr) -> bool) -> IpAddr {
    let mut client = HOP;
    for (walked, item) in lines.join(&b',').rsplit(|byte| *byte == b',').enumerate() {
        let Some(hop) = hop_by_the_rules(trim(item)).filter(|_| walked < 32 && !lines.is_empty()) else {
            break;
        };
        client = hop;
        if !trusts(hop) {
            break;
        }
    }
    client
}

/// A hop by the rules: std reads it as an address, with or without a port.
fn hop_by_the_rules(item: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(item).ok().filter(|text| text.len() <= 64)?;
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|number| number.to_string() == port);
    if let Ok(ip) = text.parse() {
        return Some(ip);
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (v6, after) = rest.split_once(']')?;
        let port = after.strip_prefix(':');
        let is_whole = after.is_empty() || port.is_some_and(is_port);
        return v6.parse().ok().map(IpAddr::V6).filter(|_| is_whole);
    }
    let (v4, port) = text.split_once(':')?;
    v4.parse().ok().map(IpAddr::V4).filter(|_| is_port(port))
}

/// Every address in the lines. It stands between bytes that can't be part of an address. A backslash may stand before
/// any byte.
fn written(lines: &[&[u8]]) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in lines {
        let plain: Vec<u8> = line.iter().copied().filter(|byte| *byte != b'\\').collect();
        let is_part = |byte: &u8| byte.is_ascii_hexdigit() || b".:[]".contains(byte);
        found.extend(plain.split(|byte| !is_part(byte)).filter_map(hop_by_the_rules));
    }
    found
}

fn trim(item: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let begin = item.iter().position(|byte| !is_blank(byte)).unwrap_or(item.len());
    let end = item
        .iter()
        .rposition(|byte| !is_blank(byte))
        .map_or(begin, |last| last + 1);
    &item[begin..end]
}

fn is_ours(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.octets()[0] == 10,
        IpAddr::V6(v6) => v6.octets()[0] == 0xfd,
    }
}

const HOP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 99, 99));
