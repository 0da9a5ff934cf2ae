//! The timeouts of an open connection.

use std::time::Duration;

/// The timeouts of an open connection, fixed at its admission. `None` is "off".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Without a byte either way for so long it is closed with 1001.
    pub idle: Option<Duration>,
    /// After the client's end, the server may finish and the client take what it sent for so long.
    pub half_close: Option<Duration>,
    /// It is closed if the client takes nothing of what waits for it for so long, or, once the server has ended, not all of
    /// it. `TCP_USER_TIMEOUT` is the backstop.
    pub stalled: Option<Duration>,
    /// Idle time before TCP keepalive on both legs; 4 probes 15 s apart follow.
    pub keepalive: Option<Duration>,
    /// It is closed with 1001 after 0.9 to 1.0 times so long.
    pub lifetime: Option<Duration>,
}
