//! The rooms of the chat: the people in them, and the lines that people get. No sockets are involved.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// All rooms that are not empty, at most [`ROOMS_MAX`].
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    inner: Mutex<Inner>,
}

/// A place in a room. Dropping the seat leaves the room, and the other people get [`Event::Left`].
#[derive(Debug)]
pub(crate) struct Seat {
    rooms: Arc<Rooms>,
    room: String,
    id: u64,
    nick: String,
    lines: mpsc::Receiver<Utf8Bytes>,
}

/// Why a request had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The nickname is empty, longer than [`NICK_MAX`], or has control characters.
    Nick,
    /// The room's name is empty, longer than [`ROOM_MAX`], or has control characters.
    Room,
    /// The message is empty, longer than [`TEXT_MAX`], or has control characters.
    Text,
    /// There are [`ROOMS_MAX`] rooms already.
    TooManyRooms,
}

/// A message from the chat server to a client.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Event<'a> {
    /// The client has joined.
    Welcome {
        /// The room.
        room: &'a str,
        /// The client's nickname. It has a number if the room already has that nickname.
        nick: &'a str,
        /// The nicknames of everyone in the room, with the client's own, in order of arrival.
        people: Vec<&'a str>,
    },
    /// Somebody else has joined.
    Joined {
        /// The nickname.
        nick: &'a str,
    },
    /// Somebody else has left.
    Left {
        /// The nickname.
        nick: &'a str,
    },
    /// A message in the room. Its sender gets it too.
    Said {
        /// The nickname.
        nick: &'a str,
        /// The text.
        text: &'a str,
    },
    /// The client's last message had no effect.
    Error {
        /// The reason, as a sentence.
        text: &'a str,
    },
}

#[derive(Debug, Default)]
struct Inner {
    rooms: HashMap<String, Vec<Person>>,
    next_id: u64,
}

#[derive(Debug)]
struct Person {
    id: u64,
    nick: String,
    lines: mpsc::Sender<Utf8Bytes>,
}

impl Rooms {
    /// Joins `room`, which is created if it is new. The result has an [`Event::Welcome`] line for the client itself.
    pub(crate) fn join(self: &Arc<Self>, room: &str, nick: &str) -> Result<(Seat, Utf8Bytes), Fault> {
        let room = bounded(room, ROOM_MAX).ok_or(Fault::Room)?;
        let nick = bounded(nick, NICK_MAX).ok_or(Fault::Nick)?;
        let (sender, lines) = mpsc::channel(LINES_MAX);

        let mut inner = self.inner.lock();
        if inner.rooms.len() >= ROOMS_MAX && !inner.rooms.contains_key(room) {
            return Err(Fault::TooManyRooms);
        }
        inner.next_id += 1;
        let id = inner.next_id;
        let people = inner.rooms.entry(room.to_owned()).or_default();
        let nick = free_nick(people, nick);
        broadcast(people, &Event::Joined { nick: &nick }.line());
        people.push(Person {
            id,
            nick: nick.clone(),
            lines: sender,
        });
        let everyone = people.iter().map(|person| person.nick.as_str()).collect();
        let welcome = Event::Welcome {
            room,
            nick: &nick,
            people: everyone,
        }
        .line();
        drop(inner);

        Ok((
            Seat {
                rooms: Arc::clone(self),
                room: room.to_owned(),
                id,
                nick,
                lines,
            },
            welcome,
        ))
    }

    /// The number of rooms with people in them.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.inner.lock().rooms.len()
    }
}

impl Seat {
    /// Sends a message to everyone in the room.
    pub(crate) fn say(&self, text: &str) -> Result<(), Fault> {
        let text = bounded(text, TEXT_MAX).ok_or(Fault::Text)?;
        let line = Event::Said { nick: &self.nick, text }.line();
        let mut inner = self.rooms.inner.lock();
        if let Some(people) = inner.rooms.get_mut(&self.room) {
            broadcast(people, &line);
        }
        Ok(())
    }

    /// The next line of the room. `None` if [`LINES_MAX`] lines were waiting and the room has dropped this seat.
    pub(crate) async fn next_line(&mut self) -> Option<Utf8Bytes> {
        self.lines.recv().await
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut inner = self.rooms.inner.lock();
        let Some(people) = inner.rooms.get_mut(&self.room) else {
            return;
        };
        if let Some(at) = people.iter().position(|person| person.id == self.id) {
            people.remove(at);
            broadcast(people, &Event::Left { nick: &self.nick }.line());
        }
        if people.is_empty() {
            inner.rooms.remove(&self.room);
        }
    }
}

impl Event<'_> {
    /// The event as the text that is sent.
    pub(crate) fn line(&self) -> Utf8Bytes {
        serde_json::to_string(self)
            .expect("strings and lists of strings can always be written as JSON")
            .into()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nick => write!(f, "A nickname has 1 to {NICK_MAX} characters"),
            Self::Room => write!(f, "A room's name has 1 to {ROOM_MAX} characters"),
            Self::Text => write!(f, "A message has 1 to {TEXT_MAX} characters"),
            Self::TooManyRooms => write!(f, "There are {ROOMS_MAX} rooms already"),
        }
    }
}

