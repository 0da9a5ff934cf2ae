//! The real guard between real sockets. A rig starts the binary with a configuration, and gives a test raw sockets to
//! its front, its metrics, its log, and scripted servers behind it.

mod backend;
mod epoll;
#[allow(dead_code)] // The benches send more opcodes.
mod frames;
mod metrics;
mod queues;
mod reload;
mod request;
mod socket;
mod systemd;
mod wait;

pub use backend::{Backend, Gate, Guest, full_queue};
pub use frames::{close_code, frame, masked, unmasked};
pub use metrics::Metrics;
pub use queues::{all_acknowledged, all_read, keepalive_in, keepalive_to};
pub use request::{Request, accept_for};
pub use socket::{Answer, End, Socket};
pub use systemd::{Systemd, value_of};
pub use wait::{Began, PATIENCE, reaches, side_by_side, until};

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// A running guard. Dropping it ends the process.
pub struct Rig {
    child: Child,
    front: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    log: Arc<Mutex<Log>>,
    reads: Arc<AtomicBool>,
    dir: TempDir,
}

/// What the guard has written to standard error.
#[derive(Default)]
struct Log {
    written: Vec<String>,
    /// How many lines were parsed. Each is parsed once.
    seen: usize,
    /// The lines that are JSON.
    parsed: Vec<Value>,
}

impl Log {
    fn parse(&mut self) {
        let new = self.written[self.seen..].iter();
        self.parsed
            .extend(new.filter_map(|line| serde_json::from_str(line).ok()));
        self.seen = self.written.len();
    }
}

/// The content of the file, apart from the addresses of the listener and of admin.
#[derive(Default)]
pub struct Setup {
    listener: String,
    servers: Vec<SocketAddr>,
    config: String,
    under: Vec<String>,
}

impl Setup {
    /// Lines in the only `[[listener]]`.
    pub fn listener(mut self, lines: &str) -> Self {
        self.listener.push_str(lines);
        self
    }

    /// Further tables. The default upstream is left out if they contain `[upstream.`.
    pub fn config(mut self, tables: &str) -> Self {
        self.config.push_str(tables);
        self.config.push('\n');
        self
    }

    /// Adds a server to the default upstream.
    pub fn server(mut self, address: SocketAddr) -> Self {
        self.servers.push(address);
        self
    }

    /// A program that gets the guard's command line as arguments and runs it, such as `env A=B`.
    pub fn under(mut self, program: &[&str]) -> Self {
        self.under = program.iter().map(ToString::to_string).collect();
        self
    }

    /// Starts the guard.
    pub fn start(self) -> Rig {
        Rig::start_with(&self)
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if !self.config.contains("[[listener]]") {
            text.push_str("[[listener]]\nname = \"front\"\nbind = [\"127.0.0.1:0\"]\n");
            text.push_str(&self.listener);
            text.push('\n');
        }
        if !self.config.contains("[admin]") {
            text.push_str("[admin]\nlisten = \"127.0.0.1:0\"\n");
        }
        text.push_str(&self.config);
        if !self.config.contains("[upstream.") {
            let servers: Vec<String> = self.servers.iter().map(SocketAddr::to_string).collect();
            text.push_str("\n[upstream.chat]\n");
            text.push_str(&["servers = ", &format!("{servers:?}"), "\n"].concat());
        }
        text
    }
}

impl Rig {
    /// Starts a guard in front of one server, with further tables of configuration.
    pub fn start(backend: &Backend, config: &str) -> Self {
        Self::before(backend).config(config).start()
    }

    /// A guard in front of one server, to be configured before it starts.
    pub fn before(backend: &Backend) -> Setup {
        Setup::default().server(backend.address())
    }

