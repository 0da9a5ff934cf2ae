//! Fakes: requests that a guard must not take for an upgrade, and second requests sent behind them.

use std::fmt::{self, Display, Formatter};
use std::io::Write;
use std::time::{Duration, Instant};

use super::attempts::{Attempts, OVER};
use super::finding::Verdict;
use super::target::{Answer, More, read};

/// A fake: its name, a part of a proper upgrade, and the text that replaces this part.
pub(super) struct Fake(&'static str, &'static str, &'static str);

/// The answers on one connection.
struct Answers {
    statuses: Vec<u16>,
    /// Whether the first answer says that the connection ends after it.
    ends: bool,
}

impl Attempts<'_> {
    pub(super) fn fake_upgrades(&mut self) {
        const CHECK: &str = "fake upgrade";
        let good = self.target.upgrade(&self.target.path, "");
        for what in &FAKES {
            match self.ask(&what.of(&good)) {
                Answer::Open(_) => self.note(Verdict::Bad, CHECK, format!("{what} opens a tunnel")),
                Answer::Garbled => self.note(
                    Verdict::Bad,
                    CHECK,
                    format!("{what} is answered by bytes that are not HTTP"),
                ),
                Answer::Ended => self.note(Verdict::Ok, CHECK, format!("{what} ends the connection")),
                Answer::Nothing => self.note(Verdict::Unknown, CHECK, format!("{what} is not answered")),
                Answer::Refused { status, .. } if matches!(status, 400..=428 | 431 | 501 | 505) => {
                    self.note(Verdict::Ok, CHECK, format!("{what} gets {status}"));
                }
                Answer::Refused { status, .. } => {
                    self.note(
                        Verdict::Unknown,
                        CHECK,
                        format!("{what} gets {status}, for another reason perhaps"),
                    );
                }
            }
        }
    }

    /// Sends a proper upgrade behind each fake. If the guard refuses the fake, but the server takes it for an upgrade, the
    /// second request must not reach the server. A proxy that keeps the connection may answer the second request; whether
    /// the guard checked it shows only when the limit is reached. Returns the first fake behind which a request was answered
    /// in this way.
    pub(super) fn smuggled(&mut self) -> Option<&'static Fake> {
        let mut answered = None;
        for fake in &FAKES {
            let Some(answers) = self.answers(fake) else {
                self.note(Verdict::Unknown, SMUGGLING, OVER.into());
                return None;
            };
            if answers.statuses.len() < 2 {
                continue;
            }
            if answers.statuses[0] == 101 || answers.ends {
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

    /// Sends a proper upgrade behind `fake` while the limit is reached. A guard that checks each request refuses it.
    pub(super) fn smuggled_past(&mut self, fake: &Fake) {
        let statuses = self.answers(fake).map_or_else(Vec::new, |answers| answers.statuses);
        let (verdict, says) = match statuses[..] {
            [_, .., 101] if matches!(self.plain(), Answer::Open(_)) => {
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

    /// The answers to a fake and a proper upgrade in one write; `None` if no sockets or no time are left.
    fn answers(&mut self, fake: &Fake) -> Option<Answers> {
        let good = self.target.upgrade(&self.target.path, "");
        let both = fake.of(&good) + &good;
        let mut stream = self.dial()?;
        let _gone = stream.write_all(both.as_bytes());
        let mut bytes = Vec::new();
        let until = Instant::now() + SECOND_ANSWER;
        while let More::Bytes(more) = read(&mut stream, until.saturating_duration_since(Instant::now())) {
            bytes.extend_from_slice(&more);
            if bytes.len() > MOST_READ || Instant::now() >= until {
                break;
            }
        }
        Some(Answers::of(&String::from_utf8_lossy(&bytes)))
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
            // A head begins like "1 400 Bad Request".
            statuses: heads
                .iter()
                .map(|head| head.get(2..5).and_then(|status| status.parse().ok()).unwrap_or(0))
                .collect(),
            ends: first.to_ascii_lowercase().contains("\r\nconnection: close"),
        }
    }
}

const FAKES: [Fake; 6] = [
    // A changed name has the same effect as leaving the header out.
    Fake("a request without Sec-WebSocket-Key", "Sec-WebSocket-Key:", "X-No-Key:"),
    Fake("a request of version 12", "Version: 13", "Version: 12"),
    Fake("a request in HTTP/1.0", " HTTP/1.1\r\n", " HTTP/1.0\r\n"),
    Fake("a POST", "GET ", "POST "),
    Fake(
        "a request whose Connection is not Upgrade",
        "Connection: Upgrade",
        "Connection: keep-alive",
    ),
    Fake(
        "a request with a body",
        "\r\n\r\n",
        "\r\nContent-Length: 5\r\n\r\nhello",
    ),
];

const SMUGGLING: &str = "smuggling";
const SECOND_ANSWER: Duration = Duration::from_millis(700);
const MOST_READ: usize = 64 * 1024;
