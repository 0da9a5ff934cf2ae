//! The commands: what they print and how they end.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::rig::{Backend, Request, Rig, Socket, ip, wsguard};

const GOOD: &str = r#"
[[listener]]
bind = ["127.0.0.1:8080"]

[client_ip]
trusted_proxies = ["loopback"]

[upstream.chat]
servers = ["127.0.0.1:3000"]
"#;

#[test]
fn check_finds_nothing_wrong_with_the_smallest_useful_file() {
    let (_dir, file) = written(GOOD);
    for arguments in [
        vec!["check", &file],
        vec!["check", "-c", &file],
        vec!["check", &file, "--deny-warnings"],
    ] {
        let output = ended(&arguments);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    }
}

#[test]
fn check_names_every_mistake_with_its_place_a_caret_and_a_hint() {
    let bad = GOOD.replace("trusted_proxies", "trusted_proxy")
        + "\n[limits]\nper_ip = \"lots\"\nmode = \"enforced\"\n[[route]]\nname = \"a\"\nzone = \"gone\"\nupstream = \"chta\"\n";
    let (_dir, file) = written(&bad);
    let output = ended(&["check", &file]);
    assert_eq!(output.status.code(), Some(3));
    let text = text(&output);
    for (line, column, hint) in [
        (5, 1, "trusted_proxies"),
        (11, 10, "per_ip"),
        (12, 8, "enforce"),
        (15, 8, "gone"),
        (16, 12, "chat"),
    ] {
        assert!(
            text.contains(&format!("{file}:{line}:{column}")),
            "{line}:{column} in {text}"
        );
        assert!(text.contains(hint), "{hint} in {text}");
    }
    assert!(text.matches('^').count() >= 5, "carets in {text}");
    assert!(text.contains("did you mean"), "{text}");
    assert!(!text.contains('\x1b'), "no colors without a terminal");
}

#[test]
fn check_refuses_what_cannot_work() {
    let cases = [
        (
            "[[listener]]\nbind = [\"127.0.0.1:0\"]\naccept_proxy_protocol = true\n[upstream.a]\nservers = [\"127.0.0.1:1\"]",
            "accept_proxy_protocol",
        ),
        (
            &format!("{GOOD}[server]\ntable_size = 100\nmax_connections = 200"),
            "table_size",
        ),
        (&format!("{GOOD}[[route]]\nname = \"a\"\nzone = \"gone\""), "gone"),
        (&format!("{GOOD}[[route]]\nname = \"a\"\nupstream = \"gone\""), "gone"),
        (&format!("{GOOD}[[route]]\nname = \"a\"\n[[route]]\nname = \"a\""), "a"),
        (
            &format!("{GOOD}[[network]]\nname = \"a\"\nnetworks = [\"10.0.0.0/8\", \"10.0.0.0/8\"]"),
            "10.0.0.0/8",
        ),
        (
            &GOOD.replace("[client_ip]", "http = \"forward\"\n[client_ip]"),
            "not in this version",
        ),
        (&format!("{GOOD}[listener.tls]\n"), "not"),
        (&format!("{GOOD}[limits]\nper_ip_rate = \"10\""), "10"),
        (&format!("{GOOD}[limits]\nper_ip = -1"), "per_ip"),
        ("[upstream.a]\nservers = [\"127.0.0.1:1\"]", "listener"),
        ("[[listener]]\nbind = [\"127.0.0.1:0\"]", "upstream"),
        ("[[listener]\nbind", "1:"),
        ("", "listener"),
    ];
    for (config, word) in cases {
        let (_dir, file) = written(config);
        let output = ended(&["check", &file]);
        assert_eq!(output.status.code(), Some(3), "{config}\n{}", text(&output));
        assert!(text(&output).contains(word), "{word} for {config}\n{}", text(&output));
        let run = ended(&["run", "-c", &file]);
        assert_eq!(run.status.code(), Some(3), "run must refuse it as check does: {config}");
    }
}

