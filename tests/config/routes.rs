//! Which route a request takes, and that no spelling of a path bypasses one.

use std::fmt::Write;
use std::net::IpAddr;

use proptest::prelude::*;
use wsguard::config::compile;
use wsguard::config::routes::{Matched, Missed, Route, Routes};
use wsguard::wire::path::{PathReading, is_below, normal_form};

const REQUIRED: &str = "[[listener]]\nbind = [\"0.0.0.0:8080\"]\n[upstream.chat]\nservers = [\"127.0.0.1:3000\"]\n";

const FEDERATION: &str = "[[route]]\nname = \"federation\"\npaths = [\"/federation\"]\nnetworks = [\"198.51.100.0/24\"]\n\
                          zone = \"exempt\"\n[[route]]\nname = \"rest\"\n";
const ADMIN: &str = "[[route]]\nname = \"public\"\npaths = [\"/public\"]\n[[route]]\nname = \"admin\"\npaths = [\"/admin/ws\"]\n\
                     allow = [\"10.0.0.0/8\"]\n[[route]]\nname = \"rest\"\n";

#[test]
fn the_first_that_matches_by_host_path_and_network_wins() {
    let routes = routes(
        "[[route]]\nname = \"a\"\nhosts = [\"a.example\", \"*.b.example\"]\npaths = [\"/x\", \"/y/\"]\nnetworks = [\"10.0.0.0/8\"]\n\
         [[route]]\nname = \"b\"\npaths = [\"/x\"]\n[[route]]\nname = \"unix\"\nnetworks = [\"unix\"]\n",
    );
    for (host, path, client, expected) in [
        (Some("a.example"), "/x", Some("10.1.1.1"), "a"),
        (Some("A.EXAMPLE."), "/x/", Some("10.1.1.1"), "a"),
        (Some("c.d.b.example"), "/y/z", Some("::ffff:10.1.1.1"), "a"),
        (Some("b.example"), "/x", Some("10.1.1.1"), "b"),
        (Some("a.example"), "/x", Some("11.1.1.1"), "b"),
        (None, "/x/1", Some("10.1.1.1"), "b"),
        (Some("a.example"), "/xy", Some("10.1.1.1"), "-"),
        (Some("a.example"), "/", Some("10.1.1.1"), "-"),
        (Some("a.example"), "/X", Some("10.1.1.1"), "-"),
        (None, "/z", None, "unix"),
        (None, "/x", None, "b"),
    ] {
        let client = client.map(|ip| ip.parse().unwrap());
        let matched = routes.matching(
            host.map(str::as_bytes),
            &PathReading::of(path.as_bytes(), false),
            client,
        );
        assert_eq!(named(matched), expected, "{host:?} {path} {client:?}");
    }
}

#[test]
fn a_request_without_a_route_is_explained_by_the_closest_miss() {
    let routes = routes(
        "[[route]]\nname = \"a\"\nhosts = [\"a.example\"]\npaths = [\"/x\"]\nnetworks = [\"10.0.0.0/8\"]\n\
         [[route]]\nname = \"b\"\nhosts = [\"b.example\"]\npaths = [\"/y\"]\n\
         [[route]]\nname = \"peers\"\nhosts = [\"b.example\"]\npaths = [\"/peers\"]\nzone = \"exempt\"\nnetworks = [\"198.51.100.0/24\"]\n\
         [[route]]\nname = \"none\"\nhosts = [\"b.example\"]\npaths = [\"/gone\"]\nrefuse = 404\n",
    );
    for (host, path, expected) in [
        (Some("c.example"), "/x", "host"),
        (None, "/x", "host"),
        (Some("a.example"), "/z", "path"),
        (Some("a.example"), "/y", "path"),
        (Some("a.example"), "/x/1", "network"),
        (Some("b.example"), "/peers;a", "spelling"),
        (Some("b.example"), "/gone", "none"),
    ] {
        let (host, reading) = (host.map(str::as_bytes), PathReading::of(path.as_bytes(), false));
        assert_eq!(
            routes.matching(host, &reading, FRIEND),
            Matched::None,
            "{host:?} {path}"
        );
        let missed = match routes.missed(host, &reading, FRIEND) {
            Missed::Host => "host",
            Missed::Path => "path",
            Missed::Network => "network",
            Missed::Spelling => "spelling",
            Missed::Refused(route) => &*route.name,
        };
        assert_eq!(missed, expected, "{host:?} {path}");
    }
}

