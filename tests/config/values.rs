//! What the values of a configuration mean.

use std::time::Duration;

use proptest::prelude::*;
use wsguard::config::findings::Finding;
use wsguard::config::policy::{NetworkPolicy, Policy, RejectWith, ZonePolicy};
use wsguard::config::{Checked, QuickOptions, compile, defaults, keys, load, quick};
use wsguard::limit::rules::{ClientRules, Rate};
use wsguard::relay::rules::MessageRules;

const MANUAL: &str = include_str!("../../conf/wsguard.toml");
const MINIMAL: &str = include_str!("../../conf/minimal.toml");
const INSTALLED: &str = include_str!("../../conf/installed.toml");
const SERVICE: &str = include_str!("../../systemd/wsguard.service");
const SOCKET: &str = include_str!("../../systemd/wsguard.socket");
const REQUIRED: &str = "[[listener]]\nbind = [\"0.0.0.0:8080\"]\n[upstream.chat]\nservers = [\"127.0.0.1:3000\"]\n";

mod files {
    use super::*;

    #[test]
    fn the_files_that_are_shipped_compile_without_warnings() {
        for (name, text) in [
            ("wsguard.toml", MANUAL),
            ("minimal.toml", MINIMAL),
            ("installed.toml", INSTALLED),
        ] {
            assert_eq!(policy_of(text, name).render_warnings(false), "", "{name}");
        }
    }

    #[test]
    fn the_file_that_is_installed_fits_the_units() {
        let policy = policy(INSTALLED);
        let [stop] = settings(SERVICE, "TimeoutStopSec")[..] else {
            panic!("one TimeoutStopSec")
        };
        let stop = Duration::from_secs(stop.trim_end_matches('s').parse().unwrap());
        let drain = policy.server.drain_delay + policy.server.drain_timeout;
        assert!(stop > drain, "{stop:?} for {drain:?}");

        let front = policy.listeners.first().unwrap();
        assert_eq!(settings(SOCKET, "FileDescriptorName"), [&*front.name]);
        // Several would be matched by address, and these addresses differ.
        assert_eq!(front.bind.len(), 1, "one bind takes every socket of its name");
        let addresses = settings(SOCKET, "ListenStream");
        assert!(addresses.len() > 1, "{addresses:?}");
        assert!(addresses.contains(&front.bind[0].to_string().as_str()), "{addresses:?}");
    }

    /// The values of a unit's key, in order.
    fn settings<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
        unit.lines()
            .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .collect()
    }

    #[test]
    fn the_manual_shows_the_defaults() {
        let (manual, required) = (policy(MANUAL), policy(REQUIRED));
        assert_eq!(manual.server, required.server);
        assert_eq!(manual.listeners, required.listeners);
        assert_eq!(format!("{:?}", manual.identity), format!("{:?}", required.identity));
        assert_eq!(manual.zones, required.zones);
        assert_eq!(format!("{:?}", manual.networks), format!("{:?}", required.networks));
        assert_eq!(manual.routes, required.routes);
        assert_eq!(manual.upstreams, required.upstreams);
        assert_eq!(manual.admin, required.admin);
        assert_eq!(manual.log, required.log);
        assert_eq!(format!("{manual:?}"), format!("{required:?}"));
    }

    #[test]
    fn the_manual_has_every_key_live_but_those_of_examples() {
        for (table, key) in keys().filter(|(table, _)| !table.is_empty()) {
            let example = matches!(table, "network" | "route") || (table, key) == ("listener", "name");
            // A burst has no default, and can't be written where the rate is off.
            let wanted = if table == "limits.messages" && key.ends_with("burst") {
                &format!("\n# messages.{key}")
            } else if example || matches!(key, "timeouts" | "messages") {
                &format!("\n# {key}")
            } else {
                &format!("\n{key}")
            };
            let has = |start: &str| {
                MANUAL.match_indices(start).any(|(at, _)| {
                    let rest = MANUAL[at + start.len()..].trim_start();
                    rest.starts_with('=') || rest.starts_with('.')
                })
            };
            assert!(has(wanted), "{table}.{key}");
        }
    }

    #[test]
    fn every_example_of_the_manual_compiles_once_its_comment_sign_is_taken_away() {
        // An example line is "# key = value" or "# [table]"; prose is not.
        let uncommented: Vec<&str> = MANUAL
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(rest) if rest.starts_with('[') && rest.ends_with(']') => rest,
                Some(rest) if rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) => rest,
                _ => line,
            })
            .collect();
        let checked = policy_of(&uncommented.join("\n"), "examples");
        assert_eq!(checked.policy.routes.iter().count(), 3);
        assert_eq!(titles(&checked.warnings), [""; 0]);
        assert_eq!(
            zone(&checked.policy, "realtime").timeouts.idle,
            Some(Duration::from_secs(300))
        );
    }

    #[test]
    fn a_file_that_can_not_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("none.toml");
        let text = load(&missing).unwrap_err().render(false);
        assert!(text.contains("none.toml can't be read: No such file"), "{text}");
        let binary = folder.path().join("binary.toml");
        std::fs::write(&binary, b"[server]\n\xff\xfe").unwrap();
        let text = load(&binary).unwrap_err().render(false);
        assert!(text.contains("binary.toml is not UTF-8: see line 2"), "{text}");
        assert!(load(folder.path()).is_err(), "a folder is no file");
        let good = folder.path().join("good.toml");
        std::fs::write(&good, MINIMAL).unwrap();
        assert_eq!(load(&good).unwrap().source.name, good.display().to_string());
    }

    #[test]
    fn a_planned_key_is_a_mistake_and_never_ignored() {
        let text = "[[listener]]\nbind = [\"0.0.0.0:1\"]\nhttp = \"forward\"\n[listener.tls]\n[upstream.u]\n\
                    servers = [\"a:1\"]\nbalance = \"hash-sid\"\nslow_start = \"1s\"\nmax_connections = 1\n[upstream.u.health]\n";
        let rejected = compile(text, "x").unwrap_err();
        assert_eq!(rejected.mistakes.len(), 6, "{rejected}");
        assert!(
            rejected
                .mistakes
                .iter()
                .all(|m| m.title.ends_with("is not in this version")),
            "{rejected}"
        );
    }
}

