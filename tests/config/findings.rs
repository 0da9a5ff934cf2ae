//! The exact output for mistakes and warnings.

#![allow(clippy::needless_raw_string_hashes)] // One way of quoting for all of them.

use std::fs;

use wsguard::config::{QuickOptions, compile, load, quick};

const REQUIRED: &str = "[[listener]]\nbind = [\"0.0.0.0:8080\"]\n[upstream.chat]\nservers = [\"127.0.0.1:3000\"]\n";

#[test]
fn unknown_keys_and_wrong_values_all_at_once() {
    let text = r#"[limits]
per_ipp = 5
per_ip = "50"
[zone.realtime]
rate = "10/m"
[[route]]
zone = "realtme""#;
    assert_eq!(
        shown(text),
        r#"error: unknown key `per_ipp`
 --> wsguard.toml:2:1
  |
2 | per_ipp = 5
  | ^^^^^^^
  |
  = help: did you mean `per_ip`?

error: `per_ip` is not a whole number
 --> wsguard.toml:3:10
  |
3 | per_ip = "50"
  |          ^^^^
  |
  = help: write it without quotes

error: `rate` is not a rate
 --> wsguard.toml:5:8
  |
5 | rate = "10/m"
  |        ^^^^^^
  |
  = help: did you mean "10/min"?

error: there is no zone "realtme"
 --> wsguard.toml:7:8
  |
7 | zone = "realtme"
  |        ^^^^^^^^^
  |
  = help: did you mean "realtime"?"#
    );
}

#[test]
fn keys_of_another_table_and_of_another_version() {
    let text = r#"[[listener]]
bind = ["0.0.0.0:443"]
tls = true
[server]
per_ip = 3
foo = 1"#;
    assert_eq!(
        shown(text),
        r#"error: `tls` is not in this version
 --> wsguard.toml:3:1
  |
3 | tls = true
  | ^^^
  |
  = help: TLS stays with nginx or HAProxy in front of wsguard: see conf/deploy/behind-nginx.md

error: unknown key `per_ip`
 --> wsguard.toml:5:1
  |
5 | per_ip = 3
  | ^^^^^^
  |
  = help: `per_ip` belongs in [limits] or a [zone.NAME]

error: unknown key `foo`
 --> wsguard.toml:6:1
  |
6 | foo = 1
  | ^^^
  |
  = help: known keys: `workers`, `max_connections`, `table_size`, `drain_delay`, `drain_timeout`, `watch_config`"#
    );
}

