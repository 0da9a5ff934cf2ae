//! What the messages of an open connection are held to, as the configuration has it. `None` is "off" throughout.

use std::sync::Arc;
use std::time::Duration;

use crate::limit::rules::Rate;

/// `[limits.messages]`, and `first_message` of `[limits.timeouts]`. Those of an open connection are those of its admission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageRules {
    /// Messages of one connection from its client.
    pub rate: Option<Rate>,
    /// Messages from all connections of one client key together.
    pub per_ip_rate: Option<Rate>,
    /// Payload bytes of messages of one connection from its client; a token is a byte.
    pub bytes_rate: Option<Rate>,
    /// Payload bytes of one message from the client, its fragments summed.
    pub max_size: Option<u64>,
    /// Messages of one connection to its client.
    pub out_rate: Option<Rate>,
    /// Messages to all connections of one client key together.
    pub out_per_ip_rate: Option<Rate>,
    /// Payload bytes of messages of one connection to its client; a token is a byte.
    pub out_bytes_rate: Option<Rate>,
    /// What becomes of a client that says more than its rates allow.
    pub on_exceed: OnExceed,
    /// What it hears once, as a text message, before that; `{retry_ms}` stands for the milliseconds until it may go on.
    pub notice: Option<Arc<str>>,
    /// Whether frames that RFC 6455 forbids a client end its connection.
    pub strict_frames: bool,
    /// A client that was silent for so long is asked whether it is still there.
    pub ping: Option<Duration>,
    /// How long it may take over the answer, once its host has acknowledged the question.
    pub pong_timeout: Duration,
    /// What counts as the answer.
    pub pong: Pong,
    /// At `per_ip`, where `ping` is on, a newcomer gets the slot of a connection whose client is gone.
    pub replace_ghosts: bool,
    /// How long after the upgrade a client may take until its first frame.
    pub first_message: Option<Duration>,
}

/// `on_exceed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnExceed {
    /// Close 1008.
    #[default]
    Close,
    /// Nothing more is read until it may go on; where that takes longer than 5 s, close 1008.
    Delay,
}

/// `pong`: what answers the question whether a client is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Pong {
    /// A pong, or anything else that the client says.
    #[default]
    Required,
    /// Its host acknowledges the question.
    Tcp,
}

impl MessageRules {
    /// Nothing is limited, and nobody is asked.
    pub const OFF: Self = Self {
        rate: None,
        per_ip_rate: None,
        bytes_rate: None,
        max_size: None,
        out_rate: None,
        out_per_ip_rate: None,
        out_bytes_rate: None,
        on_exceed: OnExceed::Close,
        notice: None,
        strict_frames: false,
        ping: None,
        pong_timeout: Duration::from_secs(10),
        pong: Pong::Required,
        replace_ghosts: true,
        first_message: None,
    };
}
