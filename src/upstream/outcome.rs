//! What came of one client's attempt at one server.

/// What came of a client's attempt at a server. An attempt that the client itself ended says nothing about the server,
/// and is not reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server can't be reached, or did not take the connection in time.
    DialFailed,
    /// It took the connection, and no complete reply came in time.
    TimedOut,
    /// Its reply is malformed or ends early, or its 101 is not an answer to the request.
    BadReply,
    /// It answered with this status in place of 101.
    Answered(u16),
    /// It switched protocols.
    Switched,
}
