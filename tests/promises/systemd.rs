//! Under systemd: the sockets that systemd has bound, and the notifications that it gets.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use rustix::process::Signal;
use sd_notify::NotifyState;

use crate::rig::{Backend, PATIENCE, Request, Rig, Socket, Systemd, ip, keepalive_in, masked, until, value_of};

#[test]
fn sockets_are_matched_by_name_and_nothing_else_is_bound() {
    let backend = Backend::echo();
    let (web, other) = (bound(), bound());
    // The address is taken. A guard that bound it itself would fail.
    let taken = bound();
    let config = [
        listener("web", &[address(&taken)]),
        listener("other", &["127.0.0.1:1".parse().unwrap()]),
        behind(&backend),
    ]
    .concat();
    let systemd = Systemd::new(&config);
    let rig = systemd.start(vec![("other", copy(&other)), ("web", copy(&web))]);
    assert_eq!(rig.fronts(), [address(&other), address(&web)]);
    for socket in [&web, &other] {
        // There are more connections than workers: all workers accept from the one queue.
        let open: Vec<Socket> = (1..=20).map(|n| open_at(n, address(socket))).collect();
        drop(open);
    }
    rig.quiet();
    assert_eq!(rig.count(r#"wsguard_accepted_total{listener="web"}"#), 20);
    assert_eq!(rig.count(r#"wsguard_accepted_total{listener="other"}"#), 20);
}

#[test]
fn sockets_without_a_name_of_ours_are_matched_by_address() {
    let backend = Backend::echo();
    let front = bound();
    let systemd = Systemd::new("");
    let path = systemd.path("in.sock");
    let local = UnixListener::bind(&path).unwrap();
    let binds = format!(
        "{:?}, \"unix:{}\", \"127.0.0.1:0\"",
        address(&front).to_string(),
        path.display()
    );
    systemd.configure(
        &[
            format!("[[listener]]\nname = \"front\"\nbind = [{binds}]\n"),
            behind(&backend),
        ]
        .concat(),
    );
    let rig = systemd.start(vec![("", copy(&front)), ("wsguard.socket", local.into())]);
    let own = rig.fronts()[1];
    assert_eq!(rig.fronts()[0], address(&front));
    drop([open_at(1, address(&front)), open_at(1, own)]);
    let mut client = UnixStream::connect(&path).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    std::io::Write::write_all(&mut client, Request::to("/ws").as_ref()).unwrap();
    let mut head = [0; 12];
    std::io::Read::read_exact(&mut client, &mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 101");
    drop(client);
    rig.quiet();
}

#[test]
fn a_listener_with_one_bind_takes_all_sockets_of_its_name() {
    let backend = Backend::echo();
    let (four, six) = (bound(), TcpListener::bind("[::1]:0").unwrap());
    let systemd = Systemd::new(&[listener("web", &[address(&four)]), behind(&backend)].concat());
    let mut rig = systemd.start(vec![("web", copy(&six)), ("web", copy(&four))]);
    let both = [open_at(1, address(&four)), open_at(1, address(&six))];
    drop(both);
    rig.quiet();
    rig.signal(Signal::TERM);
    assert_eq!(rig.ended().code(), Some(0));
}

#[test]
fn a_socket_that_no_listener_takes_is_a_clear_error() {
    let backend = Backend::echo();
    let (front, stray) = (bound(), bound());
    let two = [address(&front), "127.0.0.1:1".parse().unwrap()];
    let systemd = Systemd::new(&[listener("web", &two), behind(&backend)].concat());
    let cases: [(&str, OwnedFd, &[&str]); 4] = [
        ("wbe", copy(&stray), &["wbe", "FileDescriptorName", "there are web"]),
        ("", copy(&stray), &["no listener takes the socket"]),
        ("web", copy(&stray), &["listener web has several binds"]),
        (
            "web",
            UdpSocket::bind("127.0.0.1:0").unwrap().into(),
            &["descriptor 4 (web)", "not a listening stream socket"],
        ),
    ];
    for (index, (name, socket, expected)) in cases.into_iter().enumerate() {
        let output = systemd
            .command(vec![("web", copy(&front)), (name, socket)])
            .output()
            .unwrap();
        let output_text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{output_text}");
        for part in expected {
            assert!(output_text.contains(part), "{part:?} is not in: {output_text}");
        }
        let is_named = index == 3 || output_text.contains(&address(&stray).to_string());
        assert!(is_named && output_text.contains("systemd"), "{output_text}");
        assert!(
            !output_text.contains("ready") && !output_text.contains("panicked"),
            "{output_text}"
        );
    }
    assert!(systemd.received().is_empty(), "it sends no READY");
}

#[test]
fn sockets_meant_for_another_process_are_left_alone() {
    let backend = Backend::echo();
    let stray = bound();
    let systemd = Systemd::new(&[listener("front", &["127.0.0.1:0".parse().unwrap()]), behind(&backend)].concat());
    let mut command = systemd.command(vec![("web", copy(&stray))]);
    let script = "export LISTEN_PID=1; exec \"$0\" run -c \"$1\"";
    let arguments: Vec<_> = command.get_args().skip(2).map(ToOwned::to_owned).collect();
    let mut other = std::process::Command::new("sh");
    other.args(["-c", script]).args(arguments).env("LISTEN_FDS", "1");
    for (name, value) in command.get_envs().filter_map(|(name, value)| Some((name, value?))) {
        other.env(name, value);
    }
    command = other;
    let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    systemd.receives("ready", |message| value_of(message, "READY") == Some("1"));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_reload_keeps_the_sockets_and_one_that_goes_is_given_back() {
    let backend = Backend::echo();
    let (web, extra) = (bound(), bound());
    let systemd = Systemd::new("");
    let path = systemd.path("in.sock");
    let local = UnixListener::bind(&path).unwrap();
    let with = |extra: &str| {
        [
            "[server]\nwatch_config = false\n".to_owned(),
            listener("web", &[address(&web)]),
            extra.to_owned(),
            behind(&backend),
        ]
        .concat()
    };
    let local_too = format!("[[listener]]\nname = \"local\"\nbind = [\"unix:{}\"]\n", path.display());
    systemd.configure(&with(&local_too));
    let rig = systemd.start(vec![("web", copy(&web)), ("local", local.try_clone().unwrap().into())]);
    systemd.receives("ready", |message| value_of(message, "READY") == Some("1"));
    let mut open = open_at(1, address(&web));

    // The test has bound `extra`. A listener that asks for it is refused as a whole.
    systemd.configure(&with(&listener("extra", &[address(&extra)])));
    reload(&rig, &systemd);
    assert_eq!(rig.stats()["last_reload"]["successful"], false);
    assert!(UnixStream::connect(&path).is_ok());

    // An address that covers one of systemd's addresses can't take its place either.
    let wide = SocketAddr::from(([0, 0, 0, 0], address(&web).port()));
    systemd.configure(&with("").replace(&address(&web).to_string(), &wide.to_string()));
    reload(&rig, &systemd);
    let error = rig.stats()["last_reload"]["error"].to_string();
    let names = format!(
        "cannot bind {wide} in place of {}, which wsguard's own listener web has, a socket from systemd; a restart does it",
        address(&web)
    );
    assert!(error.contains(&names), "{error}");

    systemd.configure(&with(""));
    reload(&rig, &systemd);
    assert_eq!(rig.stats()["generation"], 2, "{}", rig.stats());
    // Our descriptors are closed. The file and the queue belong to systemd, which would start us again for the next
    // client.
    assert!(path.exists());
    until("only the test has the local socket", || {
        local.set_nonblocking(true).unwrap();
        let _waiting = UnixStream::connect(&path).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        local.accept().ok()
    });

    let still = masked(1, b"still");
    open.send(&still);
    assert_eq!(open.read_exactly(still.len()), still);
    let more: Vec<Socket> = (2..10).map(|n| open_at(n, address(&web))).collect();
    drop((open, more));
    rig.quiet();
}

#[test]
fn clients_that_come_during_a_restart_are_served_by_the_next_process() {
    let backend = Backend::echo();
    let web = bound();
    let config = [
        "[server]\ndrain_timeout = \"2s\"\n".to_owned(),
        listener("web", &[address(&web)]),
        behind(&backend),
    ]
    .concat();
    let systemd = Systemd::new(&config);
    let mut first = systemd.start(vec![("web", copy(&web))]);
    let mut open = open_at(1, address(&web));
    first.signal(Signal::TERM);
    systemd.receives("stopping", |message| value_of(message, "STOPPING") == Some("1"));
    let (last, _) = open.read_to_end();
    assert_eq!(crate::rig::close_code(&last), Some(1012));
    // No process accepts any more, but no client is refused.
    let mut queued: Vec<Socket> = (1..=10).map(|n| asking_at(n, address(&web))).collect();
    assert_eq!(first.ended().code(), Some(0));
    queued.extend((11..=20).map(|n| asking_at(n, address(&web))));
    assert!(queued.iter().all(Socket::is_silent));
    let second = systemd.start(vec![("web", copy(&web))]);
    for socket in &mut queued {
        assert!(socket.read_head().starts_with(b"HTTP/1.1 101 "));
    }
    drop(queued);
    second.quiet();
}

/// A client that came before the first start does not inherit options that are set on the socket later.
#[test]
fn the_client_that_caused_the_start_gets_keepalive_like_any_other() {
    let backend = Backend::echo();
    let web = bound();
    let systemd = Systemd::new(&[listener("web", &[address(&web)]), behind(&backend)].concat());
    let mut early = asking_at(1, address(&web));
    let rig = systemd.start(vec![("web", copy(&web))]);
    assert!(early.read_head().starts_with(b"HTTP/1.1 101 "));
    let late = open_at(2, address(&web));
    for socket in [&early, &late] {
        let probed = keepalive_in(address(&web), |remote| remote == socket.local());
        assert!(probed.is_some(), "{}", socket.local());
    }
    drop((early, late));
    rig.quiet();
}

#[test]
fn systemd_is_notified_of_everything_in_order() {
    let backend = Backend::echo();
    let config = |rest: &str| {
        let table = "[server]\nmax_connections = 70\ndrain_timeout = \"1s\"\nwatch_config = false\n".to_owned();
        [
            table,
            listener("web", &["127.0.0.1:0".parse().unwrap()]),
            behind(&backend),
            rest.to_owned(),
        ]
        .concat()
    };
    let systemd = Systemd::new(&config(""));
    let mut rig = systemd.start_watched(Duration::from_secs(2));
    let ready = until("the first message", || systemd.received().first().cloned());
    assert_eq!(ready, "READY=1\nSTATUS=0 of 70 connections open, generation 1\n");
    systemd.receives("ready", |message| message == ready);

    let open = [open_at(1, rig.front()), open_at(2, rig.front())];
    systemd.receives("two are open", |message| {
        value_of(message, "STATUS").is_some_and(|status| status.starts_with("2 of 70 "))
    });
    for _ in 0..3 {
        systemd.receives("a ping", |message| message == "WATCHDOG=1\n");
    }

    // The notifications come around every reload, even around a refused one.
    for (file, status) in [
        (
            config("[limits]\nper_ip = 3\n"),
            "2 of 70 connections open, generation 2",
        ),
        (
            config("[limits]\nper_ip = 3\nper_pi = 3\n"),
            "2 of 70 connections open, generation 2; reload refused: ",
        ),
        (config(""), "2 of 70 connections open, generation 3"),
    ] {
        systemd.configure(&file);
        let before = monotonic_usec();
        let ready = reload_from(&rig, &systemd, before);
        let heard = value_of(&ready, "STATUS").unwrap();
        assert!(heard.starts_with(status), "{heard}");
        assert_eq!(heard.contains("refused"), heard.contains("per_pi"), "{heard}");
    }

    rig.signal(Signal::TERM);
    let stopping = systemd.receives("stopping", |message| value_of(message, "STOPPING") == Some("1"));
    assert_eq!(value_of(&stopping, "STATUS"), Some("stopping, 2 connections open"));
    assert_eq!(rig.ended().code(), Some(0));
    let rest = systemd.received();
    assert!(rest.iter().all(|message| !message.contains("READY")), "{rest:?}");
    drop(open);
}

/// Makes systemd reload the guard, and waits for the end of the reload.
fn reload(rig: &Rig, systemd: &Systemd) {
    reload_from(rig, systemd, monotonic_usec());
}

fn reload_from(rig: &Rig, systemd: &Systemd, before: u64) -> String {
    rig.signal(Signal::HUP);
    let begin = systemd.receives("reloading", |message| value_of(message, "RELOADING") == Some("1"));
    let at: u64 = value_of(&begin, "MONOTONIC_USEC").unwrap().parse().unwrap();
    assert!((before..=monotonic_usec()).contains(&at), "{before} {at}");
    systemd.receives("ready again", |message| value_of(message, "READY") == Some("1"))
}

fn monotonic_usec() -> u64 {
    let now = NotifyState::monotonic_usec_now().unwrap().to_string();
    value_of(&now, "MONOTONIC_USEC").unwrap().parse().unwrap()
}

fn bound() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn address(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().unwrap()
}

fn copy(listener: &TcpListener) -> OwnedFd {
    listener.try_clone().unwrap().into()
}

fn listener(name: &str, binds: &[SocketAddr]) -> String {
    let binds: Vec<String> = binds.iter().map(ToString::to_string).collect();
    format!("[[listener]]\nname = \"{name}\"\nbind = {binds:?}\n")
}

fn behind(backend: &Backend) -> String {
    let server = backend.address();
    format!("[admin]\nlisten = \"127.0.0.1:0\"\n[upstream.chat]\nservers = [\"{server}\"]\n")
}

/// A connection that has sent an upgrade.
fn asking_at(source: u8, to: SocketAddr) -> Socket {
    let mut socket = Socket::connect(ip(source), to);
    socket.send(Request::to("/ws").as_ref());
    socket
}

fn open_at(source: u8, to: SocketAddr) -> Socket {
    let mut socket = asking_at(source, to);
    let head = socket.read_head();
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    socket
}
