//! Each mistake that a configuration is refused for, with its place.

#![allow(clippy::too_many_lines)] // The tables are long.

use wsguard::config::findings::{Finding, Source};
use wsguard::config::{Rejected, compile};

const REQUIRED: &str = "[[listener]]\nbind = [\"0.0.0.0:8080\"]\n[upstream.chat]\nservers = [\"127.0.0.1:3000\"]\n";

/// A text, and the line, column and title of each mistake in it.
#[test]
fn each_has_its_place() {
    for (text, expected) in [
        ("[server]\nworkers = 0", "2:11 `workers` is out of range"),
        ("[server]\nworkers = \"two\"", "2:11 `workers` is not a whole number"),
        (
            "[server]\ntable_size = 99999999999999999999",
            "2:14 `table_size` is out of range",
        ),
        (
            "[server]\nmax_connections = 2_000_000",
            "2:19 `table_size` is smaller than `max_connections`: open connections could not all be counted",
        ),
        (
            "[server]\nmax_connections = 20\ntable_size = 10",
            "3:14 `table_size` is smaller than `max_connections`: open connections could not all be counted",
        ),
        ("[limits]\nper_ip = 0", "2:10 `per_ip` is out of range"),
        ("[limits]\nper_ip = -1", "2:10 `per_ip` is out of range"),
        ("[limits]\nper_ip = 1.5", "2:10 `per_ip` is not a whole number"),
        ("[limits]\nper_ip = \"50\"", "2:10 `per_ip` is not a whole number"),
        ("[limits]\nper_ip = [1]", "2:10 `per_ip` is not a whole number"),
        ("[limits]\nper_ip = { a = 1 }", "2:10 `per_ip` is not a whole number"),
        ("[limits]\nper_ip = 2020-01-01", "2:10 `per_ip` is not a whole number"),
        ("[limits]\nconnections = 0", "2:15 `connections` is out of range"),
        ("[limits]\nrate = 10", "2:8 `rate` is not a rate"),
        ("[limits]\nrate = \"0/s\"", "2:8 `rate` is not a rate"),
        ("[limits]\nrate = \"1000001/s\"", "2:8 `rate` is out of range"),
        ("[limits]\nper_ip_burst = 0", "2:16 `per_ip_burst` is out of range"),
        (
            "[limits]\nper_ip_burst = \"off\"",
            "2:16 `per_ip_burst` is not a whole number",
        ),
        ("[limits]\nretry_after = \"0s\"", "2:15 `retry_after` is out of range"),
        ("[limits]\nmode = \"enforced\"", "2:8 `mode` can't be \"enforced\""),
        ("[limits]\nmode = true", "2:8 `mode` must be a text in quotes"),
        (
            "[limits]\nexempt = true",
            "2:10 `exempt` is for a zone, not for [limits]",
        ),
        ("[limits]\ntimeouts = 3", "2:12 [timeouts] must be a table"),
        ("[limits.timeouts]\ndial = \"0s\"", "2:8 `dial` is out of range"),
        ("[limits.timeouts]\nidle = \"5 m\"", "2:8 `idle` is not a duration"),
        (
            "[limits.timeouts]\nkeepalive = \"10h\"",
            "2:13 `keepalive` is out of range",
        ),
        ("[zone.a]\nexempt = 1", "2:10 `exempt` must be true or false"),
        ("[[route]]\nrefuse = 403", "2:10 a route can refuse with 404 only"),
        ("[[route]]\nrefuse = \"404\"", "2:10 `refuse` is not a whole number"),
        ("[[route]]\nrefuse = true", "2:10 `refuse` is not a whole number"),
        (
            "[[route]]\nrefuse = 404\nzone = \"default\"",
            "3:8 a route with `refuse` can't have `zone`",
        ),
        (
            "[[route]]\nrefuse = 404\nupstream = \"chat\"",
            "3:12 a route with `refuse` can't have `upstream`",
        ),
        (
            "[[route]]\nrefuse = 404\nallow = [\"private\"]",
            "3:9 a route with `refuse` can't have `allow`",
        ),
        (
            "[[route]]\nrefuse = 404\norigins = [\"null\"]",
            "3:11 a route with `refuse` can't have `origins`",
        ),
        ("[zone.exempt]\nexempt = false", "2:10 zone `exempt` is always exempt"),
        (
            "[zone.exempt]\nconnections = \"off\"",
            "2:15 an exempt zone needs a limit on `connections`: that many are reserved for it",
        ),
        (
            "[zone.exempt]\nper_ip_burst = 5",
            "2:16 `per_ip_burst` has no rate: none is set here or inherited",
        ),
        (
            "[limits.timeouts]\nfirst_message = \"2h\"",
            "2:17 `first_message` is out of range",
        ),
        ("[limits]\nmessages = \"5/s\"", "2:12 [messages] must be a table"),
        (
            "[limits.messages]\npreset = \"deadchat\"\nburst = 20",
            "2:10 `preset` can't be \"deadchat\"",
        ),
        ("[limits.messages]\nrate = \"5/m\"", "2:8 `rate` is not a rate"),
        ("[limits.messages]\nrate = \"64KiB/s\"", "2:8 `rate` is not a rate"),
        (
            "[limits.messages]\nrate = \"5/s\"\nburst = 1_000_001",
            "3:9 `burst` is out of range",
        ),
        ("[limits.messages]\nburst = 0", "2:9 `burst` is out of range"),
        (
            "[limits.messages]\nburst = 5",
            "2:9 `burst` has no rate: none is set here or inherited",
        ),
        (
            "[limits.messages]\nrate = \"5/s\"\n[zone.a.messages]\npreset = \"off\"\nburst = 5",
            "5:9 `burst` has no rate: none is set here or inherited",
        ),
        (
            "[limits.messages]\nrate = \"5/s\"\n[zone.exempt.messages]\nburst = 5",
            "4:9 `burst` has no rate: none is set here or inherited",
        ),
        (
            "[limits.messages]\nper_ip_burst = 5",
            "2:16 `per_ip_burst` has no rate: none is set here or inherited",
        ),
        (
            "[limits.messages]\nout_burst = 5",
            "2:13 `out_burst` has no rate: none is set here or inherited",
        ),
        (
            "[limits.messages]\nout_per_ip_burst = 5",
            "2:20 `out_per_ip_burst` has no rate: none is set here or inherited",
        ),
        (
            "[limits.messages]\nbytes_burst = \"1KiB\"",
            "2:15 `bytes_burst` has no rate: none is set here or inherited",
        ),
        (
            "[limits.messages]\nout_bytes_burst = \"1KiB\"",
            "2:19 `out_bytes_burst` has no rate: none is set here or inherited",
        ),
        (
            "[limits.messages]\nbytes_rate = \"10/s\"",
            "2:14 `bytes_rate` is not a byte rate",
        ),
        (
            "[limits.messages]\nbytes_rate = 65536",
            "2:14 `bytes_rate` is not a byte rate",
        ),
        (
            "[limits.messages]\nout_bytes_rate = \"1025MiB/s\"",
            "2:18 `out_bytes_rate` is out of range",
        ),
        (
            "[limits.messages]\nbytes_rate = \"1KiB/s\"\nbytes_burst = \"2GiB\"",
            "3:15 `bytes_burst` is out of range",
        ),
        (
            "[limits.messages]\nbytes_rate = \"1KiB/s\"\nbytes_burst = 4096",
            "3:15 `bytes_burst` is not a size",
        ),
        (
            "[limits.messages]\nmax_size = \"0B\"",
            "2:12 `max_size` is out of range",
        ),
        ("[limits.messages]\nmax_size = 0", "2:12 `max_size` is not a size"),
        (
            "[limits.messages]\nmax_size = \"2GiB\"",
            "2:12 `max_size` is out of range",
        ),
        (
            "[limits.messages]\non_exceed = \"drop\"",
            "2:13 `on_exceed` can't be \"drop\"",
        ),
        ("[limits.messages]\nnotice = \"\"", "2:10 `notice` is empty"),
        (
            "[limits.messages]\nnotice = false",
            "2:10 `notice` must be a text in quotes",
        ),
        (
            "[limits.messages]\nnotice = \"slow\\ndown\"",
            "2:10 `notice` has control characters",
        ),
        (
            "[limits.messages]\nstrict_frames = \"true\"",
            "2:17 `strict_frames` must be true or false",
        ),
        ("[limits.messages]\nping = \"999ms\"", "2:8 `ping` is out of range"),
        ("[limits.messages]\nping = \"2h\"", "2:8 `ping` is out of range"),
        ("[limits.messages]\npong = \"yes\"", "2:8 `pong` can't be \"yes\""),
        (
            "[limits.messages]\npong_timeout = \"99ms\"",
            "2:16 `pong_timeout` is out of range",
        ),
        (
            "[limits.messages]\npong_timeout = \"off\"",
            "2:16 `pong_timeout` is not a duration",
        ),
        (
            "[limits.messages]\nreplace_ghosts = \"off\"",
            "2:18 `replace_ghosts` must be true or false",
        ),
        ("[zone.a.messages]\nmax_sizes = \"1KiB\"", "2:1 unknown key `max_sizes`"),
        (
            "[zone.\"-\"]",
            "1:7 a name can't be \"-\": the log and the metrics use it where there is no name",
        ),
        ("zone = 3", "1:8 `zone` must be a table"),
        ("zone = 1979-05-27", "1:8 `zone` must be a table"),
        (
            "[limits]\nper_ip = 1000000000000000000000000000000000000000000",
            "2:10 `per_ip` is out of range",
        ),
        ("[limits]\nper_ip = 1e999", "2:10 `per_ip` is not a whole number"),
        ("zone.a = 3", "1:10 [zone.a] must be a table"),
        ("[route]\nzone = \"a\"", "1:1 `route` must be a list of tables"),
        (
            "[client_ip]\ntrusted_proxies = [\"10.0.0.1/8\"]",
            "2:20 \"10.0.0.1/8\" has bits set after its prefix",
        ),
        (
            "[client_ip]\ntrusted_proxies = [\"loopbck\"]",
            "2:20 \"loopbck\" is not a network",
        ),
        (
            "[client_ip]\ntrusted_proxies = \"loopback\"",
            "2:19 `trusted_proxies` must be a list of texts",
        ),
        (
            "[client_ip]\ntrusted_proxies = [1]",
            "2:20 `trusted_proxies` may hold only texts in quotes",
        ),
        ("[client_ip]\nheaders = []", "2:11 `headers` is empty"),
        (
            "[client_ip]\nheaders = [\"x-forwared-for\"]",
            "2:12 `headers` can't be \"x-forwared-for\"",
        ),
        ("[client_ip]\nipv4_prefix = 33", "2:15 `ipv4_prefix` is out of range"),
        ("[client_ip]\nipv6_prefix = 129", "2:15 `ipv6_prefix` is out of range"),
        ("[client_ip]\nsend = \"last\"", "2:8 `send` can't be \"last\""),
        (
            "[client_ip]\ntranslation_prefixes = [\"2001:db8::/96\", \"2001:db8::/80\"]",
            "2:42 \"2001:db8::/80\" is not a NAT64 prefix",
        ),
        (
            "[client_ip]\ntranslation_prefixes = [\"10.0.0.0/8\"]",
            "2:25 \"10.0.0.0/8\" is not a NAT64 prefix",
        ),
        (
            "[client_ip]\ntranslation_prefixes = [\"2001:db8:0:0:100::/96\"]",
            "2:25 \"2001:db8:0:0:100::/96\" is not a NAT64 prefix",
        ),
        (
            "[client_ip]\ntranslation_prefixes = [\"2001:db8::1/96\"]",
            "2:25 \"2001:db8::1/96\" has bits set after its prefix",
        ),
        (
            "[client_ip]\ntranslation_prefixes = [\"loopback\"]",
            "2:25 \"loopback\" is not a NAT64 prefix",
        ),
        (
            "[client_ip]\ntranslation_prefixes = \"2001:db8::/96\"",
            "2:24 `translation_prefixes` must be a list of texts",
        ),
        (
            "[[network]]\nnetworks = [\"10.0.0.0/8\"]",
            "1:1 a network without a limit of its own",
        ),
        ("[[network]]\nper_ip = 1", "1:1 a network without `networks`"),
        (
            "[[network]]\nnetworks = [\"unix\"]\nper_ip = 1",
            "2:13 \"unix\" can't be in a [[network]]: Unix peers have no address",
        ),
        (
            "[[network]]\nnetworks = [\"10.0.0.0/8\", \"::ffff:10.0.0.0/104\"]\nper_ip = 1",
            "2:27 \"::ffff:10.0.0.0/104\" is listed twice",
        ),
        (
            "[[network]]\nnetworks = [\"10.0.0.0/8\"]\nper_ip = 1\nper_ip_burst = 3",
            "4:16 `per_ip_burst` has no rate: each zone has its own",
        ),
        ("[[route]]\nzone = \"defualt\"", "2:8 there is no zone \"defualt\""),
        ("[[route]]\nupstream = \"caht\"", "2:12 there is no upstream \"caht\""),
        ("[[route]]\nhosts = []", "2:9 `hosts` is empty"),
        ("[[route]]\norigins = []", "2:11 `origins` is empty"),
        ("[[route]]\norigins = []", "2:11 `origins` is empty"),
        ("[[route]]\nhosts = [\"a.*.b\"]", "2:10 \"a.*.b\" is not a host"),
        (
            "[[route]]\npaths = [\"/a\", \"b\"]",
            "2:16 \"b\" does not begin with `/`",
        ),
        (
            "[[route]]\npaths = [\"/a?b\"]",
            "2:10 \"/a?b\" has a query or a fragment",
        ),
        (
            "[[route]]\npaths = [\"/a b\"]",
            "2:10 \"/a b\" has characters that no client sends",
        ),
        (
            "[[route]]\norigins = [\"chat.example.org\"]",
            "2:12 \"chat.example.org\" is not an origin",
        ),
        (
            "[[route]]\nname = \"a\"\n[[route]]\nname = \"a\"",
            "4:8 a second route named \"a\"",
        ),
        ("[[route]]\nname = \"\"", "2:8 a name is empty"),
        ("[admin]\nlisten = \"9191\"", "2:10 \"9191\" is not an address and port"),
        (
            "[admin]\nlisten = \"127.0.0.1:8080\"",
            "2:10 a listener is bound to \"0.0.0.0:8080\": [admin] can't listen on \"127.0.0.1:8080\"",
        ),
        (
            "[admin]\nhosts = [\"http://a\"]",
            "2:10 \"http://a\" is not a host name",
        ),
        ("[log]\nlevel = \"trace\"", "2:9 `level` can't be \"trace\""),
        ("[log]\nsample = \"1/d\"", "2:10 `sample` is not a rate"),
        ("server = 1", "1:10 [server] must be a table"),
        ("[servre]", "1:2 unknown table `servre`"),
        ("[server]\nwokers = 1", "2:1 unknown key `wokers`"),
        ("[server]\nper_ip = 1", "2:1 unknown key `per_ip`"),
    ] {
        let rejected = compile(&format!("{text}\n{REQUIRED}"), "x").err();
        let rejected = rejected.unwrap_or_else(|| panic!("{text:?} has compiled"));
        assert_eq!(places(&rejected), [expected], "{text}");
    }
}