mod defaults_and_inheritance {
    use super::*;

    #[test]
    fn a_key_that_is_not_written_has_its_default() {
        let policy = policy(REQUIRED);
        let listener = &policy.listeners[0];
        assert_eq!(
            (&*listener.name, listener.max_head_size, listener.max_headers),
            ("0.0.0.0:8080", 16_384, 64)
        );
        assert_eq!((policy.server.workers, policy.server.max_connections), (None, None));
        assert_eq!(*policy.zones[0], defaults::zone("default"));
        let exempt = &policy.zones[1];
        assert_eq!(
            (&*exempt.name, exempt.exempt, exempt.rules.connections),
            ("exempt", true, Some(1000))
        );
        assert_eq!(exempt.client, ClientRules::default());
        let strict = MessageRules {
            strict_frames: true,
            ..MessageRules::OFF
        };
        assert_eq!(policy.zones[0].messages, strict);
        assert_eq!(exempt.messages, MessageRules::OFF);
        assert_eq!(policy.admin.listen, Some(defaults::ADMIN_LISTEN.parse().unwrap()));
        let route = policy.routes.iter().next().unwrap();
        assert_eq!((route.zone, route.upstream, route.is_unconditional()), (0, 0, true));
    }

    #[test]
    fn a_rate_without_a_burst_has_its_own_number_as_burst_and_never_an_inherited_one() {
        for (text, expected) in [
            ("", (10, 50)),
            ("[limits]\nper_ip_rate = \"20/s\"", (20, 20)),
            ("[limits]\nper_ip_burst = 7", (10, 7)),
            ("[limits]\nper_ip_rate = \"20/s\"\nper_ip_burst = 7", (20, 7)),
        ] {
            let rate = zone(&policy(&with(text)), "default").client.rate.unwrap();
            assert_eq!((rate.tokens.get(), rate.burst.get()), expected, "{text}");
        }
        let zones = "[limits]\nper_ip_rate = \"20/s\"\nper_ip_burst = 7\n[zone.a]\n[zone.b]\nper_ip_rate = \"3/s\"\n\
                     [zone.c]\nper_ip_burst = 9\n[zone.d]\nper_ip_rate = \"off\"\n[zone.e]\nper_ip_rate=\"4/min\"\nper_ip_burst = 2";
        let policy = policy(&with(zones));
        let rate = |name| {
            zone(&policy, name)
                .client
                .rate
                .map(|rate: Rate| (rate.tokens.get(), rate.burst.get()))
        };
        assert_eq!(rate("a"), Some((20, 7)));
        assert_eq!(rate("b"), Some((3, 3)));
        assert_eq!(rate("c"), Some((20, 9)));
        assert_eq!(rate("d"), None);
        assert_eq!(rate("e"), Some((4, 2)));
        assert_eq!(rate("exempt"), None);
    }

