//! `wsguard demo` as a program: what it prints, its page, its flood, and the admin server it starts.

mod admin;
mod page;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running demo on free ports.
struct Demo {
    child: Child,
    page: SocketAddr,
    guard: SocketAddr,
    admin: SocketAddr,
}

impl Demo {
    /// A demo from a `child` that was started with other arguments, and whose lines are read elsewhere.
    fn of(child: Child) -> Self {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            child,
            page: nowhere,
            guard: nowhere,
            admin: nowhere,
        }
    }

    fn start() -> Self {
        let mut child = command(&["--page", "127.0.0.1:0", "--listen", "127.0.0.1:0"])
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut address = |before: &str, after: &str| {
            let line = lines.next().unwrap().unwrap();
            let address = line.strip_prefix(before).and_then(|line| line.strip_suffix(after));
            address
                .unwrap_or_else(|| panic!("{line:?} is not {before}ADDR{after}"))
                .parse()
                .unwrap()
        };
        let page = address("page http://", "/");
        let guard = address("guard ws://", "/chat");
        let admin = address("metrics http://", "/metrics");
        Self {
            child,
            page,
            guard,
            admin,
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wsguard"));
    command
        .arg("demo")
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Sends `bytes` and reads until the other side closes.
fn ask(server: SocketAddr, bytes: &str) -> String {
    let mut socket = dial(server);
    socket.write_all(bytes.as_bytes()).unwrap();
    heard(&mut socket)
}

fn dial(server: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(server).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    socket
}

fn heard(socket: &mut TcpStream) -> String {
    let mut heard = Vec::new();
    socket.read_to_end(&mut heard).unwrap();
    String::from_utf8(heard).unwrap()
}

fn status(response: &str) -> u16 {
    response
        .get(9..12)
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("no status in {response:?}"))
}
