//! What a configuration is warned of, and where.

#![allow(clippy::too_many_lines)] // The table is long.

use wsguard::config::compile;
use wsguard::config::finding::{Finding, Source};

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
        (
            "[client_ip]\ntrusted_proxies = [\"10.0.0.0/8\", \"0.0.0.0/0\"]",
            chat,
            &["2:34 \"0.0.0.0/0\" is trusted: everyone may say who they are"],
        ),
        (
            "[client_ip]\ntrusted_proxies = [\"::ffff:0:0/96\"]",
            chat,
            &["2:20 \"::ffff:0:0/96\" is trusted: everyone may say who they are"],
        ),
        (
            "[client_ip]\ntrusted_proxies = [\"::/0\"]",
            chat,
            &["2:20 \"::/0\" is trusted: everyone may say who they are"],
        ),
        (
            "[client_ip]\nheaders = [\"x-real-ip\", \"forwarded\"]",
            chat,
            &["2:25 several headers are read for the client's address"],
        ),
        (
            "",
            local,
            &["3:8 only this machine can connect, and nothing is trusted: every client looks like one"],
        ),
        ("[client_ip]\ntrusted_proxies = [\"loopback\"]", local, &[]),
        (
            "[[route]]\npaths = [\"/a\"]",
            chat,
            &["1:1 no route takes what the others leave: it gets 404"],
        ),
        ("[[route]]\npaths = [\"/a\"]\n[[route]]", chat, &[]),
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
            &["3:8 everyone is let into an exempt zone"],
        ),
        (
            "[[route]]\npaths = [\"/a\"]\nallow = [\"unix\"]\nzone = \"exempt\"\n[[route]]",
            chat,
            &[],
        ),
        (
            "[zone.default]\nexempt = true",
            chat,
            &["2:10 everyone is let into an exempt zone"],
        ),
        ("[zone.a]\nper_ip = 1", chat, &["1:7 no route leads to zone \"a\""]),
        ("[zone.exempt]\nexempt = true\nconnections = 1000", chat, &[]),
        (
            "[zone.exempt]\nconnections = 20",
            chat,
            &["1:7 no route leads to zone \"exempt\""],
        ),
        (
            "[limits]\nreject_with = \"drop\"\n[client_ip]\ntrusted_proxies = [\"10.0.0.0/8\"]",
            chat,
            &["2:15 `drop` behind a trusted proxy: it is the proxy that sees the reset"],
        ),
        ("[limits]\nreject_with = \"drop\"", chat, &[]),
        (
            "[server]\nmax_connections = 9_999",
            chat,
            &["2:19 the zones' budgets are 10000 together, and the process may have 9999"],
        ),
        ("[server]\nmax_connections = 10_000", chat, &[]),
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
