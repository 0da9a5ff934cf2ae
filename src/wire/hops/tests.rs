#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

/// The proxy that sent the header in every test.
const HOP: &str = "10.0.0.1";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// 10.0.0.0/8 and `fd00::/8`.
fn trusts(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.octets()[0] == 10,
        IpAddr::V6(v6) => v6.octets()[0] == 0xFD,
    }
}

fn client(header: ForwardHeader, lines: &[&str]) -> IpAddr {
    let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
    client_from(header, &lines, ip(HOP), trusts)
}

#[test]
fn headers_have_names_in_lower_case() {
    for header in ForwardHeader::ALL {
        assert_eq!(header.name(), header.name().to_lowercase());
    }
}

#[test]
fn hops_are_addresses_with_or_without_a_port() {
    for (hop, expected) in [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("192.0.2.1:0", "192.0.2.1"),
        ("192.0.2.1:65535", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:DB8:0:0::0001", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        // Without brackets the last group is a group.
        ("2001:db8::1:4711", "2001:db8::1:4711"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1"),
        ("[::ffff:192.0.2.1]:1", "::ffff:192.0.2.1"),
        ("::", "::"),
    ] {
        assert_eq!(parse_hop(hop.as_bytes()), Some(ip(expected)), "{hop}");
    }
}

#[test]
fn everything_else_is_malformed() {
    for hop in [
        "",
        " ",
        "unknown",
        "_hidden",
        "_1.2.3.4",
        "localhost",
        "-",
        "192.0.2",
        "192.0.2.1.1",
        "192.0.2.256",
        "192.0.2.01",
        "0300.0.2.1",
        "0xC0.0.2.1",
        "3221225985",
        "192.0.2.1 ",
        " 192.0.2.1",
        "192.0.2.1:",
        "192.0.2.1:65536",
        "192.0.2.1:080",
        "192.0.2.1:+80",
        "192.0.2.1:_p",
        "192.0.2.1/24",
        "192.0.2.1,",
        "[192.0.2.1]",
        "[192.0.2.1]:80",
        "[2001:db8::1",
        "2001:db8::1]",
        "[2001:db8::1]4711",
        "[2001:db8::1]:",
        "[2001:db8::1]:65536",
        "[2001:db8::1]:1 ",
        "[2001:db8::1]]",
        "[[2001:db8::1]]",
        "[]",
        "[]:1",
        "fe80::1%eth0",
        "[fe80::1%25eth0]",
        "1::2::3",
        "2001:db8::1::",
        ":::",
        ":",
        "::1:",
        "::fffff",
        "::ffff:192.0.2.01",
        "\"192.0.2.1\"",
        "192.0.2.1\0",
        "\u{ff11}92.0.2.1",
    ] {
        assert_eq!(parse_hop(hop.as_bytes()), None, "{hop:?}");
    }
    assert_eq!(parse_hop(b"192.0.2.\xFF"), None);
    assert_eq!(parse_hop(&vec![b'1'; 20_000]), None);
}

#[test]
fn x_forwarded_for_is_walked_from_the_right() {
    let thirty_one = vec!["10.0.0.9"; 31].join(",");
    for (lines, expected) in [
        (vec!["192.0.2.1"], "192.0.2.1"),
        // The first hop that is not trusted. The client may have invented all that is left of it.
        (vec!["198.51.100.9, 192.0.2.1"], "192.0.2.1"),
        (vec!["198.51.100.9, 192.0.2.1, 10.0.0.2,10.0.0.3"], "192.0.2.1"),
        (vec!["198.51.100.9", "192.0.2.1,10.0.0.2", "10.0.0.3"], "192.0.2.1"),
        (vec!["198.51.100.9", "192.0.2.1"], "192.0.2.1"),
        // All trusted: the leftmost.
        (vec!["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        (vec!["fd00::7", "10.0.0.2"], "fd00::7"),
        // Ports, brackets, blanks and tabs.
        (vec![" \t192.0.2.1:4711\t ,\t10.0.0.2 "], "192.0.2.1"),
        (vec!["[2001:db8::1]:4711"], "2001:db8::1"),
        // A malformed hop: the hop to its right.
        (vec!["192.0.2.1, unknown, 10.0.0.2"], "10.0.0.2"),
        (vec!["192.0.2.1, , 10.0.0.2"], "10.0.0.2"),
        (vec!["192.0.2.1", "", "10.0.0.2"], "10.0.0.2"),
        (vec!["192.0.2.1", "unknown"], HOP),
        (vec!["192.0.2.1,"], HOP),
        (vec![""], HOP),
        (vec!["garbage"], HOP),
        (vec!["192.0.2.1 198.51.100.9"], HOP),
        // At most 32 trusted hops are walked over.
        (vec!["192.0.2.1", thirty_one.as_str()], "192.0.2.1"),
        (vec!["192.0.2.1, 10.0.0.7", thirty_one.as_str()], "10.0.0.7"),
        (vec!["garbage, 10.0.0.7", thirty_one.as_str()], "10.0.0.7"),
    ] {
        assert_eq!(client(ForwardHeader::XForwardedFor, &lines), ip(expected), "{lines:?}");
    }
}

#[test]
fn a_list_is_read_only_as_far_as_needed() {
    for (header, item) in [
        (ForwardHeader::XForwardedFor, "10.0.0.9"),
        (ForwardHeader::Forwarded, "for=10.0.0.9"),
    ] {
        let list = vec![item; 4000].join(",");
        let asked = std::cell::Cell::new(0);
        let counting = |ip| {
            asked.set(asked.get() + 1);
            trusts(ip)
        };
        assert_eq!(
            client_from(header, &[list.as_bytes(); 9], ip(HOP), counting),
            ip("10.0.0.9")
        );
        assert_eq!(asked.get(), 32);
    }
}

#[test]
fn forwarded_is_read_as_rfc_7239_says() {
    for (lines, expected) in [
        // Section 4's examples, as far as they name addresses.
        (vec![r#"For="[2001:db8:cafe::17]:4711""#], "2001:db8:cafe::17"),
        (vec!["for=192.0.2.60;proto=http;by=203.0.113.43"], "192.0.2.60"),
        (vec!["for=192.0.2.43, for=198.51.100.17"], "198.51.100.17"),
        (vec![r#"for="_gazonk""#], HOP),
        // Any case, ports, escapes, order, empty pairs, blanks around pairs.
        (vec!["FOR=192.0.2.1"], "192.0.2.1"),
        (
            vec![r#"proto=https;host="a.example";for="192.0.2.1:4711""#],
            "192.0.2.1",
        ),
        (vec![r#"for="\[2001:db8::\1\]""#], "2001:db8::1"),
        (vec!["for=192.0.2.1:4711"], "192.0.2.1"),
        (vec!["for=[2001:db8::1]:4711"], "2001:db8::1"),
        (vec![";for=192.0.2.1;;"], "192.0.2.1"),
        (vec!["for=192.0.2.1; proto=https ; by=_x"], "192.0.2.1"),
        // Commas, semicolons, quotes and `for=` inside quoted strings.
        (vec![r#"for=192.0.2.1;host="a, for=198.51.100.9""#], "192.0.2.1"),
        (
            vec![r#"for=192.0.2.1;host="a;for=198.51.100.9;b\", for=1.1.1.1""#],
            "192.0.2.1",
        ),
        (vec![r#"for=192.0.2.1;x="\\", for=10.0.0.2;x="\\\"""#], "192.0.2.1"),
        // The walk.
        (
            vec!["for=198.51.100.9, for=192.0.2.1, for=10.0.0.3", "for=10.0.0.2"],
            "192.0.2.1",
        ),
        (vec!["for=10.0.0.3, for=10.0.0.2"], "10.0.0.3"),
        (vec!["for=192.0.2.1, for=unknown, for=10.0.0.2"], "10.0.0.2"),
        (vec!["for=192.0.2.1, by=10.0.0.9, for=10.0.0.2"], "10.0.0.2"),
        (vec!["for=192.0.2.1, , for=10.0.0.2"], "10.0.0.2"),
        // A quote that the client leaves open does not swallow what the proxy appends.
        (vec![r#"for="198.51.100.9, for=192.0.2.1"#], "192.0.2.1"),
        (
            vec![r#"for=198.51.100.9;x=", for="192.0.2.1";proto="https""#],
            "192.0.2.1",
        ),
        (vec![r#"for=198.51.100.9;x="\, for=10.0.0.2"#], "10.0.0.2"),
    ] {
        assert_eq!(client(ForwardHeader::Forwarded, &lines), ip(expected), "{lines:?}");
    }
    for malformed in [
        "",
        "192.0.2.1",
        "for",
        "for=",
        "for=\"\"",
        "for=\"192.0.2.1",
        "for=192.0.2.1\"",
        "for =192.0.2.1",
        "for= 192.0.2.1",
        "for=192.0.2.1 x",
        "for=192.0.2.1;x",
        "for=192.0.2.1;=x",
        "for=192.0.2.1;x=",
        "for=192.0.2.1;for=192.0.2.1",
        "for=\"192.0.2.1\"x",
        "for=\" 192.0.2.1\"",
        "for=unknown",
        "for=\"unknown:80\"",
        "for=_x",
        "for=192.0.2.01",
        "for=192.0.2.1;x=\"\\\"",
        "f or=192.0.2.1",
        "proto=https",
        "for=\"\\",
        "for=2001:db8::1;(=x",
        "for==192.0.2.1",
    ] {
        assert_eq!(client(ForwardHeader::Forwarded, &[malformed]), ip(HOP), "{malformed:?}");
    }
    let long = format!("for=\"{}\"", "\\1".repeat(9000));
    assert_eq!(client(ForwardHeader::Forwarded, &[&long]), ip(HOP));
}

#[test]
fn single_headers_hold_exactly_one_value() {
    for header in [ForwardHeader::XRealIp, ForwardHeader::CfConnectingIp] {
        for (lines, expected) in [
            (vec!["192.0.2.1"], "192.0.2.1"),
            (vec![" 192.0.2.1:4711\t"], "192.0.2.1"),
            (vec!["[2001:db8::1]:1"], "2001:db8::1"),
            (vec!["10.0.0.9"], "10.0.0.9"),
            (vec!["192.0.2.1", "192.0.2.1"], HOP),
            (vec!["192.0.2.1, 192.0.2.2"], HOP),
            (vec!["192.0.2.1", ""], HOP),
            (vec!["unknown"], HOP),
            (vec![""], HOP),
            (vec![], HOP),
        ] {
            assert_eq!(client(header, &lines), ip(expected), "{lines:?}");
        }
    }
}

/// One hop of a list: its text, and the address in it.
#[derive(Clone, Debug)]
struct Written {
    text: String,
    says: Option<IpAddr>,
}

fn any_ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        6 => (1..4_u8).prop_map(|last| IpAddr::from([10, 0, 0, last])),
        1 => any::<u16>().prop_map(|last| IpAddr::from([0xFD00, 0, 0, 0, 0, 0, 0, last])),
        1 => any::<IpAddr>(),
    ]
}

fn item() -> impl Strategy<Value = Written> {
    let good = (any_ip(), any::<Option<u16>>()).prop_map(|(ip, port)| {
        let text = match (ip, port) {
            (_, None) => ip.to_string(),
            (_, Some(port)) => std::net::SocketAddr::new(ip, port).to_string(),
        };
        Written { text, says: Some(ip) }
    });
    let bad = prop::sample::select(vec!["", "unknown", "_x", "10.0.0.01", "[::1"]);
    prop_oneof![20 => good, 1 => bad.prop_map(|text| Written { text: text.to_owned(), says: None })]
}

/// A well-formed element of `Forwarded`. Its quoted strings contain characters that are separators elsewhere.
fn element() -> impl Strategy<Value = Written> {
    let quoted = prop::collection::vec(
        prop::sample::select(vec![",", ";", "=", "\\\"", "\\\\", "a", " ", "for=9.9.9.9"]),
        0..6,
    );
    let other = quoted.prop_map(|parts| format!("x=\"{}\"", parts.concat()));
    (
        item(),
        prop::option::of(other.clone()),
        prop::option::of(other),
        any::<bool>(),
    )
        .prop_map(|(item, before, after, named)| {
            let hop = if named {
                format!("For=\"{}\"", item.text)
            } else {
                "by=_x".to_owned()
            };
            let after = after.map(|after| after.replacen('x', "y", 1));
            let text = [before, Some(hop), after]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(";");
            Written {
                text,
                says: item.says.filter(|_| named),
            }
        })
}

fn written_lines(item: impl Strategy<Value = Written>) -> impl Strategy<Value = Vec<Vec<Written>>> {
    prop::collection::vec(prop::collection::vec(item, 1..24), 1..4)
}

/// The rule of [`client_from`], applied to the whole list at once.
fn naive_walk(lines: &[Vec<Written>]) -> IpAddr {
    let hops: Vec<_> = lines.iter().flatten().rev().map(|hop| hop.says).collect();
    let good: Vec<IpAddr> = hops.iter().map_while(|hop| *hop).collect();
    let walked = &good[..good.len().min(32)];
    let client = walked.iter().find(|hop| !trusts(**hop)).or(walked.last());
    client.copied().unwrap_or(ip(HOP))
}

fn joined(lines: &[Vec<Written>], separator: &str) -> Vec<String> {
    let text = |line: &Vec<Written>| {
        line.iter()
            .map(|hop| hop.text.as_str())
            .collect::<Vec<_>>()
            .join(separator)
    };
    lines.iter().map(text).collect()
}

proptest! {
    #[test]
    fn x_forwarded_for_agrees_with_the_naive_walk(lines in written_lines(item()), separator in "[ \t]{0,2},[ \t]{0,2}") {
        let text = joined(&lines, &separator);
        let text: Vec<&str> = text.iter().map(String::as_str).collect();
        prop_assert_eq!(client(ForwardHeader::XForwardedFor, &text), naive_walk(&lines));
        prop_assert_eq!(client(ForwardHeader::XForwardedFor, &[&text.join(",")]), naive_walk(&lines), "all lines are one list");
    }

    #[test]
    fn forwarded_agrees_with_the_naive_walk(lines in written_lines(element()), separator in "[ \t]{0,2},[ \t]{0,2}") {
        let text = joined(&lines, &separator);
        let text: Vec<&str> = text.iter().map(String::as_str).collect();
        prop_assert_eq!(client(ForwardHeader::Forwarded, &text), naive_walk(&lines));
        prop_assert_eq!(client(ForwardHeader::Forwarded, &[&text.join(",")]), naive_walk(&lines), "all lines are one list");
    }

    #[test]
    fn nothing_a_client_sends_changes_what_the_proxy_appended(
        sent in "[ -~]{0,40}|[\",;=\\\\for1. ]{0,40}", appended in element()
    ) {
        let client_ip = ip("192.0.2.7");
        for (header, own) in [
            (ForwardHeader::XForwardedFor, client_ip.to_string()),
            (ForwardHeader::Forwarded, format!("for={client_ip}")),
            (ForwardHeader::Forwarded, format!("for=\"{client_ip}:80\";{}", appended.text.replace("or=", "oo="))),
        ] {
            let one_line = format!("{sent}, {own}");
            prop_assert_eq!(client(header, &[&one_line]), client_ip, "{}", one_line);
            prop_assert_eq!(client(header, &[&sent, &own]), client_ip);
        }
    }

    #[test]
    fn arbitrary_bytes_are_the_hop_or_an_address_that_is_there(
        lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..4)
    ) {
        let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
        for header in ForwardHeader::ALL {
            // Arbitrary bytes hardly ever contain an address. This checks only that reading them ends.
            let _ = client_from(header, &lines, ip(HOP), trusts);
        }
    }

    #[test]
    fn every_address_is_read_back(address: IpAddr, port: u16) {
        prop_assert_eq!(parse_hop(address.to_string().as_bytes()), Some(address));
        let with_port = std::net::SocketAddr::new(address, port).to_string();
        prop_assert_eq!(parse_hop(with_port.as_bytes()), Some(address));
    }

    #[test]
    fn text_that_is_read_as_a_hop_begins_with_an_address(text in "[0-9a-f.:\\[\\]]{0,24}") {
        if let Some(read) = parse_hop(text.as_bytes()) {
            let bare = text.strip_prefix('[').map_or(text.as_str(), |inner| inner.split(']').next().unwrap());
            let v4 = text.split(':').next().unwrap();
            prop_assert!(bare.parse() == Ok(read) || v4.parse() == Ok(read));
        }
    }
}