/// Queues a line for everyone. People whose queue is full are dropped, and the other people get [`Event::Left`].
fn broadcast(people: &mut Vec<Person>, line: &Utf8Bytes) {
    let mut dropped = Vec::new();
    people.retain(|person| {
        let is_queued = person.lines.try_send(line.clone()).is_ok();
        if !is_queued {
            dropped.push(person.nick.clone());
        }
        is_queued
    });
    for nick in dropped {
        broadcast(people, &Event::Left { nick: &nick }.line());
    }
}

fn free_nick(people: &[Person], wanted: &str) -> String {
    let is_free = |nick: &str| people.iter().all(|person| person.nick != nick);
    let numbered = (2..).map(|n: u32| format!("{wanted} {n}"));
    std::iter::once(wanted.to_owned())
        .chain(numbered)
        .find(|nick| is_free(nick))
        .unwrap_or_default()
}

fn bounded(text: &str, max: usize) -> Option<&str> {
    let text = text.trim();
    let fits = !text.is_empty() && text.chars().count() <= max && !text.chars().any(char::is_control);
    fits.then_some(text)
}

/// The most characters of a nickname, without its number.
pub(crate) const NICK_MAX: usize = 24;
/// The most characters of a room's name.
pub(crate) const ROOM_MAX: usize = 32;
/// The most characters of a message.
pub(crate) const TEXT_MAX: usize = 500;
/// The most rooms at once.
pub(crate) const ROOMS_MAX: usize = 64;
/// The most lines that are queued for one client.
pub(crate) const LINES_MAX: usize = 64;

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    fn heard(seat: &mut Seat) -> Vec<String> {
        std::iter::from_fn(|| seat.lines.try_recv().ok())
            .map(|line| line.to_string())
            .collect()
    }

    #[test]
    fn people_get_joins_messages_and_leaves_of_their_own_room_only() {
        let rooms = Arc::new(Rooms::default());
        let (mut ada, welcome) = rooms.join("lobby", " ada ").unwrap();
        assert_eq!(
            welcome.as_str(),
            r#"{"event":"welcome","room":"lobby","nick":"ada","people":["ada"]}"#
        );
        let (mut eve, _) = rooms.join("attic", "eve").unwrap();
        let (bob, welcome) = rooms.join("lobby", "bob").unwrap();
        assert_eq!(
            welcome.as_str(),
            r#"{"event":"welcome","room":"lobby","nick":"bob","people":["ada","bob"]}"#
        );
        bob.say("hi \"all\"").unwrap();
        drop(bob);
        assert_eq!(
            heard(&mut ada),
            [
                r#"{"event":"joined","nick":"bob"}"#,
                r#"{"event":"said","nick":"bob","text":"hi \"all\""}"#,
                r#"{"event":"left","nick":"bob"}"#,
            ]
        );
        assert!(heard(&mut eve).is_empty());
        assert_eq!(rooms.count(), 2);
        drop((ada, eve));
        assert_eq!(rooms.count(), 0);
    }

    #[test]
    fn a_taken_nickname_gets_a_number() {
        let rooms = Arc::new(Rooms::default());
        let seats: Vec<_> = (0..3).map(|_| rooms.join("lobby", "ada").unwrap().0).collect();
        assert_eq!(
            seats.iter().map(|seat| seat.nick.as_str()).collect::<Vec<_>>(),
            ["ada", "ada 2", "ada 3"]
        );
    }

    #[test]
    fn a_person_who_does_not_read_is_dropped_and_the_others_are_told() {
        let rooms = Arc::new(Rooms::default());
        let (mut slow, _) = rooms.join("lobby", "slow").unwrap();
        let (mut quick, _) = rooms.join("lobby", "quick").unwrap();
        assert_eq!(heard(&mut slow).len(), 1);
        let mut last = Vec::new();
        for _ in 0..=LINES_MAX {
            quick.say("x").unwrap();
            last = heard(&mut quick);
        }
        assert_eq!(last.last().unwrap(), r#"{"event":"left","nick":"slow"}"#);
        assert_eq!(heard(&mut slow).len(), LINES_MAX);
        assert_eq!(slow.lines.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
        drop(slow);
        assert!(heard(&mut quick).is_empty(), "nobody leaves twice");
    }

    #[test]
    fn lengths_and_the_number_of_rooms_are_bounded() {
        let rooms = Arc::new(Rooms::default());
        assert_eq!(rooms.join("lobby", " ").unwrap_err(), Fault::Nick);
        assert_eq!(rooms.join("lobby", &"é".repeat(NICK_MAX + 1)).unwrap_err(), Fault::Nick);
        assert_eq!(rooms.join("a\nb", "ada").unwrap_err(), Fault::Room);
        assert_eq!(rooms.count(), 0, "who did not enter makes no room");
        let seats: Vec<_> = (0..ROOMS_MAX)
            .map(|n| rooms.join(&n.to_string(), "ada").unwrap().0)
            .collect();
        assert_eq!(rooms.join("one more", "ada").unwrap_err(), Fault::TooManyRooms);
        let (seat, _) = rooms.join("0", &"é".repeat(NICK_MAX)).unwrap();
        assert_eq!(seat.say(&"é".repeat(TEXT_MAX)), Ok(()));
        assert_eq!(seat.say(&"é".repeat(TEXT_MAX + 1)), Err(Fault::Text));
        drop(seats);
        rooms.join("one more", "ada").unwrap();
    }
}