#[test]
fn only_a_plain_path_leads_into_an_exempt_zone() {
    let routes = routes(FEDERATION);
    for path in ["/federation", "/federation/", "/federation/v1/send"] {
        assert_eq!(at(&routes, path), "federation", "{path}");
        let absolute = routes.matching(None, &PathReading::of(path.as_bytes(), true), FRIEND);
        assert_eq!(named(absolute), "rest", "absolute form of {path}");
    }
    for path in [
        "/federation/../chat",
        "/%66ederation",
        "//federation",
        "/federation;x",
        "/federation/..;/chat",
        "/federation%2f..%2fchat",
        "/federation//x",
        "/federation/.",
        "/./federation",
        "/federation\\x",
        "/federation/%2e%2e/chat",
        "/chat/../federation",
        "/federation/a%20b",
        "/federation/x;y",
    ] {
        assert_eq!(at(&routes, path), "rest", "{path}");
    }
    let outside = routes.matching(
        None,
        &PathReading::of(b"/federation", false),
        Some("198.51.101.1".parse().unwrap()),
    );
    assert_eq!(named(outside), "rest");
    assert_eq!(
        named(routes.matching(None, &PathReading::of(b"/federation", false), None)),
        "rest"
    );
}

#[test]
fn an_exempt_route_without_one_after_it_leaves_the_rest_unmatched() {
    let alone = routes(FEDERATION.split("[[route]]\nname = \"rest\"").next().unwrap());
    assert_eq!(at(&alone, "/federation"), "federation");
    assert_eq!(at(&alone, "/%66ederation"), "-");
    assert_eq!(at(&alone, "/federation/../chat"), "-");
}

#[test]
fn no_spelling_bypasses_a_route_with_allow() {
    let routes = routes(ADMIN);
    for (path, expected) in [
        ("/admin/ws", "admin"),
        ("/admin/ws/", "admin"),
        ("/admin/ws/x;y/%20", "admin"),
        ("/public/x", "public"),
        ("/admin", "rest"),
        ("/%61dmin/ws", "400"),
        ("//admin/ws", "400"),
        ("/x/../admin/ws", "400"),
        ("/public/../admin/ws", "400"),
        ("/public\\..\\admin/ws", "400"),
        ("/public/%2e%2e/admin/ws", "400"),
        ("/public%2f..%2fadmin%2fws", "400"),
        ("/admin%2fws", "400"),
        ("/admin/./ws", "400"),
        ("/admin;x/ws", "400"),
        ("/admin/ws;x", "400"),
        ("/admin/ws/../../chat", "400"),
        ("/admin\\ws", "400"),
    ] {
        assert_eq!(at(&routes, path), expected, "{path}");
    }
}

#[test]
fn a_route_that_refuses_takes_its_requests_and_leads_nowhere() {
    let routes = routes(
        "[[route]]\nname = \"old\"\npaths = [\"/ws/old\"]\nrefuse = 404\n[[route]]\nname = \"ws\"\npaths = [\"/ws\"]\n\
         [[route]]\nname = \"rest\"\nrefuse = 404\n",
    );
    for (path, expected) in [
        ("/ws", "ws"),
        ("/ws/new", "ws"),
        ("/ws/old", "-"),
        ("/ws/old/a", "-"),
        ("/", "-"),
        // Both readings are refused, by whichever route.
        ("/x/../ws/old", "-"),
        // One reading is refused, the other admitted.
        ("/ws/new/../old", "400"),
        ("/x/../ws", "400"),
    ] {
        assert_eq!(at(&routes, path), expected, "{path}");
    }
    assert_eq!(
        at(&routes, "/ws/Old"),
        "400",
        "which a server may take for the one that is refused"
    );
}