#[test]
fn a_notice_may_have_4096_bytes() {
    let text = |len: usize| {
        format!(
            "[limits.messages]\nrate = \"5/s\"\nnotice = \"{}\"\n{REQUIRED}",
            "é".repeat(len / 2)
        )
    };
    assert!(compile(&text(4096), "x").is_ok());
    assert_eq!(
        places(&compile(&text(4098), "x").unwrap_err()),
        ["3:10 `notice` is too long"]
    );
}

#[test]
fn of_listeners_and_upstreams() {
    let upstream = "[upstream.a]\nservers = [\"a:1\"]\n";
    for (text, expected) in [
        ("[[listener]]", "1:1 a listener without `bind`"),
        ("[[listener]]\nbind = []", "2:8 `bind` is empty"),
        (
            "[[listener]]\nbind = [\"a:1\"]",
            "2:9 \"a:1\" is not an address to bind",
        ),
        (
            "[[listener]]\nbind = [\"1.1.1.1:80\", \"1.1.1.1:80\"]",
            "2:23 \"1.1.1.1:80\" is bound twice",
        ),
        (
            "[[listener]]\nbind = [\"0.0.0.0:80\", \"1.1.1.1:80\"]",
            "2:23 \"1.1.1.1:80\" can't be bound beside \"0.0.0.0:80\", which has its port on every address",
        ),
        (
            "[[listener]]\nbind = [\"unix:/a\"]\n[[listener]]\nname = \"b\"\nbind = [\"unix:/a\"]",
            "5:9 \"unix:/a\" is bound twice",
        ),
        (
            "[[listener]]\nname = \"a\"\nbind = [\"1.1.1.1:1\"]\n[[listener]]\nname = \"a\"\nbind = [\"1.1.1.1:2\"]",
            "5:8 a second listener named \"a\"",
        ),
        (
            "[[listener]]\nbind = [\"1.1.1.1:1\"]\nbacklog = 0",
            "3:11 `backlog` is out of range",
        ),
        (
            "[[listener]]\nbind = [\"1.1.1.1:1\"]\naccept_proxy_protocol = true",
            "3:25 `accept_proxy_protocol` without trusted proxies: every connection would be refused",
        ),
        (
            "[[listener]]\nbind = [\"unix:/a\"]\naccept_proxy_protocol = true\n[client_ip]\ntrusted_proxies = [\"loopback\"]",
            "3:25 `accept_proxy_protocol` without a trusted peer for \"unix:/a\": every connection to it would be refused",
        ),
        (
            "[[listener]]\nbind = [\"unix:/a\", \"1.1.1.1:1\"]\naccept_proxy_protocol = true\n[client_ip]\ntrusted_proxies = [\"unix\"]",
            "3:25 `accept_proxy_protocol` without a trusted peer for \"1.1.1.1:1\": every connection to it would be refused",
        ),
        (
            "[[listener]]\nbind = [\"1.1.1.1:1\"]\nhandshake_timeout = \"off\"",
            "3:21 `handshake_timeout` is not a duration",
        ),
        (
            "[[listener]]\nbind = [\"1.1.1.1:1\"]\nmax_head_size = \"255B\"",
            "3:17 `max_head_size` is out of range",
        ),
        (
            "[[listener]]\nbind = [\"1.1.1.1:1\"]\nmax_head_size = 4096",
            "3:17 `max_head_size` is not a size",
        ),
        (
            "[[listener]]\nbind = [\"1.1.1.1:1\"]\nmax_head_size = \"2MiB\"",
            "3:17 `max_head_size` is out of range",
        ),
        (
            "[[listener]]\nbind = [\"1.1.1.1:1\"]\nmax_headers = 257",
            "3:15 `max_headers` is out of range",
        ),
        (
            "[[listener]]\nbind = [\"1.1.1.1:1\"]\nmax_pending = 0",
            "3:15 `max_pending` is out of range",
        ),
        (
            "[[listener]]\nbind = [\"1.1.1.1:1\"]\nhealth_path = \"on\"",
            "3:15 \"on\" does not begin with `/`",
        ),
        (
            "[[listener]]\nbind = [\"1.1.1.1:1\"]\nhttp = \"forward\"",
            "3:8 `http = \"forward\"` is not in this version",
        ),
        (
            "[[listener]]\nbind = [\"1.1.1.1:1\"]\nhttp = \"pass\"",
            "3:8 `http` can't be \"pass\"",
        ),
        ("", "1:1 there is no [[listener]]"),
        ("listener = []", "1:1 there is no [[listener]]"),
    ] {
        assert_eq!(
            places(&compile(&format!("{text}\n{upstream}"), "x").unwrap_err()),
            [expected],
            "{text}"
        );
    }
    let listener = "[[listener]]\nbind = [\"0.0.0.0:1\"]\n";
    for (text, expected) in [
        ("", "1:1 there is no [upstream.NAME]"),
        ("[upstream.a]", "3:11 an upstream without `servers`"),
        ("[upstream.a]\nservers = []", "4:11 `servers` is empty"),
        (
            "[upstream.a]\nservers = [\"http://a:1\"]",
            "4:12 \"http://a:1\" is not a server",
        ),
        (
            "[upstream.a]\nservers = [\"a:1\", \"a:1\"]",
            "4:19 \"a:1\" is listed twice",
        ),
        (
            "[upstream.a]\nservers = [\"a:1\"]\n[upstream.b]\nservers = [\"a:1\"]",
            "5:11 several upstreams and no [[route]] that chooses among them",
        ),
        (
            "[upstream.a]\nservers = [\"a:1\"]\n[upstream.b]\nservers = [\"a:1\"]\n[[route]]",
            "7:1 a route needs `upstream` where there are several",
        ),
    ] {
        assert_eq!(
            places(&compile(&format!("{listener}{text}"), "x").unwrap_err()),
            [expected],
            "{text}"
        );
    }
}