    #[test]
    fn zones_inherit_limits_and_exempt_ones_no_per_client_limit() {
        let text = "[limits]\nmode = \"observe\"\nconnections = 500\nrate = \"100/min\"\nper_ip = 5\nreject_with = \"close\"\n\
                    retry_after = \"9s\"\n[limits.timeouts]\nidle = \"1h\"\ndial = \"off\"\n[zone.a]\nper_ip = \"off\"\n\
                    [zone.a.timeouts]\nidle = \"off\"\n[zone.s2s]\nexempt = true\nper_ip = 9\n[zone.exempt]\nper_ip_rate = \"8/s\"";
        let policy = policy(&with(text));
        let names: Vec<&str> = policy.zones.iter().map(|zone| &*zone.name).collect();
        assert_eq!(names, ["default", "exempt", "a", "s2s"]);
        let a = zone(&policy, "a");
        assert_eq!(
            (a.client.per_ip, a.timeouts.idle, a.dial, a.rules.observe),
            (None, None, None, true)
        );
        assert_eq!(
            (a.reject_with, a.retry_after),
            (RejectWith::Close, Duration::from_secs(9))
        );
        let rate = a.rules.rate.unwrap();
        assert_eq!(
            (rate.tokens.get(), rate.per, rate.burst.get()),
            (100, Duration::from_secs(60), 100)
        );
        let s2s = zone(&policy, "s2s");
        assert_eq!((s2s.exempt, s2s.client.per_ip, s2s.client.rate), (true, Some(9), None));
        assert_eq!(
            (s2s.rules.connections, s2s.timeouts.idle),
            (Some(500), Some(Duration::from_secs(3600)))
        );
        let exempt = zone(&policy, "exempt");
        assert_eq!(
            (exempt.client.per_ip, exempt.client.rate.unwrap().burst.get()),
            (None, 8)
        );
        assert_eq!(exempt.rules.connections, Some(1000));
    }

    #[test]
    fn a_network_overrides_what_it_writes_and_the_longest_prefix_decides() {
        let text = "[[network]]\nname = \"isp\"\nnetworks = [\"203.0.113.0/24\"]\nper_ip = 400\n[[network]]\n\
                    networks = [\"203.0.113.0/28\", \"2001:db8::/32\"]\nper_ip = \"off\"\nper_ip_rate = \"5/s\"";
        let policy = policy(&with(text));
        let base = zone(&policy, "default").client;
        let over = |ip: &str| {
            policy
                .networks
                .longest(ip.parse().unwrap())
                .map(|n: &NetworkPolicy| (&*n.name, n.over(base)))
        };
        let (name, rules) = over("203.0.113.200").unwrap();
        assert_eq!((name, rules.per_ip, rules.rate), ("isp", Some(400), base.rate));
        let (name, rules) = over("203.0.113.1").unwrap();
        assert_eq!(
            (name, rules.per_ip, rules.rate.unwrap().burst.get()),
            ("203.0.113.0/28", None, 5)
        );
        assert_eq!(over("198.51.100.1"), None);
    }

    #[test]
    fn upstreams_keep_the_order_written_and_words_name_networks() {
        let text = "[[listener]]\nbind = [\"0.0.0.0:1\"]\n[upstream.zebra]\nservers = [\"a:1\"]\n[upstream.ant]\nservers = [\"b:1\"]\n\
                    [[route]]\nupstream = \"ant\"\n[client_ip]\ntrusted_proxies = [\"loopback\", \"private\", \"unix\", \"192.0.2.1\"]";
        let policy = policy(text);
        assert_eq!(
            policy.upstreams.iter().map(|up| &*up.rules.name).collect::<Vec<_>>(),
            ["zebra", "ant"]
        );
        assert_eq!(policy.routes.iter().next().unwrap().upstream, 1);
        assert!(policy.identity.trust_unix);
        for (ip, trusted) in [
            ("127.9.9.9", true),
            ("::1", true),
            ("10.1.2.3", true),
            ("172.31.0.1", true),
            ("fd00::1", true),
            ("192.0.2.1", true),
            ("::ffff:10.0.0.1", true),
            ("192.0.2.2", false),
            ("100.64.0.1", false),
            ("172.32.0.1", false),
        ] {
            assert_eq!(policy.identity.trusted.contains(ip.parse().unwrap()), trusted, "{ip}");
        }
    }

