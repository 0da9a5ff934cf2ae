//! The hosts that a route is for.

use std::net::IpAddr;

use crate::config::notation::addresses::{is_host_name, odd_ipv4, without_zone};
use crate::config::notation::invalid::Invalid;
use crate::wire::authority::address_of;

/// One item of `hosts`, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// This address, in any notation. A v4-mapped address is the same as its IPv4 address.
    Address(IpAddr),
    /// This host.
    Exact(Box<str>),
    /// Hosts with one or more labels before this suffix, which begins with a dot.
    Subdomains(Box<str>),
}

impl HostPattern {
    /// Reads `"chat.example.org"`, `"*.example.org"`, `"203.0.113.1"` or `"[2001:db8::1]"`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let lower = text.to_ascii_lowercase();
        let name = lower.strip_suffix('.').unwrap_or(&lower);
        let why = || format!("\"{text}\" is not a host");
        if name == "*" {
            return Err(Invalid::new(why(), "to match any host, leave `hosts` out"));
        }
        if let Some(rest) = name.strip_prefix("*.") {
            return if is_host_name(rest) {
                Ok(Self::Subdomains(format!(".{rest}").into()))
            } else {
                Err(Invalid::new(why(), STAR))
            };
        }
        if let Some(address) = address_of(name.as_bytes()) {
            return Ok(Self::Address(address));
        }
        let odd = odd_ipv4(name);
        if odd.is_none() && is_host_name(name) {
            return Ok(Self::Exact(name.into()));
        }
        let hint = if let Some(address) = odd {
            four_numbers(address)
        } else if let Some(address) = without_zone(name) {
            format!("without its zone: \"[{address}]\"")
        } else if name.contains('*') {
            STAR.to_owned()
        } else if let Some((_, rest)) = name.split_once("://") {
            format!(
                "without scheme and path: \"{}\"",
                rest.split('/').next().unwrap_or(rest)
            )
        } else if name.parse::<std::net::Ipv6Addr>().is_ok() {
            format!("write IPv6 in brackets: \"[{name}]\"")
        } else if let Some((host, _)) = name.rsplit_once(':') {
            format!("ports are ignored; write it without: \"{host}\"")
        } else if !name.is_ascii() {
            "as clients send it, in ASCII: \"xn--...\"".to_owned()
        } else {
            "such as \"chat.example.org\" or \"*.example.org\"".to_owned()
        };
        Err(Invalid::new(why(), hint))
    }

    /// Whether the pattern matches `host`, in any case, with or without one final dot. `host` has no port.
    pub fn matches(&self, host: &[u8]) -> bool {
        let host = host.strip_suffix(b".").unwrap_or(host);
        match self {
            Self::Address(meant) => address_of(host) == Some(*meant),
            Self::Exact(name) => host.eq_ignore_ascii_case(name.as_bytes()),
            Self::Subdomains(suffix) => {
                labels_before(host, suffix).is_some_and(|front| !front.starts_with(b".") && !front.ends_with(b"."))
            }
        }
    }

    /// Whether this pattern matches every host that `other` matches.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Address(wide), Self::Address(narrow)) => wide == narrow,
            (_, Self::Exact(name)) => self.matches(name.as_bytes()),
            (_, Self::Address(_)) | (Self::Address(_) | Self::Exact(_), Self::Subdomains(_)) => false,
            (Self::Subdomains(wide), Self::Subdomains(narrow)) => narrow.ends_with(&**wide),
        }
    }
}

/// The part of a host before this suffix, in any case; `None` if the host has another suffix, or nothing before it.
pub(crate) fn labels_before<'a>(host: &'a [u8], suffix: &str) -> Option<&'a [u8]> {
    let (front, end) = host.split_at_checked(host.len().checked_sub(suffix.len())?)?;
    (end.eq_ignore_ascii_case(suffix.as_bytes()) && !front.is_empty()).then_some(front)
}

/// The hint for an IPv4 address that is not written as four decimal numbers. `meant` is the address in that form.
pub(crate) fn four_numbers(meant: std::net::Ipv4Addr) -> String {
    format!("an IPv4 address has four numbers: \"{meant}\"")
}