#[test]
fn check_warns_of_likely_mistakes_and_refuses_them_on_request() {
    let routed = |routes: &str| format!("{GOOD}{routes}");
    let public = GOOD.replace("127.0.0.1:8080", "0.0.0.0:8080");
    let cases = [
        (public.replace("loopback", "0.0.0.0/0"), "0.0.0.0/0"),
        (GOOD.replace("trusted_proxies = [\"loopback\"]", ""), "trusted_proxies"),
        (
            GOOD.replace(
                "[\"loopback\"]",
                "[\"loopback\"]\nheaders = [\"x-real-ip\", \"x-forwarded-for\"]",
            ),
            "headers",
        ),
        (format!("{GOOD}[limits]\nper_ip = 25\nconnections = 100"), "4"),
        (routed("[[route]]\nname = \"a\"\npaths = [\"/a\"]"), "404"),
        (
            routed("[[route]]\nname = \"a\"\n[[route]]\nname = \"b\"\npaths = [\"/b\"]"),
            "b",
        ),
        (
            routed("[[route]]\nname = \"f\"\npaths = [\"/f\"]\nzone = \"exempt\"\n[[route]]\nname = \"rest\""),
            "exempt",
        ),
        (routed("[zone.games]\nper_ip = 4"), "games"),
        (routed("[limits]\nreject_with = \"drop\""), "drop"),
        (routed("[server]\nmax_connections = 5000"), "max_connections"),
    ];
    for (config, word) in cases {
        let (_dir, file) = written(&config);
        let output = ended(&["check", &file]);
        assert_eq!(output.status.code(), Some(0), "{config}\n{}", text(&output));
        assert!(
            text(&output).contains(word) && text(&output).contains("warning"),
            "{word}: {}",
            text(&output)
        );
        let closing = |output: &[u8], end: &str| {
            let last = String::from_utf8_lossy(output)
                .lines()
                .last()
                .unwrap_or_default()
                .to_owned();
            assert!(last.starts_with(&file) && last.ends_with(end), "{last}");
        };
        closing(&output.stdout, "the configuration is usable");
        let denied = ended(&["check", "--deny-warnings", &file]);
        assert_eq!(denied.status.code(), Some(3), "{config}\n{}", text(&denied));
        closing(&denied.stderr, "refused by --deny-warnings");
    }
}

/// A limit of the machine is no mistake of the file. It is a note, even under `--deny-warnings`.
#[test]
fn check_notes_a_drain_longer_than_the_time_to_stop() {
    let (_dir, file) = written(&format!("{GOOD}[server]\ndrain_timeout = \"2m\"\n"));
    let output = ended(&["check", "--deny-warnings", &file]);
    let output_text = text(&output);
    assert_eq!(output.status.code(), Some(0), "{output_text}");
    let note = output_text.lines().find(|line| line.contains("drain_timeout"));
    assert!(
        note.is_some_and(|note| note.starts_with("note: drain_delay and drain_timeout are 2m together")),
        "{output_text}"
    );
    let (_dir, file) = written(&format!("{GOOD}[server]\ndrain_timeout = \"5s\"\n"));
    let output_text = text(&ended(&["check", &file]));
    assert!(!output_text.contains("drain"), "{output_text}");
}

#[test]
fn a_missing_file_is_named_and_ends_with_3() {
    for arguments in [
        ["check", "/nowhere/wsguard.toml"].as_slice(),
        &["run", "-c", "/nowhere/wsguard.toml"],
    ] {
        let output = ended(arguments);
        assert_eq!(output.status.code(), Some(3));
        assert!(text(&output).contains("/nowhere/wsguard.toml"), "{}", text(&output));
    }
    let output = wsguard()
        .arg("check")
        .env("WSGUARD_CONFIG", "/nowhere/by-name.toml")
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output).contains("/nowhere/by-name.toml"), "{}", text(&output));
}

#[test]
fn a_path_that_is_not_a_regular_file_is_named_with_the_rule_and_ends_with_3() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let fifo = at("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &*fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let large = at("large");
    fs::File::create(&large).unwrap().set_len(1 << 40).unwrap();
    for arguments in [
        ["run", "-c", &fifo].as_slice(),
        &["run", "-c", &at("")],
        &["run", "-c", "/dev/zero"],
        &["run", "-c", &large],
        &["check", &at("")],
        &["check", "/dev/zero"],
        &["check", &large],
    ] {
        let output = ended(arguments);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {}", text(&output));
        for word in [arguments[arguments.len() - 1], "a regular file of at most 1 MiB"] {
            assert!(text(&output).contains(word), "{arguments:?}: {}", text(&output));
        }
    }
}

#[test]
fn check_takes_a_pipe_and_run_does_not() {
    for (arguments, code) in [
        (["check", "-"].as_slice(), 0),
        (&["check", "/dev/stdin"], 0),
        (&["run", "-c", "/dev/stdin"], 3),
        (&["run", "-c", "-"], 3),
    ] {
        let mut child = wsguard()
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that refuses its standard input does not read it.
        let _unread = std::io::Write::write_all(&mut child.stdin.take().unwrap(), GOOD.as_bytes());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output));
    }
    let endless = Command::new("sh")
        .args(["-c", "cat /dev/zero | \"$0\" check -", env!("CARGO_BIN_EXE_wsguard")])
        .output()
        .unwrap();
    assert_eq!(endless.status.code(), Some(3), "{}", text(&endless));
    assert!(text(&endless).contains("larger than 1 MiB"), "{}", text(&endless));
}