    fn start_with(setup: &Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("wsguard.toml"), setup.text()).unwrap();
        Self::start_under(&setup.under, dir)
    }

    /// Starts a guard whose file is already in this directory.
    pub fn start_in(dir: TempDir) -> Self {
        Self::start_under(&[], dir)
    }

    fn start_under(under: &[String], dir: TempDir) -> Self {
        let file = dir.path().join("wsguard.toml");
        let mut command = wsguard_under(under);
        command.args(["run".as_ref(), "-c".as_ref(), file.as_os_str()]);
        Self::spawn(command, dir)
    }

    /// Starts a guard without a file: `wsguard run` with these arguments.
    pub fn run(arguments: &[&str]) -> Self {
        let mut command = wsguard();
        command.arg("run").args(arguments);
        Self::spawn(command, tempfile::tempdir().unwrap())
    }

    fn spawn(mut command: Command, dir: TempDir) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the binary starts");
        let log = Arc::default();
        let reads = Arc::new(AtomicBool::new(true));
        collect(child.stderr.take().unwrap(), Arc::clone(&log), Arc::clone(&reads));
        let mut rig = Self {
            child,
            front: Vec::new(),
            admin: None,
            log,
            reads,
            dir,
        };
        rig.wait_for_ready();
        rig
    }

    fn wait_for_ready(&mut self) {
        until("the guard is ready", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!(
                    "the guard ended with {status} instead of serving:\n{}",
                    self.raw_log().join("\n")
                );
            }
            self.look_at_lines(|lines| lines.iter().any(|line| line["event"] == "ready"))
                .then_some(())
        });
        for line in self.lines() {
            let address = || line["address"].as_str().expect("an address").parse().ok();
            match line["event"].as_str() {
                Some("listening") => self.front.extend(address()),
                Some("admin") => self.admin = address(),
                _ => {}
            }
        }
    }

    /// The address that the guard listens on, the first one of several.
    pub fn front(&self) -> SocketAddr {
        self.front[0]
    }

    /// The addresses that it listens on, one per bind.
    pub fn fronts(&self) -> &[SocketAddr] {
        &self.front
    }

    /// The admin's address.
    pub fn admin(&self) -> SocketAddr {
        self.admin.expect("a line that names the admin's address")
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for the process to end by itself.
    pub fn ended(&mut self) -> ExitStatus {
        self.ended_within(PATIENCE)
    }

    /// The same, with another bound.
    pub fn ended_within(&mut self, bound: Duration) -> ExitStatus {
        wait::reaches(bound, || self.child.try_wait().unwrap())
            .unwrap_or_else(|| panic!("the guard has not ended within {bound:?}"))
    }

    /// The address of a listener, once it is bound.
    pub fn address_of(&self, listener: &str) -> SocketAddr {
        let line = self.line(&format!("listener {listener} is bound"), |line| {
            line["event"] == "listening" && line["listener"] == listener
        });
        line["address"].as_str().unwrap().parse().unwrap()
    }

    /// A connection from 127.0.0.1 that has sent nothing.
    pub fn connect(&self) -> Socket {
        self.connect_from(ip(1))
    }

    /// The same from any 127.x.y.z.
    pub fn connect_from(&self, source: IpAddr) -> Socket {
        Socket::connect(source, self.front())
    }

    /// A connection that has sent these bytes.
    pub fn send(&self, bytes: impl AsRef<[u8]>) -> Socket {
        self.send_from(ip(1), bytes)
    }

    /// The same from any 127.x.y.z.
    pub fn send_from(&self, source: IpAddr, bytes: impl AsRef<[u8]>) -> Socket {
        let mut socket = self.connect_from(source);
        socket.send(bytes.as_ref());
        socket
    }

    /// The answer to these bytes, up to the end of the connection.
    pub fn ask(&self, bytes: impl AsRef<[u8]>) -> Answer {
        self.send(bytes).answer()
    }

    /// The same from any 127.x.y.z.
    pub fn ask_from(&self, source: IpAddr, bytes: impl AsRef<[u8]>) -> Answer {
        self.send_from(source, bytes).answer()
    }

    /// An open WebSocket from 127.0.0.1.
    pub fn open(&self) -> Socket {
        self.open_from(ip(1))
    }

    /// The same from any 127.x.y.z.
    pub fn open_from(&self, source: IpAddr) -> Socket {
        self.try_open(source, &Request::to("/ws"))
            .unwrap_or_else(|answer| panic!("not let in: {answer}"))
    }

    /// An open tunnel, or the guard's answer instead.
    pub fn try_open(&self, source: IpAddr, request: &Request) -> Result<Socket, Answer> {
        let mut socket = self.send_from(source, request);
        let head = socket.read_head();
        if head.starts_with(b"HTTP/1.1 101 ") {
            Ok(socket)
        } else {
            Err(socket.answer_after(head))
        }
    }

    /// The admin server's answer to a GET, with head and body.
    pub fn get(&self, path: &str) -> Answer {
        let host = self.admin();
        self.admin_ask(&format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        ))
    }

    /// The admin server's answer to these bytes.
    pub fn admin_ask(&self, request: &str) -> Answer {
        let mut socket = Socket::connect(ip(1), self.admin());
        socket.send(request.as_bytes());
        let answer = socket.answer();
        // The last packets of this connection are not needed. Without this, hundreds of scrapes would leave hundreds of
        // lingering sockets.
        socket.reset();
        answer
    }

    /// All numbers as of now.
    pub fn metrics(&self) -> Metrics {
        let answer = self.get("/metrics");
        assert_eq!(answer.status(), 200, "{answer}");
        Metrics::parse(&answer.body_text())
    }

    /// One number as of now: `wsguard_connections{zone="default"}`. A series that has not begun is 0.
    pub fn count(&self, series: &str) -> i64 {
        self.metrics().count(series)
    }

    /// Waits until a series has exactly this number, since some counts change a moment after the client gets its
    /// answer.
    pub fn expect(&self, series: &str, number: i64) {
        let mut last = 0;
        let reached = wait::reaches(PATIENCE, || {
            last = self.count(series);
            (last == number).then_some(())
        });
        assert!(reached.is_some(), "{series} is {last}, not {number}");
    }

    /// `/stats`.
    pub fn stats(&self) -> Value {
        let answer = self.get("/stats");
        assert_eq!(answer.status(), 200, "{answer}");
        serde_json::from_slice(answer.body()).expect("JSON")
    }

    /// Waits until nothing is open or pending. Then every count must be back, and no panic may be counted.
    pub fn quiet(&self) {
        self.quiet_within(PATIENCE);
    }

    /// The same, with another bound.
    pub fn quiet_within(&self, bound: Duration) {
        assert_eq!(self.settled_within(bound).count("wsguard_panics_total"), 0);
    }

    /// The same for a test that causes a panic. Returns the metrics after it.
    pub fn settled_within(&self, bound: Duration) -> Metrics {
        let mut last = Vec::new();
        let quiet = wait::reaches(bound, || {
            let metrics = self.metrics();
            self.assert_no_drift(&metrics);
            last = metrics.open_counts();
            last.is_empty().then_some(metrics)
        });
        let Some(metrics) = quiet else {
            panic!("still held: {last:?}")
        };
        assert!(
            metrics.has(r#"wsguard_connections{zone="default"}"#),
            "the gauge that is meant to be 0 exists"
        );
        metrics
    }

    /// Asserts that the counts agree with the open connections. If a worker is paused between the two steps of an end,
    /// they differ until it continues. A real fault stays, so a second look decides.
    fn assert_no_drift(&self, metrics: &Metrics) {
        if metrics.count(DRIFT) != 0 {
            thread::sleep(Duration::from_millis(500));
            assert_eq!(self.count(DRIFT), 0, "the counts differ from what is open");
        }
    }

    /// Stops reading the guard's standard error, so that the pipe fills up.
    pub fn stop_reading(&self) {
        self.reads.store(false, Relaxed);
    }

    /// Asserts that the process has not ended.
    pub fn lives(&mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None);
    }

    /// The log lines so far.
    pub fn lines(&self) -> Vec<Value> {
        self.look_at_lines(<[Value]>::to_vec)
    }

    fn look_at_lines<T>(&self, look: impl FnOnce(&[Value]) -> T) -> T {
        let mut log = self.log.lock().unwrap();
        log.parse();
        look(&log.parsed)
    }

    /// The log as it was written.
    pub fn raw_log(&self) -> Vec<String> {
        self.log.lock().unwrap().written.clone()
    }

    /// Waits for a log line.
    pub fn line(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        until(what, || {
            self.look_at_lines(|lines| lines.iter().find(|line| is_it(line)).cloned())
        })
    }

    /// Waits for the line of a connection that ended for this reason.
    pub fn access(&self, reason: &str) -> Value {
        self.line(&format!("a line with reason {reason}"), |line| line["reason"] == reason)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = self.raw_log();
            let tail = log.len().saturating_sub(25);
            let _ = writeln!(std::io::stderr(), "the guard's last lines:\n{}", log[tail..].join("\n"));
        }
    }
}

