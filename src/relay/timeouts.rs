//! How long an open connection may take over what it does.

use std::time::Duration;

/// The timeouts of an open connection, fixed at its admission. `None` is "off".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// No byte either way for so long ends it with 1001.
    pub idle: Option<Duration>,
    /// The client has ended; the server may finish for so long, and the client take what it says.
    pub half_close: Option<Duration>,
    /// The client takes no byte of what waits for it (`TCP_USER_TIMEOUT`); once the server has ended: not all of it.
    pub stalled: Option<Duration>,
    /// TCP keepalive on both legs, then 4 probes 15 s apart.
    pub keepalive: Option<Duration>,
    /// Ended with 1001 after 0.9 to 1.0 times so long.
    pub lifetime: Option<Duration>,
}