#[test]
fn no_case_no_dot_and_no_nul_at_the_end_bypasses_a_route_with_allow() {
    let routes = routes(ADMIN);
    for path in [
        "/Admin/ws",
        "/ADMIN/WS/x",
        "/admin/wS",
        "/%41dmin/ws",
        "/%41dmin%2fWS",
        "//Admin/ws",
        "/public/../Admin/ws",
        "/public;x/..;/Admin/ws",
        "/public\\..\\ADMIN/ws",
        "/admin./ws",
        "/admin/ws.",
        "/admin.../ws..",
        "/Admin./WS.",
        "/admin%20/ws",
        "/admin/ws%20.%20",
        "/admin/.. /admin/ws",
        "/public/..%20/admin/ws",
        "/admin/ws%00",
        "/admin/ws%00.js",
        "/admin/ws%00/../../public",
        "/admin/w%00s",
        "/ad%00min/ws",
        "/Admin/WS.%00x",
        "/\u{17f}/../admin/w\u{17f}",
        "/admin/w%C5%BF",
        "/adm%C4%B1n/ws",
        "/adm%C4%B0n/../admin/WS",
    ] {
        assert_eq!(at(&routes, path), "400", "{path}");
    }
    for (path, expected) in [
        ("/Public", "rest"),
        ("/PUBLIC/x", "rest"),
        ("/public.", "rest"),
        ("/Admin", "rest"),
        ("/admin/WSx", "rest"),
        ("/admin/ws.x", "rest"),
        ("/admin/ws/X.", "admin"),
        ("/admin/ws/%C3%A9", "admin"),
        ("/public/X", "public"),
        ("/caf%C3%A9", "rest"),
        ("/...", "rest"),
        ("/\u{ff}%FF", "rest"),
    ] {
        assert_eq!(at(&routes, path), expected, "{path}");
    }
}

#[test]
fn a_sensitive_route_in_upper_case_is_not_bypassed_in_lower_case() {
    let routes = routes(
        "[[route]]\nname = \"admin\"\npaths = [\"/Admin\", \"/tools.\"]\nallow = [\"10.0.0.0/8\"]\n[[route]]\nname = \"rest\"\n",
    );
    for (path, expected) in [
        ("/Admin", "admin"),
        ("/admin", "400"),
        ("/ADMIN/x", "400"),
        ("/tools", "400"),
        ("/tools.", "admin"),
        ("/other", "rest"),
    ] {
        assert_eq!(at(&routes, path), expected, "{path}");
    }
}

#[test]
fn case_alone_causes_no_400_where_no_route_is_sensitive() {
    let routes = routes(
        "[[route]]\nname = \"a\"\npaths = [\"/a\"]\n[[route]]\nname = \"b\"\npaths = [\"/A\"]\n[[route]]\nname = \"rest\"\n",
    );
    for (path, expected) in [("/a", "a"), ("/A", "b"), ("/a.", "rest"), ("/A%00", "rest")] {
        assert_eq!(at(&routes, path), expected, "{path}");
    }
}

