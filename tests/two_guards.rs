//! The library in a process that is not its own: two guards side by side, each with its own policy and counts, and nothing
//! else of the process changed.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use wsguard::config;
use wsguard::control::descriptors;
use wsguard::control::guard::{Environment, Guard};
use wsguard::net::address::Bind;
use wsguard::wire::ws::upgrade_request::accept_for;

#[test]
fn two_guards_share_a_process_and_nothing_else() {
    static PANICS: AtomicU32 = AtomicU32::new(0);
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        PANICS.fetch_add(1, Relaxed);
    }));
    let limit = descriptors::limit();

    let server = echo_server();
    let (one, three) = (guard(server, 1), guard(server, 3));
    let mut only = upgrade(&one, 101);
    upgrade(&one, 429);
    let mut others: Vec<TcpStream> = (0..3).map(|_| upgrade(&three, 101)).collect();
    upgrade(&three, 429);
    assert_eq!((open(&one), open(&three)), (1, 3), "each counts its own");
    // A refusal is counted once its answer is delivered.
    until("each has counted its refusal", || {
        (refused(&one), refused(&three)) == (1, 1)
    });
    for (guard, open) in [(&one, 1), (&three, 3)] {
        let connections = guard.connections();
        assert_eq!(connections.len(), open, "each lists its own: {connections:?}");
        for conn in connections {
            assert_eq!(conn.address, Some([127, 0, 0, 1].into()));
            assert_eq!((&*conn.zone, &*conn.upstream), ("default", "echo"));
            assert_eq!(*conn.server, *server.to_string());
        }
    }
    echo(&mut only);
    others.iter_mut().for_each(echo);
    let moved = |guard: &Guard| {
        let connections = guard.connections();
        let moved = connections
            .iter()
            .map(|conn| (conn.bytes_in, conn.bytes_out, conn.messages_in));
        moved.collect::<Vec<_>>()
    };
    until("what each has moved shows", || {
        moved(&one) == [(6, 6, 1)] && moved(&three) == [(6, 6, 1); 3]
    });

    let address = address(&one);
    one.stop();
    assert!(
        matches!(only.read(&mut [0]), Ok(0) | Err(_)),
        "its connections end with it"
    );
    assert!(TcpStream::connect(address).is_err(), "and its address is free");
    others.iter_mut().for_each(echo);
    assert_eq!((open(&three), refused(&three)), (3, 1), "the other one has not noticed");
    drop(others.pop());
    until("a slot comes back", || open(&three) == 2);
    echo(&mut upgrade(&three, 101));
    three.stop();

    assert_eq!(
        descriptors::limit(),
        limit,
        "the descriptor limit is the program's to raise"
    );
    let _panicked = thread::spawn(|| panic!("a panic of the program's")).join();
    assert_eq!(PANICS.load(Relaxed), 1, "the panic hook is still the program's");
}

fn guard(server: SocketAddr, per_ip: u32) -> Arc<Guard> {
    let text = format!(
        "[server]\nworkers = 1\n[[listener]]\nbind = [\"127.0.0.1:0\"]\n[upstream.echo]\nservers = [\"{server}\"]\n\
         [limits]\nper_ip = {per_ip}\n[admin]\nlisten = \"off\"\n"
    );
    let checked = config::compile(&text, "test").unwrap_or_else(|rejected| panic!("{}", rejected.render(false)));
    Guard::start(checked.policy, Environment::new(descriptors::limit())).unwrap()
}

fn address(guard: &Guard) -> SocketAddr {
    let (_, bind) = guard.addresses().pop().unwrap();
    match bind {
        Bind::Tcp(address) => address,
        Bind::Unix(..) => unreachable!("it listens on TCP"),
    }
}

/// A client that asks for an upgrade, and is answered with `status`.
fn upgrade(guard: &Guard, status: u16) -> TcpStream {
    let mut stream = TcpStream::connect(address(guard)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let head = read_head(&mut stream);
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    stream
}

/// An empty text message there and back.
fn echo(stream: &mut TcpStream) {
    let frame = [0x81, 0x80, 1, 2, 3, 4];
    stream.write_all(&frame).unwrap();
    let mut answer = [0; 6];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, frame);
}

/// A server that switches protocols and sends back whatever it gets.
fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || serve(stream.unwrap()));
        }
    });
    address
}

fn serve(mut stream: TcpStream) {
    let head = read_head(&mut stream);
    let key = head
        .lines()
        .find_map(|line| {
            line.to_lowercase()
                .starts_with("sec-websocket-key:")
                .then(|| line[18..].trim())
        })
        .unwrap();
    let accept = accept_for(key.as_bytes());
    let reply = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(reply.as_bytes()).unwrap();
    let mut echo = stream.try_clone().unwrap();
    let _ended = std::io::copy(&mut stream, &mut echo);
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn open(guard: &Guard) -> u32 {
    metric(guard, "wsguard_process_connections ")
}

fn refused(guard: &Guard) -> u32 {
    let name = "wsguard_handshakes_total{outcome=\"rejected\",reason=\"per_ip\",zone=\"default\"} ";
    metric(guard, name)
}

fn metric(guard: &Guard, name: &str) -> u32 {
    let text = wsguard::admin::metrics_text(guard);
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let late = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < late, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

const PATIENCE: Duration = Duration::from_secs(10);