#[test]
fn a_wrong_command_line_ends_with_2_and_help_with_0() {
    for arguments in [
        ["rum"].as_slice(),
        &["run", "--nonsense"],
        &["run", "--listen", "127.0.0.1:0"],
        &["run", "--upstream", "127.0.0.1:1"],
        &["check", "a", "b"],
        &[],
    ] {
        let output = ended(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output));
        assert!(!text(&output).is_empty());
    }
    for arguments in [
        ["--help"].as_slice(),
        &["run", "--help"],
        &["check", "--help"],
        &["--version"],
    ] {
        let output = ended(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!output.stdout.is_empty());
    }
}

#[test]
fn help_explains_exit_codes_signals_verdicts_and_every_default() {
    for (arguments, words) in [
        (
            ["--help"].as_slice(),
            ["Exit codes: 0 done, 1 failed, 2 usage, 3 configuration refused or missing"].as_slice(),
        ),
        (
            &["run", "--help"],
            &[
                "[default: 50]",
                "[default: 10000]",
                "[default: none]",
                "HUP reloads",
                "TERM, INT and QUIT drain",
            ],
        ),
        (
            &["probe", "--help"],
            &[
                "ok: ",
                "BAD: ",
                "??: ",
                "Exit code 1",
                "1 to 150",
                "200 sockets",
                "a minute",
            ],
        ),
    ] {
        let output = wsguard()
            .args(arguments)
            .env("WSGUARD_CONFIG", "/secret/path.toml")
            .stdout(Stdio::piped())
            .output()
            .unwrap();
        let words_shown = text(&output).split_whitespace().collect::<Vec<_>>().join(" ");
        for word in words {
            assert!(words_shown.contains(word), "{word} in {words_shown}");
        }
        assert!(!words_shown.contains("/secret"), "{words_shown}");
    }
}

#[test]
fn an_address_that_is_taken_ends_with_1_and_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let config = GOOD.replace("127.0.0.1:8080", &address) + "[admin]\nlisten = \"off\"";
    let (_dir, file) = written(&config);
    let output = ended(&["run", "-c", &file]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains(&address), "{}", text(&output));
}