#[test]
fn allow_networks_origins_and_exempt_on_either_side_make_a_route_sensitive() {
    for guard in [
        "allow = [\"198.51.100.0/24\"]",
        "networks = [\"198.51.100.0/24\"]",
        "origins = [\"https://a.example\"]",
        "zone = \"exempt\"",
    ] {
        let guarded = routes(&format!(
            "[[route]]\nname = \"a\"\npaths = [\"/a\"]\n{guard}\n[[route]]\nname = \"rest\"\n"
        ));
        assert_eq!(
            (at(&guarded, "/a"), at(&guarded, "/A")),
            ("a".into(), "400".into()),
            "{guard}"
        );
        let around = routes(&format!(
            "[[route]]\nname = \"a\"\npaths = [\"/a\"]\n[[route]]\nname = \"rest\"\n{guard}\n"
        ));
        assert_eq!(
            (at(&around, "/a"), at(&around, "/A")),
            ("a".into(), "400".into()),
            "{guard}"
        );
    }
    // A client outside of `networks` goes on to the other routes in every reading.
    let federation = routes(FEDERATION);
    let stranger = |path: &str| named(federation.matching(None, &PathReading::of(path.as_bytes(), false), STRANGER));
    assert_eq!(stranger("/Federation"), "rest");
    assert_eq!(at(&federation, "/Federation"), "400");
}

#[test]
fn a_spelling_that_an_exempt_route_skips_does_not_get_past_its_allow() {
    let routes = routes(
        "[[route]]\nname = \"federation\"\npaths = [\"/federation\"]\nallow = [\"10.0.0.0/8\"]\nzone = \"exempt\"\n\
         [[route]]\nname = \"rest\"\n",
    );
    assert_eq!(at(&routes, "/federation"), "federation");
    for path in ["/%66ederation", "/federation/%20", "//federation", "/Federation;x"] {
        assert_eq!(at(&routes, path), "400", "{path}");
    }
}

#[test]
fn a_path_with_escapes_matches_as_it_is_written() {
    let routes = routes("[[route]]\nname = \"cafe\"\npaths = [\"/caf%C3%A9\"]\n[[route]]\nname = \"rest\"\n");
    assert_eq!(at(&routes, "/caf%C3%A9/x"), "cafe");
    assert_eq!(
        at(&routes, "/caf%c3%a9/x"),
        "400",
        "the backend may know only one of the two"
    );
    assert_eq!(at(&routes, "/cafe"), "rest");
}

#[test]
fn allow_refuses_and_a_request_without_an_origin_passes_origins() {
    let routes =
        routes("[[route]]\nallow = [\"10.0.0.0/8\", \"2001:db8::/32\"]\norigins = [\"https://chat.example.org\"]\n");
    let route = routes.iter().next().unwrap();
    for (client, expected) in [
        ("10.9.9.9", true),
        ("2001:db8:1::1", true),
        ("11.1.1.1", false),
        ("::1", false),
    ] {
        assert_eq!(route.allows(Some(client.parse().unwrap())), expected, "{client}");
    }
    assert!(!route.allows(None));
    for (origin, expected) in [
        (None, true),
        (Some("https://chat.example.org"), true),
        (Some("HTTPS://CHAT.example.org:443"), true),
        (Some("null"), false),
        (Some(""), false),
        (Some("https://evil.example"), false),
    ] {
        assert_eq!(route.allows_origin(origin.map(str::as_bytes)), expected, "{origin:?}");
    }
}

/// Few segments, so that paths and routes often meet.
fn plain_path() -> impl Strategy<Value = String> {
    prop::collection::vec("[ab]", 0..4).prop_map(|segments| format!("/{}", segments.join("/")))
}

/// A path of everything that can be read in two ways.
fn evil_path() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec![
        "a", "b", "/", "//", "..", ".", ";", ";x", "%61", "%62", "%2f", "%2F", "%5c", "\\", "%2e", "%2e%2e", "%",
        "%25", "%00", "%3b", "A", "B", "%41", "a.", "%20", "%C5%BF", "\u{c4}",
    ]);
    prop::collection::vec(part, 0..10).prop_map(|parts| format!("/{}", parts.concat()))
}

