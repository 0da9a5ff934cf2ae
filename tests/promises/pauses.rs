//! wsguard itself is stopped for a while (`SIGSTOP`, a paused virtual machine) and continues. No client is closed
//! because of that.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::rig::{Backend, Began, Gate, PATIENCE, Request, Rig, Socket, frame, masked, nth_ip, until};

/// 70 connections, and a pause that is longer than every timeout.
///
/// More connections can be tested by hand, best with a release build on a machine that does nothing else. The test then
/// needs a descriptor limit of 10 000:
///
/// ```text
/// WSGUARD_PAUSE=90 WSGUARD_PAUSE_CONNECTIONS=2000 cargo test --release --test promises -- pauses --nocapture
/// ```
#[test]
fn a_pause_of_our_own_ends_no_connection_that_is_alive() {
    let each = asked_for("WSGUARD_PAUSE_CONNECTIONS", 70) / KINDS;
    // All connections must be open before the first of them reaches its timeout.
    let limit = Duration::from_secs(3) + Duration::from_millis(10) * u32::try_from(each * KINDS).unwrap();
    let shortest = usize::try_from(limit.as_secs() + 2).unwrap();
    let pause = Duration::from_secs(asked_for("WSGUARD_PAUSE", shortest).try_into().unwrap());
    assert!(
        pause > limit,
        "a pause of {pause:?} is shorter than the timeouts of {limit:?}"
    );

    let paused = Gate::default();
    let backend = server(paused.clone());
    let millis = format!("{}ms", limit.as_millis());
    let rig = Rig::before(&backend)
        .listener(&format!(
            "handshake_timeout = \"{millis}\"\nmax_pending_per_ip = \"off\""
        ))
        .config(&CONFIG.replace("LIMIT", &millis))
        .start();
    let (began, mut crowd) = Began::with(|| Crowd::come(&rig, each));
    began.assert_took(Duration::ZERO..limit);

    rig.signal(Signal::STOP);
    until("it is stopped", || is_stopped(rig.pid()).then_some(()));
    let stopped = Instant::now();
    // In each kind, half of the clients send during the pause: their bytes wait in the kernel. The other half send
    // after it.
    (0..each).step_by(2).for_each(|n| crowd.speak(n));
    paused.open();
    thread::sleep(pause.saturating_sub(stopped.elapsed()));
    rig.signal(Signal::CONT);
    (1..each).step_by(2).for_each(|n| crowd.speak(n));

    crowd.is_served();
    crowd.leaving.clear();
    rig.expect("wsguard_process_connections", i64::try_from(6 * each).unwrap());
    let metrics = rig.metrics();
    for (series, count) in metrics.starting_with("wsguard_closes_total") {
        assert!(count == "0" || series.contains("reason=\"client\""), "{series} {count}");
    }
    for (series, count) in metrics.starting_with("wsguard_handshakes_total") {
        assert!(
            count == "0" || series.contains("outcome=\"admitted\""),
            "{series} {count}"
        );
    }
    // The timeouts still work: it was only a pause.
    let due = Some(limit + PATIENCE);
    crowd.idle[0].stream().set_read_timeout(due).unwrap();
    crowd.idle[0].read_to_end();
    rig.access("idle");
    drop(crowd);
    rig.quiet();
}

/// Clients in every state that has a timeout.
struct Crowd {
    /// They were pinged.
    asked: Vec<Socket>,
    /// They have sent a FIN, and wait for the server's answer.
    leaving: Vec<Socket>,
    /// Their server answers the upgrade late.
    dialled: Vec<Socket>,
    /// They have sent nothing.
    silent: Vec<Socket>,
    /// Have sent half a head.
    half: Vec<Socket>,
    idle: Vec<Socket>,
    /// They are in the middle of a message, and the guard wrote to them a moment ago.
    written: Vec<Socket>,
}

