//! Why an open connection ended: each reason with its close frame.

use super::table_macro::reason_table;

/// What is fixed about a reason to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseRow {
    /// The word: `idle`.
    pub word: &'static str,
    /// What happened, for the documentation.
    pub meaning: &'static str,
    /// What an operator can do about it, for the documentation; empty if there is nothing to do.
    pub advice: &'static str,
    /// The close frame that both sides get; `None` if wsguard sends none.
    pub frame: Option<CloseFrame>,
    /// A note on what the client gets, for the documentation.
    pub note: &'static str,
}

/// The content of a close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseFrame {
    /// The status code, from RFC 6455 section 7.4 or its registry.
    pub code: u16,
    /// The reason, at most 123 bytes.
    pub text: &'static str,
}

reason_table! {
    /// Why an open connection ended.
    pub enum CloseReason of CloseRow {
        Client => {
            word: "client",
            meaning: "The client left.",
            note: "the client's own",
            ..NO_FRAME
        }
        Upstream => {
            word: "upstream",
            meaning: "The server ended it: the client answered, or had 2 s to.",
            note: "the server's own",
            ..NO_FRAME
        }
        Idle => {
            word: "idle",
            meaning: "No byte moved either way for `idle`.",
            frame: Some(frame(GOING_AWAY, "")),
            ..NO_FRAME
        }
        Lifetime => {
            word: "lifetime",
            meaning: "The connection reached its `lifetime`.",
            frame: Some(frame(GOING_AWAY, "")),
            ..NO_FRAME
        }
        HalfClose => {
            word: "half_close",
            meaning: "The client had ended, and the server did not within `half_close`.",
            note: "a reset, as with `stalled`",
            ..NO_FRAME
        }
        Stalled => {
            word: "stalled",
            meaning: "The client took nothing for `stalled`, or not everything within `stalled` of the server's end.",
            note: "a reset, because data was lost and a normal close would hide that",
            ..NO_FRAME
        }
        Drain => {
            word: "drain",
            meaning: "wsguard is stopping.",
            frame: Some(frame(SERVICE_RESTART, "")),
            ..NO_FRAME
        }
        Ghost => {
            word: "ghost",
            meaning: "The client did not answer `ping` within `pong_timeout`, or was gone when its slot was wanted.",
            advice: "For programs that rarely read set `pong`.",
            frame: Some(frame(GOING_AWAY, "no pong")),
            ..NO_FRAME
        }
        FirstMessage => {
            word: "first_message",
            meaning: "The client sent no message within `first_message` of the upgrade.",
            frame: Some(frame(POLICY_VIOLATION, "no message in time")),
            ..NO_FRAME
        }
        MessageRate => {
            word: "message_rate",
            meaning: "The client sent more than `rate`, `per_ip_rate` or `bytes_rate` of `[limits.messages]` allows.",
            advice: "If it is an honest client, raise the limit that the log names.",
            frame: Some(frame(POLICY_VIOLATION, "message rate exceeded")),
            note: "after the `notice`, where one is set",
        }
        MessageSize => {
            word: "message_size",
            meaning: "A message of the client's is larger than `max_size`.",
            frame: Some(frame(TOO_BIG, "message too big")),
            ..NO_FRAME
        }
        Protocol => {
            word: "protocol",
            meaning: "The client sent a frame that RFC 6455 forbids, a reserved bit without an extension, or more behind a close \
                      frame.",
            advice: "For a client that can't be mended switch `strict_frames` off.",
            frame: Some(frame(PROTOCOL_ERROR, "")),
            note: "naming what RFC 6455 forbids",
        }
        Io => {
            word: "io",
            meaning: "A socket failed: it was reset, or the network is gone.",
            note: "a reset is passed on",
            ..NO_FRAME
        }
        Panic => {
            word: "panic",
            meaning: "A bug in wsguard. It ended this connection and no other.",
            advice: "A log line with the event `panic` says what failed, and where in the source. If it happens again and again, \
                     a client may have found out how to cause it: its key is in the lines with this reason.",
            note: "none",
            ..NO_FRAME
        }
    }
}

impl CloseReason {
    /// The close frame that both sides get; `None` if wsguard sends none.
    pub const fn frame(self) -> Option<CloseFrame> {
        self.row().frame
    }
}

impl CloseRow {
    /// What the client gets, as the documentation prints it: `1001 no pong`.
    pub fn client_gets(&self) -> String {
        let frame = match self.frame {
            Some(CloseFrame { code, text: "" }) => code.to_string(),
            Some(CloseFrame { code, text }) => format!("{code} {text}"),
            None => return self.note.to_owned(),
        };
        match self.note {
            "" => frame,
            note => format!("{frame}, {note}"),
        }
    }
}

const fn frame(code: u16, text: &'static str) -> CloseFrame {
    CloseFrame { code, text }
}

/// The base of reasons without a close frame: a peer ends the connection, or a reset does.
const NO_FRAME: CloseRow = CloseRow {
    word: "",
    meaning: "",
    advice: "",
    frame: None,
    note: "",
};

/// The endpoint is going away (RFC 6455 section 7.4.1).
const GOING_AWAY: u16 = 1001;
/// A frame that the protocol forbids (RFC 6455 section 7.4.1).
const PROTOCOL_ERROR: u16 = 1002;
/// What the endpoint does not allow (RFC 6455 section 7.4.1).
const POLICY_VIOLATION: u16 = 1008;
/// A message that is too large (RFC 6455 section 7.4.1).
const TOO_BIG: u16 = 1009;
/// The service restarts, and the client may reconnect (the registry of close codes of RFC 6455 section 11.7).
const SERVICE_RESTART: u16 = 1012;
