//! Combinations of which side ends and how, under which limits, and how much each side reads. In all of them, a side
//! that has ended gives back everything that it held, in time.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use socket2::SockRef;

use super::relay::Noise;
use crate::rig::{Backend, Guest, Metrics, Request, Rig, Socket, frame, masked, nth_ip};

/// A random selection of some twenty thousand combinations. `WSGUARD_SEED` repeats a selection.
#[test]
fn a_side_that_has_ended_holds_nothing_for_long_whatever_the_other_does() {
    let seed = std::env::var("WSGUARD_SEED").map_or_else(
        |_| u64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros()).unwrap(),
        |seed| seed.parse().unwrap(),
    );
    println!("WSGUARD_SEED={seed}");
    let mut noise = Noise(seed);
    let cases: Arc<Vec<Case>> = Arc::new((0..CASES).map(|_| Case::any(&mut noise)).collect());
    let over = Arc::new(AtomicBool::new(false));
    let backend = {
        let (cases, over) = (Arc::clone(&cases), Arc::clone(&over));
        Backend::start(move |guest| serve(guest, &cases, &over))
    };
    let rig = Rig::start(&backend, &zones());
    let lines = thread::scope(|scope| {
        for (nth, case) in (0..).zip(cases.iter()) {
            let (rig, over) = (&rig, &over);
            scope.spawn(move || {
                thread::sleep(Duration::from_millis(5) * u32::from(nth));
                visit(rig, nth, case, over);
            });
        }
        let lines = watch(&rig, &backend, &cases);
        over.store(true, Relaxed);
        lines
    });
    let late: Vec<String> = cases
        .iter()
        .zip(&lines)
        .filter_map(|(case, line)| case.complaint(line.as_ref()))
        .collect();
    assert!(late.is_empty(), "WSGUARD_SEED={seed}\n{}", late.join("\n"));
    rig.quiet();
}

/// One connection.
#[derive(Debug)]
struct Case {
    zone: usize,
    client: Party,
    server: Party,
    /// The receive buffer of the client's kernel is small.
    is_narrow: bool,
    client_ends_first: bool,
    how: How,
    /// The time from the opening to the first end.
    after: Duration,
    /// The other side ends too, once it has read the first end.
    answers: bool,
    ends: Mutex<Ends>,
}

/// When each side ended, and when the client read its server's end.
#[derive(Debug, Default)]
struct Ends {
    client: Option<SystemTime>,
    server: Option<SystemTime>,
    heard: Option<SystemTime>,
}

/// What one side does until it ends.
#[derive(Clone, Copy, Debug)]
struct Party {
    says: Says,
    reads: Reads,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Nothing,
    /// Forty empty messages.
    Messages,
    /// More bytes than kernels buffer for a peer that does not read, but few enough that an end behind them still
    /// arrives.
    Frame,
    /// More bytes than are taken if the peer does not read. What follows them does not leave the sender's host.
    Flood,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    All,
    Slowly,
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Fin,
    CloseFrame,
    Reset,
    /// As if the process was killed: an end, or a reset if bytes were not read.
    Killed,
}

impl Case {
    fn any(noise: &mut Noise) -> Self {
        let mut one_of = |count: u64| usize::try_from(noise.next() % count).unwrap();
        let mut party = |says: &[Says]| Party {
            says: says[one_of(says.len() as u64)],
            reads: [Reads::All, Reads::Slowly, Reads::Nothing][one_of(3)],
        };
        let client = party(&[Says::Nothing, Says::Messages, Says::Frame, Says::Flood]);
        let server = party(&[Says::Nothing, Says::Messages, Says::Frame]);
        let client_ends_first = one_of(2) == 0;
        let how = match client.says {
            // An orderly end behind a flood never reaches the guard's kernel.
            Says::Flood if client_ends_first => How::Reset,
            _ => [How::Fin, How::CloseFrame, How::Reset, How::Killed][one_of(4)],
        };
        Self {
            zone: one_of(ZONES as u64),
            client,
            server,
            is_narrow: one_of(2) == 0,
            client_ends_first,
            how,
            after: Duration::from_millis(one_of(1500) as u64),
            answers: one_of(2) == 0,
            ends: Mutex::default(),
        }
    }