const STAR: &str = "`*` may only be the first label: \"*.example.org\"";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_host_matches_in_any_case_and_with_a_final_dot() {
        let host = HostPattern::parse("Chat.Example.org").unwrap();
        for same in ["chat.example.org", "CHAT.EXAMPLE.ORG", "chat.example.org."] {
            assert!(host.matches(same.as_bytes()), "{same}");
        }
        for other in [
            "",
            ".",
            "xchat.example.org",
            "chat.example.org..",
            "a.chat.example.org",
            "chat.example.orgx",
        ] {
            assert!(!host.matches(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn a_star_stands_for_one_or_more_labels() {
        let below = HostPattern::parse("*.example.org").unwrap();
        for inside in ["a.example.org", "a.b.example.org", "A.EXAMPLE.ORG."] {
            assert!(below.matches(inside.as_bytes()), "{inside}");
        }
        for outside in [
            "example.org",
            ".example.org",
            "..example.org",
            "aexample.org",
            "a.example.org.evil",
        ] {
            assert!(!below.matches(outside.as_bytes()), "{outside}");
        }
    }

    #[test]
    fn an_address_matches_however_it_is_written() {
        for (written, same) in [
            ("[2001:0db8::1]", "[2001:db8::1]"),
            ("[2001:db8::1]", "[2001:DB8:0:0::0001]"),
            ("[::ffff:203.0.113.1]", "[::ffff:cb00:7101]"),
            ("[::ffff:203.0.113.1]", "203.0.113.1"),
            ("203.0.113.1", "[::FFFF:203.0.113.1]"),
            ("203.0.113.1", "203.0.113.1."),
        ] {
            assert!(
                HostPattern::parse(written).unwrap().matches(same.as_bytes()),
                "{written} {same}"
            );
            assert!(
                HostPattern::parse(written)
                    .unwrap()
                    .covers(&HostPattern::parse(same).unwrap()),
                "{written}"
            );
        }
        let host = HostPattern::parse("[2001:db8::1]").unwrap();
        for other in [
            "2001:db8::1",
            "[2001:db8::2]",
            "[2001:db8::1",
            "[2001:db8::1%eth0]",
            "[]",
            "203.0.113.1",
        ] {
            assert!(!host.matches(other.as_bytes()), "{other}");
        }
        let host = HostPattern::parse("203.0.113.1").unwrap();
        for other in [
            "203.0.113.01",
            "203.0.28929",
            "0xcb.0.113.1",
            "3405803777",
            "203.0.113.2",
        ] {
            assert!(!host.matches(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn a_hint_says_how_an_address_is_written() {
        for (text, hint) in [
            ("127.1", "an IPv4 address has four numbers: \"127.0.0.1\""),
            ("0x7f.0.0.1", "an IPv4 address has four numbers: \"127.0.0.1\""),
            ("0177.0.0.1", "an IPv4 address has four numbers: \"127.0.0.1\""),
            ("2130706433", "an IPv4 address has four numbers: \"127.0.0.1\""),
            ("[fe80::1%eth0]", "without its zone: \"[fe80::1]\""),
            ("[fe80::1%25eth0]", "without its zone: \"[fe80::1]\""),
            (
                "[2001:db8::1]:443",
                "ports are ignored; write it without: \"[2001:db8::1]\"",
            ),
        ] {
            let invalid = HostPattern::parse(text).unwrap_err();
            assert_eq!(invalid.hint, hint, "{text}");
        }
    }

    #[test]
    fn a_text_that_is_not_a_host_is_refused() {
        for text in [
            "",
            "*",
            "*.",
            "a.*.b",
            "*a.org",
            "https://a.org",
            "a.org:80",
            "é.org",
            "a b",
            "::1",
            "a..b",
            "*.*.a",
        ] {
            assert!(HostPattern::parse(text).is_err(), "{text}");
        }
        for text in [
            "a",
            "203.0.113.1",
            "[::1]",
            "localhost",
            "a.b.",
            "xn--bcher-kva.example",
        ] {
            assert!(HostPattern::parse(text).is_ok(), "{text}");
        }
    }
}