    #[test]
    fn names_of_headers_have_any_case() {
        let headers = |list: &str| {
            policy(&with(&format!("[client_ip]\nheaders = [{list}]")))
                .identity
                .headers
        };
        let names = ["X-Forwarded-For", "X-REAL-IP", "Forwarded", "CF-Connecting-IP"].map(|name| format!("{name:?}"));
        let list = names.join(", ");
        assert_eq!(headers(&list), headers(&list.to_lowercase()));
        assert_eq!(headers(&list).len(), 4);
    }

    #[test]
    fn the_command_line_is_compiled_as_a_file() {
        let options = QuickOptions {
            listen: vec!["0.0.0.0:8080".into()],
            upstream: vec!["127.0.0.1:3000".into()],
            per_ip: Some("8".into()),
            connections: Some("200".into()),
            trust: vec!["loopback".into()],
            admin: Some("127.0.0.1:9192".into()),
        };
        let checked = quick(&options).unwrap();
        assert_eq!(checked.policy.admin.listen, Some("127.0.0.1:9192".parse().unwrap()));
        let off = QuickOptions {
            admin: Some("off".into()),
            ..options.clone()
        };
        assert_eq!(quick(&off).unwrap().policy.admin.listen, None);
        assert_eq!(checked.render_warnings(false), "");
        assert_eq!(zone(&checked.policy, "default").client.per_ip, Some(8));
        assert_eq!(zone(&checked.policy, "default").rules.connections, Some(200));
        assert!(checked.policy.identity.trusted.contains("127.0.0.1".parse().unwrap()));
        let wrong = QuickOptions {
            per_ip: Some("many\"\n".into()),
            listen: vec!["80".into()],
            ..options
        };
        let rejected = quick(&wrong).unwrap_err();
        assert_eq!(rejected.source.name, "command line");
        assert_eq!(
            titles(&rejected.mistakes),
            ["\"80\" is not an address to bind", "`per_ip` is not a whole number"]
        );
    }
}

mod messages {
    use super::*;
    use wsguard::relay::rules::{OnExceed, Pong};

    fn rules(text: &str, name: &str) -> MessageRules {
        zone(&policy(&with(text)), name).messages.clone()
    }

    fn numbers(rate: Option<Rate>) -> Option<(u32, u64, u32)> {
        rate.map(|rate| (rate.tokens.get(), rate.per.as_secs(), rate.burst.get()))
    }

    #[test]
    fn each_key_is_compiled_to_its_own() {
        let text = "[limits.timeouts]\nfirst_message = \"15s\"\n[limits.messages]\nrate = \"1/s\"\nburst = 2\n\
                    per_ip_rate = \"3/min\"\nper_ip_burst = 4\nbytes_rate = \"5KiB/s\"\nbytes_burst = \"6KiB\"\n\
                    max_size = \"7B\"\nout_rate = \"8/h\"\nout_burst = 9\nout_per_ip_rate = \"10/s\"\n\
                    out_per_ip_burst = 11\nout_bytes_rate = \"12B/min\"\nout_bytes_burst = \"13B\"\n\
                    on_exceed = \"delay\"\nnotice = \"wait {retry_ms}\"\nstrict_frames = false\nping = \"30s\"\n\
                    pong_timeout = \"5s\"\npong = \"tcp\"\nreplace_ghosts = false";
        let rules = rules(text, "default");
        assert_eq!(numbers(rules.rate), Some((1, 1, 2)));
        assert_eq!(numbers(rules.per_ip_rate), Some((3, 60, 4)));
        assert_eq!(numbers(rules.bytes_rate), Some((5 << 10, 1, 6 << 10)));
        assert_eq!(rules.max_size, Some(7));
        assert_eq!(numbers(rules.out_rate), Some((8, 3600, 9)));
        assert_eq!(numbers(rules.out_per_ip_rate), Some((10, 1, 11)));
        assert_eq!(numbers(rules.out_bytes_rate), Some((12, 60, 13)));
        assert_eq!(
            (rules.on_exceed, rules.strict_frames, rules.pong, rules.replace_ghosts),
            (OnExceed::Delay, false, Pong::Tcp, false)
        );
        assert_eq!(rules.notice.as_deref(), Some("wait {retry_ms}"));
        assert_eq!(
            [rules.ping, Some(rules.pong_timeout), rules.first_message],
            [30, 5, 15].map(|seconds| Some(Duration::from_secs(seconds)))
        );
    }