/// The binary under test, in an environment without our variables.
pub fn wsguard() -> Command {
    wsguard_under(&[])
}

/// The same, started by another program.
fn wsguard_under(program: &[String]) -> Command {
    let mut words = program.iter().map(PathBuf::from).chain([binary()]);
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words);
    command
        .env_remove("WSGUARD_CONFIG")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// 127.0.0.`last`.
pub fn ip(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, last).into()
}

/// The n-th of 64 770 loopback addresses that no test uses for anything else.
pub fn nth_ip(n: u16) -> IpAddr {
    let [high, low] = (n + 256).to_be_bytes();
    Ipv4Addr::new(127, 9, high, low).into()
}

const DRIFT: &str = "wsguard_counter_drift";

fn binary() -> PathBuf {
    env!("CARGO_BIN_EXE_wsguard").into()
}

fn collect(stderr: ChildStderr, log: Arc<Mutex<Log>>, reads: Arc<AtomicBool>) {
    thread::spawn(move || {
        for line in BufReader::new(stderr).split(b'\n') {
            let Ok(line) = line else { return };
            let line = String::from_utf8_lossy(&line).into_owned();
            log.lock().unwrap().written.push(line);
            while !reads.load(Relaxed) && Arc::strong_count(&reads) > 1 {
                thread::sleep(Duration::from_millis(5));
            }
        }
    });
}