/// A spelling of a plain path that has the same normal form.
fn spelling(path: String) -> impl Strategy<Value = String> {
    let count = path.len();
    prop::collection::vec(0..9_u8, count).prop_map(move |choices| {
        let spell = |(byte, choice): (u8, &u8)| match (byte, choice) {
            (b'/', 1) => "//".to_owned(),
            (b'/', 2) => "/./".to_owned(),
            (b'/', 3) => "/x/../".to_owned(),
            (b'/', 4) => "/x/..;y/".to_owned(),
            (b'/', 5) => "\\".to_owned(),
            (b'/', 6) => "%2f".to_owned(),
            (b'/', 7) => "/%2e/".to_owned(),
            (b'/', _) => "/".to_owned(),
            (byte, 1) => format!("%{byte:02x}"),
            (byte, 2) => format!("{};p", char::from(byte)),
            (byte, _) => char::from(byte).to_string(),
        };
        let other: String = path.bytes().zip(&choices).map(spell).collect();
        format!("/{}", other.trim_start_matches('/'))
    })
}

fn route_set() -> impl Strategy<Value = String> {
    let route = (
        prop::collection::vec(plain_path(), 0..3),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    );
    prop::collection::vec(route, 1..5).prop_map(|routes| {
        let mut text = String::new();
        for (paths, exempt, allow, networks) in routes {
            text.push_str("[[route]]\n");
            if !paths.is_empty() {
                let _ = writeln!(text, "paths = {paths:?}");
            }
            if exempt {
                text.push_str("zone = \"exempt\"\n");
            }
            if allow {
                text.push_str("allow = [\"10.0.0.0/8\"]\n");
            }
            if networks {
                text.push_str("networks = [\"198.51.100.0/24\"]\n");
            }
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_match_is_first_in_both_readings_and_exempt_only_when_plain(
        set in route_set(), path in prop_oneof![plain_path(), evil_path()], friend in any::<bool>()
    ) {
        let routes = routes(&set);
        let reading = PathReading::of(path.as_bytes(), false);
        let client = if friend { FRIEND } else { STRANGER };
        let open = |route: &&Route| (reading.plain || !route.exempt)
            && route.networks.as_ref().is_none_or(|networks| networks.contains(client));
        let as_sent = routes.iter().filter(open).find(|route| has(route, path.as_bytes(), false));
        let normal = routes.iter().filter(open).find(|route| has(route, &normal_form(path.as_bytes()), true));
        let plain = match (as_sent, normal) {
            (None, None) => Matched::None,
            (Some(one), Some(other)) if one.name == other.name => Matched::Route(one),
            _ => Matched::Ambiguous,
        };
        let guards = |route: &Route| {
            route.exempt || route.allow.is_some() || route.networks.is_some() || route.origins.is_some()
        };
        let expected = match plain {
            Matched::Route(route) => {
                let slips = lax(path.as_bytes()).into_iter().any(|lax_path| {
                    let other = routes.iter().filter(|route| route.allow.is_some() || open(route)).find(|route| {
                        route.networks.as_ref().is_none_or(|networks| networks.contains(client))
                            && (route.paths.is_empty()
                                || route.paths.iter().any(|path| is_below(&lax_path, &lax(&path.as_written)[0])))
                    });
                    other.is_some_and(|other| other.name != route.name && (guards(other) || guards(route)))
                });
                if slips { Matched::Ambiguous } else { plain }
            }
            _ => plain,
        };
        prop_assert_eq!(routes.matching(None, &reading, client), expected, "{}", path);
    }

    #[test]
    fn another_spelling_of_a_path_stays_in_its_route_or_is_refused(
        set in route_set(), (path, spelt) in plain_path().prop_flat_map(|path| (Just(path.clone()), spelling(path)))
    ) {
        let routes = routes(&set);
        let Matched::Route(plain) = routes.matching(None, &PathReading::of(path.as_bytes(), false), FRIEND) else {
            return Ok(());
        };
        let reading = PathReading::of(spelt.as_bytes(), false);
        match routes.matching(None, &reading, FRIEND) {
            Matched::Ambiguous => {}
            Matched::Route(route) if plain.exempt => prop_assert!(!route.exempt || reading.plain, "{} as {}", path, spelt),
            Matched::Route(route) => prop_assert_eq!(&route.name, &plain.name, "{} as {}", path, spelt),
            Matched::None => prop_assert!(plain.exempt, "{} as {}", path, spelt),
        }
    }

    #[test]
    fn no_sensitive_route_is_reached_by_a_path_that_the_server_may_read_otherwise(path in evil_path()) {
        let (federation, admin) = (routes(FEDERATION), routes(ADMIN));
        let normal = normal_form(path.as_bytes());
        if at(&federation, &path) == "federation" {
            prop_assert!(is_below(&normal, b"/federation") && is_below(path.as_bytes(), b"/federation"));
        }
        if is_below(&normal, b"/admin/ws") {
            prop_assert!(matches!(at(&admin, &path).as_str(), "admin" | "400"));
        }
    }
}

/// The path as the most lenient servers read it: cut at a NUL, and without NULs; each in lower case and without dots and
/// blanks at the end of a segment.
fn lax(path: &[u8]) -> [Vec<u8>; 2] {
    let mut decoded = Vec::new();
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let value = digits.filter(|digits| byte == b'%' && digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let (read, behind) = match value {
            Some(digits) => (u8::from_str_radix(digits, 16).unwrap(), &after[2..]),
            None => (byte, after),
        };
        decoded.push(read);
        rest = behind;
    }
    let cut = decoded.split(|&byte| byte == 0).next().unwrap().to_vec();
    let without = decoded.iter().copied().filter(|&byte| byte != 0).collect();
    [cut, without].map(|read: Vec<u8>| {
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut is_directory = true;
        for segment in read.split(|byte| b"/\\".contains(byte)) {
            let mut name = segment.split(|&byte| byte == b';').next().unwrap();
            while let [shorter @ .., b' '] = name {
                name = shorter;
            }
            is_directory = true;
            if name == b".." {
                names.pop();
                continue;
            }
            while let [shorter @ .., b'.' | b' '] = name {
                name = shorter;
            }
            if !name.is_empty() {
                is_directory = false;
                names.push(folded(name));
            }
        }
        let mut lax: Vec<u8> = names.iter().flat_map(|name| [b"/", &name[..]].concat()).collect();
        if is_directory {
            lax.push(b'/');
        }
        lax
    })
}

/// In lower case, where a letter is every letter that has the same upper case.
fn folded(name: &[u8]) -> Vec<u8> {
    let mut folded = Vec::new();
    for chunk in name.utf8_chunks() {
        let dotless = chunk.valid().replace('\u{130}', "i");
        let lower: String = dotless
            .chars()
            .flat_map(char::to_uppercase)
            .flat_map(char::to_lowercase)
            .collect();
        folded.extend_from_slice(lower.as_bytes());
        folded.extend_from_slice(chunk.invalid());
    }
    folded
}

const FRIEND: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7)));
const STRANGER: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)));

fn routes(text: &str) -> Routes {
    compile(&format!("{text}{REQUIRED}"), "x")
        .unwrap_or_else(|rejected| panic!("{rejected}"))
        .policy
        .routes
}

fn at(routes: &Routes, path: &str) -> String {
    named(routes.matching(None, &PathReading::of(path.as_bytes(), false), FRIEND))
}

fn named(matched: Matched<'_>) -> String {
    match matched {
        Matched::Ambiguous => "400".to_owned(),
        Matched::None => "-".to_owned(),
        Matched::Route(route) => route.name.to_string(),
    }
}

fn has(route: &Route, path: &[u8], normal: bool) -> bool {
    let prefix = |written: &wsguard::config::routes::RoutePath| {
        if normal {
            written.normal.to_vec()
        } else {
            written.as_written.to_vec()
        }
    };
    route.paths.is_empty()
        || route.paths.iter().any(|written| {
            let prefix = prefix(written);
            // Spelled out here: the same bytes, then the end or a slash.
            prefix == b"/" || (path.starts_with(&prefix) && matches!(path.get(prefix.len()), None | Some(b'/')))
        })
}