#[test]
fn every_line_that_is_not_toml_is_explained_up_to_one_that_cannot_be() {
    let text = r#"[server]
workers = ten
drain_delay = “5s”
drain_timeout =
watch_config: yes
table_size = 100_000,
[limits]
rate = 10/s;   # by the second
per_ip = 5
[admin]
hosts = [wsguard, a.b]
listen = "127.0.0.1:9191"
listen = "127.0.0.1:9192"
[[route]]
zone = a
paths = ["/a"
[limits]
per_ip = 6"#;
    assert_eq!(
        shown(text),
        r#"error: a value must be a number, true, false, or a text in quotes
 --> wsguard.toml:2:11
  |
2 | workers = ten
  |           ^^^
  |
  = help: in TOML: `workers = "ten"`

error: TOML needs straight quotes
 --> wsguard.toml:3:15
  |
3 | drain_delay = “5s”
  |               ^^^^
  |
  = help: in TOML: `drain_delay = "5s"`

error: a key without a value
 --> wsguard.toml:4:16
  |
4 | drain_timeout =
  |                ^
  |
  = help: write a value after `=`, or remove the line

error: a key and its value need `=` between them
 --> wsguard.toml:5:13
  |
5 | watch_config: yes
  |             ^
  |
  = help: in TOML: `watch_config = true`

error: a line has no comma or semicolon at its end
 --> wsguard.toml:6:21
  |
6 | table_size = 100_000,
  |                     ^
  |
  = help: in TOML: `table_size = 100_000`

error: a line has no comma or semicolon at its end
 --> wsguard.toml:8:8
  |
8 | rate = 10/s;   # by the second
  |        ^^^^^
  |
  = help: in TOML: `rate = "10/s"`

error: a value must be a number, true, false, or a text in quotes
  --> wsguard.toml:11:10
   |
11 | hosts = [wsguard, a.b]
   |          ^^^^^^^
   |
   = help: in TOML: `hosts = ["wsguard", "a.b"]`

error: `listen` is written twice
  --> wsguard.toml:13:1
   |
12 | listen = "127.0.0.1:9191"
   | ------------------------- the first
13 | listen = "127.0.0.1:9192"
   | ^^^^^^
   |
   = help: remove one of the two

error: a value must be a number, true, false, or a text in quotes
  --> wsguard.toml:15:8
   |
15 | zone = a
   |        ^
   |
   = help: in TOML: `zone = "a"`

error: missing comma between array elements, expected `,`
  --> wsguard.toml:17:1
   |
17 | [limits]
   | ^
   |
   = help: the list before it is missing its `]`
   = note: the rest of the file is checked once it is TOML"#
    );
}

#[test]
fn another_language() {
    for text in [
        "server {\n    listen 80;\n}\n",
        "# Ours.\n\nlisten: 80\n",
        "{ \"bind\": 80 }",
    ] {
        let rejected = compile(text, "wsguard.toml").unwrap_err();
        assert_eq!(rejected.mistakes.len(), 1, "{text}");
        let last: Vec<String> = rejected.render(false).lines().map(str::to_owned).collect();
        assert!(last[0] == "error: this is not TOML", "{last:?}");
        assert!(
            last[last.len() - 2].contains("it begins with [[listener]] and on the next line: bind"),
            "{last:?}"
        );
    }
}

#[test]
fn a_network_with_host_bits_after_a_character_of_two_bytes() {
    let text = r#"[zone."é"]
[client_ip] # é
trusted_proxies = ['é', "10.0.0.1/8"]"#;
    assert_eq!(
        shown(text),
        r#"error: "é" is not a network
 --> wsguard.toml:3:20
  |
3 | trusted_proxies = ['é', "10.0.0.1/8"]
  |                    ^^^
  |
  = help: such as "172.18.0.0/16", "2001:db8::/32" or a bare address; or "loopback", "private", "unix"

error: "10.0.0.1/8" has bits set after its prefix
 --> wsguard.toml:3:25
  |
3 | trusted_proxies = ['é', "10.0.0.1/8"]
  |                         ^^^^^^^^^^^^
  |
  = help: the network is "10.0.0.0/8"; the address alone is "10.0.0.1/32""#
    );
}

#[test]
fn a_table_smaller_than_the_ceiling() {
    let text = r#"[server]
max_connections = 20
table_size = 10"#;
    assert_eq!(
        shown(text),
        r#"error: `table_size` is smaller than `max_connections`: open connections could not all be counted
 --> wsguard.toml:3:14
  |
2 | max_connections = 20
  |                   -- the ceiling
3 | table_size = 10
  |              ^^
  |
  = help: [server] table_size = 20, or more"#
    );
}

#[test]
fn one_bind_twice() {
    let text = r#"[[listener]]
name = "local"
bind = ["0.0.0.0:8080"]"#;
    assert_eq!(
        shown(text),
        r#"error: "0.0.0.0:8080" is bound twice
 --> wsguard.toml:5:9
  |
3 | bind = ["0.0.0.0:8080"]
  |         -------------- the first
4 | [[listener]]
5 | bind = ["0.0.0.0:8080"]
  |         ^^^^^^^^^^^^^^"#
    );
}

#[test]
fn a_zone_that_few_addresses_exhaust() {
    let text = r#"[limits]
per_ip = 5_000"#;
    assert_eq!(
        shown(text),
        r#"warning: 2 addresses exhaust zone "default": `per_ip` 5000 of `connections` 10000
 --> wsguard.toml:2:10
  |
2 | per_ip = 5_000
  |          ^^^^^
  |
  = help: [limits] per_ip = 2499, or less: below a quarter of `connections`; they may send without a limit: [limits.messages] rate = "10/s""#
    );
}

#[test]
fn the_largest_per_ip_with_which_few_addresses_do_not_exhaust_a_zone() {
    for connections in [5, 8, 99, 100, 101, 10_000] {
        let with = |per_ip: u32| shown(&format!("[limits]\nconnections = {connections}\nper_ip = {per_ip}"));
        let shown = with(connections);
        let (_, rest) = shown.split_once("[limits] per_ip = ").unwrap();
        let most: u32 = rest.split_once(',').unwrap().0.parse().unwrap();
        assert_eq!(with(most), "", "{connections}");
        assert_ne!(with(most + 1), "", "{connections}");
    }
}

#[test]
fn a_zone_that_few_addresses_exhaust_and_what_each_may_send() {
    let hint = |messages: &str| {
        let all = shown(&format!("[limits]\nper_ip = 5_000\n[limits.messages]\n{messages}"));
        all.lines().last().unwrap().trim_start_matches("  = help: ").to_owned()
    };
    for (messages, expected) in [
        ("rate = \"5/s\"", "each may send 25000 messages a second"),
        ("preset = \"discord\"", "each may send 10000 messages a second"),
        (
            "rate = \"300/min\"\nper_ip_rate = \"20/s\"",
            "each may send 20 messages a second",
        ),
        (
            "rate = \"1/h\"\nper_ip_rate = \"20/s\"",
            "each may send 2 messages a second",
        ),
        ("per_ip_rate = \"20/min\"", "each may send 1 message a second"),
        (
            "bytes_rate = \"1KiB/s\"",
            "they may send without a limit: [limits.messages] rate = \"10/s\"",
        ),
        (
            "out_rate = \"1/s\"",
            "they may send without a limit: [limits.messages] rate = \"10/s\"",
        ),
    ] {
        let whole = format!("[limits] per_ip = 2499, or less: below a quarter of `connections`; {expected}");
        assert_eq!(hint(messages), whole, "{messages}");
    }
    let network = "[limits.messages]\nrate = \"5/s\"\n[[network]]\nnetworks = [\"10.0.0.0/8\"]\nper_ip = 5_000";
    assert!(
        shown(network).contains("each may send 25000 messages a second"),
        "{}",
        shown(network)
    );
}

#[test]
fn message_limits_that_can_not_be_read() {
    let text = r#"[limits.messages]
burst = 20
bytes_rate = "64k/s"
out_bytes_rate = "2GiB/s"
max_size = "0B"
strict_frames = "on"
notice = "slow\tdown"
on_exceeds = "delay"
[zone.realtime.messages]
preset = "dead chat"
idle = "5m""#;
    assert_eq!(
        shown(text),
        r#"error: `burst` has no rate: none is set here or inherited
 --> wsguard.toml:2:9
  |
2 | burst = 20
  |         ^^
  |
  = help: set rate = "10/s" in the same table

error: `bytes_rate` is not a byte rate
 --> wsguard.toml:3:14
  |
3 | bytes_rate = "64k/s"
  |              ^^^^^^^
  |
  = help: did you mean "64KiB/s"?

error: `out_bytes_rate` is out of range
 --> wsguard.toml:4:18
  |
4 | out_bytes_rate = "2GiB/s"
  |                  ^^^^^^^^
  |
  = help: from 1B/h to 1GiB/s; or "off"

error: `max_size` is out of range
 --> wsguard.toml:5:12
  |
5 | max_size = "0B"
  |            ^^^^
  |
  = help: from 1B to 1GiB; or "off"

error: `strict_frames` must be true or false
 --> wsguard.toml:6:17
  |
6 | strict_frames = "on"
  |                 ^^^^
  |
  = help: without quotes; or "auto"

error: `notice` has control characters
 --> wsguard.toml:7:10
  |
7 | notice = "slow\tdown"
  |          ^^^^^^^^^^^^
  |
  = help: write one line without tabs or other control characters

error: unknown key `on_exceeds`
 --> wsguard.toml:8:1
  |
8 | on_exceeds = "delay"
  | ^^^^^^^^^^
  |
  = help: did you mean `on_exceed`?

error: `preset` can't be "dead chat"
  --> wsguard.toml:10:10
   |
10 | preset = "dead chat"
   |          ^^^^^^^^^^^
   |
   = help: did you mean "dead-chat"?

error: unknown key `idle`
  --> wsguard.toml:11:1
   |
11 | idle = "5m"
   | ^^^^
   |
   = help: `idle` belongs in [limits.timeouts]"#
    );
}

#[test]
fn message_limits_that_are_probably_not_intended() {
    let text = r#"[limits.timeouts]
idle = "30s"
[limits.messages]
preset = "dead-chat"
rate = "off"
bytes_rate = "64KiB/s"
max_size = "1MiB"
ping = "1m"
[zone.default.messages]
per_ip_rate = "10/min"
[zone.slow.messages]
on_exceed = "delay"
per_ip_rate = "10/min"
max_size = "1KiB"
ping = "off"
replace_ghosts = true
[zone.quiet.messages]
bytes_rate = "off"
notice = "wait {retry_ms} ms"
[[route]]
paths = ["/slow"]
zone = "slow"
[[route]]
paths = ["/quiet"]
zone = "quiet"
[[route]]"#;
    assert_eq!(
        shown(text),
        r#"warning: `preset` has no effect: `rate` in the same table is off
 --> wsguard.toml:4:10
  |
4 | preset = "dead-chat"
  |          ^^^^^^^^^^^
5 | rate = "off"
  |        ----- this one
  |
  = help: remove one of the two; a preset is a `rate` with its `burst`

warning: a message of more than 64KiB can never pass: `max_size` is 1MiB, `bytes_burst` 64KiB
 --> wsguard.toml:7:12
  |
7 | max_size = "1MiB"
  |            ^^^^^^
  |
  = help: max_size = "64KiB", or a larger `bytes_burst`; or on_exceed = "delay"

warning: `idle` 30s closes a silent connection before its first `ping` after 1m
 --> wsguard.toml:8:8
  |
8 | ping = "1m"
  |        ^^^^
  |
  = help: make `ping` shorter than `idle`, or set idle = "off": `ping` detects dead clients

warning: `per_ip_rate` 10/min is less than one in 5s, the longest delay: each message above it closes the connection
  --> wsguard.toml:13:15
   |
13 | per_ip_rate = "10/min"
   |               ^^^^^^^^
   |
   = help: raise the rate, or set on_exceed = "close"

warning: `replace_ghosts` has no effect: `ping` is off here
  --> wsguard.toml:16:18
   |
16 | replace_ghosts = true
   |                  ^^^^
   |
   = help: at `per_ip`, a new connection takes the slot of one that left a `ping` unanswered; set ping = "30s"

warning: `notice` is never sent: no rate limits what clients send
  --> wsguard.toml:19:10
   |
19 | notice = "wait {retry_ms} ms"
   |          ^^^^^^^^^^^^^^^^^^^^
   |
   = help: it is sent before `rate`, `per_ip_rate` or `bytes_rate` acts; set rate = "10/s" in the same table"#
    );
}

#[test]
fn a_path_without_its_slash() {
    let text = r#"[[route]]
allow = []
paths = ["ws"]"#;
    assert_eq!(
        shown(text),
        r#"error: "ws" does not begin with `/`
 --> wsguard.toml:3:10
  |
3 | paths = ["ws"]
  |          ^^^^
  |
  = help: write "/ws""#
    );
}

#[test]
fn equal_networks() {
    let text = r#"[[network]]
name = "a"
networks = ["10.0.0.0/8"]
per_ip = 100
[[network]]
name = "b"
networks = ["10.0.0.0/8"]
per_ip = 200"#;
    assert_eq!(
        shown(text),
        r#"error: "10.0.0.0/8" is listed twice
 --> wsguard.toml:7:13
  |
3 | networks = ["10.0.0.0/8"]
  |             ------------ the first
...
7 | networks = ["10.0.0.0/8"]
  |             ^^^^^^^^^^^^
  |
  = help: the longest prefix decides, and these are equally long"#
    );
}

#[test]
fn a_value_over_two_lines() {
    let text = r#"[limits]
per_ip = """5
0""""#;
    assert_eq!(
        shown(text),
        r#"error: `per_ip` is not a whole number
 --> wsguard.toml:2:10
  |
2 |   per_ip = """5
  |  __________^
3 | | 0"""
  | |____^
  |
  = help: from 1 to 100_000_000; or "off""#
    );
}

#[test]
fn a_proxy_protocol_without_trusted_proxies() {
    let text = r#"[[listener]]
bind = ["127.0.0.1:9000"]
accept_proxy_protocol = true"#;
    assert_eq!(
        shown(text),
        r#"error: `accept_proxy_protocol` without trusted proxies: every connection would be refused
 --> wsguard.toml:3:25
  |
3 | accept_proxy_protocol = true
  |                         ^^^^
  |
  = help: list the proxies that send the header in [client_ip] trusted_proxies; it is accepted only from them"#
    );
}

#[test]
fn routes_that_leave_requests_without_a_route() {
    let text = r#"[[route]]
name = "chat"
paths = ["/ws"]
[[route]]
name = "again"
paths = ["/ws/again"]"#;
    assert_eq!(
        shown(text),
        r#"warning: route "again" can't be reached
 --> wsguard.toml:4:1
  |
4 | [[route]]
  | ^^^^^^^^^
  |
  = help: earlier routes take all of its requests; the first match wins

warning: requests that match no route get 404
 --> wsguard.toml:4:1
  |
4 | [[route]]
  | ^^^^^^^^^
  |
  = help: add a last [[route]] without hosts, paths and networks to take them; where 404 is intended, give it `refuse = 404`"#
    );
}

#[test]
fn a_finding_about_the_file_as_a_whole() {
    assert_eq!(
        compile("", "empty.toml").unwrap_err().render(false),
        r#"error: there is no [[listener]]
--> empty.toml:1:1
 = help: [[listener]] and on the next line: bind = ["0.0.0.0:8080"]

error: there is no [upstream.NAME]
--> empty.toml:1:1
 = help: [upstream.chat] and on the next line: servers = ["127.0.0.1:3000"]"#
    );
}

#[test]
fn a_file_that_does_not_exist() {
    assert_eq!(
        load("/nonexistent/wsguard.toml".as_ref()).unwrap_err().render(false),
        r#"error: /nonexistent/wsguard.toml can't be read: No such file or directory (os error 2)"#
    );
}

#[test]
fn the_command_line() {
    let options = QuickOptions {
        listen: vec![":8080".into()],
        upstream: vec!["ws://127.0.0.1:3000/chat".into()],
        ..QuickOptions::default()
    };
    assert_eq!(
        quick(&options).unwrap_err().render(false),
        r#"error: ":8080" is not an address to bind
 --> command line:2:9
  |
2 | bind = [":8080"]
  |         ^^^^^^^
  |
  = help: for every IPv4 address: "0.0.0.0:8080"; for IPv6: "[::]:8080"

error: "ws://127.0.0.1:3000/chat" is not a server
 --> command line:5:12
  |
5 | servers = ["ws://127.0.0.1:3000/chat"]
  |            ^^^^^^^^^^^^^^^^^^^^^^^^^^
  |
  = help: host and port only, without scheme and path: "127.0.0.1:3000""#
    );
}

#[test]
fn color_adds_escapes_and_nothing_else() {
    let rejected = compile("[servre]", "x").unwrap_err();
    let colored = rejected.render(true);
    assert!(colored.contains("\u{1b}["), "{colored}");
    let mut plain = String::new();
    let mut rest = colored.as_str();
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    assert_eq!(plain + rest, rejected.render(false));
}

#[test]
fn hints_propose_what_was_probably_meant() {
    for (text, hint) in [
        // Units, as nginx, HAProxy and people write them.
        ("[limits]\nrate = \"5r/s\"", "did you mean \"5/s\"?"),
        ("[limits]\nrate = \"10r/m\"", "did you mean \"10/min\"?"),
        ("[limits]\nper_ip_rate = \"1/10s\"", "did you mean \"6/min\"?"),
        ("[limits]\nper_ip_rate = 5", "did you mean \"5/s\"?"),
        ("[log]\nsample = \"100/second\"", "did you mean \"100/s\"?"),
        ("[limits]\nretry_after = 10", "did you mean \"10s\"?"),
        ("[limits]\nretry_after = \"1d\"", "did you mean \"24h\"?"),
        ("[limits.timeouts]\nidle = \"5 minutes\"", "did you mean \"5m\"?"),
        ("[limits.messages]\nmax_size = \"10m\"", "did you mean \"10MiB\"?"),
        ("[limits.messages]\nmax_size = 65536", "did you mean \"64KiB\"?"),
        ("[limits.messages]\nbytes_rate = \"1MB/s\"", "did you mean \"1MiB/s\"?"),
        // A value that the key does not take is not proposed.
        (
            "[limits]\nretry_after = \"2d\"",
            "such as \"250ms\", \"10s\", \"5m\" or \"1h30m\", in quotes",
        ),
        (
            "[limits.messages]\nmax_size = \"2GB\"",
            "such as \"512B\", \"64KiB\" or \"1MiB\", a whole number and its unit, in quotes; or \"off\"",
        ),
        (
            "[limits.messages]\nrate = 2_000_000",
            "such as \"10/s\", \"300/min\" or \"1000/h\", a whole number from 1 and its unit, in quotes; or \"off\"",
        ),
        // Words.
        (
            "[limits.messages]\nnotice = false",
            "the text to send to the client, or \"off\"",
        ),
        ("[log]\naccess = true", "one of \"all\", \"rejected\", \"off\""),
        ("[admin]\nlisten = 9100", "such as \"127.0.0.1:9100\", or \"off\""),
        ("[admin]\nlisten = \":9100\"", "such as \"127.0.0.1:9100\", or \"off\""),
        ("[admin]\nlisten = true", "such as \"127.0.0.1:9191\", or \"off\""),
        ("[[route]]\nzone = 1", "one of \"default\", \"exempt\""),
        ("[[route]]\nupstream = true", "one of \"chat\""),
        ("[[route]]\nname = 1", "such as \"chat\""),
        (
            "[limits]\nper_ip = 0",
            "from 1 to 100_000_000; \"off\" removes the limit; to admit only some clients, use a route's `allow`",
        ),
        ("[server]\nworkers = 0", "from 1 to 1024; or \"auto\""),
        // Trusted proxies.
        (
            "[client_ip]\ntrusted_proxies = [\"localhost\"]",
            "did you mean \"loopback\"?",
        ),
        (
            "[client_ip]\ntrusted_proxies = [\"privat\"]",
            "did you mean \"private\"?",
        ),
        (
            "[client_ip]\ntrusted_proxies = [\"nginx\"]",
            "names are not resolved here: its address or its network, such as \"172.18.0.0/16\", \"2001:db8::/32\" or a bare address; or \"loopback\", \"private\", \"unix\"",
        ),
        (
            "[client_ip]\ntrusted_proxies = [\"*\"]",
            "such as \"172.18.0.0/16\", \"2001:db8::/32\" or a bare address; or \"loopback\", \"private\", \"unix\"",
        ),
        // Planned keys and missing names.
        (
            "[[listener]]\nbind = [\"0.0.0.0:1\"]\n[listener.tls]",
            "TLS stays with nginx or HAProxy in front of wsguard: see conf/deploy/behind-nginx.md",
        ),
        (
            "[server]\nssl_certificate = \"a.pem\"",
            "TLS stays with nginx or HAProxy in front of wsguard: see conf/deploy/behind-nginx.md",
        ),
        (
            "[tls]\ncert = \"a.pem\"",
            "TLS stays with nginx or HAProxy in front of wsguard: see conf/deploy/behind-nginx.md",
        ),
        (
            "[zone]\nper_ip = 5",
            "each zone has a name: [zone.chat] instead of [zone]",
        ),
    ] {
        let rejected = compile(&format!("{text}\n{REQUIRED}"), "x").unwrap_err();
        let hints: Vec<_> = rejected
            .mistakes
            .iter()
            .map(|mistake| mistake.hint.as_deref())
            .collect();
        assert_eq!(hints, [Some(hint)], "{text}");
    }
}

#[test]
fn an_upstream_without_a_name_is_one_mistake() {
    let text = r#"[[listener]]
bind = ["0.0.0.0:8080"]
[upstream]
balance = "hash-ip"
servers = ["127.0.0.1:3000"]"#;
    assert_eq!(
        compile(text, "wsguard.toml").unwrap_err().render(false),
        r#"error: `balance` directly in [upstream]
 --> wsguard.toml:4:1
  |
4 | balance = "hash-ip"
  | ^^^^^^^
  |
  = help: each upstream has a name: [upstream.chat] instead of [upstream]"#
    );
}

#[test]
fn a_server_that_is_wsguard_itself() {
    let text = r#"[upstream.again]
servers = ["127.0.0.1:8080"]
[[route]]
upstream = "again""#;
    assert_eq!(
        shown(text),
        r#"error: "127.0.0.1:8080" is wsguard's own listener: every connection would come back to it
 --> wsguard.toml:2:12
  |
2 | servers = ["127.0.0.1:8080"]
  |            ^^^^^^^^^^^^^^^^
  |
  = help: name the address of your own server; its port differs from that of `bind`"#
    );
}

/// Following the hint gives the value of the example.
#[test]
fn the_values_of_the_examples_in_the_notation_of_other_programs() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/examples");
    let mut tried = 0;
    for file in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        let meant = format!("{:?}", compile(&text, "x").unwrap().policy);
        let lines: Vec<&str> = text.lines().collect();
        for (nth, (key, value)) in lines
            .iter()
            .enumerate()
            .filter_map(|(nth, line)| Some((nth, assigned(line)?)))
        {
            for elsewhere in elsewhere(key, value) {
                let with = |line: &str| {
                    let mut lines = lines.clone();
                    lines[nth] = line;
                    compile(&lines.join("\n"), "x")
                };
                let rejected = with(&elsewhere).unwrap_err();
                let [mistake] = &rejected.mistakes[..] else {
                    panic!("one mistake in {elsewhere}: {rejected}")
                };
                assert_eq!(rejected.source.place(mistake).0, nth + 1, "{rejected}");
                let hint = mistake.hint.as_deref().unwrap_or_else(|| panic!("no hint: {rejected}"));
                let followed = match hint.strip_prefix("in TOML: `") {
                    Some(line) => line.trim_end_matches('`').to_owned(),
                    None => format!(
                        "{key} = {}",
                        hint.trim_start_matches("did you mean ").trim_end_matches('?')
                    ),
                };
                let followed = with(&followed).unwrap_or_else(|mistakes| panic!("{mistakes} of {rejected}"));
                assert_eq!(format!("{:?}", followed.policy), meant, "{rejected}");
                tried += 1;
            }
        }
    }
    assert!(tried > 100, "{tried}");
}