#[test]
fn a_port_chosen_by_the_kernel_and_the_other_family_collide_with_nothing() {
    for bind in [
        "\"127.0.0.1:0\", \"127.0.0.1:0\"",
        "\"0.0.0.0:80\", \"[::]:80\"",
        "\"1.1.1.1:80\", \"1.1.1.2:80\"",
    ] {
        let text = format!("[[listener]]\nbind = [{bind}]\n[upstream.a]\nservers = [\"a:1\"]");
        assert!(compile(&text, "x").is_ok(), "{bind}");
    }
}

/// Each connection would come back to wsguard, again and again.
#[test]
fn a_server_that_is_wsguard_itself() {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let host = host.trim();
    let folder = tempfile::tempdir().unwrap();
    let (run, link) = (folder.path().join("run"), folder.path().join("var"));
    std::fs::create_dir(&run).unwrap();
    std::os::unix::fs::symlink(&run, &link).unwrap();
    let (bound, by_link) = (run.join("in.sock"), link.join("in.sock"));
    let (bound, by_link) = (
        format!("unix:{}", bound.display()),
        format!("unix:{}", by_link.display()),
    );
    let around = format!("unix:{}/../run/in.sock", run.display());
    for (bind, server) in [
        ("127.0.0.1:8080", "127.0.0.1:8080"),
        ("192.0.2.1:8080", "192.0.2.1:8080"),
        ("0.0.0.0:8080", "127.0.0.1:8080"),
        ("0.0.0.0:8080", "127.1.2.3:8080"),
        ("0.0.0.0:8080", "0.0.0.0:8080"),
        ("0.0.0.0:8080", "[::ffff:127.0.0.1]:8080"),
        ("127.0.0.1:8080", "0.0.0.0:8080"),
        ("[::]:8080", "[::1]:8080"),
        ("[::1]:8080", "[::]:8080"),
        ("0.0.0.0:8080", "localhost:8080"),
        ("127.0.0.1:8080", "LocalHost.:8080"),
        ("[::1]:8080", "localhost:8080"),
        ("0.0.0.0:8080", &format!("{host}:8080")),
        (&bound, &bound),
        (&bound, &by_link),
        (&bound, &around),
        // The admin listener's.
        ("127.0.0.1:8080", "127.0.0.1:9191"),
        ("127.0.0.1:8080", "localhost:9191"),
    ] {
        let text =
            format!("[[listener]]\nbind = [\"{bind}\"]\n[upstream.a]\nservers = [\"192.0.2.7:1\", \"{server}\"]");
        let rejected = compile(&text, "x")
            .map(|_| format!("{server} beside {bind} is taken"))
            .unwrap_err();
        let found = places(&rejected);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with(&format!("4:27 \"{server}\" is wsguard's own ")),
            "{found:?}"
        );
    }
    let without = "[[listener]]\nbind = [\"0.0.0.0:8080\"]\n[admin]\nlisten = \"off\"\n[upstream.a]\nservers = [\"127.0.0.1:9191\"]";
    assert!(compile(without, "x").is_ok(), "no admin listener is there");
}