impl Crowd {
    fn come(rig: &Rig, each: usize) -> Self {
        let open = |path: &str| -> Vec<Socket> {
            let one = |n| rig.try_open(source(n), &Request::to(path));
            (0..each)
                .map(|n| one(n).unwrap_or_else(|answer| panic!("not let in: {answer}")))
                .collect()
        };
        let send = |bytes: &[u8]| (0..each).map(|n| rig.send_from(source(n), bytes)).collect();
        let (head, message) = (head(), message());
        let mut all = Self {
            asked: open("/asked"),
            leaving: open("/leaving"),
            dialled: send(Request::to("/dialled").as_ref()),
            silent: send(b""),
            half: send(&head[..head.len() / 2]),
            idle: open("/idle"),
            written: open("/owes"),
        };
        all.leaving.iter().for_each(Socket::fin);
        for socket in &mut all.asked {
            assert_eq!(socket.read_frame().0, 0x89);
        }
        for socket in &mut all.written {
            socket.send(&message[..11]);
            assert_eq!(socket.read_exactly(11), message[..11]);
        }
        all
    }

    /// The n-th client of each kind sends what it owes.
    fn speak(&mut self, n: usize) {
        let head = head();
        self.asked[n].send(&masked(10, b"here"));
        self.silent[n].send(&head);
        self.half[n].send(&head[head.len() / 2..]);
        self.written[n].send(&message()[11..]);
    }

    fn is_served(&mut self) {
        let message = message();
        for socket in self.silent.iter_mut().chain(&mut self.half).chain(&mut self.dialled) {
            let head = socket.read_head();
            assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        }
        for socket in &mut self.written {
            assert_eq!(socket.read_exactly(message.len() - 11), message[11..]);
        }
        for socket in &mut self.asked {
            assert_eq!(socket.read_exactly(10), masked(10, b"here"));
        }
        for socket in &mut self.leaving {
            assert_eq!(socket.read_frame(), (0x81, b"last words".to_vec()));
        }
        let open = self.asked.iter_mut().chain(&mut self.idle).chain(&mut self.silent);
        for socket in open.chain(&mut self.half).chain(&mut self.dialled) {
            socket.send(&message);
            assert_eq!(socket.read_exactly(message.len()), message);
        }
    }
}

/// A server that echoes. On some paths it waits until the pause has begun.
fn server(paused: Gate) -> Backend {
    Backend::start(move |guest| {
        let head = guest.read_head();
        let reply = guest.switching();
        if head.starts_with(b"GET /dialled ") {
            paused.wait();
        }
        guest.send(&reply);
        if head.starts_with(b"GET /leaving ") {
            guest.read_to_end();
            paused.wait();
            guest.send(&frame(1, b"last words"));
            return;
        }
        guest.echo();
    })
}

fn head() -> Vec<u8> {
    Request::to("/head").into_bytes()
}

fn message() -> Vec<u8> {
    masked(1, b"a message of some length")
}

/// A number from the environment, for the runs by hand.
fn asked_for(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |value| value.parse().expect("a number"))
}

fn source(n: usize) -> IpAddr {
    nth_ip(u16::try_from(n).unwrap())
}

fn is_stopped(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.contains("State:\tT")
}

/// The kinds: silent and pinged, ended and answered late, dialling, without a byte, with half a head, idle, and in the
/// middle of a message.
const KINDS: usize = 7;
const CONFIG: &str = "[limits]\nper_ip = \"off\"\nper_ip_rate = \"off\"\n\
    [[route]]\npaths = [\"/asked\"]\nzone = \"asked\"\n[[route]]\npaths = [\"/leaving\"]\nzone = \"leaving\"\n\
    [[route]]\npaths = [\"/dialled\"]\nzone = \"dialled\"\n[[route]]\npaths = [\"/idle\"]\nzone = \"idle\"\n\
    [[route]]\npaths = [\"/owes\"]\nzone = \"owes\"\n[[route]]\n\
    [zone.asked.messages]\nping = \"1s\"\npong_timeout = \"LIMIT\"\n\
    [zone.leaving.timeouts]\nhalf_close = \"LIMIT\"\n\
    [zone.dialled.timeouts]\ndial = \"LIMIT\"\nupgrade = \"LIMIT\"\n\
    [zone.idle.timeouts]\nidle = \"LIMIT\"\n\
    [zone.owes.timeouts]\nstalled = \"LIMIT\"\nidle = \"LIMIT\"\n";