/// A log collector reads every line of the output.
#[test]
fn with_a_json_log_every_line_of_run_is_json() {
    let json = |output: &[u8]| -> Vec<serde_json::Value> {
        let lines = String::from_utf8_lossy(output).into_owned();
        let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        lines.lines().map(read).collect()
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let free = GOOD.replace("8080", "0") + "[admin]\nlisten = \"off\"\n";
    let bad = GOOD.replace("trusted_proxies", "trusted_proxy") + "[limits]\nper_ip = \"lots\"\n";
    for (config, code, event, words) in [
        (
            &bad,
            3,
            "config_refused",
            [":5:1: unknown key `trusted_proxy`", "did you mean"],
        ),
        (&"[listener".to_owned(), 3, "config_refused", [":1:", "unclosed"]),
        (
            &free.replace("127.0.0.1:0", &address),
            1,
            "failed",
            [&address, "in use"],
        ),
        (
            &free.replace("\"off\"", &format!("\"{address}\"")),
            1,
            "failed",
            [&address, "in use"],
        ),
    ] {
        let (_dir, file) = written(config);
        let output = ended(&["run", "-c", &file]);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        let lines = json(&output.stderr);
        let errors: Vec<&str> = lines
            .iter()
            .filter(|line| line["event"] == event && line["level"] == "error")
            .map(|line| line["message"].as_str().unwrap())
            .collect();
        for word in words {
            assert!(errors[0].contains(word), "{word} in {errors:?}");
        }
    }
    let (_dir, file) = written(&bad);
    let both = json(&ended(&["run", "-c", &file]).stderr);
    assert_eq!(both.len(), 2, "each mistake has its line: {both:?}");
    let missing = json(&ended(&["run", "-c", "/nowhere/wsguard.toml"]).stderr);
    assert_eq!((missing.len(), &missing[0]["event"]), (1, &"config_refused".into()));
    let no_command_line = json(&ended(&["run", "--listen", "x", "--upstream", "127.0.0.1:1"]).stderr);
    assert_eq!(no_command_line[0]["event"], "config_refused");

    // The numbers of a running guard.
    let backend = Backend::listening();
    for format in ["auto", "json"] {
        let rig = Rig::start(&backend, &format!("[zone.idle]\n[log]\nformat = \"{format}\""));
        let lines = json(rig.raw_log().join("\n").as_bytes());
        let warned = |word: &str| {
            lines.iter().any(|line| {
                let message = line["message"].as_str().unwrap_or_default();
                line["event"] == "config_warning" && line["level"] == "warn" && message.contains(word)
            })
        };
        assert!(warned("no route leads to zone \"idle\""), "{lines:?}");
        drop(rig.open());
        rig.quiet();
        json(rig.raw_log().join("\n").as_bytes());
    }
    drop(taken);
}

#[test]
fn with_a_text_log_mistakes_keep_their_line_and_caret() {
    let (_dir, file) = written(&format!("{GOOD}[log]\nformat = \"text\"\nlevl = 1\n"));
    let output = ended(&["run", "-c", &file]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(text(&output).contains("error: unknown key `levl`"), "{}", text(&output));
    assert!(text(&output).contains("^^^^"), "{}", text(&output));
}

/// A second guard on the same address must fail, not share the traffic with the first.
#[test]
fn a_second_guard_on_the_same_address_does_not_start() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "");
    let config = GOOD.replace("127.0.0.1:8080", &rig.front().to_string()) + "[admin]\nlisten = \"off\"";
    let (_dir, file) = written(&config);
    let output = ended(&["run", "-c", &file]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    drop(rig.open());
    rig.quiet();
}

#[test]
fn run_needs_no_file() {
    let backend = Backend::listening();
    let upstream = backend.address().to_string();
    let rig = Rig::run(&[
        "--listen",
        "127.0.0.1:0",
        "--upstream",
        &upstream,
        "--per-ip",
        "2",
        "--connections",
        "3",
        "--trust",
        "loopback",
        "--admin",
        "127.0.0.1:0",
    ]);
    assert_eq!(rig.get("/healthz").status(), 200);
    let from = |client: &str| Request::to("/ws").add("X-Forwarded-For", client);
    let mut open: Vec<Socket> = (0..2)
        .map(|_| rig.try_open(ip(1), &from("203.0.113.7")).ok().unwrap())
        .collect();
    assert_eq!(rig.ask(from("203.0.113.7")).status(), 429);
    open.push(rig.try_open(ip(1), &from("203.0.113.8")).ok().unwrap());
    assert_eq!(rig.ask(from("203.0.113.9")).status(), 503);
    assert_eq!(backend.dials(), 3);
    assert_eq!(backend.visit(0).header("X-Real-IP"), ["203.0.113.7"]);
}

/// Two guards without a file can run on one machine: the second one gets another admin address, or none.
#[test]
fn run_without_a_file_can_switch_admin_off_and_names_a_wrong_address() {
    let backend = Backend::listening();
    let upstream = backend.address().to_string();
    let quick = ["--listen", "127.0.0.1:0", "--upstream", &upstream, "--admin"];
    let rig = Rig::run(&[&quick[..], &["off"]].concat());
    drop(rig.open());
    assert!(rig.messages("admin").is_empty(), "there is no admin server");
    for wrong in ["9191", "localhost:9191"] {
        let says = format!("{wrong}\\\" is not an address and port");
        let output = ended(&[&["run"], &quick[..], &[wrong]].concat());
        assert_eq!(output.status.code(), Some(3), "{}", text(&output));
        assert!(text(&output).contains(&says), "{}", text(&output));
    }
    // Together with a file the option is refused: the file has the setting.
    let output = ended(&["run", "-c", "/nowhere/wsguard.toml", "--admin", "off"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
}

#[test]
fn with_too_few_descriptors_it_says_how_many_it_needs() {
    // Another test may be using the usual admin port at the moment.
    let (_dir, file) = written(&format!("{}[admin]\nlisten = \"off\"\n", GOOD.replace("8080", "0")));
    let output = Command::new("sh")
        .args([
            "-c",
            "ulimit -n 100 && exec \"$0\" run -c \"$1\"",
            env!("CARGO_BIN_EXE_wsguard"),
            &file,
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("descriptor"), "{}", text(&output));
}

#[test]
fn term_and_int_end_an_idle_guard_at_once_with_0() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let backend = Backend::listening();
        let mut rig = Rig::start(&backend, "");
        drop(rig.open());
        rig.quiet();
        rig.signal(signal);
        assert_eq!(rig.ended().code(), Some(0));
    }
}

fn written(config: &str) -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let file: PathBuf = dir.path().join("wsguard.toml");
    fs::write(&file, config.trim_start_matches('\n')).unwrap();
    let name = file.to_str().unwrap().to_owned();
    (dir, name)
}

fn ended(arguments: &[&str]) -> Output {
    wsguard()
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    [output.stdout.as_slice(), &output.stderr]
        .iter()
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .collect()
}