    #[test]
    fn the_ends_of_each_range_are_in_it() {
        let least = "[limits.timeouts]\nfirst_message = \"1ms\"\n[limits.messages]\nbytes_rate = \"1B/h\"\n\
                     bytes_burst = \"1B\"\nmax_size = \"1B\"\nping = \"1s\"\npong_timeout = \"100ms\"";
        let most = "[limits.timeouts]\nfirst_message = \"1h\"\n[limits.messages]\nbytes_rate = \"1GiB/s\"\n\
                    bytes_burst = \"1GiB\"\nmax_size = \"1GiB\"\nping = \"1h\"\npong_timeout = \"1h\"\n\
                    rate = \"1000000/s\"\nburst = 1_000_000";
        assert_eq!(numbers(rules(least, "default").bytes_rate), Some((1, 3600, 1)));
        assert_eq!(numbers(rules(most, "default").bytes_rate), Some((1 << 30, 1, 1 << 30)));
        assert_eq!(numbers(rules(most, "default").rate), Some((1_000_000, 1, 1_000_000)));
    }

    #[test]
    fn a_rate_without_a_burst_has_its_own_number_as_burst_and_never_an_inherited_one() {
        let text = "[limits.messages]\nrate = \"5/s\"\nburst = 50\nbytes_rate = \"1KiB/s\"\nbytes_burst = \"1MiB\"\n\
                    [zone.a]\n[zone.b.messages]\nrate = \"3/s\"\nbytes_rate = \"2KiB/s\"\n[zone.c.messages]\nburst = 9\n\
                    bytes_burst = \"9KiB\"\n[zone.d.messages]\nrate = \"off\"\nbytes_rate = \"off\"";
        let both = |name| {
            let rules = rules(text, name);
            let burst = |rate: Option<Rate>| rate.map(|rate| (rate.tokens.get(), rate.burst.get()));
            (burst(rules.rate), burst(rules.bytes_rate))
        };
        assert_eq!(both("a"), (Some((5, 50)), Some((1024, 1 << 20))));
        assert_eq!(both("b"), (Some((3, 3)), Some((2048, 2048))));
        assert_eq!(both("c"), (Some((5, 9)), Some((1024, 9 << 10))));
        assert_eq!(both("d"), (None, None));
    }

    #[test]
    fn a_preset_overrides_what_is_inherited_and_not_the_keys_of_its_table() {
        let dead_chat = Some((5, 1, 5));
        let discord = Some((2, 1, 120));
        for (limits, own, expected) in [
            ("preset = \"dead-chat\"", "", (dead_chat, OnExceed::Close)),
            ("preset = \"discord\"", "", (discord, OnExceed::Close)),
            (
                "preset = \"discord\"",
                "preset = \"dead-chat\"",
                (dead_chat, OnExceed::Close),
            ),
            (
                "rate = \"9/s\"\non_exceed = \"delay\"",
                "preset = \"discord\"",
                (discord, OnExceed::Close),
            ),
            (
                "",
                "preset = \"discord\"\non_exceed = \"delay\"",
                (discord, OnExceed::Delay),
            ),
            (
                "preset = \"discord\"",
                "burst = 60",
                (Some((2, 1, 60)), OnExceed::Close),
            ),
            (
                "",
                "preset = \"discord\"\nburst = 60",
                (Some((2, 1, 60)), OnExceed::Close),
            ),
            (
                "preset = \"discord\"",
                "rate = \"9/s\"",
                (Some((9, 1, 9)), OnExceed::Close),
            ),
            (
                "",
                "preset = \"discord\"\nrate = \"9/s\"",
                (Some((9, 1, 9)), OnExceed::Close),
            ),
            ("", "preset = \"discord\"\nrate = \"off\"", (None, OnExceed::Close)),
            (
                "rate = \"9/s\"\nburst = 8\non_exceed = \"delay\"",
                "preset = \"off\"",
                (None, OnExceed::Delay),
            ),
            (
                "preset = \"discord\"",
                "preset = \"off\"\nrate = \"3/s\"",
                (Some((3, 1, 3)), OnExceed::Close),
            ),
            (
                "preset = \"off\"\nrate = \"3/s\"",
                "",
                (Some((3, 1, 3)), OnExceed::Close),
            ),
        ] {
            let text = format!("[limits.messages]\n{limits}\n[zone.a.messages]\n{own}");
            let rules = rules(&text, "a");
            assert_eq!((numbers(rules.rate), rules.on_exceed), expected, "{text}");
        }
        let others = "[limits.messages]\nper_ip_rate = \"7/s\"\n[zone.a.messages]\npreset = \"off\"";
        assert_eq!(numbers(rules(others, "a").per_ip_rate), Some((7, 1, 7)));
    }

