//! Socket options of connections and listening sockets.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, SockRef, TcpKeepalive, Type};

/// The TCP options of an open connection that a configuration chooses. `None` is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// Idle time before the first keepalive probe; 4 probes 15 s apart follow.
    pub keepalive: Option<Duration>,
    /// How long sent bytes may stay unacknowledged, a closed window included (`TCP_USER_TIMEOUT`, tcp(7)).
    pub user_timeout: Option<Duration>,
}

impl SocketOptions {
    /// The options of every listening socket, which accepted sockets inherit. They are the defaults of the
    /// configuration, so most accepted sockets need no system call at all.
    pub const INHERITED: Self = Self {
        keepalive: Some(Duration::from_secs(60)),
        user_timeout: Some(Duration::from_secs(60)),
    };

    /// Sets the options. If the kernel refuses one, the others are still set, and the socket is used without it.
    pub(super) fn set_on(self, socket: &SockRef<'_>) {
        self.set_keepalive(socket);
        // TCP_USER_TIMEOUT also decides when keepalive gives up. If it were shorter than all probes together, losing a
        // single probe would end an idle connection.
        let probed = self
            .keepalive
            .map_or(Duration::ZERO, |idle| idle + PROBE_INTERVAL * PROBES);
        let user_timeout = self.user_timeout.map(|user_timeout| user_timeout.max(probed));
        let _refused = socket.set_tcp_user_timeout(user_timeout);
    }

    fn set_keepalive(self, socket: &SockRef<'_>) {
        let Some(idle) = self.keepalive else {
            let _refused = socket.set_keepalive(false);
            return;
        };
        let time = TcpKeepalive::new().with_time(idle);
        let all = time.clone().with_interval(PROBE_INTERVAL).with_retries(PROBES);
        if socket.set_tcp_keepalive(&all).is_err() {
            // `set_tcp_keepalive` stops at the first option that the kernel refuses.
            let interval = TcpKeepalive::new().with_interval(PROBE_INTERVAL);
            for one in [time, interval, TcpKeepalive::new().with_retries(PROBES)] {
                let _refused = socket.set_tcp_keepalive(&one);
            }
        }
    }
}

/// Sets the options of a listening TCP socket that accepted sockets inherit: no Nagle delay, a small queue of unsent
/// bytes in the kernel (so that a slow reader is noticed soon), and [`SocketOptions::INHERITED`].
pub(super) fn set_on_listening(socket: &impl AsFd) {
    set_for_small_messages(socket);
    SocketOptions::INHERITED.set_on(&SockRef::from(socket));
}

/// Makes small messages go out at once, and keeps few unsent bytes in the kernel.
pub(super) fn set_for_small_messages(socket: &impl AsFd) {
    let _refused = SockRef::from(socket).set_tcp_nodelay(true);
    limit_unsent(socket);
}

/// Keeps few unsent bytes in the kernel, so that a slow reader is noticed soon.
pub(super) fn limit_unsent(socket: &impl AsFd) {
    let _refused = SockRef::from(socket).set_tcp_notsent_lowat(NOTSENT_LOWAT);
}

/// A socket option that the kernel refuses, for example in a sandbox or without network tuning.
#[derive(Debug, thiserror::Error)]
#[error("the kernel refuses {option} ({error}): {means}")]
pub struct RefusedOption {
    option: &'static str,
    means: &'static str,
    error: io::Error,
}

/// The TCP options that the kernel refuses. They are tried on two unused sockets, so each is logged once and not for
/// every connection.
pub fn refused_options() -> Vec<RefusedOption> {
    let Ok(socket) = socket2::Socket::new(Domain::IPV4, Type::STREAM, None) else {
        return Vec::new();
    };
    let v6 = socket2::Socket::new(Domain::IPV6, Type::STREAM, None);
    let keepalive = TcpKeepalive::new();
    [
        (
            "SO_REUSEADDR",
            "an address may be in use for a minute after a restart",
            socket.set_reuse_address(true),
        ),
        (
            "SO_REUSEPORT",
            "a reload can't put one address in place of another that covers it",
            socket.set_reuse_port(true),
        ),
        (
            "IPV6_V6ONLY",
            "an IPv6 address may take IPv4 too",
            v6.map_or(Ok(()), |v6| v6.set_only_v6(true)),
        ),
        (
            "TCP_NODELAY",
            "small messages may be delayed",
            socket.set_tcp_nodelay(true),
        ),
        (
            "TCP_NOTSENT_LOWAT",
            "a slow reader is noticed later",
            socket.set_tcp_notsent_lowat(NOTSENT_LOWAT),
        ),
        (
            "TCP_USER_TIMEOUT",
            "`stalled` has no effect",
            socket.set_tcp_user_timeout(Some(PROBE_INTERVAL)),
        ),
        ("SO_KEEPALIVE", "`keepalive` has no effect", socket.set_keepalive(true)),
        (
            "TCP_KEEPIDLE",
            "`keepalive` begins at the time set in the kernel",
            socket.set_tcp_keepalive(&keepalive.clone().with_time(PROBE_INTERVAL)),
        ),
        (
            "TCP_KEEPINTVL",
            "its probes come at the interval set in the kernel",
            socket.set_tcp_keepalive(&keepalive.clone().with_interval(PROBE_INTERVAL)),
        ),
        (
            "TCP_KEEPCNT",
            "the kernel sets the number of probes",
            socket.set_tcp_keepalive(&keepalive.with_retries(PROBES)),
        ),
        (
            "SO_LINGER",
            "a connection that should be reset is closed normally",
            socket.set_linger(Some(Duration::ZERO)),
        ),
    ]
    .into_iter()
    .filter_map(|(option, means, outcome)| outcome.err().map(|error| RefusedOption { option, means, error }))
    .collect()
}

/// Makes the following close a reset, which discards unsent bytes.
pub(super) fn reset_on_close(socket: &impl AsFd) {
    // If this fails, the connection is closed normally, which does no harm.
    let _normal_close = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

const NOTSENT_LOWAT: u32 = 128 * 1024;
const PROBE_INTERVAL: Duration = Duration::from_secs(15);
const PROBES: u32 = 4;