/// Only the syntax is reported: unknown tables and missing ones are not searched for.
#[test]
fn of_texts_that_are_not_toml() {
    for (text, expected) in [
        ("[server", "1:8 unclosed table, expected `]`"),
        ("a = ", "1:5 a key without a value"),
        ("a = # b\n", "1:5 a key without a value"),
        ("a = 1\na = 2", "2:1 `a` is written twice"),
        ("[a]\n[a]", "2:2 [a] is written twice"),
        ("[a.b]\nc = 1\n[d]\n[a.b]", "4:4 [a.b] is written twice"),
        ("[a]\n[c]\nb = 1\n[a]\nb = 2", "4:2 [a] is written twice"),
        ("[[listener]]\n[listener]", "2:2 there may be several of `listener`"),
        ("[listener]\n[listener]", "2:2 there may be several of `listener`"),
        (
            "x = \"",
            "1:6 a value must be a number, true, false, or a text in quotes",
        ),
        (
            "x = \"5s",
            "1:8 a value must be a number, true, false, or a text in quotes",
        ),
        (
            "x = 5s\"",
            "1:5 a value must be a number, true, false, or a text in quotes",
        ),
        ("x = ‘5s’", "1:5 TOML needs straight quotes"),
        ("x = 5,", "1:6 a line has no comma or semicolon at its end"),
        ("x = \"a # b\",", "1:12 a line has no comma or semicolon at its end"),
        (
            "x = 1.5s",
            "1:8 a value must be a number, true, false, or a text in quotes",
        ),
        (
            "x = True",
            "1:5 a value must be a number, true, false, or a text in quotes",
        ),
        ("[limits]\nper_ip 5", "2:8 a key and its value need `=` between them"),
        ("[limits]\nper_ips 5", "2:9 key with no value, expected `=`"),
        ("x = [\n  127.0.0.1:8080,\n]", "2:8 invalid float, expected nothing"),
        (
            "x = [\"a\"\n[limits]\ny = 5s",
            "2:1 missing comma between array elements, expected `,`",
        ),
        ("\u{0}", "1:2 this is not TOML"),
    ] {
        assert_eq!(places(&compile(text, "x").unwrap_err()), [expected], "{text:?}");
    }
}

