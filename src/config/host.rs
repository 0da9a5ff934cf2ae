//! Host patterns of routes.

use super::addresses::{Wrong, is_host_name};

/// What `hosts` lists, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// This host.
    Exact(Box<str>),
    /// One or more labels before this, which begins with a dot.
    Below(Box<str>),
}

impl HostPattern {
    /// `"chat.example.org"`, `"*.example.org"`, `"203.0.113.1"` or `"[2001:db8::1]"`.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        let lower = text.to_ascii_lowercase();
        let name = lower.strip_suffix('.').unwrap_or(&lower);
        let why = || format!("\"{text}\" is not a host");
        if name == "*" {
            return Err(Wrong::new(why(), "for any host leave `hosts` out"));
        }
        if let Some(rest) = name.strip_prefix("*.") {
            return if is_host_name(rest) {
                Ok(Self::Below(format!(".{rest}").into()))
            } else {
                Err(Wrong::new(why(), STAR))
            };
        }
        if name.parse::<std::net::Ipv4Addr>().is_ok() || is_bracketed_v6(name) || is_host_name(name) {
            return Ok(Self::Exact(name.into()));
        }
        let hint = if name.contains('*') {
            STAR.to_owned()
        } else if let Some((_, rest)) = name.split_once("://") {
            format!(
                "without scheme and path: \"{}\"",
                rest.split('/').next().unwrap_or(rest)
            )
        } else if name.parse::<std::net::Ipv6Addr>().is_ok() {
            format!("an IPv6 address stands in brackets: \"[{name}]\"")
        } else if let Some((host, _)) = name.rsplit_once(':') {
            format!("the port is not looked at: \"{host}\"")
        } else if !name.is_ascii() {
            "as clients send it, in ASCII: \"xn--...\"".to_owned()
        } else {
            "such as \"chat.example.org\" or \"*.example.org\"".to_owned()
        };
        Err(Wrong::new(why(), hint))
    }

    /// Whether this host is meant, in any case, with or without one final dot; `host` is without its port.
    pub fn matches(&self, host: &[u8]) -> bool {
        let host = host.strip_suffix(b".").unwrap_or(host);
        match self {
            Self::Exact(name) => host.eq_ignore_ascii_case(name.as_bytes()),
            Self::Below(suffix) => {
                let labels = host.len().saturating_sub(suffix.len());
                let (front, end) = host.split_at(labels);
                end.eq_ignore_ascii_case(suffix.as_bytes())
                    && front.first().is_some_and(|b| *b != b'.')
                    && front.last() != Some(&b'.')
            }
        }
    }

    /// Whether every host that `other` has is one of these.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Exact(name)) => self.matches(name.as_bytes()),
            (Self::Exact(_), Self::Below(_)) => false,
            (Self::Below(wide), Self::Below(narrow)) => narrow.ends_with(&**wide),
        }
    }
}

fn is_bracketed_v6(name: &str) -> bool {
    let inner = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
}

const STAR: &str = "a `*` stands alone before the first dot: \"*.example.org\"";

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
    fn a_star_is_one_or_more_labels() {
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
    fn what_is_no_host_is_refused() {
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
