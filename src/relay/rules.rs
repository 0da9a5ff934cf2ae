//! What the configuration says about an open connection: how it is relayed, its timeouts and the limits on its messages.
//! `None` is "off" throughout.

use std::sync::Arc;
use std::time::Duration;

use crate::limit::rules::Rate;

/// The settings of `[limits.messages]`, and `first_message` of `[limits.timeouts]`. They are fixed for a connection at
/// its admission.
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
    /// What happens to a client that exceeds its rates.
    pub on_exceed: OnExceed,
    /// A text message that the client gets once before that. `{retry_ms}` is replaced by the milliseconds until the
    /// client may go on.
    pub notice: Option<Arc<str>>,
    /// Whether frames that RFC 6455 forbids a client close its connection.
    pub strict_frames: bool,
    /// A client that was silent for this long gets a ping.
    pub ping: Option<Duration>,
    /// How long the client may take to answer, once its host has acknowledged the ping.
    pub pong_timeout: Duration,
    /// What counts as the answer.
    pub pong: Pong,
    /// If `ping` is on, a new connection at the `per_ip` limit gets the slot of a connection whose client is dead.
    pub replace_ghosts: bool,
    /// How long after the upgrade a client may take to send its first frame.
    pub first_message: Option<Duration>,
}

/// The timeouts of an open connection, fixed at its admission. `None` is "off".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// A connection without a byte in either direction for this long is closed with 1001.
    pub idle: Option<Duration>,
    /// After the client's end, the server has this long to finish, and the client to take what the server sent.
    pub half_close: Option<Duration>,
    /// A connection is closed if the client takes none of the bytes that wait for it for this long. Once the server has
    /// ended, it is closed if the client does not take all of them in this time. `TCP_USER_TIMEOUT` is the backstop.
    pub stalled: Option<Duration>,
    /// The idle time before TCP keepalive begins on both legs. Then 4 probes follow, 15 s apart.
    pub keepalive: Option<Duration>,
    /// The connection is closed with 1001 after 0.9 to 1.0 times this long.
    pub lifetime: Option<Duration>,
}

/// The setting `on_exceed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnExceed {
    /// Close the connection with 1008.
    #[default]
    Close,
    /// Read nothing more until the client may go on. If that takes longer than 5 s, close with 1008.
    Delay,
}

/// The setting `pong`: what counts as the answer to a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Pong {
    /// A pong, or anything else that the client sends.
    #[default]
    Required,
    /// The acknowledgement of the client's host.
    Tcp,
}

impl MessageRules {
    /// No limit, and no pings.
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

/// How bytes get from one leg to the other: the `relay` setting of an upstream. `flow/splice.rs` decides which frames are
/// spliced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RelayMode {
    /// The payload of large frames is spliced through a pipe, without a copy into this process; everything else is copied.
    #[default]
    Auto,
    /// Everything is copied.
    Copy,
}
