//! What came of one client's attempt at one server.

use enum_map::Enum;

/// What came of an attempt. An attempt that the client ended, or whose time ended during the dial, has none: it says
/// nothing about the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub enum Outcome {
    /// The server can't be reached, or did not take the connection within the time limit of a dial.
    DialFailed,
    /// It took the connection, and no complete reply came in time.
    TimedOut,
    /// Its reply is malformed or ends early, or its 101 is not an answer to the request.
    BadReply,
    /// It answered with a status of 500 or above (RFC 9110, 15.6).
    ServerError,
    /// It answered with another status in place of 101.
    Refused,
    /// It switched protocols.
    Switched,
}

impl Outcome {
    /// The outcome of an answer in place of 101.
    pub fn of_status(status: u16) -> Self {
        if status >= 500 {
            Self::ServerError
        } else {
            Self::Refused
        }
    }
}
