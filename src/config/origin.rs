//! Browser origins (RFC 6454): scheme, host and port, nothing else.

use super::addresses::{Wrong, is_host_name};

/// An origin in lower case, without the port that its scheme has anyway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    text: Box<str>,
    /// ":443" and the like: what may stand behind `text` without a difference.
    default_port: Option<&'static str>,
}

impl Origin {
    /// `"https://host"`, `"https://host:port"` or `"null"`. Any scheme: apps have their own.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        if text == "null" {
            return Ok(Self {
                text: text.into(),
                default_port: None,
            });
        }
        let lower = text.to_ascii_lowercase();
        let why = || format!("\"{text}\" is not an origin");
        let Some((scheme, authority)) = lower.split_once("://") else {
            let hint = match text {
                "*" => "for any origin leave `origins` out".to_owned(),
                _ if is_host_name(text) => format!("with its scheme: \"https://{text}\""),
                _ => "such as \"https://chat.example.org\", or \"null\"".to_owned(),
            };
            return Err(Wrong::new(why(), hint));
        };
        let authority_alone = authority.split(['/', '?', '#']).next().unwrap_or(authority);
        if authority_alone != authority {
            return Err(Wrong::new(
                why(),
                format!("an origin ends with host or port: \"{scheme}://{authority_alone}\""),
            ));
        }
        let default_port = DEFAULT_PORTS
            .iter()
            .find(|(name, _)| *name == scheme)
            .map(|(_, port)| *port);
        let authority = default_port
            .and_then(|port| authority.strip_suffix(port))
            .unwrap_or(authority);
        let twice = default_port.is_some_and(|port| authority.ends_with(port));
        if twice || !is_scheme(scheme) || !is_authority(authority) {
            return Err(Wrong::new(
                why(),
                "such as \"https://chat.example.org\" or \"https://chat.example.org:8443\"",
            ));
        }
        Ok(Self {
            text: format!("{scheme}://{authority}").into(),
            default_port,
        })
    }

    /// Whether a request's Origin is this one: exact, but for case and the default port.
    pub fn is(&self, sent: &[u8]) -> bool {
        if &*self.text == "null" {
            return sent == b"null";
        }
        let sent = self
            .default_port
            .and_then(|port| sent.strip_suffix(port.as_bytes()))
            .unwrap_or(sent);
        sent.eq_ignore_ascii_case(self.text.as_bytes())
    }
}

fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b))
}

fn is_authority(authority: &str) -> bool {
    if authority.parse::<std::net::SocketAddr>().is_ok() {
        return true;
    }
    let is_host = |host: &str| {
        let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let v6 = inner.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok());
        v6 || host.parse::<std::net::Ipv4Addr>().is_ok() || is_host_name(host)
    };
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            is_host(host) && !port.starts_with('0') && !port.starts_with('+') && port.parse::<u16>().is_ok()
        }
        _ => is_host(authority),
    }
}

const DEFAULT_PORTS: [(&str, &str); 4] = [("http", ":80"), ("https", ":443"), ("ws", ":80"), ("wss", ":443")];

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
                assert!(origin.is(same.as_bytes()), "{same}");
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
                assert!(!origin.is(other.as_bytes()), "{other}");
            }
        }
        let other_port = Origin::parse("http://localhost:3000").unwrap();
        assert!(other_port.is(b"http://localhost:3000") && !other_port.is(b"http://localhost"));
        assert!(Origin::parse("null").unwrap().is(b"null"));
        assert!(!Origin::parse("null").unwrap().is(b"NULL"));
    }

    #[test]
    fn what_is_no_origin_is_refused() {
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
            "https://*.a",
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
