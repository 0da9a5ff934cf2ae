//! A new policy replaces the old one, as a whole or not at all, and open connections do not notice.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

use crate::rig::{
    Answer, Backend, End, Request, Rig, Socket, all_acknowledged, close_code, frame, full_queue, ip, masked, nth_ip,
    side_by_side, until, wsguard,
};

#[test]
fn two_thousand_connections_outlive_a_hundred_reloads_and_no_byte_of_a_transfer_is_lost() {
    let (backend, kept) = keeping();
    let zoned = |limits: &str| {
        unwatched(
            &backend,
            &format!(
                "[limits]\nper_ip_rate = \"off\"\n{limits}\n[zone.special]\n\
                 [[route]]\nname = \"special\"\npaths = [\"/special\"]\nzone = \"special\"\n[[route]]\nname = \"rest\"\n"
            ),
        )
    };
    let rig = start(&zoned(""));
    let mut open: Vec<Socket> = (0..2000)
        .map(|n| {
            let path = if n % 2 == 0 { "/special" } else { "/ws" };
            rig.try_open(nth_ip(n % 100), &Request::to(path)).ok().unwrap()
        })
        .collect();
    let over = Arc::new(AtomicBool::new(false));
    let transfers: Vec<JoinHandle<u64>> = (0..8).map(|n| transfer(&rig, 1000 + n, &over)).collect();
    rig.expect(r#"wsguard_connections{zone="default"}"#, 1008);
    rig.expect(r#"wsguard_connections{zone="special"}"#, 1000);

    let spare = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = spare.local_addr().unwrap();
    for round in 0..10 {
        let good = |text: &str| {
            assert_eq!(rig.reload(text), Ok(()), "round {round}");
            assert_all_open(&rig, &open, 2008);
        };
        let bad = |text: &str, why: &str| {
            let error = rig.reload(text).unwrap_err();
            assert!(error.contains(why), "round {round}: {error}");
            assert_all_open(&rig, &open, 2008);
        };
        // A limit that is lowered, then off, and then on again counts all open connections and ends none.
        good(&zoned("per_ip = 5"));
        assert_eq!(refusal(&rig, nth_ip(1)), 429);
        good(&zoned("per_ip = \"off\"\nconnections = \"off\""));
        rig.open_from(nth_ip(1)).reset();
        rig.expect("wsguard_process_connections", 2008);
        good(&zoned("per_ip = \"off\"\nconnections = 1008"));
        assert_eq!(refusal(&rig, nth_ip(200)), 503);
        // The zone of a thousand connections is removed while they are in it, and comes back with its counts.
        good(&unwatched(&backend, "[limits]\nper_ip_rate = \"off\""));
        assert_eq!(rig.count(r#"wsguard_connections{zone="special"}"#), 1000);
        good(&zoned(""));
        assert_eq!(rig.count(r#"wsguard_connections{zone="special"}"#), 1000);
        // Mistakes change nothing.
        let whole = zoned("");
        match round % 5 {
            0 => bad(&whole.replace("per_ip_rate", "per_ip_rat"), "did you mean"),
            1 => bad(&whole[..whole.find("upstream.chat").unwrap()], "wsguard.toml:"),
            2 => bad("", "listener"),
            3 => bad(&whole.replace("[limits]", "[limits]\nper_ip = -1"), "wsguard.toml:"),
            _ => {
                fs::remove_file(rig.file()).unwrap();
                assert!(rig.hup().unwrap_err().contains("wsguard.toml"));
                assert_all_open(&rig, &open, 2008);
            }
        }
        bad(&format!("{whole}\n[[listener]]\nbind = [\"{taken}\"]"), "in use");
        // Everything else that a reload may add and remove.
        good(&format!(
            "{whole}\n[[listener]]\nname = \"second\"\nbind = [\"127.0.0.2:0\"]"
        ));
        good(&format!(
            "{whole}\n[[listener]]\nname = \"third\"\nbind = [\"127.0.0.3:0\"]\n\
             [[network]]\nname = \"school\"\nnetworks = [\"127.9.0.0/16\"]\nper_ip = 9"
        ));
        let routed = whole
            .replace("zone = \"special\"", "zone = \"special\"\nupstream = \"other\"")
            .replace("name = \"rest\"", "name = \"rest\"\nupstream = \"chat\"");
        good(&format!("{routed}\n[upstream.other]\nservers = [\"127.0.0.1:9\"]"));
    }
    over.store(true, Relaxed);
    for transfer in transfers {
        assert!(
            transfer.join().unwrap() > 0,
            "a transfer that moved nothing proves nothing"
        );
    }
    assert_eq!((rig.attempts(), rig.count("wsguard_config_generation")), (100, 81));
    assert_eq!(backend.dials(), 2018);

    // Each connection still carries a frame each way.
    for (n, socket) in open.iter_mut().enumerate() {
        socket.send(&masked(2, &u16::try_from(n).unwrap().to_be_bytes()));
    }
    let mut heard = HashSet::new();
    for stream in kept.lock().unwrap().iter_mut() {
        let mut bytes = [0; 8];
        // The ten connections that were opened in between have ended.
        if stream.read_exact(&mut bytes).is_ok() {
            assert!(heard.insert(bytes));
            stream.write_all(&frame(2, b"still here")).unwrap();
        }
    }
    assert_eq!(heard.len(), 2000);
    for socket in &mut open {
        assert_eq!(socket.read_frame(), (0x82, b"still here".to_vec()));
    }
    kept.lock().unwrap().clear();
    drop(open);
    rig.quiet_within(Duration::from_secs(30));
}

#[test]
fn a_limit_that_is_switched_on_counts_what_is_open_and_lowering_it_ends_no_connection() {
    let (backend, kept) = keeping();
    let rig = start(&unwatched(
        &backend,
        "[limits]\nper_ip = \"off\"\nconnections = \"off\"",
    ));
    let mut open: Vec<Socket> = (0..5).map(|_| rig.open()).collect();
    for (limits, status) in [
        ("per_ip = 5", 429),
        ("per_ip = 3", 429),
        ("connections = 5", 503),
        ("connections = 3", 503),
    ] {
        assert_eq!(rig.reload(&unwatched(&backend, &format!("[limits]\n{limits}"))), Ok(()));
        assert_eq!(refusal(&rig, ip(1)), status, "{limits}");
        assert_all_open(&rig, &open, 5);
    }
    // A new one is admitted once enough others have gone.
    assert_eq!(rig.reload(&unwatched(&backend, "[limits]\nper_ip = 3")), Ok(()));
    open.drain(3..).for_each(Socket::reset);
    rig.expect("wsguard_process_connections", 3);
    assert_eq!(refusal(&rig, ip(1)), 429);
    open.drain(2..).for_each(Socket::reset);
    rig.expect("wsguard_process_connections", 2);
    open.push(rig.open());
    assert_eq!(rig.reload(&unwatched(&backend, "[limits]\nper_ip = 4")), Ok(()));
    open.push(rig.open());
    assert_eq!(backend.dials(), 7);
    drop(open);
    kept.lock().unwrap().clear();
    rig.quiet();
}

#[test]
fn a_change_that_needs_a_restart_is_refused_by_name_and_stays_visible_to_operators() {
    let (backend, _kept) = keeping();
    let rig = start(&unwatched(&backend, "[limits]\nper_ip = 2"));
    let _open = [rig.open(), rig.open()];
    for (key, tables) in [
        ("server.workers", "[server]\nwatch_config = false\nworkers = 7\n"),
        (
            "server.table_size",
            "[server]\nwatch_config = false\ntable_size = 500_000\n",
        ),
        ("client_ip.ipv4_prefix", "[client_ip]\nipv4_prefix = 24\n"),
        ("client_ip.ipv6_prefix", "[client_ip]\nipv6_prefix = 56\n"),
        (
            "client_ip.translation_prefixes",
            "[client_ip]\ntranslation_prefixes = [\"2001:db8:64::/96\"]\n",
        ),
        ("admin.listen", "[admin]\nlisten = \"127.0.0.1:1\"\n"),
        (
            "admin.hosts",
            "[admin]\nlisten = \"127.0.0.1:0\"\nhosts = [\"admin.example\"]\n",
        ),
        (
            "admin.clients",
            "[admin]\nlisten = \"127.0.0.1:0\"\nclients = \"hide\"\n",
        ),
    ] {
        // The file has another change too, which must not come into force either.
        let text = Rig::before(&backend)
            .config(tables)
            .config("[limits]\nper_ip = 9")
            .text();
        let before = rig.count("wsguard_config_generation");
        rig.put(&text);
        let error = rig.hup().unwrap_err();
        assert!(error.contains(&format!("`{key}`")), "{key}: {error}");
        assert_eq!(refusal(&rig, ip(1)), 429, "{key}: nothing of it is in force");

        let stats = rig.stats();
        assert_eq!(stats["last_reload"]["successful"], false);
        let advice = stats["advice"].to_string();
        assert!(advice.contains(key), "{advice}");
        assert_eq!(stats["generation"], before);
        assert_eq!(rig.count("wsguard_config_generation"), before);
        assert_eq!(rig.count("wsguard_config_last_reload_successful"), 0);
        rig.line("the log names the key", |line| {
            line["event"] == "reload_refused" && line["message"].as_str().unwrap().contains(key)
        });
    }
    assert_eq!(rig.count(r#"wsguard_config_reloads_total{outcome="failure"}"#), 8);
    assert_eq!(rig.count(r#"wsguard_config_reloads_total{outcome="success"}"#), 0);
    assert_eq!(
        rig.get("/readyz").status(),
        200,
        "the old policy serves as well as ever"
    );

    assert_eq!(rig.reload(&unwatched(&backend, "[limits]\nper_ip = 3")), Ok(()));
    let stats = rig.stats();
    assert_eq!(
        (&stats["last_reload"]["successful"], &stats["generation"]),
        (&true.into(), &2.into())
    );
    assert_eq!(stats["last_reload"]["error"].as_str(), None);
    assert!(!stats["advice"].to_string().contains("refused"), "{stats}");
    assert_eq!(rig.count("wsguard_config_last_reload_successful"), 1);
    assert_eq!(rig.count(r#"wsguard_config_reloads_total{outcome="success"}"#), 1);
}

#[test]
fn the_log_says_what_changed() {
    let (backend, _kept) = keeping();
    let rig = start(&unwatched(&backend, ""));
    let changed = [
        ("", "nothing changed"),
        ("[limits]\nper_ip = 7", "zone default changed"),
        ("[limits]\nper_ip = 7\n[zone.more]", "zone more added"),
        ("[limits]\nper_ip = 7", "zone more removed"),
        (
            "[limits]\nper_ip = 7\n[[network]]\nname = \"school\"\nnetworks = [\"127.9.0.0/16\"]\nper_ip = 9",
            "network 127.9.0.0/16 added",
        ),
        ("[limits]\nper_ip = 7", "network 127.9.0.0/16 removed"),
        ("[limits]\nper_ip = 7\n[[route]]\nname = \"all\"", "route all added"),
        ("[limits]\nper_ip = 7\n[log]\nlevel = \"debug\"", "log changed"),
    ];
    for (n, (config, change)) in changed.into_iter().enumerate() {
        assert_eq!(rig.reload(&unwatched(&backend, config)), Ok(()), "{config}");
        let logged = until("the log says so", || {
            let mut lines = rig.messages("reloaded").into_iter();
            lines.nth(n)
        });
        assert!(logged.contains(change), "{config}: {logged:?}");
    }
    assert_eq!(rig.messages("reloaded").len(), changed.len());
    assert!(rig.messages("reload_refused").is_empty());
}

#[test]
fn the_log_says_every_mistake_with_its_place() {
    let (backend, _kept) = keeping();
    let rig = start(&unwatched(&backend, ""));
    let text = unwatched(
        &backend,
        "[limits]\nper_ip = \"many\"\nconnections = -1\nretry_after = \"soon\"",
    );
    let first = text.lines().position(|line| line == "per_ip = \"many\"").unwrap() + 1;
    assert!(rig.reload(&text).is_err());
    let logged = until("three lines", || {
        Some(rig.messages("reload_refused")).filter(|logged| logged.len() >= 3)
    });
    for line in first..first + 3 {
        let place = format!("wsguard.toml:{line}:");
        assert_eq!(
            logged.iter().filter(|logged| logged.contains(&place)).count(),
            1,
            "{place} {logged:?}"
        );
    }
    assert_eq!(logged.len(), 3);
    assert!(rig.messages("reloaded").is_empty());
}

#[test]
fn a_reload_that_would_have_the_guard_dial_itself_is_refused() {
    let (backend, _kept) = keeping();
    let rig = start(&unwatched(&backend, ""));
    let open = rig.open();
    let itself = "[[route]]\nupstream = \"again\"\n[upstream.again]\nservers = [\"localhost:7\"]\n\
                  [[listener]]\nname = \"second\"\nbind = [\"127.0.0.1:7\"]";
    let error = rig
        .reload(&format!("{}\n{itself}", unwatched(&backend, "")))
        .unwrap_err();
    assert!(error.contains("\"localhost:7\" is wsguard's own listener"), "{error}");
    assert!(open.is_silent());
    drop(rig.open());
}

#[test]
fn a_removed_zone_lives_until_it_is_empty_and_has_its_counts_if_it_returns() {
    let (backend, kept) = keeping();
    let zoned = unwatched(
        &backend,
        "[zone.special]\nper_ip = 2\n[[route]]\nname = \"special\"\nzone = \"special\"\n",
    );
    let rig = start(&zoned);
    let open = [rig.open(), rig.open()];
    let special = r#"wsguard_connections{zone="special"}"#;
    assert_eq!(rig.reload(&unwatched(&backend, "")), Ok(()));
    let other = rig.open();
    assert_eq!(
        (rig.count(special), rig.count(r#"wsguard_connections{zone="default"}"#)),
        (2, 1)
    );
    assert_eq!(rig.stats()["zones"]["special"]["connections"], 2);

    assert_eq!(rig.reload(&zoned), Ok(()));
    assert_eq!(refusal(&rig, ip(1)), 429, "two are open in it");
    assert_eq!(rig.reload(&unwatched(&backend, "")), Ok(()));
    open.into_iter().for_each(Socket::reset);
    let is_gone = || !rig.metrics().has(special);
    until("no connection is in it, and none can come in", || {
        is_gone().then_some(())
    });
    assert_eq!(rig.reload(&unwatched(&backend, "[limits]\nper_ip = 9")), Ok(()));
    assert!(is_gone());
    assert_eq!(rig.count("wsguard_counter_drift"), 0);
    drop(other);
    kept.lock().unwrap().clear();
    rig.quiet();
}

#[test]
fn limits_lowered_by_the_descriptor_limit_are_logged_at_the_start_and_on_a_change() {
    let backend = Backend::listening();
    let listening = |max_pending: u32| {
        let listener = "[[listener]]\nname = \"front\"\nbind = [\"127.0.0.1:0\"]";
        unwatched(&backend, &format!("{listener}\nmax_pending = {max_pending}\n"))
    };
    let rig = start(&listening(10_000_000));
    let lowered_lines = || rig.messages("lowered").len();
    until("it is logged", || (lowered_lines() == 1).then_some(()));
    assert!(rig.messages("lowered")[0].starts_with("max_pending lowered from 10000000 to "));
    for _ in 0..2 {
        assert_eq!(rig.hup(), Ok(()));
    }
    assert_eq!(rig.reload(&listening(9_999_999)), Ok(()));
    until("the new value is logged", || (lowered_lines() == 2).then_some(()));
    assert!(rig.messages("lowered")[1].contains(" 9999999 "));
}

#[test]
fn names_that_reloads_have_removed_do_not_pile_up_in_the_metrics() {
    let backend = Backend::listening();
    let named = |n: u32| {
        let text = format!(
            "[[listener]]\nname = \"side{n}\"\nbind = [\"127.0.0.1:0\"]\n\
             [zone.z{n}]\n[upstream.other{n}]\nservers = [\"127.0.0.1:{}\"]\n\
             [[route]]\nname = \"other\"\npaths = [\"/other\"]\nzone = \"z{n}\"\nupstream = \"other{n}\"\n",
            1000 + n
        );
        unwatched(&backend, &text)
    };
    let rig = start(&named(0));
    let before = rig.metrics().starting_with("").len();
    for n in 1..=30 {
        assert_eq!(rig.reload(&named(n)), Ok(()));
    }
    rig.metrics();
    let metrics = rig.metrics();
    let after = metrics.starting_with("");
    for (series, _) in &after {
        for gone in ["zone=\"z", "listener=\"side", "upstream=\"other"] {
            assert!(
                !series.contains(gone) || series.contains(&format!("{gone}30\"")),
                "{series}"
            );
        }
    }
    assert_eq!(after.len(), before);
    assert!(metrics.has(r#"wsguard_connections{zone="z30"}"#));
}

#[test]
fn a_zone_that_is_gone_is_shown_until_its_last_end_was_scraped_and_comes_back_at_0() {
    let (backend, kept) = keeping();
    let zoned = with_zones(&backend, &[("special", "")]);
    let rig = start(&zoned);
    let open = rig.try_open(ip(1), &Request::to("/special")).ok().unwrap();
    assert_eq!(rig.reload(&unwatched(&backend, "")), Ok(()));
    let admitted = r#"wsguard_handshakes_total{zone="special",outcome="admitted",reason="-"}"#;
    for _ in 0..3 {
        assert_eq!(rig.count(admitted), 1, "one is still open in it");
    }
    drop(open);
    kept.lock().unwrap().clear();
    let closes = r#"wsguard_closes_total{zone="special",reason="client"}"#;
    let mut shown = Vec::new();
    until("its series are gone", || {
        let metrics = rig.metrics();
        let is_there = metrics.has(closes);
        if is_there {
            shown.push(metrics.count(closes));
        }
        (!is_there).then_some(())
    });
    assert_eq!(shown.last(), Some(&1), "the last end was logged: {shown:?}");
    let metrics = rig.metrics();
    let left: Vec<_> = metrics.starting_with("");
    assert!(
        left.iter().all(|(series, _)| !series.contains("\"special\"")),
        "{left:?}"
    );

    assert_eq!(rig.reload(&zoned), Ok(()));
    assert_eq!((rig.count(admitted), rig.count(closes)), (0, 0));
    let _again = rig.try_open(ip(1), &Request::to("/special")).ok().unwrap();
    rig.expect(admitted, 1);
    assert_eq!(rig.count(r#"wsguard_connections{zone="special"}"#), 1);
    assert_eq!(rig.count("wsguard_counter_drift"), 0);
}

/// A zone may be removed while a head is under way. The connection must still be counted where it is admitted.
#[test]
fn a_head_that_a_reload_overtakes_is_decided_by_the_new_policy_and_leaves_no_drift() {
    let (backend, kept) = keeping();
    let zoned = unwatched(
        &backend,
        "[limits]\nper_ip = 9\n[zone.special]\n[[route]]\nname = \"special\"\nzone = \"special\"\n",
    );
    let rig = start(&zoned);
    let request = Request::to("/ws").into_bytes();
    let (first, rest) = request.split_at(30);
    let mut under_way = rig.send(first);
    rig.expect(r#"wsguard_pending{listener="front"}"#, 1);
    assert_eq!(rig.reload(&unwatched(&backend, "[limits]\nper_ip = 1")), Ok(()));
    under_way.send(rest);
    assert!(under_way.read_head().starts_with(b"HTTP/1.1 101 "));
    assert_eq!(rig.count("wsguard_counter_drift"), 0);
    assert_eq!(rig.count(r#"wsguard_connections{zone="default"}"#), 1);
    assert!(!rig.metrics().has(r#"wsguard_connections{zone="special"}"#));
    assert_eq!(refusal(&rig, ip(1)), 429);

    let mut late = rig.send(first);
    rig.expect(r#"wsguard_pending{listener="front"}"#, 1);
    assert_eq!(rig.reload(&unwatched(&backend, "[limits]\nper_ip = 2")), Ok(()));
    late.send(rest);
    assert!(
        late.read_head().starts_with(b"HTTP/1.1 101 "),
        "the raised limit is its limit"
    );
    drop((under_way, late));
    kept.lock().unwrap().clear();
    rig.quiet();
}

#[test]
fn a_client_that_waits_for_a_dead_connections_slot_is_answered_by_its_own_zone_after_a_reload() {
    const PINGED: &str = "[zone.b.messages]\nping = \"1s\"";
    side_by_side(["http", "close", "drop"], |style| {
        let limits = |per_ip: u32| format!("reject_with = \"{style}\"\nper_ip = {per_ip}\n{PINGED}");
        let other = if style == "drop" { "http" } else { "drop" };
        let other = format!("reject_with = \"{other}\"");
        let b = ("b", &*limits(1));
        // The zone before it is removed; it is removed itself, and one with another `reject_with` comes behind it; or
        // it stays, and only its limit changes.
        side_by_side([&[b][..], &[b, ("c", &other)], &[("a", ""), b]], |zones| {
            let (backend, kept) = keeping();
            let rig = start(&with_zones(&backend, &[("a", ""), ("b", &limits(3))]));
            let dead: Vec<Socket> = (0..3)
                .map(|_| rig.try_open(ip(1), &Request::to("/b")).ok().unwrap())
                .collect();
            dead.iter().for_each(Socket::vanish);
            thread::sleep(Duration::from_millis(1200));
            let mut waits = rig.send(Request::to("/b"));
            rig.expect(r#"wsguard_pending{listener="front"}"#, 1);
            assert_eq!(rig.reload(&with_zones(&backend, zones)), Ok(()));
            let answer = waits.answer();
            let case = format!("{zones:?}: {answer}");
            match style {
                "http" => answer.assert_refusal("429 Too Many Requests", "per_ip", "Too many connections from this IP"),
                "close" => assert_eq!(close_code(answer.body()), Some(1013), "{case}"),
                _ => assert_eq!((answer.bytes.len(), answer.end), (0, End::Reset), "{case}"),
            }
            let line = rig.line("the line of the one that waited", |line| line["event"] == "rejected");
            assert_eq!(
                (&line["reason"], &line["route"], &line["zone"], &line["limit"]),
                (&"per_ip".into(), &"b".into(), &"b".into(), &1.into()),
                "{case}: {line}"
            );
            let metrics = rig.metrics();
            assert_eq!(
                metrics
                    .starting_with("wsguard_handshakes_total")
                    .into_iter()
                    .filter(|(name, number)| name.contains("rejected") && *number != "0")
                    .collect::<Vec<_>>(),
                [(
                    r#"wsguard_handshakes_total{outcome="rejected",reason="per_ip",zone="b"}"#,
                    "1"
                )],
                "{case}"
            );
            assert_eq!(metrics.count("wsguard_panics_total"), 0, "{case}");
            assert_eq!(backend.dials(), 3, "{case}: the newcomer is not let in");
            drop(dead);
            kept.lock().unwrap().clear();
        });
    });
}

#[test]
fn a_reload_that_adds_a_listener_whose_port_is_taken_changes_nothing() {
    let (backend, _kept) = keeping();
    let rig = start(&unwatched(&backend, "[limits]\nper_ip = 1"));
    let open = rig.open();
    let spare = TcpListener::bind("127.0.0.1:0").unwrap();
    let path = rig.file().with_file_name("beside.sock");
    let more = format!(
        "{}\n[[listener]]\nname = \"beside\"\nbind = [\"unix:{}\"]\n[[listener]]\nname = \"taken\"\nbind = [\"{}\"]",
        unwatched(&backend, "[limits]\nper_ip = 5"),
        path.display(),
        spare.local_addr().unwrap()
    );
    let error = rig.reload(&more).unwrap_err();
    assert!(error.contains("taken") && error.contains("in use"), "{error}");
    assert!(!path.exists(), "the other address was given up again");
    assert_eq!(refusal(&rig, ip(1)), 429, "the limit is the old one");
    assert!(open.is_silent());
    assert_eq!(
        rig.lines().iter().filter(|line| line["event"] == "listening").count(),
        1
    );

    drop(spare);
    assert_eq!(rig.reload(&more), Ok(()), "the same file, once the port is free");
    let taken = rig.address_of("taken");
    let _second = opened_at(taken);
    assert!(path.exists());
}

#[test]
fn a_listener_that_goes_resets_none_of_a_hundred_that_are_queued_on_it_and_its_connections_live_on() {
    let (backend, kept) = keeping();
    let without = unwatched(&backend, "[limits]\nper_ip = 500\nper_ip_rate = \"off\"");
    let with = format!("{without}\n[[listener]]\nname = \"second\"\nbind = [\"127.0.0.2:0\"]");
    let rig = start(&with);
    let mut lived = opened_at(rig.address_of("second"));
    for round in 0..5 {
        let second = second_address(&rig, round);
        // A stopped process accepts no connection: all of them are in the kernel's queue when it learns of the new
        // file.
        rig.signal(Signal::STOP);
        let reset = Socket::connect(ip(1), second);
        let mut queued: Vec<Socket> = (0..100).map(|n| Socket::connect(nth_ip(n), second)).collect();
        for socket in &mut queued {
            socket.send(Request::to("/ws").as_ref());
        }
        // A client that has gone already must not affect the others.
        reset.reset();
        rig.put(&without);
        rig.signal(Signal::HUP);
        rig.signal(Signal::CONT);
        for (n, socket) in queued.iter_mut().enumerate() {
            let head = socket.read_head();
            assert!(
                head.starts_with(b"HTTP/1.1 101 "),
                "round {round}, number {n}: {head:?}"
            );
        }
        until("the address has no listener any more", || {
            TcpStream::connect(second).is_err().then_some(())
        });
        assert_eq!(rig.count("wsguard_process_connections"), 101);
        assert!(queued.iter().all(Socket::is_silent));
        queued.into_iter().for_each(Socket::reset);
        rig.expect("wsguard_process_connections", 1);
        assert_eq!(rig.reload(&with), Ok(()));
    }
    assert!(lived.is_silent());
    lived.send(&masked(1, b"hello"));
    let visit = backend.visit(0);
    all_acknowledged(lived.local(), lived.stream().peer_addr().unwrap());
    assert_eq!(visit.end(), None);
    drop(lived);
    kept.lock().unwrap().clear();
    rig.quiet();
}

#[test]
fn a_listener_that_went_may_come_back_with_the_next_reload() {
    let (backend, kept) = keeping();
    let without = unwatched(&backend, "[limits]\nper_ip_rate = \"off\"");
    let port = TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap();
    let with = format!("{without}\n[[listener]]\nname = \"second\"\nbind = [\"{port}\"]");
    let rig = start(&without);
    for round in 0..10 {
        assert_eq!(rig.reload(&with), Ok(()), "round {round}");
        opened_at(port).reset();
        assert_eq!(rig.reload(&without), Ok(()), "round {round}");
    }
    kept.lock().unwrap().clear();
    rig.quiet();
}

/// Connections that are accepted from a removed listener's queue have that listener's deadline, and operators see them.
#[test]
fn a_silent_socket_that_was_queued_on_a_listener_that_goes_is_ended_in_time() {
    let backend = Backend::listening();
    let without = unwatched(&backend, "");
    let with =
        format!("{without}\n[[listener]]\nname = \"second\"\nbind = [\"127.0.0.2:0\"]\nhandshake_timeout = \"5s\"");
    let rig = start(&with);
    let second = second_address(&rig, 0);
    rig.signal(Signal::STOP);
    let mut silent: Vec<Socket> = (0..10).map(|n| Socket::connect(nth_ip(n), second)).collect();
    rig.put(&without);
    rig.signal(Signal::HUP);
    rig.signal(Signal::CONT);
    assert_eq!(rig.attempt(1), Ok(()));
    // Before their deadline, one more reload must not lose sight of them.
    rig.expect(r#"wsguard_pending{listener="second"}"#, 10);
    assert_eq!(rig.reload(&unwatched(&backend, "[limits]\nper_ip = 9")), Ok(()));
    assert!(silent.iter().all(Socket::is_silent), "not before their time");
    for socket in &mut silent {
        assert_eq!(socket.read_to_end(), (Vec::new(), End::Fin));
    }
    rig.quiet();
}

/// Every client that connects is answered, unless the kernel has refused it before. A removed listener never resets a
/// connection that it has accepted.
#[test]
fn during_a_storm_of_connects_a_removed_listener_closes_at_once_and_resets_no_client() {
    let backend = Backend::listening();
    let without = unwatched(&backend, "");
    let with =
        format!("{without}\n[[listener]]\nname = \"second\"\nbind = [\"127.0.0.2:0\"]\nhealth_path = \"/healthz\"");
    let rig = start(&with);
    for round in 0..5 {
        let second = second_address(&rig, round);
        let storm: Vec<JoinHandle<u32>> = (0..4)
            .map(|_| {
                thread::spawn(move || {
                    let mut answered = 0;
                    loop {
                        let Ok(stream) = TcpStream::connect_timeout(&second, Duration::from_secs(10)) else {
                            return answered;
                        };
                        let mut socket = Socket::from(stream);
                        socket.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
                        let answer = socket.answer();
                        assert_eq!(
                            (answer.status(), answer.end),
                            (200, End::Fin),
                            "after {answered}: {answer}"
                        );
                        answered += 1;
                    }
                })
            })
            .collect();
        until("the storm is heard", || {
            (rig.count(r#"wsguard_accepted_total{listener="second"}"#) > 200).then_some(())
        });
        assert_eq!(rig.reload(&without), Ok(()));
        for thread in storm {
            assert!(thread.join().unwrap() > 0);
        }
        assert_eq!(rig.reload(&with), Ok(()));
    }
    assert_eq!(backend.dials(), 0);
    rig.quiet();
}

#[test]
fn a_kept_listener_accepts_throughout() {
    let backend = Backend::listening();
    let file = |limits: &str, name: &str| {
        format!(
            "[server]\nwatch_config = false\n[[listener]]\nname = \"{name}\"\nbind = [\"127.0.0.1:0\"]\n\
             health_path = \"/healthz\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[limits]\n{limits}\n\
             [upstream.chat]\nservers = [\"{}\"]\n",
            backend.address()
        )
    };
    let rig = start(&file("per_ip = 1", "front"));
    let over = Arc::new(AtomicBool::new(false));
    let (front, done) = (rig.front(), Arc::clone(&over));
    let connects = thread::spawn(move || {
        let mut answered = 0;
        while !done.load(Relaxed) {
            let mut socket = Socket::connect(ip(1), front);
            socket.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
            let answer = socket.answer();
            assert_eq!(
                (answer.status(), answer.end),
                (200, End::Fin),
                "after {answered}: {answer}"
            );
            answered += 1;
        }
        answered
    });
    for n in 1..=20 {
        // This also holds if the listener at the same address gets another name.
        let name = if n % 3 == 0 { "renamed" } else { "front" };
        assert_eq!(rig.reload(&file(&format!("per_ip = {n}"), name)), Ok(()));
    }
    over.store(true, Relaxed);
    assert!(connects.join().unwrap() > 0);
    assert_eq!(
        rig.lines().iter().filter(|line| line["event"] == "listening").count(),
        1
    );
    rig.quiet();
}

#[test]
fn new_servers_get_new_connections_and_a_server_that_returns_has_its_old_ones() {
    let (first, second) = (Backend::echo(), Backend::echo());
    let file = |backend: &Backend| unwatched(backend, "");
    let rig = start(&file(&first));
    let mut old = rig.open();
    assert_eq!(rig.reload(&file(&second)), Ok(()));
    let mut new = rig.open();
    for socket in [&mut old, &mut new] {
        socket.send(&masked(1, b"to whom?"));
        assert_eq!(socket.read_exactly(14), masked(1, b"to whom?"));
    }
    assert_eq!((first.dials(), second.dials()), (1, 1));

    assert_eq!(rig.reload(&file(&first)), Ok(()));
    let series = format!(
        r#"wsguard_upstream_connections{{upstream="chat",server="{}"}}"#,
        first.address()
    );
    assert_eq!(rig.count(&series), 1, "the old one is still open there");
    drop(old);
    rig.expect(&series, 0);
    assert!(new.is_silent());
    drop(new);
    rig.quiet();
}

#[test]
fn a_server_that_a_reload_removes_during_a_dial_keeps_its_count() {
    let ((stuck, _held), backend, other) = (full_queue(), Backend::echo(), Backend::echo());
    let file = |servers: &[SocketAddr]| {
        let servers: Vec<String> = servers.iter().map(SocketAddr::to_string).collect();
        unwatched(
            &other,
            &format!(
                "[limits.timeouts]\ndial = \"3s\"\n[upstream.chat]\nbalance = \"round-robin\"\nservers = {servers:?}"
            ),
        )
    };
    let rig = start(&file(&[stuck, backend.address()]));
    let series = |address: SocketAddr| format!(r#"wsguard_upstream_connections{{upstream="chat",server="{address}"}}"#);
    let mut on_its_way = rig.send(Request::to("/ws"));
    rig.expect(&series(stuck), 1);
    assert_eq!(rig.reload(&file(&[other.address()])), Ok(()));
    assert_eq!(backend.dials(), 0, "it is still at the first server");
    // More than one reload comes before the second server is dialled.
    assert_eq!(rig.reload(&file(&[other.address(), stuck])), Ok(()));
    assert!(on_its_way.read_head().starts_with(b"HTTP/1.1 101 "));
    assert_eq!((backend.dials(), other.dials()), (1, 0));

    assert_eq!(rig.reload(&file(&[backend.address()])), Ok(()));
    assert_eq!(rig.count(&series(backend.address())), 1);
    drop(on_its_way);
    rig.expect(&series(backend.address()), 0);
    rig.quiet();
}

#[test]
fn a_reload_may_bring_and_take_hundreds_of_zones() {
    let backend = Backend::echo();
    let names: Vec<String> = (0..400).map(|n| format!("z{n}")).collect();
    let zones: Vec<(&str, &str)> = names.iter().map(|name| (&**name, "per_ip = 1")).collect();
    let rig = start(&unwatched(&backend, ""));
    // Each reload must end within the time that a reload has at most.
    assert_eq!(rig.reload(&with_zones(&backend, &zones)), Ok(()));
    let held = rig.try_open(ip(1), &Request::to("/z399")).ok().unwrap();
    assert_eq!(rig.count(r#"wsguard_connections{zone="z399"}"#), 1);
    assert_eq!(rig.reload(&unwatched(&backend, "")), Ok(()));
    rig.metrics();
    assert!(
        !rig.metrics()
            .has(r#"wsguard_handshakes_total{zone="z0",outcome="admitted",reason="-"}"#)
    );
    assert_eq!(
        rig.count(r#"wsguard_handshakes_total{zone="z399",outcome="admitted",reason="-"}"#),
        1
    );
    drop(held);
    rig.quiet();
}

#[test]
fn an_open_connection_keeps_the_timeouts_of_its_admission() {
    let (backend, kept) = keeping();
    let rig = start(&unwatched(&backend, "[limits.timeouts]\nidle = \"3s\""));
    let admitted = Instant::now();
    let mut early = rig.open();
    assert_eq!(
        rig.reload(&unwatched(&backend, "[limits.timeouts]\nidle = \"1s\"")),
        Ok(())
    );
    let mut late = rig.open();
    assert_eq!(close_code(&late.read_to_end().0), Some(1001));
    assert!(early.is_silent(), "{:?} after its admission", admitted.elapsed());
    assert_eq!(
        rig.reload(&unwatched(&backend, "[limits.timeouts]\nidle = \"off\"")),
        Ok(())
    );
    assert_eq!(close_code(&early.read_to_end().0), Some(1001));
    assert!(
        admitted.elapsed() >= Duration::from_millis(2900),
        "{:?}",
        admitted.elapsed()
    );
    drop((early, late));
    kept.lock().unwrap().clear();
    rig.quiet();
}

#[test]
fn a_hup_during_the_first_read_of_the_file_does_not_end_the_process() {
    let backend = Backend::echo();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wsguard.toml");
    let names: Vec<String> = (0..1000).map(|n| format!("z{n}")).collect();
    let zones: Vec<(&str, &str)> = names.iter().map(|name| (&**name, "per_ip = 1")).collect();
    // A debug build needs a second to compile this file.
    fs::write(&file, with_zones(&backend, &zones)).unwrap();
    let mut child = wsguard()
        .args(["run".as_ref(), "-c".as_ref(), file.as_os_str()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let watches =
        |thread: &Path| fs::read_to_string(thread.join("comm")).is_ok_and(|name| name.starts_with("notify-rs"));
    until("it looks after its file, which is read next", || {
        let mut threads = fs::read_dir(format!("/proc/{}/task", child.id())).ok()?;
        threads.any(|thread| watches(&thread.unwrap().path())).then_some(())
    });
    kill_process(Pid::from_raw(child.id().try_into().unwrap()).unwrap(), Signal::HUP).unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let is_ready = log.lines().any(|line| line.unwrap().contains(r#""event":"ready""#));
    let ended = child.try_wait().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(is_ready, "{ended:?}");
}

#[test]
fn many_hups_are_handled_one_after_the_other_and_the_last_file_wins() {
    let (backend, _kept) = keeping();
    let file = |per_ip: u32| unwatched(&backend, &format!("[limits]\nper_ip_rate = \"off\"\nper_ip = {per_ip}"));
    let rig = start(&file(1));
    let open = rig.open();
    for n in 0..60 {
        rig.put(&file(3 + n % 7));
        rig.signal(Signal::HUP);
    }
    rig.put(&file(2));
    rig.signal(Signal::HUP);
    // Signals of one kind merge while they wait, so the number of reloads is not known. But each reload has been
    // logged, and none is still to come, once the last file's limit holds and the last signal has been taken.
    until("the last file is in force", || {
        let newcomers: Vec<Option<Socket>> = (0..2).map(|_| rig.try_open(ip(1), &Request::to("/ws")).ok()).collect();
        let let_in = newcomers.iter().flatten().count();
        newcomers.into_iter().flatten().for_each(Socket::reset);
        rig.expect("wsguard_process_connections", 1);
        (let_in == 1).then_some(())
    });
    assert!(rig.messages("reload_refused").is_empty());
    let second = rig.open();
    assert_eq!(refusal(&rig, ip(1)), 429);
    assert_all_open(&rig, &[open, second], 2);
}

#[test]
fn a_slow_writer_is_waited_for_until_it_closes() {
    let (backend, _kept) = keeping();
    let rig = start(&watched(&backend, "[limits]\nper_ip = 1"));
    let open = rig.open();
    // Each pause is longer than the time after which two equal reads are trusted.
    for (attempt, limit) in [(1, 2), (2, 3)] {
        if limit == 3 {
            // The second time, the writer creates a file that was not there.
            fs::remove_file(rig.file()).unwrap();
        }
        let mut file = File::create(rig.file()).unwrap();
        let text = watched(&backend, &format!("[limits]\nper_ip = {limit}"));
        for piece in text.as_bytes().chunks(text.len() / 4) {
            file.write_all(piece).unwrap();
            thread::sleep(Duration::from_millis(400));
            // Meanwhile another file in the same folder is written and closed.
            fs::write(rig.file().with_file_name("other.txt"), piece).unwrap();
        }
        thread::sleep(Duration::from_millis(400));
        assert_eq!(rig.attempts(), attempt - 1, "the file is not closed yet");
        drop(file);
        assert_eq!(rig.attempt(attempt), Ok(()));
    }
    let _more = [rig.open(), rig.open()];
    assert_eq!(refusal(&rig, ip(1)), 429);
    assert!(open.is_silent());
    assert!(rig.messages("reload_refused").is_empty());
}

#[test]
fn a_mere_modification_does_nothing() {
    let (backend, _kept) = keeping();
    let rig = start(&watched(&backend, "[limits]\nper_ip = 1"));
    let _open = rig.open();
    let text = watched(&backend, "[limits]\nper_ip = 2");
    let mut file = fs::OpenOptions::new().write(true).open(rig.file()).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.set_len(text.len() as u64).unwrap();
    // The guard trusts a file after two equal reads. This is four times as long as these take, and longer than the time
    // between two looks at the file.
    thread::sleep(Duration::from_secs(5));
    assert_eq!(rig.attempts(), 0);
    assert_eq!(refusal(&rig, ip(1)), 429);
    drop(file);
    assert_eq!(rig.attempt(1), Ok(()));
    let _second = rig.open();
}

/// The kernel reports these changes under other names than that of the file.
#[test]
fn a_folder_that_is_swapped_is_noticed_and_what_is_written_in_the_new_one_too() {
    let (backend, _kept) = keeping();
    let top = tempfile::tempdir().unwrap();
    let file = |limit: u32| watched(&backend, &format!("[limits]\nper_ip = {limit}"));
    let current = top.path().join("current");
    fs::create_dir(&current).unwrap();
    let dir = tempfile::tempdir_in(&current).unwrap();
    let name = dir.path().file_name().unwrap().to_owned();
    fs::write(dir.path().join("wsguard.toml"), file(1)).unwrap();
    let rig = Rig::start_in(dir);
    let open = rig.open();
    // First its own folder is replaced, then the one above. Each is replaced by two renames.
    for (attempt, swapped) in [(1, current.join(&name)), (3, current.clone())] {
        let limit = u32::try_from(attempt).unwrap() + 1;
        let new = top.path().join(format!("new-{attempt}"));
        let within = if attempt == 1 { new.clone() } else { new.join(&name) };
        fs::create_dir_all(&within).unwrap();
        fs::write(within.join("wsguard.toml"), file(limit)).unwrap();
        fs::rename(&swapped, top.path().join(format!("old-{attempt}"))).unwrap();
        fs::rename(&new, &swapped).unwrap();
        assert_eq!(rig.attempt(attempt), Ok(()), "{}", swapped.display());
        fs::write(rig.file(), file(limit + 1)).unwrap();
        assert_eq!(rig.attempt(attempt + 1), Ok(()), "what is written there");
    }
    let _more: Vec<Socket> = (0..4).map(|_| rig.open()).collect();
    assert_eq!(refusal(&rig, ip(1)), 429);
    assert!(open.is_silent());
    assert!(rig.messages("reload_refused").is_empty());
}

#[test]
fn a_missing_file_is_logged_once_and_noticed_when_it_is_back() {
    let (backend, _kept) = keeping();
    let rig = start(&watched(&backend, "[limits]\nper_ip = 1"));
    let open = rig.open();
    let away = rig.file().parent().unwrap().with_extension("away");
    fs::rename(rig.file().parent().unwrap(), &away).unwrap();
    let gone = |rig: &Rig| {
        rig.messages("watch")
            .iter()
            .filter(|line| line.contains("is gone"))
            .count()
    };
    until("its absence is logged", || (gone(&rig) > 0).then_some(()));
    assert!(open.is_silent());
    assert_eq!(rig.attempts(), 0, "what is gone is not changed");
    fs::write(away.join("wsguard.toml"), watched(&backend, "[limits]\nper_ip = 2")).unwrap();
    fs::rename(&away, rig.file().parent().unwrap()).unwrap();
    assert_eq!(rig.attempt(1), Ok(()));
    until("its return is logged", || {
        rig.messages("watch")
            .iter()
            .any(|line| line.contains("is watched again"))
            .then_some(())
    });
    assert_eq!(gone(&rig), 1);
    fs::write(rig.file(), watched(&backend, "[limits]\nper_ip = 3")).unwrap();
    assert_eq!(rig.attempt(2), Ok(()));
}

#[test]
fn a_writer_may_pause_for_longer_than_two_looks_are_apart() {
    let (backend, _kept) = keeping();
    let rig = start(&watched(&backend, "[limits]\nper_ip = 1"));
    let text = watched(&backend, "[limits]\nper_ip = 2");
    fs::remove_file(rig.file()).unwrap();
    let mut file = File::create(rig.file()).unwrap();
    let (begin, rest) = text.as_bytes().split_at(text.len() / 2);
    file.write_all(begin).unwrap();
    thread::sleep(Duration::from_secs(7));
    assert_eq!(rig.attempts(), 0, "the file is not closed yet");
    file.write_all(rest).unwrap();
    drop(file);
    assert_eq!(rig.attempt(1), Ok(()));
    assert!(rig.messages("reload_refused").is_empty());
}

#[test]
fn an_unreadable_file_is_logged_once_and_applied_when_it_can_be_read() {
    let (backend, _kept) = keeping();
    let rig = start(&watched(&backend, "[limits]\nper_ip = 1"));
    // Removing the file's permissions would do too, but not if root runs the test.
    let pid = Pid::from_raw(rig.pid().try_into().unwrap());
    let limit = |current| {
        let maximum = getrlimit(Resource::Nofile).maximum;
        prlimit(pid, Resource::Nofile, Rlimit { current, maximum })
            .unwrap()
            .current
    };
    let before = limit(Some(0));
    rig.put(&watched(&backend, "[limits]\nper_ip = 2"));
    until("it is refused", || {
        (!rig.messages("reload_refused").is_empty()).then_some(())
    });
    // In the meantime the guard tries to read it again.
    thread::sleep(Duration::from_secs(9));
    let refused = rig.messages("reload_refused");
    assert!(
        refused.len() == 1 && refused[0].contains("Too many open files"),
        "{refused:?}"
    );
    limit(before);
    assert_eq!(rig.attempt(2), Ok(()));
    assert_eq!(rig.messages("reloaded"), ["zone default changed"]);
}

#[test]
fn a_reload_refuses_a_path_that_is_not_a_regular_file_without_delay() {
    let (backend, _kept) = keeping();
    let rig = start(&unwatched(&backend, "[limits]\nper_ip = 1"));
    let open = rig.open();
    for (kind, put) in not_regular() {
        remove(&rig.file());
        put(&rig.file());
        let error = rig.hup().unwrap_err();
        assert!(error.contains("wsguard.toml can't be read: it is "), "{kind}: {error}");
        assert!(error.contains("a regular file of at most 1 MiB"), "{kind}: {error}");
        assert_eq!(refusal(&rig, ip(1)), 429, "{kind}: what is in force stays in force");
    }
    remove(&rig.file());
    assert_eq!(rig.reload(&unwatched(&backend, "[limits]\nper_ip = 2")), Ok(()));
    let _more = rig.open();
    assert!(open.is_silent());
}

#[test]
fn the_watcher_refuses_a_path_that_is_not_a_regular_file_once_and_without_delay() {
    let (backend, _kept) = keeping();
    let rig = start(&watched(&backend, "[limits]\nper_ip = 1"));
    let open = rig.open();
    for (attempt, (kind, put)) in (1..).zip(not_regular()) {
        let aside = rig.file().with_extension("new");
        put(&aside);
        remove(&rig.file());
        fs::rename(&aside, rig.file()).unwrap();
        let error = rig.attempt(attempt).unwrap_err();
        assert!(error.contains("a regular file of at most 1 MiB"), "{kind}: {error}");
    }
    let attempts = i64::try_from(not_regular().len()).unwrap();
    remove(&rig.file());
    rig.put(&watched(&backend, "[limits]\nper_ip = 2"));
    assert_eq!(rig.attempt(attempts + 1), Ok(()));
    let _more = rig.open();
    assert!(open.is_silent());
}

#[test]
fn a_file_that_is_renamed_over_is_applied_once_and_the_same_text_is_not_applied_again() {
    let (backend, _kept) = keeping();
    let rig = start(&watched(&backend, "[limits]\nper_ip = 1"));
    let open = rig.open();
    rig.put(&watched(&backend, "[limits]\nper_ip = 2"));
    assert_eq!(rig.attempt(1), Ok(()));
    rig.put(&watched(&backend, "[limits]\nper_ip = 2"));
    rig.put("[limits");
    assert!(rig.attempt(2).is_err());
    // A missing file counts as unchanged: the policy in force stays in force.
    fs::remove_file(rig.file()).unwrap();
    rig.put(&watched(&backend, "[limits]\nper_ip = 3"));
    assert_eq!(rig.attempt(3), Ok(()));
    let _more = [rig.open(), rig.open()];
    assert!(open.is_silent());
    assert_eq!(rig.count("wsguard_config_generation"), 3);
}

#[test]
fn a_file_behind_a_link_is_applied_when_the_link_changes_its_target() {
    let (backend, _kept) = keeping();
    let dir = tempfile::tempdir().unwrap();
    let releases = dir.path().join("releases");
    fs::create_dir(&releases).unwrap();
    fs::write(releases.join("1.toml"), watched(&backend, "[limits]\nper_ip = 1")).unwrap();
    symlink("releases/1.toml", dir.path().join("wsguard.toml")).unwrap();
    let rig = Rig::start_in(dir);
    let open = rig.open();
    fs::write(releases.join("2.toml"), watched(&backend, "[limits]\nper_ip = 2")).unwrap();
    assert_eq!(refusal(&rig, ip(1)), 429);
    point(&rig.file(), "releases/2.toml");
    assert_eq!(rig.attempt(1), Ok(()));
    // The file that the link leads to now is watched too.
    fs::write(releases.join("2.toml"), watched(&backend, "[limits]\nper_ip = 3")).unwrap();
    assert_eq!(rig.attempt(2), Ok(()));
    // This is `ln -sfn`: it removes the link before it makes the new one.
    fs::write(releases.join("3.toml"), watched(&backend, "[limits]\nper_ip = 4")).unwrap();
    fs::remove_file(rig.file()).unwrap();
    symlink("releases/3.toml", rig.file()).unwrap();
    assert_eq!(rig.attempt(3), Ok(()));
    let _more: Vec<Socket> = (0..3).map(|_| rig.open()).collect();
    assert_eq!(refusal(&rig, ip(1)), 429);
    assert!(open.is_silent());
}

#[test]
fn a_mounted_config_map_is_applied_when_its_data_link_is_swapped() {
    let (backend, _kept) = keeping();
    let dir = tempfile::tempdir().unwrap();
    let mounted = dir.path().to_path_buf();
    let version = |n: u32| {
        let name = format!("..2026_01_0{n}");
        fs::create_dir(mounted.join(&name)).unwrap();
        let text = watched(&backend, &format!("[limits]\nper_ip = {n}"));
        fs::write(mounted.join(&name).join("wsguard.toml"), text).unwrap();
        name
    };
    symlink(version(1), mounted.join("..data")).unwrap();
    symlink("..data/wsguard.toml", mounted.join("wsguard.toml")).unwrap();
    let rig = Rig::start_in(dir);
    let open = rig.open();
    for n in 2..=4 {
        let name = version(n);
        point(&mounted.join("..data"), &name);
        fs::remove_dir_all(mounted.join(format!("..2026_01_0{}", n - 1))).unwrap();
        assert_eq!(rig.attempt(i64::from(n) - 1), Ok(()));
    }
    let _more: Vec<Socket> = (0..3).map(|_| rig.open()).collect();
    assert_eq!(refusal(&rig, ip(1)), 429);
    assert!(open.is_silent());
    assert!(rig.messages("reload_refused").is_empty());
}

#[test]
fn without_watch_config_only_a_hup_applies_the_file() {
    let (backend, _kept) = keeping();
    let rig = start(&unwatched(&backend, "[limits]\nper_ip = 1"));
    let _open = rig.open();
    rig.put(&unwatched(&backend, "[limits]\nper_ip = 2"));
    thread::sleep(Duration::from_secs(1));
    assert_eq!(rig.attempts(), 0);
    assert_eq!(refusal(&rig, ip(1)), 429);
    assert_eq!(rig.hup(), Ok(()));
    // The file is watched as long as the file in force says so.
    assert_eq!(rig.reload(&watched(&backend, "[limits]\nper_ip = 3")), Ok(()));
    rig.put(&unwatched(&backend, "[limits]\nper_ip = 4"));
    until("the watched file is in force", || {
        let switched = rig
            .messages("reloaded")
            .into_iter()
            .filter(|logged| logged.contains("server changed"));
        (switched.count() == 2).then_some(())
    });
    let _more = [rig.open(), rig.open(), rig.open()];
    assert_eq!(refusal(&rig, ip(1)), 429);
}

/// A port that is free on every address, and that the kernel gives to no client. A client of another test at this port
/// would prevent a bind to all addresses.
fn port_of_no_client() -> u16 {
    let first = 20_000 + u16::try_from(std::process::id() % 8_000).unwrap();
    (first..32_000)
        .find(|port| std::net::TcpListener::bind(("0.0.0.0", *port)).is_ok())
        .unwrap()
}

/// If two bound addresses cover each other, the kernel gives a connection to the narrower one. The other one takes over
/// when the narrower one is closed.
#[test]
fn one_address_may_take_the_place_of_another_that_covers_it_and_no_connection_is_lost() {
    let (backend, kept) = keeping();
    let file = |bind: &str| {
        format!(
            "[server]\nwatch_config = false\n[[listener]]\nname = \"front\"\nbind = [{bind}]\nhealth_path = \"/healthz\"\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n[upstream.chat]\nservers = [\"{}\"]\n",
            backend.address()
        )
    };
    let port = port_of_no_client();
    let (narrow, wide) = (format!("\"127.0.0.1:{port}\""), format!("\"0.0.0.0:{port}\""));
    let rig = start(&file(&narrow));
    let (front, over) = (rig.front(), Arc::new(AtomicBool::new(false)));
    let open = rig.open();
    let storm: Vec<JoinHandle<u32>> = (0..4)
        .map(|_| {
            let over = Arc::clone(&over);
            thread::spawn(move || {
                let mut answered = 0;
                while !over.load(Relaxed) {
                    let mut socket = Socket::connect(ip(1), front);
                    socket.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
                    let answer = socket.answer();
                    assert_eq!(
                        (answer.status(), answer.end),
                        (200, End::Fin),
                        "after {answered}: {answer}"
                    );
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    let two = format!("\"127.0.0.1:{port}\", \"127.0.0.2:{port}\"");
    for (bind, elsewhere) in [
        (&narrow, false),
        (&wide, true),
        (&narrow, false),
        (&wide, true),
        (&two, true),
        (&wide, true),
    ] {
        assert_eq!(rig.reload(&file(bind)), Ok(()), "{bind}");
        let at_another = std::net::SocketAddr::from(([127, 0, 0, 2], port));
        until(&format!("{bind} is all there is"), || {
            let heard = TcpStream::connect_timeout(&at_another, Duration::from_secs(10)).is_ok();
            (heard == elsewhere).then_some(())
        });
        // The port still belongs to one guard alone.
        for bind in [&narrow, &wide] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("second.toml");
            std::fs::write(&path, file(bind)).unwrap();
            let second = wsguard()
                .args(["run", "-c"])
                .arg(&path)
                .stderr(Stdio::piped())
                .output()
                .unwrap();
            let logged = String::from_utf8(second.stderr).unwrap();
            assert_eq!(second.status.code(), Some(1), "{logged}");
            assert!(
                logged.contains("in use") && !logged.contains("own listener"),
                "{logged}"
            );
        }
    }
    over.store(true, Relaxed);
    for thread in storm {
        assert!(thread.join().unwrap() > 0);
    }
    assert!(open.is_silent());
    drop(open);
    kept.lock().unwrap().clear();
    rig.quiet();
}

#[test]
fn a_reload_that_gives_a_kept_listeners_address_to_another_is_refused_by_name() {
    let (backend, _kept) = keeping();
    let rig = start(&unwatched(&backend, "[limits]\nper_ip = 1"));
    let open = rig.open();
    let port = rig.front().port();
    // The file of `front` asks for any port. `front` got this one, and keeps it.
    let (front, bind) = (rig.front(), format!("0.0.0.0:{port}"));
    let more = format!(
        "{}\n[[listener]]\nname = \"more\"\nbind = [\"{bind}\"]",
        unwatched(&backend, "")
    );
    let error = rig.reload(&more).unwrap_err();
    let names =
        format!("listener more: cannot bind {bind} in place of {front}, which wsguard's own listener front has");
    assert!(error.contains(&names) && error.contains("restart"), "{error}");
    assert_eq!(refusal(&rig, ip(1)), 429, "nothing has changed");
    assert!(open.is_silent());
}

#[test]
fn a_removed_socket_file_is_made_again_and_that_of_another_program_is_left_alone() {
    let backend = Backend::echo();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.sock");
    let listener = |bind: &str| format!("[[listener]]\nname = \"front\"\nbind = [{bind}]\n");
    let unix = unwatched(&backend, &listener(&format!("\"unix:{}\"", path.display())));
    let rig = start(&unix);
    let opens = || {
        let mut socket = UnixStream::connect(&path).unwrap();
        socket.write_all(Request::to("/ws").as_ref()).unwrap();
        let mut head = [0; 13];
        socket.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 101 ");
        socket
    };
    let before = opens();
    fs::remove_file(&path).unwrap();
    assert_eq!(rig.hup(), Ok(()));
    let after = opens();
    rig.expect("wsguard_process_connections", 2);

    // Another program has taken the path.
    fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    let error = rig.hup().unwrap_err();
    assert!(
        error.contains("cannot bind unix:") && error.contains("in use"),
        "{error}"
    );
    assert!(!error.contains("wsguard's own"), "{error}");
    assert_eq!(rig.reload(&unwatched(&backend, &listener("\"127.0.0.1:0\""))), Ok(()));
    assert!(path.exists());
    let _reached = UnixStream::connect(&path).unwrap();
    assert!(other.accept().is_ok());
    drop((before, after));
    rig.quiet();
}

#[test]
fn a_socket_file_by_another_path_and_an_address_in_another_listener_are_kept() {
    let (backend, kept) = keeping();
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    std::fs::create_dir(&real).unwrap();
    symlink(&real, &link).unwrap();
    let file = |a: &str, b: &str, names: [&str; 2]| {
        format!(
            "[server]\nwatch_config = false\n[[listener]]\nname = \"{}\"\nbind = [{a}]\n[[listener]]\nname = \"{}\"\nbind = [{b}]\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n[upstream.chat]\nservers = [\"{}\"]\n",
            names[0],
            names[1],
            backend.address()
        )
    };
    let unix = |path: &Path| format!("\"unix:{}\"", path.display());
    let (path, tcp) = (real.join("in.sock"), "\"127.0.0.1:0\"");
    let rig = start(&file(tcp, &unix(&path), ["a", "b"]));
    let bound = || rig.lines().iter().filter(|line| line["event"] == "listening").count();
    assert_eq!(bound(), 2);
    let mut waits = UnixStream::connect(&path).unwrap();
    let explicit = format!("\"{}\"", rig.address_of("a"));
    for (a, b, names) in [
        (tcp, unix(&link.join("in.sock")), ["a", "b"]),
        (tcp, format!("\"unix:{}/./in.sock\"", real.display()), ["a", "b"]),
        // The listeners are renamed, and the one that asks for the address moves from table to table.
        (tcp, unix(&path), ["c", "d"]),
        (&explicit, unix(&path), ["a", "b"]),
        (&unix(&link.join("in.sock")), explicit.clone(), ["a", "b"]),
    ] {
        assert_eq!(rig.reload(&file(a, &b, names)), Ok(()), "{a} {b}");
        assert_eq!(bound(), 2, "nothing is bound anew for {a} {b}");
        assert!(path.exists());
    }
    // Each address belongs to its new listener, and connections from before are still open.
    drop(rig.open());
    rig.expect(r#"wsguard_accepted_total{listener="b"}"#, 2);
    waits.write_all(Request::to("/ws").as_ref()).unwrap();
    let mut head = [0; 13];
    waits.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 101 ");
    drop(waits);
    assert_eq!(rig.reload(&file(&explicit, "\"127.0.0.1:0\"", ["a", "b"])), Ok(()));
    until("the file is gone with its listener", || (!path.exists()).then_some(()));
    kept.lock().unwrap().clear();
    rig.quiet();
}

/// A server that keeps its connections open without a thread for each. It echoes on `/echo`.
fn keeping() -> (Backend, Arc<Mutex<Vec<TcpStream>>>) {
    let kept: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    let keeps = Arc::clone(&kept);
    let backend = Backend::start(move |guest| {
        let head = guest.read_head();
        let is_echo = head.starts_with(b"GET /echo ");
        // The connection is kept before the client gets its 101, so that a test can close all of them at its end.
        if !is_echo {
            keeps.lock().unwrap().push(guest.stream.try_clone().unwrap());
        }
        guest.open();
        if is_echo {
            guest.echo();
        }
    });
    (backend, kept)
}

/// Sends block after block and compares the echo, until `over` is set. Returns the number of blocks.
fn transfer(rig: &Rig, n: u16, over: &Arc<AtomicBool>) -> JoinHandle<u64> {
    let mut socket = rig.try_open(nth_ip(n), &Request::to("/echo")).ok().unwrap();
    let over = Arc::clone(over);
    thread::spawn(move || {
        let (mut blocks, mut block) = (0_u64, vec![0; 4000 * 8]);
        while !over.load(Relaxed) {
            for (word, bytes) in (blocks * 4000..).zip(block.as_chunks_mut::<8>().0) {
                *bytes = word.to_be_bytes();
            }
            let sent = masked(2, &block);
            socket.send(&sent);
            assert!(
                socket.read_exactly(sent.len()) == sent,
                "block {blocks} of transfer {n}"
            );
            blocks += 1;
            thread::sleep(Duration::from_millis(20));
        }
        socket.fin();
        assert_eq!(socket.read_to_end(), (Vec::new(), End::Fin));
        blocks
    })
}

type Put = fn(&Path);

/// Things other than a regular file that may stand at the path of a configuration, and how each one is put there.
fn not_regular() -> Vec<(&'static str, Put)> {
    vec![
        ("a FIFO", |path| {
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        }),
        ("a link to a device", |path| symlink("/dev/zero", path).unwrap()),
        ("a folder", |path| fs::create_dir(path).unwrap()),
        ("a socket", |path| {
            drop(std::os::unix::net::UnixListener::bind(path).unwrap());
        }),
        ("a large file", |path| {
            File::create(path).unwrap().set_len(1 << 40).unwrap();
        }),
    ]
}

fn remove(path: &Path) {
    if path.is_dir() {
        fs::remove_dir(path).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
}

fn assert_all_open(rig: &Rig, open: &[Socket], count: i64) {
    assert!(
        open.iter().all(Socket::is_silent),
        "no connection is closed or sent anything"
    );
    let metrics = rig.metrics();
    assert_eq!(metrics.count("wsguard_process_connections"), count);
    assert_eq!(metrics.count("wsguard_counter_drift"), 0);
}

/// The status with which a new client is refused.
fn refusal(rig: &Rig, source: std::net::IpAddr) -> u16 {
    let answer: Option<Answer> = rig.try_open(source, &Request::to("/ws")).err();
    answer.expect("a refusal").status()
}

/// The address of the listener `second` after it was bound for the n-th time, from 0.
fn second_address(rig: &Rig, n: usize) -> std::net::SocketAddr {
    let line = until("the listener is bound", || {
        let lines = rig.lines().into_iter();
        let mut bound = lines.filter(|line| line["event"] == "listening" && line["listener"] == "second");
        bound.nth(n)
    });
    line["address"].as_str().unwrap().parse().unwrap()
}

fn opened_at(address: std::net::SocketAddr) -> Socket {
    let mut socket = Socket::connect(ip(1), address);
    socket.send(Request::to("/ws").as_ref());
    assert!(socket.read_head().starts_with(b"HTTP/1.1 101 "));
    socket
}

/// A guard with this file.
fn start(text: &str) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("wsguard.toml"), text).unwrap();
    Rig::start_in(dir)
}

/// A file without `watch_config`: only HUP applies it, so that each reload has one cause.
fn unwatched(backend: &Backend, config: &str) -> String {
    let server = if config.contains("[server]") {
        ""
    } else {
        "[server]\nwatch_config = false"
    };
    Rig::before(backend).config(server).config(config).text()
}

/// Zones with these limits. Each zone has a route with a path of its name.
fn with_zones(backend: &Backend, zones: &[(&str, &str)]) -> String {
    let zones = zones.iter().map(|(name, limits)| {
        format!("[zone.{name}]\n{limits}\n[[route]]\nname = \"{name}\"\npaths = [\"/{name}\"]\nzone = \"{name}\"\n")
    });
    unwatched(backend, &zones.collect::<String>())
}

fn watched(backend: &Backend, config: &str) -> String {
    Rig::before(backend).config(config).text()
}

/// Changes the target of a link in one step.
fn point(link: &Path, target: &str) {
    let new = link.with_file_name("new-link");
    symlink(target, &new).unwrap();
    fs::rename(new, link).unwrap();
}
