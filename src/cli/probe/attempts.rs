//! The attempts themselves. All of them together open at most 200 sockets and take a minute at most.

use std::fmt::{self, Display, Formatter};
use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;

use super::target::{Heard, More, Target, read};
use super::{Finding, Verdict};

/// A probe under way.
#[derive(Debug)]
pub(super) struct Attempts<'a> {
    target: &'a Target,
    patience: Duration,
    sockets: u32,
    ends: Instant,
    /// Those that were let in and are held, so that the limit stays reached.
    held: Vec<TcpStream>,
    /// What was found so far.
    pub(super) findings: Vec<Finding>,
}

/// How a request past the limit fared.
enum Past {
    /// It got in, while a plain one did not.
    Through,
    /// It was refused.
    Refused,
    /// Nobody can say, and why.
    Unclear(&'static str),
}

/// What it is called, and a part of a proper upgrade with what stands in its place.
struct Fake(&'static str, &'static str, &'static str);

/// The answers on one connection.
struct Answers {
    statuses: Vec<u16>,
    /// Whether the first says that nothing comes behind it.
    ends: bool,
}

impl<'a> Attempts<'a> {
    /// Nothing is tried yet.
    pub(super) fn new(target: &'a Target, patience: Duration) -> Self {
        Self {
            target,
            patience,
            sockets: SOCKETS,
            ends: Instant::now() + LASTS.saturating_sub(patience),
            held: Vec::new(),
            findings: Vec::new(),
        }
    }

    /// Tries everything. An error: not even a proper client gets in, so that nothing can be told.
    pub(super) fn all(&mut self, most: usize, exempt: &[String]) -> anyhow::Result<()> {
        match self.plain() {
            Heard::Open(_) => {}
            Heard::Refused { status, reason } => {
                bail!(
                    "a proper upgrade is refused with {}",
                    format!("{status} {reason}").trim_end()
                )
            }
            Heard::Ended => bail!("a proper upgrade is answered by the end of the connection"),
            Heard::Garbled => bail!("a proper upgrade is answered by something other than HTTP"),
            Heard::Nothing => bail!("a proper upgrade is not answered"),
        }
        // First, while the limit leaves room: a fake that is refused for the limit tells nothing.
        self.fake_upgrades();
        let answered = self.smuggled();
        if self.limit(most) {
            self.forged_headers();
            self.exemptions(exempt);
            if let Some(what) = answered {
                self.smuggled_past(what);
            }
            self.slot();
        } else {
            let says = match answered {
                Some(what) => {
                    format!("whether the second request behind {what}, which is answered, is checked as well")
                }
                None => "without a limit there is nothing to get around".into(),
            };
            self.note(Verdict::Unknown, "past the limit", says);
        }
        self.held.clear();
        self.slow_ones();
        Ok(())
    }

    /// Opens one after the other until one is refused; whether one was.
    fn limit(&mut self, most: usize) -> bool {
        const CHECK: &str = "limit";
        // The slots of what was tried before may take a moment to come back.
        thread::sleep(SETTLES);
        let opened = Instant::now();
        while self.held.len() < most {
            match self.plain() {
                Heard::Open(stream) => self.held.push(stream),
                Heard::Refused { reason, .. } if is_of_rate(&reason) => {
                    self.note(
                        Verdict::Unknown,
                        CHECK,
                        format!("{reason} refuses before a limit is reached"),
                    );
                    return false;
                }
                Heard::Refused { .. } | Heard::Ended if self.held.is_empty() => {
                    if opened.elapsed() < SLOT_BACK {
                        thread::sleep(SLOT_BACK / 8);
                        continue;
                    }
                    let says = format!("nobody gets in {} s after all were closed", SLOT_BACK.as_secs());
                    self.note(Verdict::Bad, "slot", says);
                    return false;
                }
                Heard::Refused { .. } | Heard::Ended => {
                    let n = self.held.len();
                    // Where the count is off, some that come later get in.
                    let let_in = (0..AGAIN).filter(|_| matches!(self.plain(), Heard::Open(_))).count();
                    if let_in == 0 {
                        self.note(Verdict::Ok, CHECK, format!("N = {n} from one address, exactly"));
                    } else {
                        self.note(
                            Verdict::Bad,
                            CHECK,
                            format!("{n} are let in, one is refused, then {let_in} more get in"),
                        );
                    }
                    return true;
                }
                Heard::Garbled | Heard::Nothing => break,
            }
        }
        let n = self.held.len();
        let says = if n == most {
            format!("no limit up to {n} from one address (--most N looks further)")
        } else {
            format!("the one after {n} is not answered")
        };
        self.note(Verdict::Unknown, CHECK, says);
        false
    }

    fn forged_headers(&mut self) {
        for (name, value) in FORGED {
            let request = self.target.upgrade(&self.target.path, &format!("{name}: {value}\r\n"));
            match self.past(&request) {
                Past::Through => self.note(
                    Verdict::Bad,
                    "forged header",
                    format!("{name} is believed: it gets in past the limit (is this machine a trusted proxy?)"),
                ),
                Past::Refused => self.note(Verdict::Ok, "forged header", format!("{name} changes nothing")),
                Past::Unclear(why) => self.note(Verdict::Unknown, "forged header", format!("{name}: {why}")),
            }
        }
    }

    fn exemptions(&mut self, exempt: &[String]) {
        const CHECK: &str = "exemption";
        for path in exempt {
            let mut refused = 0;
            let tricks = spellings(path, &self.target.path);
            for trick in &tricks {
                match self.past(&self.target.upgrade(trick, "")) {
                    Past::Through => self.note(Verdict::Bad, CHECK, format!("{trick} gets in past the limit")),
                    Past::Refused => refused += 1,
                    Past::Unclear(why) => self.note(Verdict::Unknown, CHECK, format!("{trick}: {why}")),
                }
            }
            if refused == tricks.len() {
                self.note(
                    Verdict::Ok,
                    CHECK,
                    format!("{path}: {refused} other spellings lead nowhere"),
                );
            }
            if let Past::Through = self.past(&self.target.upgrade(path, "")) {
                // It may be meant for everyone, with a budget of its own.
                let says = format!("whether {path} is meant for anyone: it lets a stranger in past the limit");
                self.note(Verdict::Unknown, CHECK, says);
            }
        }
    }

    /// Closes one of those that are held: its place must be free soon.
    fn slot(&mut self) {
        drop(self.held.pop());
        let closed = Instant::now();
        let (verdict, says) = loop {
            if let Heard::Open(stream) = self.plain() {
                self.held.push(stream);
                break (
                    Verdict::Ok,
                    format!("free {} ms after a close", closed.elapsed().as_millis()),
                );
            }
            if self.is_over() {
                break (Verdict::Unknown, OVER.to_owned());
            }
            if closed.elapsed() >= SLOT_BACK {
                break (
                    Verdict::Bad,
                    format!("not free {} s after a close", SLOT_BACK.as_secs()),
                );
            }
            thread::sleep(SLOT_BACK / 8);
        };
        self.note(verdict, "slot", says);
    }

    fn fake_upgrades(&mut self) {
        const CHECK: &str = "fake upgrade";
        let good = self.target.upgrade(&self.target.path, "");
        for what in &FAKES {
            match self.ask(&what.of(&good)) {
                Heard::Open(_) => self.note(Verdict::Bad, CHECK, format!("{what} opens a tunnel")),
                Heard::Garbled => self.note(
                    Verdict::Bad,
                    CHECK,
                    format!("{what} is answered by bytes that are no answer"),
                ),
                Heard::Ended => self.note(Verdict::Ok, CHECK, format!("{what} ends the connection")),
                Heard::Nothing => self.note(Verdict::Unknown, CHECK, format!("{what} is not answered")),
                Heard::Refused { status, .. } if matches!(status, 400..=428 | 431 | 501 | 505) => {
                    self.note(Verdict::Ok, CHECK, format!("{what} hears {status}"));
                }
                Heard::Refused { status, .. } => {
                    self.note(
                        Verdict::Unknown,
                        CHECK,
                        format!("{what} hears {status}, for another reason perhaps"),
                    );
                }
            }
        }
    }

    /// A second request behind one that is refused must not be heard by anyone who took the first for an upgrade. A server
    /// that keeps the connection may answer it; the limit tells whether it was checked: the fake before it is returned.
    fn smuggled(&mut self) -> Option<&'static Fake> {
        let mut answered = None;
        for fake in &FAKES {
            let Some(heard) = self.answers(fake) else {
                self.note(Verdict::Unknown, SMUGGLING, OVER.into());
                return None;
            };
            if heard.statuses.len() < 2 {
                continue;
            }
            if heard.statuses[0] == 101 || heard.ends {
                let says = format!("a second request behind {fake} is answered");
                self.note(Verdict::Bad, SMUGGLING, says);
                return None;
            }
            answered = answered.or(Some(fake));
        }
        if answered.is_none() {
            let says = "no second request behind a fake one is answered".into();
            self.note(Verdict::Ok, SMUGGLING, says);
        }
        answered
    }

    /// The same while the limit is reached: who checks each request refuses this one.
    fn smuggled_past(&mut self, fake: &Fake) {
        let statuses = self.answers(fake).map_or_else(Vec::new, |heard| heard.statuses);
        let (verdict, says) = match statuses[..] {
            [_, .., 101] if matches!(self.plain(), Heard::Open(_)) => {
                (Verdict::Unknown, "the limit is no longer reached".into())
            }
            [_, .., 101] => (
                Verdict::Bad,
                format!("a second request behind {fake} gets in past the limit"),
            ),
            [_, .., status] => (
                Verdict::Ok,
                format!("a second request behind {fake} is checked like any other: {status}"),
            ),
            _ => (
                Verdict::Unknown,
                format!("a second request behind {fake} is answered, and not past the limit"),
            ),
        };
        self.note(verdict, SMUGGLING, says);
    }

    /// What a fake and a proper upgrade in one write are answered; `None`: there are no sockets or no time left.
    fn answers(&mut self, fake: &Fake) -> Option<Answers> {
        let good = self.target.upgrade(&self.target.path, "");
        let both = fake.of(&good) + &good;
        let mut stream = self.dial()?;
        let _gone = stream.write_all(both.as_bytes());
        let mut heard = Vec::new();
        let until = Instant::now() + SECOND_ANSWER;
        while let More::Bytes(more) = read(&mut stream, until.saturating_duration_since(Instant::now())) {
            heard.extend_from_slice(&more);
            if heard.len() > MOST_HEARD || Instant::now() >= until {
                break;
            }
        }
        Some(Answers::of(&String::from_utf8_lossy(&heard)))
    }

    /// All at the same time: each takes as long as the guard lets it.
    fn slow_ones(&mut self) {
        let half = self.target.upgrade(&self.target.path, "");
        let half = &half[..half.len() / 2];
        // Time and sockets for it were set aside.
        let patience = self.patience;
        let slow: [(&str, String, Option<TcpStream>); 3] = [
            ("a silent socket", String::new(), self.target.dial().ok()),
            ("half a head", half.to_owned(), self.target.dial().ok()),
            (
                "a byte a second",
                format!("{half}\r\nX-Slow: "),
                self.target.dial().ok(),
            ),
        ];
        let ended: Vec<_> = thread::scope(|scope| {
            let waits: Vec<_> = slow
                .into_iter()
                .map(|(what, begins, stream)| {
                    let wait = move || Some(ends_within(stream?, &begins, what == "a byte a second", patience));
                    (what, scope.spawn(wait))
                })
                .collect();
            waits
                .into_iter()
                .map(|(what, wait)| (what, wait.join().ok().flatten()))
                .collect()
        });
        for (what, outcome) in ended {
            let (verdict, says) = match outcome {
                Some(Some(after)) => (
                    Verdict::Ok,
                    format!("{what} is ended after {:.1} s", after.as_secs_f32()),
                ),
                Some(None) => (
                    Verdict::Bad,
                    format!("{what} is not ended within {} s", patience.as_secs()),
                ),
                None => (Verdict::Unknown, format!("{what} cannot connect")),
            };
            self.note(verdict, "slow head", says);
        }
    }

    /// A request while the limit is reached. Where it gets in, a plain one must not: else the limit is no longer reached.
    fn past(&mut self, request: &str) -> Past {
        for _ in 0..AGAIN {
            match self.ask(request) {
                Heard::Open(_through) => {
                    return match self.plain() {
                        Heard::Open(_) => Past::Unclear("the limit is no longer reached"),
                        Heard::Refused { .. } | Heard::Ended => Past::Through,
                        Heard::Garbled | Heard::Nothing => {
                            Past::Unclear("nobody knows whether the limit is still reached")
                        }
                    };
                }
                Heard::Refused { reason, .. } if is_of_rate(&reason) => thread::sleep(Duration::from_secs(1)),
                Heard::Refused { .. } | Heard::Ended => return Past::Refused,
                Heard::Nothing if self.is_over() => return Past::Unclear(OVER),
                Heard::Nothing => return Past::Unclear("not answered"),
                Heard::Garbled => return Past::Unclear("answered by something other than HTTP"),
            }
        }
        Past::Unclear("a rate limit refuses first")
    }

    fn plain(&mut self) -> Heard {
        self.ask(&self.target.upgrade(&self.target.path, ""))
    }

    fn ask(&mut self, request: &str) -> Heard {
        self.dial()
            .map_or(Heard::Nothing, |stream| Heard::asked(stream, request))
    }

    /// A socket, while there is one left and time for it.
    fn dial(&mut self) -> Option<TcpStream> {
        if self.is_over() {
            return None;
        }
        self.sockets -= 1;
        self.target.dial().ok()
    }

    fn is_over(&self) -> bool {
        self.sockets == 0 || Instant::now() >= self.ends
    }

    fn note(&mut self, verdict: Verdict, check: &'static str, says: String) {
        self.findings.push(Finding { verdict, check, says });
    }
}

impl Fake {
    fn of(&self, upgrade: &str) -> String {
        upgrade.replacen(self.1, self.2, 1)
    }
}

impl Display for Fake {
    fn fmt(&self, formatter: &mut Formatter) -> fmt::Result {
        formatter.write_str(self.0)
    }
}

impl Answers {
    fn of(text: &str) -> Self {
        let heads: Vec<&str> = text.split("HTTP/1.").skip(1).collect();
        let first = heads
            .first()
            .map_or("", |head| head.split("\r\n\r\n").next().unwrap_or(head));
        Self {
            // Of "1 400 Bad Request".
            statuses: heads
                .iter()
                .map(|head| head.get(2..5).and_then(|status| status.parse().ok()).unwrap_or(0))
                .collect(),
            ends: first.to_ascii_lowercase().contains("\r\nconnection: close"),
        }
    }
}

/// When the other side ended it, if it did.
fn ends_within(mut stream: TcpStream, begins: &str, drips: bool, patience: Duration) -> Option<Duration> {
    let start = Instant::now();
    let _gone = stream.write_all(begins.as_bytes());
    loop {
        let left = patience.checked_sub(start.elapsed())?;
        let wait = if drips { left.min(Duration::from_secs(1)) } else { left };
        if let More::End = read(&mut stream, wait) {
            return Some(start.elapsed());
        }
        if drips && stream.write_all(b"x").is_err() {
            return Some(start.elapsed());
        }
    }
}

/// What a lax reader takes for `exempt`, or a strict one for another path.
fn spellings(exempt: &str, path: &str) -> Vec<String> {
    let first = exempt.as_bytes().get(1).copied().unwrap_or(b'/');
    let mut spellings = vec![
        format!("{exempt}%2f..{path}"),
        format!("{exempt}/..{path}"),
        format!("{exempt}/%2e%2e{path}"),
        format!("{exempt}\\..{path}"),
        format!("{exempt};x"),
        format!("{exempt};/..{path}"),
        format!("/{exempt}"),
        format!("/.{exempt}"),
        format!("/%{first:02x}{}", exempt.get(2..).unwrap_or_default()),
        exempt.to_ascii_uppercase(),
    ];
    spellings.retain(|spelling| spelling != exempt);
    spellings
}

fn is_of_rate(reason: &str) -> bool {
    matches!(reason, "per_ip_rate" | "zone_rate")
}

/// Addresses of documentation, RFC 5737: nobody's.
const FORGED: [(&str, &str); 4] = [
    ("X-Forwarded-For", "203.0.113.7"),
    ("X-Real-IP", "203.0.113.8"),
    ("Forwarded", "for=203.0.113.9"),
    ("CF-Connecting-IP", "203.0.113.10"),
];

const FAKES: [Fake; 6] = [
    // A line of another name is none of this one.
    Fake("one without Sec-WebSocket-Key", "Sec-WebSocket-Key:", "X-No-Key:"),
    Fake("one of version 12", "Version: 13", "Version: 12"),
    Fake("one in HTTP/1.0", " HTTP/1.1\r\n", " HTTP/1.0\r\n"),
    Fake("a POST", "GET ", "POST "),
    Fake(
        "one whose Connection does not say so",
        "Connection: Upgrade",
        "Connection: keep-alive",
    ),
    Fake("one with a body", "\r\n\r\n", "\r\nContent-Length: 5\r\n\r\nhello"),
];

/// With the first one, which finds out whether there is a target, and the three slow ones it is 200.
const SOCKETS: u32 = 196;
/// When the last attempt begins at the latest, the patience aside: what it asks may take its time too.
const LASTS: Duration = Duration::from_secs(50);
/// Tries of what one try does not tell.
const AGAIN: u32 = 3;
const SMUGGLING: &str = "smuggling";
const SETTLES: Duration = Duration::from_millis(300);
const SLOT_BACK: Duration = Duration::from_secs(2);
const SECOND_ANSWER: Duration = Duration::from_millis(700);
const MOST_HEARD: usize = 64 * 1024;
const OVER: &str = "the probe has used up its sockets or its time";