fn assigned(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(" = ").filter(|(key, _)| !key.starts_with('#'))?;
    Some((key, value.split(" #").next().unwrap_or(value).trim()))
}

/// Lines that someone might write instead of this one.
fn elsewhere(key: &str, value: &str) -> Vec<String> {
    if !value.contains('"') || value.contains('\'') {
        return Vec::new();
    }
    let bare = value.replace('"', "");
    let mut lines = vec![
        format!("{key} = {bare}"),
        format!("{key} {bare};"),
        format!("{key}: {value}"),
        format!("{key} = {value};"),
        format!("{key} = {},", value.replace('"', "”")),
    ];
    for (here, there) in [
        ("/s", "r/s"),
        ("/s", "/sec"),
        ("/min", "r/m"),
        ("KiB", "k"),
        ("MiB", "MB"),
        ("24h", "1d"),
        ("2m", "2 min"),
    ] {
        let is_bytes = value.contains("iB") && here.starts_with('/');
        let other = value.replace(here, there);
        if other != value && !is_bytes && !value.starts_with('[') {
            lines.push(format!("{key} = {other}"));
        }
    }
    if let Some(seconds) = bare.strip_suffix('s').filter(|number| number.parse::<u32>().is_ok()) {
        lines.push(format!("{key} = {seconds}"));
    }
    lines
}

fn shown(text: &str) -> String {
    match compile(&format!("{text}\n{REQUIRED}"), "wsguard.toml") {
        Ok(checked) => checked.render_warnings(false),
        Err(rejected) => rejected.render(false),
    }
}
