//! Each warning about a configuration, with its place.

#![allow(clippy::too_many_lines)] // The table is long.

use wsguard::config::compile;
use wsguard::config::findings::{Finding, Source};

#[test]
fn each_has_its_place() {
    let chat = "\n[[listener]]\nbind = [\"0.0.0.0:8080\"]\n[upstream.chat]\nservers = [\"127.0.0.1:3000\"]";
    let local = "\n[[listener]]\nbind = [\"127.0.0.1:8080\", \"[::1]:1\", \"unix:/a\"]\n[upstream.chat]\nservers = [\"127.0.0.1:3000\"]";
    for (text, rest, expected) in [
        (
            "[limits]\nper_ip = 2_500",
            chat,
            &["2:10 4 addresses exhaust zone \"default\": `per_ip` 2500 of `connections` 10000"][..],
        ),
        ("[limits]\nper_ip = 2_499", chat, &[]),
        ("[limits]\nper_ip = \"off\"", chat, &[]),
        (
            "[limits]\nconnections = 199",
            chat,
            &["2:15 4 addresses exhaust zone \"default\": `per_ip` 50 of `connections` 199"],
        ),
        (
            "[limits]\nconnections = 40",
            chat,
            &["2:15 1 address exhausts zone \"default\": `per_ip` 50 of `connections` 40"],
        ),
        (
            "[[network]]\nnetworks = [\"10.0.0.0/8\"]\nper_ip = 5_000",
            chat,
            &["3:10 2 addresses exhaust zone \"default\": `per_ip` 5000 of `connections` 10000"],
        ),
        (
            "[zone.a]\nper_ip = 9\nconnections = 10\n[[route]]\nzone = \"a\"",
            chat,
            &["2:10 2 addresses exhaust zone \"a\": `per_ip` 9 of `connections` 10"],
        ),
        // Messages.
        (
            "[limits.messages]\nbytes_rate = \"64KiB/s\"\nmax_size = \"65KiB\"",
            chat,
            &["3:12 a message of more than 64KiB can never pass: `max_size` is 65KiB, `bytes_burst` 64KiB"],
        ),
        (
            "[limits.messages]\nmax_size = \"1MiB\"\n[zone.default.messages]\nbytes_rate = \"1KiB/s\"",
            chat,
            &["4:14 a message of more than 1KiB can never pass: `max_size` is 1MiB, `bytes_burst` 1KiB"],
        ),
        (
            "[limits.messages]\nbytes_rate = \"64KiB/s\"\nmax_size = \"64KiB\"",
            chat,
            &[],
        ),
        (
            "[limits.messages]\nbytes_rate = \"64KiB/s\"\nmax_size = \"65KiB\"\non_exceed = \"delay\"",
            chat,
            &[],
        ),
        (
            "[limits.messages]\nping = \"30s\"\n[limits.timeouts]\nidle = \"30s\"",
            chat,
            &["2:8 `idle` 30s closes a silent connection before its first `ping` after 30s"],
        ),
        (
            "[limits.messages]\nping = \"30s\"\n[zone.default]\ntimeouts.idle = \"10s\"",
            chat,
            &["4:17 `idle` 10s closes a silent connection before its first `ping` after 30s"],
        ),
        (
            "[limits.messages]\nping = \"30s\"\n[limits.timeouts]\nidle = \"31s\"",
            chat,
            &[],
        ),
        (
            "[limits.messages]\nrate = \"11/min\"\nper_ip_rate = \"700/h\"\non_exceed = \"delay\"",
            chat,
            &[
                "2:8 `rate` 11/min is less than one in 5s, the longest delay: each message above it closes the connection",
                "3:15 `per_ip_rate` 700/h is less than one in 5s, the longest delay: each message above it closes the connection",
            ],
        ),
        (
            "[limits.messages]\nrate = \"12/min\"\nper_ip_rate = \"720/h\"\non_exceed = \"delay\"",
            chat,
            &[],
        ),
        ("[limits.messages]\nrate = \"1/h\"", chat, &[]),
        (
            "[limits.messages]\nnotice = \"slow down\"",
            chat,
            &["2:10 `notice` is never sent: no rate limits what clients send"],
        ),
        (
            "[limits.messages]\nnotice = \"slow down\"\nout_rate = \"5/s\"\nmax_size = \"1KiB\"",
            chat,
            &["2:10 `notice` is never sent: no rate limits what clients send"],
        ),
        (
            "[limits.messages]\nrate = \"5/s\"\n[zone.default.messages]\npreset = \"off\"\nnotice = \"a\"",
            chat,
            &["5:10 `notice` is never sent: no rate limits what clients send"],
        ),
        (
            "[limits.messages]\nnotice = \"slow down\"\n[zone.default.messages]\nrate = \"5/s\"\nnotice = \"off\"",
            chat,
            &["2:10 `notice` is never sent: no rate limits what clients send"],
        ),
        (
            "[limits.messages]\nnotice = \"slow down\"\n[zone.default.messages]\nbytes_rate = \"1KiB/s\"",
            chat,
            &[],
        ),
        (
            "[limits.messages]\nnotice = \"a\"\nrate = \"5/s\"\n[[route]]\npaths = [\"/a\"]\nallow = [\"unix\"]\nzone = \"exempt\"\n[[route]]",
            chat,
            &[],
        ),
        (
            "[limits.messages]\nrate = \"off\"\npreset = \"dead-chat\"",
            chat,
            &["3:10 `preset` has no effect: `rate` in the same table is off"],
        ),
        (
            "[zone.default.messages]\nrate = \"3/s\"\npreset = \"discord\"",
            chat,
            &["3:10 `preset` has no effect: `rate` in the same table overrides it"],
        ),
        (
            "[limits.messages]\npreset = \"discord\"\nburst = 60\n[zone.default.messages]\nrate = \"3/s\"",
            chat,
            &[],
        ),
        (
            "[zone.default.messages]\nreplace_ghosts = true",
            chat,
            &["2:18 `replace_ghosts` has no effect: `ping` is off here"],
        ),
        (
            "[zone.default.messages]\nreplace_ghosts = true\nping = \"30s\"\n[limits]\nper_ip = \"off\"",
            chat,
            &["2:18 `replace_ghosts` has no effect: `per_ip` is off here"],
        ),
        (
            "[zone.default.messages]\nreplace_ghosts = true\nping = \"30s\"",
            chat,
            &[],
        ),
        ("[zone.default.messages]\nreplace_ghosts = false", chat, &[]),
        (
            "[zone.exempt.messages]\nrate = \"5/s\"",
            chat,
            &["1:7 no route leads to zone \"exempt\""],
        ),
        (
            "[client_ip]\ntrusted_proxies = [\"10.0.0.0/8\", \"0.0.0.0/0\"]",
            chat,
            &["2:34 \"0.0.0.0/0\" trusts every address: any client can forge its own"],
        ),
        (
            "[client_ip]\ntrusted_proxies = [\"::ffff:0:0/96\"]",
            chat,
            &["2:20 \"::ffff:0:0/96\" trusts every address: any client can forge its own"],
        ),
        (
            "[client_ip]\ntrusted_proxies = [\"::/0\"]",
            chat,
            &["2:20 \"::/0\" trusts every address: any client can forge its own"],
        ),
        (
            "[client_ip]\nheaders = [\"x-real-ip\", \"forwarded\"]",
            chat,
            &["2:25 several headers are read for the client's address"],
        ),
        (
            "",
            local,
            &["3:8 all listeners are local and no proxy is trusted: all clients share one address"],
        ),
        ("[client_ip]\ntrusted_proxies = [\"loopback\"]", local, &[]),
        (
            "[[route]]\npaths = [\"/a\"]",
            chat,
            &["1:1 requests that match no route get 404"],
        ),
        ("[[route]]\npaths = [\"/a\"]\n[[route]]", chat, &[]),
        // A last route that refuses the rest.
        ("[[route]]\npaths = [\"/a\"]\n[[route]]\nrefuse = 404", chat, &[]),
        (
            "[[route]]\npaths = [\"/a\"]\n[[route]]\npaths = [\"/b\"]\nrefuse = 404",
            chat,
            &["3:1 requests that match no route get 404"],
        ),
        (
            "[[route]]\nrefuse = 404\n[[route]]\npaths = [\"/a\"]",
            chat,
            &["3:1 route \"route-2\" can't be reached"],
        ),
        (
            "[zone.a]\nper_ip = 1\n[[route]]\nzone = \"a\"\npaths = [\"/a\"]\n[[route]]\nrefuse = 404",
            chat,
            &[],
        ),
        (
            "[zone.default]\nper_ip = 1\n[zone.a]\nper_ip = 1\n[[route]]\nzone = \"a\"\npaths = [\"/a\"]\n[[route]]\nrefuse = 404",
            chat,
            &["1:7 no route leads to zone \"default\""],
        ),
        (
            "[zone.default]\nexempt = true\n[zone.a]\n[[route]]\nzone = \"a\"\npaths = [\"/a\"]\n[[route]]\nrefuse = 404",
            chat,
            &["1:7 no route leads to zone \"default\""],
        ),
        (
            "[[route]]\npaths = [\"/a\"]\nrefuse = 404\n[[route]]\nrefuse = 404",
            chat,
            &["1:1 every route refuses: no client gets in"],
        ),
        (
            "[[route]]\n[[route]]\npaths = [\"/a\"]",
            chat,
            &["2:1 route \"route-2\" can't be reached"],
        ),
        (
            "[[route]]\npaths = [\"/a\"]\n[[route]]\nhosts = [\"h\"]\npaths = [\"/a/b\"]\n[[route]]",
            chat,
            &["3:1 route \"route-2\" can't be reached"],
        ),
        (
            "[[route]]\npaths = [\"/a\"]\nnetworks = [\"10.0.0.0/8\"]\n[[route]]\npaths = [\"/a\"]\nnetworks = [\"10.1.0.0/16\"]\n[[route]]",
            chat,
            &["4:1 route \"route-2\" can't be reached"],
        ),
        (
            "[[route]]\npaths = [\"/a\"]\nnetworks = [\"10.1.0.0/16\"]\n[[route]]\npaths = [\"/a\"]\nnetworks = [\"10.0.0.0/8\"]\n[[route]]",
            chat,
            &[],
        ),
        (
            "[[route]]\nhosts = [\"*.a.b\"]\n[[route]]\nhosts = [\"x.a.b\", \"*.y.a.b\"]\n[[route]]",
            chat,
            &["3:1 route \"route-2\" can't be reached"],
        ),
        (
            "[[route]]\npaths = [\"/a\"]\n[[route]]\npaths = [\"/b\"]\n[[route]]\npaths = [\"/b/c\", \"/a/\"]\n[[route]]",
            chat,
            &["5:1 route \"route-3\" can't be reached"],
        ),
        (
            "[[route]]\npaths = [\"/a\"]\nnetworks = [\"10.0.0.0/8\"]\nzone = \"exempt\"\n[[route]]\npaths = [\"/a\"]\nnetworks = [\"10.0.0.0/8\"]\n[[route]]",
            chat,
            &[],
        ),
        (
            "[[route]]\npaths = [\"/a%20b\"]\nnetworks = [\"10.0.0.0/8\"]\nzone = \"exempt\"\n[[route]]",
            chat,
            &["2:9 route \"route-1\" can't be reached"],
        ),
        (
            "[[route]]\npaths = [\"/a\"]\nzone = \"exempt\"\n[[route]]",
            chat,
            &["3:8 an exempt zone is open to everyone"],
        ),
        (
            "[[route]]\npaths = [\"/a\"]\nallow = [\"unix\"]\nzone = \"exempt\"\n[[route]]",
            chat,
            &[],
        ),
        (
            "[zone.default]\nexempt = true",
            chat,
            &["2:10 an exempt zone is open to everyone"],
        ),
        ("[zone.a]\nper_ip = 1", chat, &["1:7 no route leads to zone \"a\""]),
        ("[zone.exempt]\nexempt = true\nconnections = 1000", chat, &[]),
        (
            "[zone.exempt]\nconnections = 1000\n[zone.default.messages]\nrate = \"5/s\"\nping = \"30s\"",
            chat,
            &[],
        ),
        (
            "[zone.exempt]\nconnections = 20",
            chat,
            &["1:7 no route leads to zone \"exempt\""],
        ),
        (
            "[limits]\nreject_with = \"drop\"\n[client_ip]\ntrusted_proxies = [\"10.0.0.0/8\"]",
            chat,
            &["2:15 `drop` behind a trusted proxy: the proxy sees the reset, not the client"],
        ),
        ("[limits]\nreject_with = \"drop\"", chat, &[]),
        (
            "[server]\nmax_connections = 9_999",
            chat,
            &["2:19 the zones' budgets add up to 10000, and the process may have 9999"],
        ),
        ("[server]\nmax_connections = 10_000", chat, &[]),
        // Servers that are close to a listener of wsguard without being it: another machine, family, address, port or path, a
        // name that may be another machine's, a port that the kernel chooses.
        (
            "[[listener]]\nbind = [\"0.0.0.0:8080\", \"192.0.2.1:8082\", \"unix:/a\", \"127.0.0.1:0\"]\n[upstream.a]\n\
             servers = [\"203.0.113.200:8080\", \"[::1]:8080\", \"127.0.0.1:8082\", \"127.0.0.1:8081\", \"unix:/b\", \"chat:8080\"]",
            "",
            &[],
        ),
    ] {
        let checked = compile(&format!("{text}{rest}"), "x").unwrap_or_else(|rejected| panic!("{rejected}"));
        assert_eq!(listed(&checked.source, &checked.warnings), expected, "{text}");
    }
}

fn listed(source: &Source, findings: &[Finding]) -> Vec<String> {
    let place = |finding: &Finding| {
        let (line, column) = source.place(finding);
        format!("{line}:{column} {}", finding.title)
    };
    findings.iter().map(place).collect()
}
