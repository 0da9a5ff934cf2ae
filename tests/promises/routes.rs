//! Which route a request takes, and that no spelling of a path leads to another one.

use crate::rig::{Answer, Backend, Request, Rig, Socket, ip, nth_ip};

const FEDERATION: &str = r#"
    [limits]
    connections = 3
    [[route]]
    name = "federation"
    paths = ["/federation", "/server"]
    zone = "exempt"
    [[route]]
    name = "everyone"
"#;

#[test]
fn exempt_paths_neither_count_nor_are_refused_while_the_default_zone_is_full() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, FEDERATION);
    let everyone: Vec<Socket> = (0..3).map(|n| rig.open_from(nth_ip(n))).collect();
    assert_eq!(rig.ask_from(nth_ip(3), Request::to("/ws")).status(), 503);

    let targets = [
        "/federation",
        "/federation/",
        "/federation/a/b",
        "/server/x",
        "/server",
        "/server/x?y=/../z%2f",
    ];
    let exempt: Vec<Socket> = targets.iter().map(|target| open_at(&rig, target)).collect();
    let metrics = rig.metrics();
    assert_eq!(metrics.count(r#"wsguard_connections{zone="default"}"#), 3);
    assert_eq!(metrics.count(r#"wsguard_connections{zone="exempt"}"#), 6);
    assert_eq!(backend.dials(), 9);
    drop(everyone);
    rig.expect(r#"wsguard_connections{zone="default"}"#, 0);
    drop(exempt);
    rig.quiet();
}

#[test]
fn exempt_paths_have_no_limit_by_address() {
    let backend = Backend::listening();
    let rig = Rig::start(
        &backend,
        &format!("{FEDERATION}\n[zone.default]\nper_ip = 1\nper_ip_rate = \"1/min\""),
    );
    let federation: Vec<Socket> = (0..60).map(|_| open_at(&rig, "/federation")).collect();
    let one = rig.open();
    assert_eq!(rig.ask(Request::to("/ws")).values("X-Wsguard-Reason"), ["per_ip"]);
    assert_eq!(backend.dials(), 61);
    drop((federation, one));
    rig.quiet();
}

#[test]
fn others_that_fill_the_process_leave_the_exempt_their_share_and_no_more() {
    let backend = Backend::listening();
    let config = FEDERATION.replace("connections = 3", "per_ip = \"off\"");
    let rig = Rig::start(&backend, &format!("[server]\nmax_connections = 30\n{config}"));
    // A tenth of the process ceiling is reserved.
    let everyone: Vec<Socket> = (0..27).map(|_| rig.open()).collect();
    assert_eq!(rig.ask(Request::to("/ws")).values("X-Wsguard-Reason"), ["process_full"]);
    let exempt: Vec<Socket> = (0..3).map(|_| open_at(&rig, "/server/x")).collect();
    let refused = rig.ask(Request::to("/federation"));
    refused.assert_refusal("503 Service Unavailable", "zone_full", "Server at capacity");
    assert_eq!(backend.dials(), 30);
    drop((everyone, exempt));
    rig.quiet();
}

/// Every spelling except the plain one belongs to the default zone, which is full here, or is refused as malformed.
#[test]
fn no_spelling_of_an_exempt_path_is_exempt_but_the_plain_one() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, FEDERATION);
    let everyone: Vec<Socket> = (0..3).map(|n| rig.open_from(nth_ip(n))).collect();
    for target in EVIL_FEDERATION {
        let answer = rig.ask(Request::to(target));
        assert!(
            [400, 503].contains(&answer.status()),
            "{}: {answer}",
            target.escape_ascii()
        );
    }
    let metrics = rig.metrics();
    assert_eq!(metrics.count(r#"wsguard_connections{zone="exempt"}"#), 0);
    assert_eq!(
        metrics.count(r#"wsguard_handshakes_total{zone="exempt",outcome="admitted",reason="-"}"#),
        0
    );
    assert_eq!(backend.dials(), 3);
    drop(everyone);
    rig.quiet();
}

/// The same test with room in the default zone: there, such a spelling is admitted and counted.
#[test]
fn a_spelling_that_is_admitted_counts_in_the_default_zone() {
    let backend = Backend::listening();
    let rig = Rig::start(
        &backend,
        &FEDERATION.replace("connections = 3", "per_ip_rate = \"off\""),
    );
    let mut open: Vec<Socket> = Vec::new();
    for target in EVIL_FEDERATION {
        match rig.try_open(ip(1), &Request::to(target)) {
            Ok(socket) => {
                open.push(socket);
                assert_eq!(
                    backend.last_head()[4..].split(|byte| *byte == b' ').next().unwrap(),
                    origin_form(target)
                );
            }
            Err(answer) => assert_eq!(answer.status(), 400, "{}: {answer}", target.escape_ascii()),
        }
        let metrics = rig.metrics();
        assert_eq!(
            metrics.count(r#"wsguard_connections{zone="exempt"}"#),
            0,
            "{}",
            target.escape_ascii()
        );
        assert_eq!(
            metrics.count(r#"wsguard_connections{zone="default"}"#),
            i64::try_from(open.len()).unwrap()
        );
    }
    assert_eq!(backend.dials(), open.len());
    drop(open);
    rig.quiet();
}

const EVIL_FEDERATION: &[&[u8]] = &[
    b"/federation/../chat",
    b"/federation/./chat",
    b"/%66ederation",
    b"/%66ederation/x",
    b"/federatio%6E",
    b"//federation",
    b"/.//federation",
    b"/federation//x",
    b"/federation;x",
    b"/federation;x/../chat",
    b"/federation/..;/chat",
    b"/federation%2f..%2fchat",
    b"/federation/%2e%2e/chat",
    b"/federation/..%2fchat",
    b"/federation/%2e./chat",
    b"/federation\\..\\chat",
    b"/federation/..\\chat",
    b"/federation%5c..%5cchat",
    b"/x/../federation",
    b"/federationx",
    b"/Federation",
    b"/federation%00",
    b"/federation%20",
    b"/federation%",
    b"/%2566ederation",
    b"http://chat.example.org/federation",
    b"http://chat.example.org/federation/../chat",
    b"/federation\xc0\xae\xc0\xae/chat",
];

const ADMIN: &str = r#"
    [[route]]
    name = "public"
    paths = ["/public"]
    upstream = "chat"
    [[route]]
    name = "admin"
    paths = ["/admin/ws"]
    allow = ["127.0.9.0/24"]
    upstream = "admin"
    [[route]]
    name = "everyone"
    upstream = "chat"
"#;

#[test]
fn a_route_with_an_allow_list_cannot_be_reached_from_outside_it_in_any_spelling() {
    let (chat, admin) = (Backend::listening(), Backend::listening());
    let rig = before_chat_and_admin(&chat, &admin);
    rig.ask(Request::to("/admin/ws"))
        .assert_refusal("403 Forbidden", "network", "Forbidden");
    rig.ask(Request::to("/admin/ws/deeper?x"))
        .assert_refusal("403 Forbidden", "network", "Forbidden");
    for target in EVIL_ADMIN {
        let answer = rig.ask(Request::to(target));
        assert!(
            [400, 403].contains(&answer.status()),
            "{}: {answer}",
            target.escape_ascii()
        );
    }
    assert_eq!(
        (chat.dials(), admin.dials()),
        (0, 0),
        "not even another server saw one of these"
    );

    let open = rig
        .try_open("127.0.9.5".parse().unwrap(), &Request::to("/admin/ws"))
        .ok()
        .unwrap();
    let public = open_at(&rig, "/public/x");
    let near = open_at(&rig, "/admin/wsx");
    assert_eq!((chat.dials(), admin.dials()), (2, 1));
    drop((open, public, near));
    rig.quiet();
}

const EVIL_ADMIN: &[&[u8]] = &[
    b"/%61dmin/ws",
    b"//admin/ws",
    b"/admin//ws",
    b"/admin/./ws",
    b"/x/../admin/ws",
    b"/public/../admin/ws",
    b"/public/%2e%2e/admin/ws",
    b"/public\\..\\admin/ws",
    b"/public\\..\\admin\\ws",
    b"/public/..;/admin/ws",
    b"/public;/../admin/ws",
    b"/admin;x/ws",
    b"/admin/ws;x",
    b"/admin%2fws",
    b"/admin\\ws",
    b"/admin%5cws",
    b"/admin/ws#x",
    b"/public#/../admin/ws",
    b"/;/admin/ws",
    b"/public/x/../../admin/ws",
    b"/../admin/ws",
    b"http://chat.example.org/admin/ws",
    b"http://chat.example.org/public/../admin/ws",
    b"/admin/w%73?x=1",
];

#[test]
fn allow_refuses_while_networks_only_selects() {
    let backend = Backend::listening();
    let rig = Rig::start(
        &backend,
        r#"
        [[route]]
        name = "partners"
        paths = ["/ws"]
        networks = ["127.0.9.0/24"]
        zone = "partners"
        [zone.partners]
        [[route]]
        name = "rest"
        "#,
    );
    let partner = rig.open_from("127.0.9.1".parse().unwrap());
    let anyone = rig.open();
    rig.expect(r#"wsguard_connections{zone="partners"}"#, 1);
    rig.expect(r#"wsguard_connections{zone="default"}"#, 1);
    assert_eq!(backend.dials(), 2);
    drop((partner, anyone));
    rig.quiet();
}

#[test]
fn a_route_that_refuses_says_404_and_check_does_not_warn() {
    let backend = Backend::listening();
    let routes = "[[route]]\nname = \"ws\"\npaths = [\"/ws\"]\n[[route]]\nname = \"rest\"\nrefuse = 404";
    let rig = Rig::start(&backend, routes);
    let open = rig.open();
    rig.ask(Request::to("/other"))
        .assert_refusal("404 Not Found", "no_route", "Not found");
    assert_eq!(
        rig.count(r#"wsguard_handshakes_total{zone="-",outcome="rejected",reason="no_route"}"#),
        1
    );
    assert_eq!(backend.dials(), 1, "it is never dialled for");
    drop(open);
    rig.quiet();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wsguard.toml");
    let listener = "[[listener]]\nbind = [\"0.0.0.0:8080\"]\n[upstream.chat]\nservers = [\"127.0.0.1:3000\"]\n";
    std::fs::write(&file, format!("{listener}{routes}\n")).unwrap();
    let checked = std::process::Command::new(env!("CARGO_BIN_EXE_wsguard"))
        .args(["check", "--deny-warnings"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn a_request_that_no_route_matches_gets_404_and_the_log_names_the_host() {
    let backend = Backend::listening();
    let rig = Rig::start(
        &backend,
        "[[route]]\nname = \"chat\"\nhosts = [\"chat.example.org\"]\npaths = [\"/ws\"]",
    );
    for request in [
        Request::to("/wsx"),
        Request::to("/"),
        Request::to("/ws").set("Host", "other.example.org"),
    ] {
        rig.ask(request)
            .assert_refusal("404 Not Found", "no_route", "Not found");
    }
    let line = rig.line("the host it saw", |line| line.to_string().contains("other.example.org"));
    assert_eq!(line["reason"], "no_route");
    assert_eq!(line["message"], "no route for host other.example.org, path /ws");
    let line = rig.line("the path it saw", |line| line["path"] == "/wsx");
    assert_eq!(line["message"], "no route has the path /wsx, host chat.example.org");
    assert_eq!(line["host"], "chat.example.org");
    assert_eq!(
        rig.count(r#"wsguard_handshakes_total{zone="-",outcome="rejected",reason="no_route"}"#),
        3
    );
    assert_eq!(backend.dials(), 0);
    rig.quiet();
}

#[test]
fn hosts_match_in_any_case_without_port_and_final_dot() {
    let backend = Backend::listening();
    let hosts = "[[route]]\nname = \"chat\"\nhosts = [\"chat.example.org\", \"*.games.example.org\"]";
    let rig = Rig::start(&backend, hosts);
    let hit = |host: &str| rig.try_open(ip(1), &Request::to("/ws").set("Host", host)).is_ok();
    for host in [
        "chat.example.org",
        "CHAT.Example.ORG",
        "chat.example.org:8443",
        "chat.example.org.",
        "chat.example.org.:80",
        "a.games.example.org",
        "a.b.games.example.org",
    ] {
        assert!(hit(host), "{host}");
    }
    for host in [
        "example.org",
        "games.example.org",
        "xchat.example.org",
        "agames.example.org",
        "chat.example.org.evil",
    ] {
        assert!(!hit(host), "{host}");
    }
    assert_eq!(backend.dials(), 7);
    rig.quiet();
}

#[test]
fn in_absolute_form_the_authority_is_the_host() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[[route]]\nname = \"chat\"\nhosts = [\"chat.example.org\"]");
    let request = Request::to("http://chat.example.org/ws?a=b").set("Host", "other.example.org");
    let open = rig.try_open(ip(1), &request).ok().unwrap();
    assert!(
        backend.last_head().starts_with(b"GET /ws?a=b HTTP/1.1\r\n"),
        "it goes on in origin-form"
    );
    assert_eq!(backend.visit(0).header("Host"), ["chat.example.org"]);
    let request = Request::to("http://other.example.org/ws").set("Host", "chat.example.org");
    assert_eq!(rig.ask(request).status(), 404);
    assert_eq!(backend.dials(), 1);
    drop(open);
    rig.quiet();
}

#[test]
fn the_origin_of_another_site_gets_403_and_an_app_without_one_passes() {
    let backend = Backend::listening();
    let rig = Rig::start(
        &backend,
        "[[route]]\nname = \"chat\"\norigins = [\"https://chat.example.org\"]",
    );
    let with = |origin: &str| Request::to("/ws").add("Origin", origin);
    for origin in [
        "https://evil.example",
        "http://chat.example.org",
        "https://chat.example.org:8443",
        "https://chat.example.org.evil.example",
        "https://evilchat.example.org",
        "null",
        "",
    ] {
        rig.ask(with(origin))
            .assert_refusal("403 Forbidden", "origin", "Forbidden");
    }
    assert_eq!(
        rig.ask(with("https://chat.example.org").add("Origin", "https://chat.example.org"))
            .status(),
        400
    );
    assert_eq!(backend.dials(), 0);

    let open = [
        rig.try_open(ip(1), &with("https://chat.example.org")).ok().unwrap(),
        rig.open(),
    ];
    assert_eq!(backend.dials(), 2);
    assert_eq!(backend.visit(0).header("Origin"), ["https://chat.example.org"]);
    drop(open);
    rig.quiet();
}

#[test]
fn the_origin_null_passes_only_if_it_is_listed() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "[[route]]\nname = \"chat\"\norigins = [\"null\"]");
    drop(
        rig.try_open(ip(1), &Request::to("/ws").add("Origin", "null"))
            .ok()
            .unwrap(),
    );
    assert_eq!(
        rig.ask(Request::to("/ws").add("Origin", "https://chat.example.org"))
            .status(),
        403
    );
    assert_eq!(backend.dials(), 1);
    rig.quiet();
}

#[test]
fn a_request_refused_by_network_or_origin_takes_no_slot_and_no_token() {
    let backend = Backend::listening();
    let rig = Rig::start(
        &backend,
        r#"
        [limits]
        per_ip = 1
        per_ip_rate = "1/min"
        [[route]]
        name = "chat"
        origins = ["https://chat.example.org"]
        "#,
    );
    for _ in 0..5 {
        assert_eq!(
            rig.ask(Request::to("/ws").add("Origin", "https://evil.example"))
                .status(),
            403
        );
    }
    drop(rig.open());
    assert_eq!(backend.dials(), 1);
    rig.quiet();
}

#[test]
fn the_first_route_that_matches_decides() {
    let (chat, admin) = (Backend::listening(), Backend::listening());
    let rig = before_chat_and_admin(&chat, &admin);
    drop(open_at(&rig, "/public"));
    drop(open_at(&rig, "/public/admin/ws"));
    drop(open_at(&rig, "/publicity"));
    assert_eq!((chat.dials(), admin.dials()), (3, 0));
    rig.quiet();
}

fn before_chat_and_admin(chat: &Backend, admin: &Backend) -> Rig {
    let (chat_at, admin_at) = (chat.address(), admin.address());
    let upstreams = format!("[upstream.chat]\nservers = [\"{chat_at}\"]\n[upstream.admin]\nservers = [\"{admin_at}\"]");
    Rig::before(chat).config(ADMIN).config(&upstreams).start()
}

fn open_at(rig: &Rig, target: &str) -> Socket {
    let opened: Result<Socket, Answer> = rig.try_open(ip(1), &Request::to(target));
    opened.unwrap_or_else(|answer| panic!("{target} was not let in: {answer}"))
}

/// The target as the server gets it.
fn origin_form(target: &[u8]) -> &[u8] {
    target.strip_prefix(b"http://chat.example.org").unwrap_or(target)
}
