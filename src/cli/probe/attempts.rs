//! The attempts of a probe. All attempts together open at most 200 sockets and take at most a minute.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;

use super::finding::{Finding, Verdict};
use super::target::{Answer, More, Target, read};

/// A probe under way.
#[derive(Debug)]
pub(super) struct Attempts<'a> {
    pub(super) target: &'a Target,
    patience: Duration,
    sockets: u32,
    ends: Instant,
    /// Admitted connections that are kept open, so that the limit stays reached.
    held: Vec<TcpStream>,
    /// The findings so far.
    pub(super) findings: Vec<Finding>,
}

/// What happened to a request above the limit.
enum Past {
    /// The request was admitted, while a plain request was not.
    Through,
    /// The request was refused.
    Refused,
    /// The result is unclear, for this reason.
    Unclear(&'static str),
}

impl<'a> Attempts<'a> {
    /// A probe that has not tried anything yet.
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

    /// Tries everything.
    ///
    /// # Errors
    ///
    /// Not even a proper client is admitted, so nothing can be found out.
    pub(super) fn all(&mut self, most: usize, exempt: &[String]) -> anyhow::Result<()> {
        match self.plain() {
            Answer::Open(_) => {}
            Answer::Refused { status, reason } => {
                bail!(
                    "a proper upgrade is refused with {}",
                    format!("{status} {reason}").trim_end()
                )
            }
            Answer::Ended => bail!("a proper upgrade is answered by the end of the connection"),
            Answer::Garbled => bail!("a proper upgrade is answered by something other than HTTP"),
            Answer::Nothing => bail!("a proper upgrade is not answered"),
        }
        // The fakes come first, before the limit is reached: a fake that is refused because of the limit shows nothing.
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

    /// Opens connections, one after the other, until one is refused. Returns whether the limit was reached.
    fn limit(&mut self, most: usize) -> bool {
        const CHECK: &str = "limit";
        // The slots of earlier attempts may take a moment to become free.
        thread::sleep(SETTLES);
        let opened = Instant::now();
        while self.held.len() < most {
            match self.plain() {
                Answer::Open(stream) => self.held.push(stream),
                Answer::Refused { reason, .. } if is_of_rate(&reason) => {
                    self.note(
                        Verdict::Unknown,
                        CHECK,
                        format!("{reason} refuses before a limit is reached"),
                    );
                    return false;
                }
                Answer::Refused { .. } | Answer::Ended if self.held.is_empty() => {
                    if opened.elapsed() < SLOT_BACK {
                        thread::sleep(SLOT_BACK / 8);
                        continue;
                    }
                    let says = format!(
                        "no connection is admitted {} s after all were closed",
                        SLOT_BACK.as_secs()
                    );
                    self.note(Verdict::Bad, "slot", says);
                    return false;
                }
                Answer::Refused { .. } | Answer::Ended => {
                    let n = self.held.len();
                    // If the guard counts wrongly, some later connections are admitted.
                    let let_in = (0..AGAIN).filter(|_| matches!(self.plain(), Answer::Open(_))).count();
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
                Answer::Garbled | Answer::Nothing => break,
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
                // The path may be open to everyone, with a budget of its own.
                let says = format!("whether {path} is meant for anyone: it lets a stranger in past the limit");
                self.note(Verdict::Unknown, CHECK, says);
            }
        }
    }

    /// Closes one of the held connections. Its slot must soon be free.
    fn slot(&mut self) {
        drop(self.held.pop());
        let closed = Instant::now();
        let (verdict, says) = loop {
            if let Answer::Open(stream) = self.plain() {
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

    /// Tries slow clients, all at the same time, because each takes as long as the guard allows.
    fn slow_ones(&mut self) {
        let half = self.target.upgrade(&self.target.path, "");
        let half = &half[..half.len() / 2];
        // Time and sockets for this were set aside.
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

    /// Sends a request while the limit is reached. If the request is admitted, a plain one is sent too: if that one is also
    /// admitted, the limit is no longer reached.
    fn past(&mut self, request: &str) -> Past {
        for _ in 0..AGAIN {
            match self.ask(request) {
                Answer::Open(_through) => {
                    return match self.plain() {
                        Answer::Open(_) => Past::Unclear("the limit is no longer reached"),
                        Answer::Refused { .. } | Answer::Ended => Past::Through,
                        Answer::Garbled | Answer::Nothing => {
                            Past::Unclear("it is unknown whether the limit is still reached")
                        }
                    };
                }
                Answer::Refused { reason, .. } if is_of_rate(&reason) => thread::sleep(Duration::from_secs(1)),
                Answer::Refused { .. } | Answer::Ended => return Past::Refused,
                Answer::Nothing if self.is_over() => return Past::Unclear(OVER),
                Answer::Nothing => return Past::Unclear("not answered"),
                Answer::Garbled => return Past::Unclear("answered by something other than HTTP"),
            }
        }
        Past::Unclear("a rate limit refuses first")
    }

    pub(super) fn plain(&mut self) -> Answer {
        self.ask(&self.target.upgrade(&self.target.path, ""))
    }

    pub(super) fn ask(&mut self, request: &str) -> Answer {
        self.dial()
            .map_or(Answer::Nothing, |stream| Answer::asked(stream, request))
    }

    /// Opens a socket, if sockets and time are left.
    pub(super) fn dial(&mut self) -> Option<TcpStream> {
        if self.is_over() {
            return None;
        }
        self.sockets -= 1;
        self.target.dial().ok()
    }

    fn is_over(&self) -> bool {
        self.sockets == 0 || Instant::now() >= self.ends
    }

    pub(super) fn note(&mut self, verdict: Verdict, check: &'static str, says: String) {
        self.findings.push(Finding { verdict, check, says });
    }
}

/// How long the other side took to close the connection; `None` if it did not within `patience`.
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

/// Unusual spellings. Some begin with `exempt`, but a server may read them as `path`. The others are not `exempt`, but a
/// lenient reader takes them for it.
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

/// Addresses for documentation (RFC 5737), which no host has.
const FORGED: [(&str, &str); 4] = [
    ("X-Forwarded-For", "203.0.113.7"),
    ("X-Real-IP", "203.0.113.8"),
    ("Forwarded", "for=203.0.113.9"),
    ("CF-Connecting-IP", "203.0.113.10"),
];

/// The most sockets of all attempts but the slow ones. With the three slow ones, and the first socket, which finds out
/// whether there is a target, there are 200.
const SOCKETS: u32 = 196;
/// The time for all attempts to begin, and for the patience of the slow ones. The rest of the minute is for the last
/// answers.
const LASTS: Duration = Duration::from_secs(50);
/// How often to repeat a request if one attempt proves nothing.
const AGAIN: u32 = 3;
const SETTLES: Duration = Duration::from_millis(300);
const SLOT_BACK: Duration = Duration::from_secs(2);
pub(super) const OVER: &str = "the probe has used up its sockets or its time";
