//! Decides which requests are answered. Requests of people and scrapers are answered. Requests that a page of another site
//! makes a browser send are refused.

use std::net::SocketAddr;

use crate::wire::authority::{Authority, address_of};

/// The verdict on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The request is answered.
    Answer,
    /// 403: the request comes from a page of another site.
    Forbid,
    /// 421: the request's Host is not a name of this server. This stops DNS rebinding: a hostile site changes its DNS name
    /// to point to this server.
    Misdirect,
}

/// Judges a request. `host` is its Host, with or without a port. `own` is the address at which the server was reached.
/// `hosts` are further names of the server, in lower case, each `name` or `name:port`. The other two are headers in which a
/// browser describes the page that sends the request.
///
/// A Host may have any port: a request through a mapped port names that port, and no page can choose the Host. `same-site`
/// passes, because links from a dashboard on another port of this host have it. A script of such a page can send a request,
/// but can't read the answer: no response allows that. If its request has an Origin, it is refused.
pub fn judge(
    host: Option<&str>,
    own: SocketAddr,
    hosts: &[String],
    sec_fetch_site: Option<&str>,
    origin: Option<&str>,
) -> Verdict {
    let Some(asked) = host.and_then(|host| Authority::parse(host.as_bytes())) else {
        return Verdict::Misdirect;
    };
    if !is_ours(asked, own, hosts) {
        return Verdict::Misdirect;
    }
    if !matches!(sec_fetch_site, None | Some("none" | "same-origin" | "same-site")) {
        return Verdict::Forbid;
    }
    match origin {
        Some(origin) if !is_origin(asked, origin) => Verdict::Forbid,
        _ => Verdict::Answer,
    }
}

/// `host` without its port and its final dot: `[::1]` for `[::1]:9191`. `None` if `host` is not a host, with or without a
/// port.
#[cfg(feature = "demo")]
pub fn name_of(host: &str) -> Option<&str> {
    let name = name(Authority::parse(host.as_bytes())?);
    str::from_utf8(name).ok().filter(|name| !name.is_empty())
}

/// Whether `asked` is a name of the server: its own address, a loopback address, `localhost`, or one of `hosts`.
fn is_ours(asked: Authority<'_>, own: SocketAddr, hosts: &[String]) -> bool {
    let is_own = match address_of(name(asked)) {
        Some(ip) => ip.is_loopback() || ip == own.ip().to_canonical(),
        None => name(asked).eq_ignore_ascii_case(b"localhost"),
    };
    let is_listed = |listed: Authority<'_>| {
        name(listed).eq_ignore_ascii_case(name(asked)) && (listed.port.is_none() || listed.port == asked.port)
    };
    is_own
        || hosts
            .iter()
            .filter_map(|host| Authority::parse(host.as_bytes()))
            .any(is_listed)
}

fn is_origin(asked: Authority<'_>, origin: &str) -> bool {
    let (origin, default_port) = if let Some(rest) = origin.strip_prefix("http://") {
        (rest, 80)
    } else if let Some(rest) = origin.strip_prefix("https://") {
        (rest, 443)
    } else {
        return false;
    };
    Authority::parse(origin.as_bytes()).is_some_and(|origin| {
        name(origin).eq_ignore_ascii_case(name(asked))
            && origin.port.unwrap_or(default_port) == asked.port.unwrap_or(default_port)
    })
}

/// The host without a final dot.
fn name(authority: Authority<'_>) -> &[u8] {
    authority.host.strip_suffix(b".").unwrap_or(authority.host)
}

#[cfg(test)]
mod tests {
    use super::Verdict::{Answer, Forbid, Misdirect};
    use super::*;

    fn verdict(host: Option<&str>, sec_fetch_site: Option<&str>, origin: Option<&str>) -> Verdict {
        let own = SocketAddr::from(([192, 0, 2, 7], 9191));
        let hosts = ["admin.example.org".to_owned(), "metrics.example.org:9443".to_owned()];
        judge(host, own, &hosts, sec_fetch_site, origin)
    }

    #[test]
    fn only_names_of_this_server_are_answered() {
        for (host, expected) in [
            ("127.0.0.1", Answer),
            ("127.0.0.1:9191", Answer),
            ("127.0.0.1:", Answer),
            ("127.9.8.7:1", Answer),
            ("[::1]", Answer),
            ("[::1]:9191", Answer),
            ("[::ffff:127.0.0.1]:9191", Answer),
            ("localhost", Answer),
            ("LocalHost:9191", Answer),
            ("localhost.:9191", Answer),
            ("192.0.2.7:9191", Answer),
            ("192.0.2.7:32000", Answer),
            ("[::ffff:192.0.2.7]", Answer),
            ("admin.example.org", Answer),
            ("Admin.Example.Org:8080", Answer),
            ("metrics.example.org:9443", Answer),
            ("metrics.example.org", Misdirect),
            ("metrics.example.org:9444", Misdirect),
            ("192.0.2.8", Misdirect),
            ("0.0.0.0:9191", Misdirect),
            ("0127.0.0.1", Misdirect),
            ("127.1", Misdirect),
            ("2130706433", Misdirect),
            ("127.0.0.1.example.org", Misdirect),
            ("localhost.example.org", Misdirect),
            ("x.localhost", Misdirect),
            ("evil.example.net:9191", Misdirect),
            ("user@localhost", Misdirect),
            ("localhost:80@evil.example.net", Misdirect),
            ("localhost:+80", Misdirect),
            ("localhost:65536", Misdirect),
            ("localhost:80:80", Misdirect),
            ("::1", Misdirect),
            ("[::1]x", Misdirect),
            ("[::1", Misdirect),
            ("[localhost]", Misdirect),
            (":9191", Misdirect),
            (".", Misdirect),
            ("", Misdirect),
        ] {
            assert_eq!(verdict(Some(host), None, None), expected, "{host}");
        }
        assert_eq!(verdict(None, None, None), Misdirect);
    }

    #[test]
    fn a_page_of_another_site_is_refused() {
        for (site, expected) in [
            (None, Answer),
            (Some("none"), Answer),
            (Some("same-origin"), Answer),
            (Some("same-site"), Answer),
            (Some("cross-site"), Forbid),
            (Some("Same-Origin"), Forbid),
            (Some(""), Forbid),
        ] {
            assert_eq!(verdict(Some("localhost:9191"), site, None), expected, "{site:?}");
        }
        assert_eq!(verdict(Some("evil.example.net"), Some("cross-site"), None), Misdirect);
    }

    #[test]
    fn an_origin_must_equal_the_host_including_the_port() {
        for (host, origin, expected) in [
            ("localhost:9191", "http://localhost:9191", Answer),
            ("localhost:9191", "http://LOCALHOST:9191", Answer),
            ("localhost:9191", "http://localhost:9190", Forbid),
            ("localhost:9191", "http://localhost", Forbid),
            ("localhost", "http://localhost", Answer),
            ("localhost:80", "http://localhost", Answer),
            ("localhost:9191", "http://127.0.0.1:9191", Forbid),
            ("[::1]:9191", "http://[::1]:9191", Answer),
            ("admin.example.org", "https://admin.example.org", Answer),
            ("admin.example.org", "https://admin.example.org:443", Answer),
            ("admin.example.org", "https://evil.example.net", Forbid),
            ("localhost:9191", "null", Forbid),
            ("localhost:9191", "localhost:9191", Forbid),
            ("localhost:9191", "ftp://localhost:9191", Forbid),
            ("localhost:9191", "", Forbid),
        ] {
            assert_eq!(verdict(Some(host), None, Some(origin)), expected, "{host} {origin}");
        }
    }
}