    /// What the connection's line in the log shows that must not happen.
    fn complaint(&self, line: Option<&Value>) -> Option<String> {
        let Some(line) = line else {
            return Some(format!("still open: {self:?}"));
        };
        let over: jiff::Timestamp = line["time"].as_str()?.parse().ok()?;
        let over = SystemTime::from(over);
        let ends = self.ends.lock().unwrap();
        let client_had = match self.how {
            // The host of its server may not even acknowledge the bytes that the client had sent.
            How::Reset if self.server.reads != Reads::All && matches!(self.client.says, Says::Frame | Says::Flood) => {
                ANSWER
            }
            How::Reset => AT_ONCE,
            How::Fin | How::CloseFrame | How::Killed => HALF_CLOSE,
        };
        let bounds = [
            (ends.server, STALLED + ANSWER, "its server's end"),
            (ends.heard, ANSWER, "the last byte that it took"),
            (ends.client, client_had, "its own end"),
        ];
        bounds.into_iter().find_map(|(since, bound, what)| {
            let took = over.duration_since(since?).unwrap_or_default();
            let is_late = took > bound + SLACK;
            is_late.then(|| format!("{took:?} after {what}: {self:?}\n  {line}"))
        })
    }
}

fn serve(guest: &mut Guest, cases: &[Case], over: &AtomicBool) {
    guest.open();
    let head = String::from_utf8(guest.read_head()).unwrap();
    let path = head.split(' ').nth(1).unwrap();
    let nth: usize = path.rsplit('/').next().unwrap().parse().unwrap();
    let case = &cases[nth];
    let mut side = Side::new(guest.stream.try_clone().unwrap(), frame, over);
    side.speaks(case.server.says);
    let ends = !case.client_ends_first;
    let heard_end = side.reads(case.server.reads, if ends { case.after } else { LONG });
    if ends || heard_end && case.answers {
        side.ends(if ends { case.how } else { How::Fin });
        case.ends.lock().unwrap().server = Some(SystemTime::now());
        // The script holds the stream too. It is closed only when both are dropped.
        if ends && matches!(case.how, How::Reset | How::Killed) {
            drop(side);
            SockRef::from(&guest.stream)
                .set_linger((case.how == How::Reset).then_some(Duration::ZERO))
                .unwrap();
            return;
        }
        side.reads(case.server.reads, LONG);
    }
    side.stays();
}

fn visit(rig: &Rig, nth: u16, case: &Case, over: &AtomicBool) {
    let mut socket = Socket::connect_with(nth_ip(nth), rig.front(), |socket| {
        if case.is_narrow {
            socket.set_recv_buffer_size(4096).unwrap();
        }
    });
    socket.send(Request::to(format!("/z{}/{nth}", case.zone)).as_ref());
    assert!(socket.read_head().starts_with(b"HTTP/1.1 101 "), "{case:?}");
    let mut side = Side::new(socket.stream().try_clone().unwrap(), masked, over);
    drop(socket);
    side.speaks(case.client.says);
    let ends = case.client_ends_first;
    let heard_end = side.reads(case.client.reads, if ends { case.after } else { LONG });
    if heard_end {
        case.ends.lock().unwrap().heard = Some(SystemTime::now());
    }
    if ends || heard_end && case.answers {
        side.ends(if ends { case.how } else { How::Fin });
        case.ends.lock().unwrap().client = Some(SystemTime::now());
        if ends && matches!(case.how, How::Reset | How::Killed) {
            return;
        }
        side.reads(case.client.reads, LONG);
    }
    side.stays();
}

/// One end of a connection.
struct Side<'t> {
    stream: TcpStream,
    frame: fn(u8, &[u8]) -> Vec<u8>,
    /// Whether the test is over.
    is_over: &'t AtomicBool,
}

impl<'t> Side<'t> {
    fn new(stream: TcpStream, frame: fn(u8, &[u8]) -> Vec<u8>, is_over: &'t AtomicBool) -> Self {
        stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        Self { stream, frame, is_over }
    }

    fn speaks(&mut self, says: Says) {
        let bytes = match says {
            Says::Nothing => return,
            Says::Messages => (self.frame)(1, b"").repeat(40),
            Says::Frame => (self.frame)(2, &vec![b'x'; 120_000]),
            Says::Flood => (self.frame)(2, &vec![b'x'; 8 << 20]),
        };
        let _as_far_as_it_is_taken = self.stream.write_all(&bytes);
    }

