//! Where the guard listens: at each address once, and only at the addresses that are configured.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;

use crate::rig::{Backend, Request, Rig, Socket, ip, wsguard};

#[test]
fn a_second_guard_on_the_same_port_fails_with_a_clear_line_and_takes_nothing_from_the_first() {
    let backend = Backend::listening();
    let rig = Rig::start(&backend, "");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wsguard.toml");
    let text = Rig::before(&backend)
        .text()
        .replace("127.0.0.1:0\"]", &format!("{}\"]", rig.front()));
    std::fs::write(&file, text).unwrap();
    let second = wsguard()
        .args(["run", "-c"])
        .arg(&file)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    let output_text = String::from_utf8(second.stderr).unwrap();
    let names_it = |line: &str| line.contains(&rig.front().to_string()) && line.contains("in use");
    assert!(output_text.lines().any(names_it), "{output_text}");
    for _ in 0..20 {
        rig.open().reset();
    }
    assert_eq!(backend.dials(), 20);
    rig.quiet();
}

#[test]
fn a_unix_socket_is_bound_over_one_left_behind_and_removed_at_the_end() {
    let backend = Backend::listening();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.sock");
    // A guard that was killed leaves such a socket file.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let mut rig = at_unix(&backend, &path);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(Request::to("/ws").as_ref()).unwrap();
    let mut head = [0; 13];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 101 ");
    let stats = rig.stats();
    assert_eq!(stats["top"][0]["key"], "unix", "{stats}");
    drop(stream);
    rig.quiet();
    rig.signal(Signal::TERM);
    assert_eq!(rig.ended().code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn a_unix_socket_with_a_listener_is_not_taken_over() {
    let backend = Backend::listening();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.sock");
    let first = at_unix(&backend, &path);
    let file = dir.path().join("second.toml");
    let text = format!(
        "[[listener]]\nbind = [\"unix:{}\"]\n[admin]\nlisten = \"off\"\n[upstream.chat]\nservers = [\"{}\"]\n",
        path.display(),
        backend.address()
    );
    std::fs::write(&file, text).unwrap();
    let second = wsguard()
        .args(["run", "-c"])
        .arg(&file)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8(second.stderr).unwrap().contains("in use"));
    assert!(UnixStream::connect(&path).is_ok(), "the first still listens there");
    assert_eq!(first.count("wsguard_panics_total"), 0);
    // Other files at the path are not removed either.
    let other = dir.path().join("notes.txt");
    std::fs::write(&other, "mine").unwrap();
    std::fs::write(
        &file,
        std::fs::read_to_string(&file).unwrap().replace("in.sock", "notes.txt"),
    )
    .unwrap();
    let third = wsguard()
        .args(["run", "-c"])
        .arg(&file)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(third.status.code(), Some(1));
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "mine");
}

#[test]
fn a_listener_may_have_several_addresses_and_counts_them_together() {
    let backend = Backend::listening();
    let rig = Rig::start(
        &backend,
        "[[listener]]\nname = \"front\"\nbind = [\"127.0.0.1:0\", \"127.0.0.2:0\"]\n[limits]\nper_ip = 2",
    );
    assert_eq!(rig.fronts().len(), 2);
    let mut sockets: Vec<Socket> = rig
        .fronts()
        .iter()
        .map(|front| Socket::connect(ip(1), *front))
        .collect();
    for socket in &mut sockets {
        socket.send(Request::to("/ws").as_ref());
        assert!(socket.read_head().starts_with(b"HTTP/1.1 101 "));
    }
    for front in rig.fronts() {
        let mut third = Socket::connect(ip(1), *front);
        third.send(Request::to("/ws").as_ref());
        assert_eq!(third.answer().status(), 429);
    }
    assert_eq!(rig.count(r#"wsguard_accepted_total{listener="front"}"#), 4);
    assert_eq!(backend.dials(), 2);
    drop(sockets);
    rig.quiet();
}

#[test]
fn an_ipv6_address_takes_ipv6_only() {
    let Ok(probe) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) else {
        // On a machine without IPv6 there is nothing to test.
        return;
    };
    drop(probe);
    let backend = Backend::listening();
    let front = || Rig::start(&backend, "[[listener]]\nname = \"front\"\nbind = [\"[::]:0\"]");
    // The port must be free on every IPv4 address. Another test may have taken it in this round.
    let is_free = |rig: &Rig| TcpListener::bind(("0.0.0.0", rig.front().port())).is_ok();
    let rig = (0..20)
        .map(|_| front())
        .find(is_free)
        .expect("a port that IPv4 may have too");
    let port = rig.front().port();
    let mut socket = Socket::connect(
        Ipv6Addr::LOCALHOST.into(),
        SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
    );
    socket.send(Request::to("/ws").as_ref());
    assert!(socket.read_head().starts_with(b"HTTP/1.1 101 "));
    let stats = rig.stats();
    assert_eq!(stats["top"][0]["key"], "::/64", "{stats}");
    assert_eq!(rig.count(r#"wsguard_accepted_total{listener="front"}"#), 1);
    drop(socket);
    rig.quiet();
}

fn at_unix(backend: &Backend, path: &Path) -> Rig {
    let listener = format!("[[listener]]\nname = \"front\"\nbind = [\"unix:{}\"]\n", path.display());
    Rig::start(backend, &listener)
}