    #[test]
    fn frames_are_checked_strictly_unless_that_is_switched_off() {
        for (limits, own, expected) in [
            ("", "", true),
            ("strict_frames = false", "", false),
            ("strict_frames = false", "strict_frames = \"auto\"", true),
            ("strict_frames = true", "strict_frames = false", false),
            ("strict_frames = \"auto\"", "rate = \"5/s\"", true),
            ("strict_frames = false", "rate = \"5/s\"", false),
            ("rate = \"5/s\"", "strict_frames = false", false),
        ] {
            let text = format!("[limits.messages]\n{limits}\n[zone.a.messages]\n{own}");
            assert_eq!(rules(&text, "a").strict_frames, expected, "{text}");
        }
        assert!(rules("", "default").strict_frames && !rules("", "exempt").strict_frames);
    }

    #[test]
    fn in_an_exempt_zone_frames_are_checked_strictly_where_a_limit_of_the_zone_depends_on_it() {
        for (limits, own, expected) in [
            ("", "", false),
            ("strict_frames = true", "", false),
            ("", "strict_frames = true", true),
            ("", "rate = \"5/s\"", true),
            ("", "per_ip_rate = \"5/s\"", true),
            ("", "bytes_rate = \"5KiB/s\"", true),
            ("", "max_size = \"5KiB\"", true),
            ("", "out_rate = \"5/s\"", true),
            ("", "out_per_ip_rate = \"5/s\"", true),
            ("", "out_bytes_rate = \"5KiB/s\"", true),
            ("", "preset = \"discord\"", true),
            ("", "ping = \"30s\"\n[zone.a.timeouts]\nfirst_message = \"10s\"", false),
            ("rate = \"5/s\"", "", false),
            ("", "rate = \"5/s\"\nstrict_frames = false", false),
        ] {
            let exempt = "[zone.a]\nexempt = true\nconnections = 9";
            let text = format!("[limits.messages]\n{limits}\n{exempt}\n[zone.a.messages]\n{own}");
            assert_eq!(rules(&text, "a").strict_frames, expected, "{text}");
        }
    }

    #[test]
    fn an_exempt_zone_inherits_no_message_limit_and_pings_as_others_do() {
        let text = "[limits.timeouts]\nfirst_message = \"15s\"\n[limits.messages]\npreset = \"discord\"\n\
                    per_ip_rate = \"3/s\"\nbytes_rate = \"1KiB/s\"\nmax_size = \"1KiB\"\nout_rate = \"1/s\"\n\
                    out_per_ip_rate = \"1/s\"\nout_bytes_rate = \"1KiB/s\"\nstrict_frames = true\nping = \"30s\"\n\
                    pong_timeout = \"5s\"\n[zone.s2s]\nexempt = true\n[zone.s2s.messages]\nmax_size = \"1MiB\"";
        let liveness = MessageRules {
            ping: Some(Duration::from_secs(30)),
            pong_timeout: Duration::from_secs(5),
            first_message: Some(Duration::from_secs(15)),
            ..MessageRules::OFF
        };
        assert_eq!(rules(text, "exempt"), liveness);
        let limited = MessageRules {
            max_size: Some(1 << 20),
            strict_frames: true,
            ..liveness.clone()
        };
        assert_eq!(rules(text, "s2s"), limited);
        assert_eq!(
            rules(&format!("{text}\n[zone.default]\nexempt = true"), "default"),
            liveness
        );
        let written = format!("{text}\n[zone.exempt.messages]\nstrict_frames = true");
        assert!(rules(&written, "exempt").strict_frames);
    }