    /// Keeps the socket open, and does nothing.
    fn stays(&self) {
        let begin = Instant::now();
        while begin.elapsed() < LONG && !self.is_over.load(Relaxed) {
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Reads for this long. Returns whether it has read the other side's end.
    fn reads(&mut self, reads: Reads, lasts: Duration) -> bool {
        let begin = Instant::now();
        let mut some = vec![0; if reads == Reads::Slowly { 500 } else { 1 << 16 }];
        while begin.elapsed() < lasts && !self.is_over.load(Relaxed) {
            if reads == Reads::Nothing {
                // A side that does not read notices nothing of its peer except a reset.
                thread::sleep(Duration::from_millis(50));
                if self.stream.take_error().unwrap().is_some() {
                    return true;
                }
                continue;
            }
            match self.stream.read(&mut some) {
                Ok(0) => return true,
                Ok(_) if reads == Reads::Slowly => thread::sleep(Duration::from_millis(50)),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => return true,
            }
        }
        false
    }

    fn ends(&mut self, how: How) {
        match how {
            How::Fin => {
                let _gone = self.stream.shutdown(Shutdown::Write);
            }
            How::CloseFrame => {
                let _gone = self.stream.write_all(&(self.frame)(8, &1000_u16.to_be_bytes()));
                let _gone = self.stream.shutdown(Shutdown::Write);
            }
            How::Reset => SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap(),
            How::Killed => {}
        }
    }
}

/// Reads the metrics again and again until each connection has its line in the log, or until it is far too late.
/// Returns the lines, and `None` for each connection without one.
fn watch(rig: &Rig, backend: &Backend, cases: &[Case]) -> Vec<Option<Value>> {
    let begin = Instant::now();
    loop {
        let log = rig.lines();
        let lines: Vec<Option<Value>> = (0..cases.len())
            .map(|nth| {
                let client = nth_ip(nth.try_into().unwrap()).to_string();
                log.iter()
                    .find(|line| line["client"] == client.as_str() && line["reason"].is_string())
                    .cloned()
            })
            .collect();
        let long_ago = SystemTime::now() - LEASE_SLACK;
        let may_hold = |(case, line): &(&Case, &Option<Value>)| {
            line.is_none() && case.ends.lock().unwrap().server.is_none_or(|ended| ended > long_ago)
        };
        let most = i64::try_from(cases.iter().zip(&lines).filter(may_hold).count()).unwrap();
        let metrics = rig.metrics();
        assert_no_drift(rig, &metrics);
        let server = backend.address();
        let leases = metrics.count(&format!(
            "wsguard_upstream_connections{{upstream=\"chat\",server=\"{server}\"}}"
        ));
        assert!(leases <= most, "{leases} leases of {most} servers that have not ended");
        if lines.iter().all(Option::is_some) || begin.elapsed() > LONG {
            return lines;
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// A worker that is paused between the two steps of one end shows a difference during the pause. A real difference
/// stays.
fn assert_no_drift(rig: &Rig, metrics: &Metrics) {
    let drift = "wsguard_counter_drift";
    if metrics.count(drift) != 0 {
        thread::sleep(Duration::from_millis(500));
        assert_eq!(rig.count(drift), 0, "the counts differ from what is open");
    }
}

/// A zone for each combination of limits on messages.
fn zones() -> String {
    let mut text =
        String::from("[log]\nsample = \"off\"\n[limits.timeouts]\nhalf_close = \"1500ms\"\nstalled = \"1500ms\"\n");
    for zone in 0..ZONES {
        let inbound = ["", "rate = \"5/s\"\n", "rate = \"1/s\"\non_exceed = \"delay\"\n"][zone % 3];
        let outbound = ["", "out_rate = \"5/s\"\n"][zone / 3 % 2];
        let ping = ["", "ping = \"1s\"\npong_timeout = \"1s\"\n"][zone / 6];
        text.extend([
            format!("[[route]]\npaths = [\"/z{zone}\"]\nzone = \"z{zone}\"\n"),
            format!("[zone.z{zone}.messages]\n{inbound}{outbound}{ping}"),
        ]);
    }
    text
}

const CASES: usize = 120;
const ZONES: usize = 12;
const HALF_CLOSE: Duration = Duration::from_millis(1500);
const STALLED: Duration = Duration::from_millis(1500);
const ANSWER: Duration = Duration::from_secs(2);
const AT_ONCE: Duration = Duration::from_millis(500);
/// Extra time for a busy machine.
const SLACK: Duration = Duration::from_millis(1500);
const LEASE_SLACK: Duration = Duration::from_millis(1500);
/// After this time every connection is over.
const LONG: Duration = Duration::from_secs(14);
