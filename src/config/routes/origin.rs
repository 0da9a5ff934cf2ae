//! The origins that a route allows (RFC 6454): scheme, host and port.

use std::net::IpAddr;

use super::host::{four_numbers, labels_before};
use crate::config::notation::addresses::{is_host_name, odd_ipv4, without_zone};
use crate::config::notation::invalid::Invalid;
use crate::wire::authority::{Authority, address_of};

/// One item of `origins`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `null`, which pages without an origin send.
    Null,
    /// An origin with a scheme.
    Url {
        /// The scheme, in lower case.
        scheme: Box<str>,
        /// The host.
        host: OriginHost,
        /// The port with its colon; "" for the default port of the scheme.
        port: Box<str>,
    },
}

/// The host of an origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginHost {
    /// This address, in any notation.
    Address(IpAddr),
    /// Hosts with one or more labels before this suffix, which begins with a dot and is in lower case.
    Subdomains(Box<str>),
    /// This host, in lower case. For a scheme without a default port: everything after the scheme, with the port.
    Exact(Box<str>),
}

impl Origin {
    /// Reads `"https://host"`, `"https://host:port"`, `"https://*.host"`, `"app://anything"` or `"null"`. Apps have schemes
    /// of their own. The text after such a scheme is compared as a whole.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text == "null" {
            return Ok(Self::Null);
        }
        let lower = text.to_ascii_lowercase();
        let why = || format!("\"{text}\" is not an origin");
        let Some((scheme, authority)) = lower.split_once("://") else {
            let hint = match text {
                "*" => "to allow any origin, leave `origins` out".to_owned(),
                _ if lower == "null" => "in lower case: \"null\"".to_owned(),
                _ if is_host_name(text) => format!("with its scheme: \"https://{text}\""),
                _ => "such as \"https://chat.example.org\", \"app://.\" or \"null\"".to_owned(),
            };
            return Err(Invalid::new(why(), hint));
        };
        let authority_alone = authority.split(['/', '?', '#']).next().unwrap_or(authority);
        if authority_alone != authority {
            return Err(Invalid::new(
                why(),
                format!("an origin has no path: \"{scheme}://{authority_alone}\""),
            ));
        }
        let (host, port) = host_and_port(scheme, authority);
        let origin_host = if !is_scheme(scheme) {
            None
        } else if let Some(rest) = host.strip_prefix("*.") {
            (is_host_name(rest) && is_port(port)).then(|| OriginHost::Subdomains(format!(".{rest}").into()))
        } else if let Some(address) = address_of(host.as_bytes()) {
            is_port(port).then_some(OriginHost::Address(address))
        } else if default_port(scheme).is_none() {
            let is_whole = authority.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'*');
            // The text after an app's scheme has an unknown syntax, so it is not searched for a port.
            return if is_whole {
                Ok(Self::Url {
                    scheme: scheme.into(),
                    host: OriginHost::Exact(authority.into()),
                    port: "".into(),
                })
            } else {
                Err(Invalid::new(why(), SUCH))
            };
        } else {
            (odd_ipv4(host).is_none() && is_host_name(host) && is_port(port)).then(|| OriginHost::Exact(host.into()))
        };
        match origin_host {
            Some(host) => Ok(Self::Url {
                scheme: scheme.into(),
                host,
                port: port.into(),
            }),
            None => Err(Invalid::new(
                why(),
                if host.contains('*') {
                    "`*` may only be the first label: \"https://*.example.org\"".to_owned()
                } else if let Some(address) = odd_ipv4(host) {
                    four_numbers(address)
                } else if let Some(address) = without_zone(host) {
                    format!("without its zone: \"{scheme}://[{address}]\"")
                } else {
                    SUCH.to_owned()
                },
            )),
        }
    }

    /// Whether this item allows a request's Origin. Upper and lower case, a written default port, and the notation of an
    /// address make no difference.
    pub fn matches(&self, sent: &[u8]) -> bool {
        let Self::Url {
            scheme,
            host: meant,
            port,
        } = self
        else {
            return sent == b"null";
        };
        let Some((named, rest)) = sent.split_at_checked(scheme.len()) else {
            return false;
        };
        let Some(authority) = rest.strip_prefix(b"://") else {
            return false;
        };
        if !named.eq_ignore_ascii_case(scheme.as_bytes()) {
            return false;
        }
        let default = default_port(scheme).and_then(|port| authority.strip_suffix(port.as_bytes()));
        let host = match default {
            Some(host) if port.is_empty() => Some(host),
            _ => authority.strip_suffix(port.as_bytes()),
        };
        host.is_some_and(|host| match meant {
            OriginHost::Address(address) => address_of(host) == Some(*address),
            OriginHost::Exact(whole) => host.eq_ignore_ascii_case(whole.as_bytes()),
            OriginHost::Subdomains(suffix) => labels_before(host, suffix).is_some_and(are_labels),
        })
    }
}

