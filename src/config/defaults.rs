//! Every default in one place. A test compares them with `conf/wsguard.toml`.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::limit::rules::{ClientRules, Rate, ZoneRules};
use crate::net::options::SocketOptions;
use crate::relay::rules::{MessageRules, Timeouts};
use crate::wire::hops::ForwardHeader;

use crate::config::policy::{RejectWith, ZonePolicy};

/// The path of the configuration file, unless another one is named.
pub const FILE: &str = "/etc/wsguard/wsguard.toml";
/// `server.table_size`.
pub const TABLE_SIZE: u32 = 1_000_000;
/// `server.drain_delay`.
pub const DRAIN_DELAY: Duration = Duration::ZERO;
/// `server.drain_timeout`.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);
/// `listener.backlog`.
pub const BACKLOG: u32 = 4096;
/// `listener.handshake_timeout`.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// `listener.max_head_size`, in bytes.
pub const MAX_HEAD_SIZE: usize = 16 << 10;
/// `listener.max_headers`.
pub const MAX_HEADERS: usize = 64;
/// `listener.max_pending`.
pub const MAX_PENDING: u32 = 10_000;
/// `listener.max_pending_per_ip`.
pub const MAX_PENDING_PER_IP: Option<u32> = Some(50);
/// `client_ip.headers`.
pub const HEADERS: [ForwardHeader; 1] = [ForwardHeader::XForwardedFor];
/// `limits.connections`.
pub const CONNECTIONS: u32 = 10_000;
/// `zone.exempt.connections`.
pub const EXEMPT_CONNECTIONS: u32 = 1000;
/// `limits.per_ip`.
pub const PER_IP: u32 = 50;
/// `limits.per_ip_rate` with `limits.per_ip_burst`: the only rate whose default burst is not its own number.
pub const PER_IP_RATE: Rate = Rate {
    tokens: NonZeroU32::new(10).expect("10 is not 0"),
    per: Duration::from_secs(1),
    burst: NonZeroU32::new(50).expect("50 is not 0"),
};
/// `admin.listen`.
pub const ADMIN_LISTEN: &str = "127.0.0.1:9191";
/// `log.sample`.
pub const LOG_SAMPLE: Rate = Rate {
    tokens: NonZeroU32::new(100).expect("100 is not 0"),
    per: Duration::from_secs(1),
    burst: NonZeroU32::new(100).expect("100 is not 0"),
};

/// A zone of this name with the defaults of `[limits]`, `[limits.timeouts]` and `[limits.messages]`.
pub fn zone(name: &str) -> ZonePolicy {
    ZonePolicy {
        name: name.into(),
        exempt: false,
        rules: ZoneRules {
            observe: false,
            connections: Some(CONNECTIONS),
            rate: None,
        },
        client: ClientRules {
            per_ip: Some(PER_IP),
            rate: Some(PER_IP_RATE),
        },
        reject_with: RejectWith::Http,
        retry_after: Duration::from_secs(5),
        dial: Some(Duration::from_secs(3)),
        upgrade: Some(Duration::from_secs(10)),
        timeouts: Timeouts {
            idle: None,
            half_close: Some(Duration::from_secs(30)),
            stalled: SocketOptions::INHERITED.user_timeout,
            keepalive: SocketOptions::INHERITED.keepalive,
            lifetime: None,
        },
        messages: MessageRules {
            strict_frames: true,
            ..MessageRules::OFF
        },
    }
}