    #[test]
    fn a_zone_inherits_what_it_does_not_write_and_off_undoes_it() {
        let limits = "[limits.timeouts]\nfirst_message = \"15s\"\n[limits.messages]\nrate = \"5/s\"\nmax_size = \"1KiB\"\n\
                      notice = \"wait\"\nping = \"30s\"\nreplace_ghosts = false\n";
        assert_eq!(rules(&format!("{limits}[zone.a]"), "a"), rules(limits, "default"));
        let off = "[zone.a.timeouts]\nfirst_message = \"off\"\n[zone.a.messages]\nrate = \"off\"\nmax_size = \"off\"\n\
                   notice = \"off\"\nping = \"off\"\nreplace_ghosts = true";
        let nothing = MessageRules {
            strict_frames: true,
            ..MessageRules::OFF
        };
        assert_eq!(rules(&format!("{limits}{off}"), "a"), nothing);
    }
}

mod robustness {
    use super::*;

    /// Lines that mean something, so that random files get past the syntax.
    fn line() -> impl Strategy<Value = String> {
        let known: Vec<String> = keys().map(|(_, key)| key.to_owned()).collect();
        let value = prop_oneof![
            Just("\"off\"".to_owned()),
            Just("true".to_owned()),
            Just("[]".to_owned()),
            Just("{}".to_owned()),
            Just("\"64KiB/s\"".to_owned()),
            Just("\"5/s\"".to_owned()),
            Just("\"1MiB\"".to_owned()),
            Just("[\"10.0.0.0/8\", \"unix\"]".to_owned()),
            Just("[\"/a\", \"*.b\"]".to_owned()),
            Just("1.5".to_owned()),
            any::<i64>().prop_map(|number| number.to_string()),
            "\\PC{0,8}",
            "\"[a-z0-9/:.*]{0,12}\"",
            "\\[\"[a-z0-9/:.*]{0,12}\"\\]",
        ];
        let table = prop::sample::select(vec![
            "[server]",
            "[[listener]]",
            "[client_ip]",
            "[limits]",
            "[limits.timeouts]",
            "[limits.messages]",
            "[zone.a]",
            "[zone.a.messages]",
            "[zone.exempt]",
            "[[network]]",
            "[[route]]",
            "[upstream.a]",
            "[upstream.b]",
            "[admin]",
            "[log]",
            "[zone]",
            "[listener]",
            "[a.b]",
        ]);
        prop_oneof![
            3 => (prop::sample::select(known), value).prop_map(|(key, value)| format!("{key} = {value}")),
            1 => table.prop_map(ToOwned::to_owned),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn any_text_compiles_or_is_refused_with_findings(text in "(\\PC|\n){0,200}") {
            shown(&text);
        }

        #[test]
        fn any_lines_compile_or_are_refused_with_findings(lines in prop::collection::vec(line(), 0..12)) {
            shown(&format!("{}\n{REQUIRED}", lines.join("\n")));
        }

        #[test]
        fn a_manual_with_a_hole_in_it_compiles_or_is_refused_with_findings(at in 0..MANUAL.len(), len in 0..40_usize) {
            let (mut from, mut to) = (at, (at + len).min(MANUAL.len()));
            while !MANUAL.is_char_boundary(from) { from -= 1; }
            while !MANUAL.is_char_boundary(to) { to += 1; }
            shown(&format!("{}{}", &MANUAL[..from], &MANUAL[to..]));
        }
    }

    fn shown(text: &str) {
        match compile(text, "x") {
            Ok(checked) => drop(checked.render_warnings(true)),
            Err(rejected) => assert!(!rejected.render(false).is_empty() && !rejected.mistakes.is_empty()),
        }
    }
}

fn with(text: &str) -> String {
    format!("{text}\n{REQUIRED}")
}

fn policy(text: &str) -> Policy {
    policy_of(text, "x").policy
}

fn policy_of(text: &str, name: &str) -> Checked {
    compile(text, name).unwrap_or_else(|rejected| panic!("{rejected}"))
}

fn zone<'a>(policy: &'a Policy, name: &str) -> &'a ZonePolicy {
    policy.zones.iter().find(|zone| *zone.name == *name).unwrap()
}

fn titles(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|finding| finding.title.as_str()).collect()
}