/// Splits off the port, with its colon. The port is "" if it is the default port of the scheme: browsers leave that one out.
fn host_and_port<'a>(scheme: &str, authority: &'a str) -> (&'a str, &'a str) {
    let host_len = Authority::parse(authority.as_bytes()).map_or(authority.len(), |parsed| parsed.host.len());
    let (host, port) = authority.split_at(host_len);
    let is_default = default_port(scheme) == Some(port);
    (host, if is_default { "" } else { port })
}

fn is_port(port: &str) -> bool {
    let Some(digits) = port.strip_prefix(':') else {
        return port.is_empty();
    };
    !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok()
}

/// Whether `front` consists of labels of letters, digits, `-` and `_`, separated by dots.
fn are_labels(front: &[u8]) -> bool {
    front.split(|byte| *byte == b'.').all(|label| {
        !label.is_empty()
            && label
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte))
    })
}

fn default_port(scheme: &str) -> Option<&'static str> {
    match scheme {
        "http" | "ws" => Some(":80"),
        "https" | "wss" => Some(":443"),
        _ => None,
    }
}

const SUCH: &str =
    "such as \"https://chat.example.org\", \"https://chat.example.org:8443\" or \"https://*.example.org\"";

fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn case_and_default_port_make_no_difference_and_all_else_does() {
        for written in ["https://chat.example.org", "HTTPS://Chat.example.org:443"] {
            let origin = Origin::parse(written).unwrap();
            for same in [
                "https://chat.example.org",
                "https://CHAT.example.org:443",
                "Https://chat.example.org",
            ] {
                assert!(origin.matches(same.as_bytes()), "{same}");
            }
            for other in [
                "http://chat.example.org",
                "https://chat.example.org:80",
                "https://chat.example.org:8443",
                "https://chat.example.org:443:443",
                "https://chat.example.org/",
                "https://chat.example.org.",
                "https://chat.example.org.evil.example",
                "https://evil.example/https://chat.example.org",
                "https://xchat.example.org",
                "null",
                "",
            ] {
                assert!(!origin.matches(other.as_bytes()), "{other}");
            }
        }
        let other_port = Origin::parse("http://localhost:3000").unwrap();
        assert!(other_port.matches(b"http://localhost:3000") && !other_port.matches(b"http://localhost"));
        assert!(Origin::parse("null").unwrap().matches(b"null"));
        assert!(!Origin::parse("null").unwrap().matches(b"NULL"));
    }

    #[test]
    fn origins_of_applications_are_compared_as_a_whole() {
        for (written, same) in [
            ("app://.", "app://."),
            ("app://-", "app://-"),
            ("app://obsidian.md", "app://obsidian.md"),
            ("file://", "file://"),
            ("tauri://localhost", "tauri://localhost"),
            ("http://tauri.localhost", "http://tauri.localhost"),
            ("https://tauri.localhost", "https://tauri.localhost"),
            ("capacitor://localhost", "Capacitor://LocalHost"),
            ("ionic://localhost", "ionic://localhost"),
            ("ionic://localhost:8080", "ionic://localhost:8080"),
            (
                "chrome-extension://nkbihfbeogaeaoehlefnkodbefgpgknn",
                "chrome-extension://nkbihfbeogaeaoehlefnkodbefgpgknn",
            ),
            (
                "moz-extension://2f0f0f7e-9a7e-4c3e-8f0c-3b1e0f0c9a11",
                "moz-extension://2f0f0f7e-9a7e-4c3e-8f0c-3b1e0f0c9a11",
            ),
            (
                "safari-web-extension://8A2E6D3C-0F4B-4C6E-9D57-2A1B3C4D5E6F",
                "safari-web-extension://8a2e6d3c-0f4b-4c6e-9d57-2a1b3c4d5e6f",
            ),
            (
                "vscode-webview://0a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6q7r8s9t0u1v2w3x4y5z",
                "vscode-webview://0a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6q7r8s9t0u1v2w3x4y5z",
            ),
            ("android-app://com.example.chat", "android-app://com.example.chat"),
            ("ms-appx-web://a.b_c!d", "ms-appx-web://a.b_c!d"),
        ] {
            let origin = Origin::parse(written).unwrap_or_else(|invalid| panic!("{written}: {invalid:?}"));
            assert!(origin.matches(same.as_bytes()), "{written} {same}");
            for other in [
                "null",
                "",
                "app://",
                "file:///",
                "tauri://localhost:80",
                "http://localhost",
                "x-app://.",
            ] {
                assert!(!origin.matches(other.as_bytes()), "{written} {other}");
            }
            assert!(!origin.matches(format!("{same}/").as_bytes()), "{written}");
            assert!(!origin.matches(format!("{same}.evil.example").as_bytes()), "{written}");
        }
    }

    #[test]
    fn a_star_stands_for_one_or_more_labels() {
        let origin = Origin::parse("https://*.Example.org").unwrap();
        for inside in [
            "https://a.example.org",
            "https://a.b-c.example.org",
            "HTTPS://A.EXAMPLE.org:443",
            "https://xn--bcher-kva.example.org",
        ] {
            assert!(origin.matches(inside.as_bytes()), "{inside}");
        }
        for outside in [
            "https://example.org",
            "https://.example.org",
            "https://a..example.org",
            "https://aexample.org",
            "http://a.example.org",
            "https://a.example.org:8443",
            "https://a.example.org.",
            "https://a.example.org.evil.example",
            "https://evil.example/.example.org",
            "https://evil.example?.example.org",
            "https://evil.example:80.example.org",
            "https://user@a.example.org",
            "https://evil.example\\.example.org",
            "https://a.example.org:443:443",
            "wss://a.example.org",
            "null",
        ] {
            assert!(!origin.matches(outside.as_bytes()), "{outside}");
        }
        let with_port = Origin::parse("https://*.example.org:8443").unwrap();
        assert!(with_port.matches(b"https://a.example.org:8443") && !with_port.matches(b"https://a.example.org"));
        let app = Origin::parse("capacitor://*.example.org").unwrap();
        assert!(app.matches(b"capacitor://a.example.org") && !app.matches(b"capacitor://example.org"));
    }

    #[test]
    fn an_address_matches_however_it_is_written() {
        for (written, same) in [
            ("https://[2001:0db8::1]", "https://[2001:db8::1]"),
            ("https://[2001:DB8::1]:443", "https://[2001:db8:0:0:0:0:0:1]"),
            ("https://[2001:db8::1]:8443", "https://[2001:db8::0:1]:8443"),
            ("http://[::ffff:203.0.113.1]", "http://[::ffff:cb00:7101]"),
            ("http://203.0.113.1:3000", "http://203.0.113.1:3000"),
        ] {
            assert!(
                Origin::parse(written).unwrap().matches(same.as_bytes()),
                "{written} {same}"
            );
        }
        let origin = Origin::parse("https://[2001:db8::1]").unwrap();
        for other in [
            "https://[2001:db8::2]",
            "http://[2001:db8::1]",
            "https://[2001:db8::1]:8443",
            "https://2001:db8::1",
            "https://[2001:db8::1%eth0]",
            "https://[2001:db8::1]x",
        ] {
            assert!(!origin.matches(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn a_text_that_is_not_an_origin_is_refused() {
        for text in [
            "",
            "*",
            "chat.example.org",
            "https://",
            "https://a/",
            "https://a/b",
            "https://a:0",
            "https://a:x",
            "://a",
            "https://a?b",
            "https://u@a",
            "https://*",
            "https://*.",
            "https://a.*.b",
            "https://*a.org",
            "https://*.1",
            "https://127.1",
            "https://0x7f.1",
            "https://[fe80::1%25eth0]",
            "app://a b",
            "app://a\u{e9}",
            "app://a/b",
            "app://*",
            "app:.",
            "1://a",
            "https://a:443:443",
            "Null",
            "https://a b",
        ] {
            assert!(Origin::parse(text).is_err(), "{text}");
        }
        for text in [
            "http://localhost:3000",
            "capacitor://localhost",
            "https://[::1]:8443",
            "https://[::1]",
            "app+x://a",
        ] {
            assert!(Origin::parse(text).is_ok(), "{text}");
        }
    }
}