#[test]
fn of_lines_that_are_not_toml_twenty_are_shown() {
    let lines: Vec<String> = (0..30).map(|nth| format!("key{nth} = 5s")).collect();
    assert_eq!(compile(&lines.join("\n"), "x").unwrap_err().mistakes.len(), 20);
    let without_a_place = format!("key = 5s\n{} = 1", ["a"; 100].join("."));
    assert_eq!(compile(&without_a_place, "x").unwrap_err().mistakes.len(), 2);
}

/// The parser does not say where they are.
#[test]
fn of_texts_that_are_too_deep_no_line_is_blamed() {
    let parts = ["a"; 100].join(".");
    for (text, title) in [
        (format!("b =\n{parts} = 1"), "a key has too many parts between its dots"),
        (format!("b =\n[{parts}]"), "a key has too many parts between its dots"),
        (
            format!("b =\nc = {}", "[".repeat(200)),
            "lists and tables are nested too deeply",
        ),
    ] {
        let rejected = compile(&text, "x").unwrap_err();
        assert_eq!(places(&rejected)[0], "1:4 a key without a value", "{text}");
        let deep = rejected.mistakes.iter().find(|mistake| mistake.title == title);
        assert!(
            deep.is_some_and(|deep| deep.span.as_ref().is_none_or(|span| span.start > 3)),
            "{rejected:?}"
        );
    }
}

/// The first of the two is shown as well; it is in the same table.
#[test]
fn a_key_that_is_written_twice_shows_the_first_one_too() {
    for (text, first) in [
        ("[a]\nb = 1\n\n[c]\n[a] # Again.", Some("[a]")),
        ("[a]\n  b = 1 \nb = 2", Some("b = 1")),
        ("[a]\nb = 1\n[c]\nb = 1\nb = 2", Some("b = 1")),
        ("a.b = 1\n[a]", None),
        ("a = { b = 1, b = 2 }", None),
    ] {
        let rejected = compile(text, "x").unwrap_err();
        let beside = rejected.mistakes[0]
            .beside
            .as_ref()
            .map(|(span, _)| &text[span.clone()]);
        assert_eq!(beside, first, "{text}");
    }
}

fn places(rejected: &Rejected) -> Vec<String> {
    listed(&rejected.source, &rejected.mistakes)
}

fn listed(source: &Source, findings: &[Finding]) -> Vec<String> {
    let place = |finding: &Finding| {
        let (line, column) = source.place(finding);
        format!("{line}:{column} {}", finding.title)
    };
    findings.iter().map(place).collect()
}
